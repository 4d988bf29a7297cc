//! May this address be dialled? Pure: an address in, an answer out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::HostPattern;

/// Which addresses may be dialled: public ones, and what the operator's flags add.
///
/// Everything that is not a public unicast address is denied (RFC 6890 and its registry): loopback, private,
/// link-local, carrier-grade NAT, unique local, multicast, reserved, unspecified.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    ranges: Vec<Cidr>,
    hosts: Vec<HostPattern>,
}

impl Policy {
    /// A policy that also allows these ranges.
    pub fn allowing(ranges: Vec<Cidr>) -> Self {
        Self { ranges, hosts: Vec::new() }
    }

    /// The same policy that also allows these hosts, wherever their names lead.
    pub fn allowing_hosts(self, hosts: Vec<HostPattern>) -> Self {
        Self { hosts, ..self }
    }

    /// Whether `address` may be dialled, judged by the IPv4 address that an IPv6 form may hide. `host` is the name in the
    /// URL that resolved to it; None when the URL holds the address itself.
    pub fn allows(&self, host: Option<&str>, address: IpAddr) -> bool {
        let address = canonical(address);
        is_public(address)
            || self.ranges.iter().any(|range| range.contains(address))
            || (is_of_one_host(address)
                && host.is_some_and(|host| self.hosts.iter().any(|allowed| allowed.matches(host))))
    }
}

/// A range of addresses, such as `10.0.0.0/8`, `fd00::/8` or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is no range of addresses.
#[derive(Debug, thiserror::Error)]
#[error("not a range of addresses: write it like 10.20.0.0/16, fd00:1::/32 or 10.1.2.3")]
pub struct CidrError;

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| CidrError)?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| CidrError)?,
            None => longest,
        };
        if prefix > longest {
            return Err(CidrError);
        }
        Ok(Self { network, prefix })
    }
}

impl Cidr {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                shift == 32 || network.to_bits() >> shift == address.to_bits() >> shift
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                shift == 128 || network.to_bits() >> shift == address.to_bits() >> shift
            }
            _ => false,
        }
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
        for public in ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111"] {
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
            let range = format!("{}/{}", Ipv4Addr::from_bits(range.0), range.1);
            let edge = special.parse::<Ipv4Addr>().unwrap().to_bits().wrapping_add(offset).wrapping_sub(1);
            for v4 in [bits, edge].map(Ipv4Addr::from_bits) {
                for policy in [Policy::default(), allowing(&range), allowing("2000::/3")] {
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
    fn a_text_that_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "example.com", "10.0.0.0/"] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }
}
