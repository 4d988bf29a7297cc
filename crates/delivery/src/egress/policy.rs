//! The egress policy: decides whether an address is allowed. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::{
    ClusterDomain, HostPattern,
    host::{is_private_name, without_root},
};

/// Which addresses are allowed: public addresses, with the changes of the operator's flags.
///
/// Everything that is not a public unicast address is denied (RFC 6890 and its registry): loopback, private,
/// link-local, carrier-grade NAT, unique local, multicast, reserved, unspecified, and the metadata service of a cloud
/// that has a public address. So are all addresses of a name inside the cluster. Ranges and hosts that are allowed are
/// exceptions to that; ranges that are denied, and ports where some are named, have no exception.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    ranges: Vec<Cidr>,
    hosts: Vec<HostPattern>,
    denied: Vec<Cidr>,
    nat64: Vec<Nat64Prefix>,
    ports: Vec<u16>,
    cluster: ClusterDomain,
}

impl Policy {
    /// Makes a policy that also allows these ranges.
    pub fn allowing(ranges: Vec<Cidr>) -> Self {
        Self { ranges, ..Self::default() }
    }

    /// Also allows these hosts, whatever their addresses.
    pub fn allowing_hosts(self, hosts: Vec<HostPattern>) -> Self {
        Self { hosts, ..self }
    }

    /// Denies these ranges, even if another setting allows them.
    pub fn denying(self, denied: Vec<Cidr>) -> Self {
        Self { denied, ..self }
    }

    /// Judges addresses below these prefixes as the IPv4 addresses that they translate to.
    pub fn translating(self, nat64: Vec<Nat64Prefix>) -> Self {
        Self { nat64, ..self }
    }

    /// Allows only these ports; none means all.
    pub fn allowing_ports(self, ports: Vec<u16>) -> Self {
        Self { ports, ..self }
    }

    /// Sets the cluster domain.
    pub fn in_cluster(self, cluster: ClusterDomain) -> Self {
        Self { cluster, ..self }
    }

    /// Whether `address` is allowed. An IPv6 form of an IPv4 address is judged as the IPv4 address. `host` is the name
    /// in the URL that resolved to the address; None if the URL contains the address.
    pub fn allows(&self, host: Option<&str>, address: IpAddr) -> bool {
        let reached = self.reached(address);
        let is_in = |ranges: &[Cidr], address| ranges.iter().any(|range| range.contains(address));
        if is_in(&self.denied, address) || is_in(&self.denied, reached) {
            return false;
        }
        is_in(&self.ranges, reached)
            || host.is_some_and(|host| self.names(host)) && is_of_one_host(reached)
            || is_public(reached) && !host.is_some_and(|host| self.cluster.holds(host))
    }

    /// Whether a port may be dialled.
    pub fn allows_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }

    /// Whether it must not be seen if a host exists: a name inside the cluster that is not allowed by name.
    pub(super) fn conceals(&self, host: &str) -> bool {
        self.cluster.holds(host) && !self.names(host)
    }

    /// Returns the absolute name, without the root dot, to send to a proxy that resolves names, or None if the policy
    /// denies the name.
    ///
    /// No address can be judged, so the policy denies the names that are special in a network, unless it allows them by
    /// name: names inside the cluster, names without a dot, and names below the domains for private use.
    pub(super) fn name_for_proxy(&self, host: &str) -> Option<String> {
        let allowed = self.names(host) || !(self.cluster.holds(host) || is_private_name(host));
        allowed.then(|| without_root(&self.cluster.qualified(host)).to_owned())
    }

    fn names(&self, host: &str) -> bool {
        self.hosts.iter().any(|allowed| allowed.matches(host))
    }

    /// The address that would be reached, translators of this network included.
    pub(super) fn reached(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(v6) = address else {
            return address;
        };
        let translated = self.nat64.iter().find_map(|prefix| prefix.embedded(v6));
        translated.map_or_else(|| canonical(address), IpAddr::V4)
    }
}

