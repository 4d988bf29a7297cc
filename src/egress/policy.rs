//! May this address be dialled? Pure: an address in, an answer out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Which addresses may be dialled: public ones, and what the operator's flags add.
///
/// Everything that is not a public unicast address is denied (RFC 6890 and its registry): loopback, private,
/// link-local, carrier-grade NAT, unique local, multicast, reserved, unspecified.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    allowed: Vec<Cidr>,
}

impl Policy {
    /// A policy that also allows these ranges.
    pub fn allowing(allowed: Vec<Cidr>) -> Self {
        Self { allowed }
    }

    /// Whether `address` may be dialled, judged by the IPv4 address that an IPv6 form may hide.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        is_public(address) || self.allowed.iter().any(|range| range.contains(address))
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

/// The address that would be reached: the IPv4 address inside a mapped, compatible, NAT64, 6to4 or Teredo form.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] if high != 0 || low > 1 => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0, .., high, low] => embedded(!high, !low),
        _ => address,
    }
}

fn embedded(high: u16, low: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
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
    use super::*;

    fn allows(policy: &Policy, address: &str) -> bool {
        policy.allows(address.parse().unwrap())
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
    fn an_ipv4_address_hidden_in_an_ipv6_one_is_judged_as_itself() {
        let policy = Policy::default();
        for hidden in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:0:1:2:3:4:80ff:fffe",
            "::ffff:10.0.0.1",
        ] {
            assert!(!allows(&policy, hidden), "{hidden}");
        }
        assert!(allows(&policy, "::ffff:1.1.1.1"));
        let loopback = Policy::allowing(vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(allows(&loopback, "::ffff:127.0.0.1"));
    }

    #[test]
    fn a_range_allows_its_own_addresses_and_no_others() {
        let policy = Policy::allowing(vec!["127.0.0.1/32".parse().unwrap(), "fd00::/16".parse().unwrap()]);
        assert!(allows(&policy, "127.0.0.1"));
        assert!(!allows(&policy, "127.0.0.2"));
        assert!(allows(&policy, "fd00:1::2"));
        assert!(!allows(&policy, "fd01::1"));
        assert!(allows(&Policy::allowing(vec!["0.0.0.0/0".parse().unwrap()]), "10.0.0.1"));
    }

    #[test]
    fn a_text_that_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "example.com", "10.0.0.0/"] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }
}