/// A range of addresses, such as `10.0.0.0/8`, `fd00::/8` or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not an address with the length of a prefix.
    #[error("not an address range: use a form like 10.20.0.0/16, fd00:1::/32 or 10.1.2.3")]
    Unreadable,
    /// The address has bits set behind the prefix, so it is not clear what is meant.
    #[error("the address has bits set after the prefix: use {0} for that range, or the address without a prefix")]
    HostBits(Cidr),
    /// IPv4 in IPv6 form, which would never match.
    #[error("an IPv4 range in IPv6 form: use {0}, which covers every form of its addresses")]
    Mapped(Cidr),
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// The range of one address.
impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        Self { network: address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_error| CidrError::Unreadable)?;
        let longest: u8 = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_error| CidrError::Unreadable)?,
            None => longest,
        };
        if prefix > longest {
            return Err(CidrError::Unreadable);
        }
        if let IpAddr::V6(v6) = network
            && let (Some(v4), Some(prefix)) = (v6.to_ipv4_mapped(), prefix.checked_sub(96))
        {
            return Err(CidrError::Mapped(Self { network: v4.into(), prefix }.masked()));
        }
        let range = Self { network, prefix };
        if range == range.masked() { Ok(range) } else { Err(CidrError::HostBits(range.masked())) }
    }
}

impl Cidr {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4()
            && Self { network: address, prefix: self.prefix }.masked().network == self.masked().network
    }

    /// The same range without bits behind the prefix.
    fn masked(self) -> Self {
        let prefix = u32::from(self.prefix);
        let network = match self.network {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).into(),
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).into()
            }
        };
        Self { network, ..self }
    }
}

/// The prefix below which a NAT64 translator of this network puts IPv4 addresses (RFC 6052, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat64Prefix(Cidr);

/// The text is not a NAT64 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a NAT64 prefix: use an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as 2001:db8:64::/96")]
pub struct Nat64PrefixError;

impl FromStr for Nat64Prefix {
    type Err = Nat64PrefixError;

    fn from_str(text: &str) -> Result<Self, Nat64PrefixError> {
        let range: Cidr = text.parse().map_err(|_error| Nat64PrefixError)?;
        let fits = range.network.is_ipv6() && matches!(range.prefix, 32 | 40 | 48 | 56 | 64 | 96);
        if fits { Ok(Self(range)) } else { Err(Nat64PrefixError) }
    }
}

impl Nat64Prefix {
    /// Returns the IPv4 address that `v6` translates to, if it is below the prefix.
    fn embedded(self, v6: Ipv6Addr) -> Option<Ipv4Addr> {
        if !self.0.contains(v6.into()) {
            return None;
        }
        let octets = v6.octets();
        // The four octets behind the prefix, but for the ninth of the address, which is always zero.
        let mut behind =
            (usize::from(self.0.prefix / 8)..).filter(|at| *at != 8).map_while(|at| octets.get(at).copied());
        Some(Ipv4Addr::from_octets([behind.next()?, behind.next()?, behind.next()?, behind.next()?]))
    }
}

/// The address that would be reached: the IPv4 address inside a mapped, translated, compatible, NAT64, 6to4 or Teredo
/// form (RFC 4291 section 2.5.5, RFC 2765, RFC 6052, RFC 3056, RFC 4380).
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match v6.segments() {
        // All but the unspecified address and loopback, which are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => embedded(high, low),
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0, .., high, low] => embedded(!high, !low),
        _ => address,
    }
}

fn embedded(high: u16, low: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

/// Not unspecified (which reaches this very machine), multicast or broadcast: no name of another host leads there.
fn is_of_one_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || is_broadcast)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let special = match v4.octets() {
        [0 | 10 | 127, ..] => true,
        [100, b, ..] => b & 0xc0 == 64,
        [169, 254, ..] | [192, 168, ..] => true,
        [172, b, ..] => b & 0xf0 == 16,
        [192, 0, 0 | 2, _] | [192, 88, 99, _] => true,
        // Azure's platform: metadata, DNS, health probes.
        [168, 63, 129, 16] => true,
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        [a, ..] => a >= 224,
    };
    !special
}

/// Only 2000::/3 is global unicast; inside it the protocol and documentation ranges are not.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    match v6.segments() {
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(policy: &Policy, address: &str) -> bool {
        policy.allows(None, address.parse().unwrap())
    }

    fn allowing(range: &str) -> Policy {
        Policy::allowing(vec![range.parse().unwrap()])
    }

    /// An IPv4 address in every IPv6 form that may lead to it.
    fn disguises(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
        let (high, low) = ((v4.to_bits() >> 16) as u16, v4.to_bits() as u16);
        let form = |segments: [u16; 8]| Ipv6Addr::from(segments);
        let mut forms = vec![
            v4.to_ipv6_mapped(),
            form([0, 0, 0, 0, 0xffff, 0, high, low]),
            form([0x64, 0xff9b, 0, 0, 0, 0, high, low]),
            form([0x2002, high, low, 0, 0, 0, 0, 0]),
            form([0x2002, high, low, 1, 2, 3, 4, 5]),
            form([0x2001, 0, 0x4136, 0xe378, 0x8000, 63_540, !high, !low]),
        ];
        // ::0.0.0.0 and ::0.0.0.1 are the unspecified address and loopback of IPv6 itself.
        forms.extend((v4.to_bits() > 1).then(|| form([0, 0, 0, 0, 0, 0, high, low])));
        forms
    }

    #[test]
    fn only_public_addresses_are_allowed_by_default() {
        let policy = Policy::default();
        for public in ["1.1.1.1", "93.184.216.34", "168.63.129.17", "172.32.0.1", "100.128.0.1", "2606:4700::1111"] {
            assert!(allows(&policy, public), "{public}");
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "168.63.129.16",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "64:ff9b:1::1",
        ] {
            assert!(!allows(&policy, special), "{special}");
        }
    }

    #[test]
    fn s02_an_ipv4_address_hidden_in_an_ipv6_one_is_judged_as_itself() {
        let policy = Policy::default();
        for hidden in [
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:0:1:2:3:4:80ff:fffe",
        ] {
            assert!(!allows(&policy, hidden), "{hidden}");
            assert!(!allows(&allowing("2000::/3"), hidden), "{hidden}");
        }
        for hidden in ["::ffff:1.1.1.1", "::1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::", "2001:0:1:2:3:4:fefe:fefe"]
        {
            assert!(allows(&policy, hidden), "{hidden}");
        }
        assert!(allows(&allowing("127.0.0.0/8"), "::ffff:127.0.0.1"));
    }

    proptest! {
        #[test]
        fn s02_every_disguise_of_an_ipv4_address_has_its_verdict(
            bits: u32,
            // Near the edges of what is special, where a mistake would be.
            special in prop::sample::select(vec!["0.0.0.0", "10.0.0.0", "100.64.0.0", "127.0.0.1", "169.254.169.254",
                "172.16.0.0", "192.168.0.0", "198.18.0.0", "224.0.0.0", "255.255.255.255"]),
            offset in 0u32..3,
            range in (any::<u32>(), 0u8..=32),
        ) {
            let range = Cidr { network: Ipv4Addr::from_bits(range.0).into(), prefix: range.1 }.masked().to_string();
            let edge = special.parse::<Ipv4Addr>().unwrap().to_bits().wrapping_add(offset).wrapping_sub(1);
            for v4 in [bits, edge].map(Ipv4Addr::from_bits) {
                let denying = Policy::default().denying(vec![range.parse().unwrap()]);
                for policy in [Policy::default(), allowing(&range), allowing("2000::/3"), denying] {
                    let verdict = policy.allows(None, v4.into());
                    for v6 in disguises(v4) {
                        prop_assert_eq!(policy.allows(None, v6.into()), verdict, "{} as {} with {}", v4, v6, range);
                    }
                }
            }
        }
    }

    #[test]
    fn a_range_allows_its_own_addresses_and_no_others() {
        let policy = Policy::allowing(vec!["127.0.0.1/32".parse().unwrap(), "fd00::/16".parse().unwrap()]);
        assert!(allows(&policy, "127.0.0.1"));
        assert!(!allows(&policy, "127.0.0.2"));
        assert!(allows(&policy, "fd00:1::2"));
        assert!(!allows(&policy, "fd01::1"));
        assert!(allows(&allowing("0.0.0.0/0"), "10.0.0.1"));
    }

    #[test]
    fn a_host_is_allowed_by_the_name_in_the_url_alone_and_leads_to_one_host() {
        let policy = Policy::default().allowing_hosts(vec!["*.svc.example".parse().unwrap()]);
        let verdict = |host, address: &str| policy.allows(host, address.parse().unwrap());
        for address in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(verdict(Some("hooks.svc.example"), address), "{address}");
            assert!(!verdict(Some("svc.example"), address) && !verdict(None, address), "{address}");
        }
        for address in
            ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "255.255.255.255", "ff02::1", "64:ff9b::224.0.0.1"]
        {
            assert!(!verdict(Some("hooks.svc.example"), address), "{address}");
        }
    }

    #[test]
    fn s23_a_denied_range_is_denied_whatever_allows_it() {
        let ranges = |ranges: &[&str]| ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<Cidr>>();
        let denied = ranges(&["10.1.0.0/16", "203.0.114.0/24", "2600:db8::/32", "64:ff9b::/96"]);
        let policy = Policy::allowing(ranges(&["10.0.0.0/8", "2600::/16", "0.0.0.0/0"]))
            .allowing_hosts(vec!["hooks.example.com".parse().unwrap()])
            .denying(denied);
        let cases = [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("::ffff:10.1.0.1", false),
            ("2002:a01:1::", false),
            ("203.0.114.9", false),
            ("203.0.115.9", true),
            ("2600:db8::1", false),
            ("2606:4700::1111", true),
            // Denied in this form, though not as the IPv4 address that it leads to.
            ("64:ff9b::1.1.1.1", false),
            ("1.1.1.1", true),
        ];
        for (address, allowed) in cases {
            for host in [None, Some("hooks.example.com"), Some("other.example.com")] {
                assert_eq!(policy.allows(host, address.parse().unwrap()), allowed, "{address} of {host:?}");
            }
        }
    }

    #[test]
    fn s23_an_address_below_a_nat64_prefix_is_judged_as_the_ipv4_address_behind_it() {
        // The examples of RFC 6052, section 2.4, for 192.0.2.33, with 10.0.2.33 in its place.
        let examples = [
            ("2001:db8::/32", "2001:db8:a00:221::"),
            ("2001:db8:100::/40", "2001:db8:10a:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:a00:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:30a:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:a:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::10.0.2.33"),
        ];
        for (prefix, address) in examples {
            let (prefix, address) = (prefix.replace("2001:db8", "2600:db8"), address.replace("2001:db8", "2600:db8"));
            assert!(allows(&Policy::default(), &address), "{address} is public where nothing is known of a translator");
            let translating = |policy: Policy| policy.translating(vec![prefix.parse().unwrap()]);
            assert!(!allows(&translating(Policy::default()), &address), "{address}");
            assert!(allows(&translating(allowing("10.0.0.0/8")), &address), "{address}");
            assert!(!allows(&translating(allowing("2600:db8::/32")), &address), "{address}");
            assert!(allows(&translating(Policy::default()), "2606:4700::1111"), "outside the prefix");
        }
        for text in ["", "10.0.0.0/8", "2001:db8::/33", "2001:db8::1/96", "2001:db8::", "::ffff:0:0/96"] {
            assert!(text.parse::<Nat64Prefix>().is_err(), "{text:?}");
        }
    }

    proptest! {
        /// RFC 6052, section 2.2, the other way: whatever the prefix, the address is found where it was put.
        #[test]
        fn s23_every_ipv4_address_is_found_behind_a_prefix_of_any_length(
            bits: u32,
            prefix: [u8; 12],
            length in prop::sample::select(vec![32u8, 40, 48, 56, 64, 96]),
            suffix: [u8; 16],
        ) {
            let (v4, start) = (Ipv4Addr::from_bits(bits), usize::from(length / 8));
            let mut octets = suffix;
            octets[..start].copy_from_slice(&prefix[..start]);
            let places = (start..).filter(|at| *at != 8).take(4);
            places.zip(v4.octets()).for_each(|(at, octet)| octets[at] = octet);
            let network = IpAddr::from(Ipv6Addr::from(octets));
            let prefix = Nat64Prefix(Cidr { network, prefix: length }.masked());
            prop_assert_eq!(prefix.embedded(octets.into()), Some(v4));
        }
    }

    #[test]
    fn s23_a_name_inside_the_cluster_is_dialled_where_its_name_or_its_address_is_allowed_alone() {
        let open = Policy::default();
        let by_name = Policy::default().allowing_hosts(vec!["*.shop.svc".parse().unwrap()]);
        let by_address = allowing("2600:db8::/32");
        let inside = ["hooks.shop.svc", "hooks.shop.svc.cluster.local", "10-0-0-1.shop.pod.cluster.local"];
        for host in inside.map(Some) {
            let verdict = |policy: &Policy, address: &str| policy.allows(host, address.parse().unwrap());
            for address in ["2600:db8::1", "93.184.216.34", "10.0.0.1"] {
                assert!(!verdict(&open, address), "{host:?} {address}");
            }
            assert!(verdict(&by_address, "2600:db8::1") && !verdict(&by_address, "2606:4700::1"), "{host:?}");
            assert_eq!(verdict(&by_name, "2606:4700::1"), host == Some("hooks.shop.svc"), "{host:?}");
        }
        assert!(open.allows(Some("hooks.example.com"), "2606:4700::1".parse().unwrap()));
        let elsewhere = Policy::default().in_cluster("corp.example".parse().unwrap());
        for (host, allowed) in [("a.b.svc.corp.example", false), ("a.b.svc", false), ("a.b.svc.cluster.local", true)] {
            assert_eq!(elsewhere.allows(Some(host), "2606:4700::1".parse().unwrap()), allowed, "{host}");
        }
        assert!(open.conceals("a.b.svc") && !by_name.conceals("hooks.shop.svc") && !open.conceals("a.example.com"));
    }

    #[test]
    fn s23_a_proxy_that_resolves_names_gets_no_private_name_unless_it_is_allowed_by_name() {
        let policy = Policy::allowing(vec!["0.0.0.0/0".parse().unwrap()]).allowing_hosts(vec![
            "*.shop.svc".parse().unwrap(),
            "hooks.corp.internal".parse().unwrap(),
            "intranet".parse().unwrap(),
        ]);
        for (host, name) in [
            ("hooks.example.com", Some("hooks.example.com")),
            ("Hooks.Example.com.", Some("hooks.example.com")),
            ("hooks.shop.svc", Some("hooks.shop.svc.cluster.local")),
            ("hooks.corp.internal", Some("hooks.corp.internal")),
            ("intranet", Some("intranet")),
            ("hooks.other.svc", None),
            ("hooks.other.svc.cluster.local", None),
            ("10-0-0-1.shop.pod", None),
            ("metadata.google.internal", None),
            ("localhost", None),
            ("LOCALHOST.", None),
            ("a.localhost", None),
            ("printer.local", None),
            ("router.home.arpa", None),
            ("metadata", None),
            ("notlocalhost.example", Some("notlocalhost.example")),
        ] {
            assert_eq!(policy.name_for_proxy(host).as_deref(), name, "{host}");
        }
    }

    #[test]
    fn s23_ports_are_free_until_some_are_named() {
        assert!(Policy::default().allows_port(22));
        let policy = Policy::default().allowing_ports(vec![443, 8443]);
        assert!(policy.allows_port(443) && policy.allows_port(8443) && !policy.allows_port(22));
    }

    #[test]
    fn an_invalid_range_is_refused_and_an_ambiguous_one_is_corrected() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "example.com", "10.0.0.0/"] {
            assert_eq!(text.parse::<Cidr>(), Err(CidrError::Unreadable), "{text:?}");
        }
        for (text, meant) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.1/31", "10.0.0.0/31"),
            ("0.0.0.1/0", "0.0.0.0/0"),
            ("fd00:1::1/32", "fd00:1::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.to_string().contains(&format!("use {meant}")), "{text}: {error}");
            assert!(meant.parse::<Cidr>().is_ok(), "{meant}");
        }
    }
}
