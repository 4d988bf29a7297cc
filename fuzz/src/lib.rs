//! What several targets hold the egress policy against: the rule once more, as tables of ranges and written apart from
//! `crates/delivery/src/egress/policy.rs`, so that a mistake in one of the two shows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 addresses that are no public unicast ones (RFC 6890 and its registry).
const SPECIAL_V4: &[(&str, u32)] = &[
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    // Azure's platform.
    ("168.63.129.16", 32),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.0.2.0", 24),
    ("192.88.99.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("198.51.100.0", 24),
    ("203.0.113.0", 24),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
];
/// IPv6 addresses inside 2000::/3, the global unicast ones, that are not public.
const SPECIAL_V6: &[(&str, u32)] = &[("2001::", 23), ("2001:db8::", 32), ("3fff::", 20)];

/// What stands before an IPv4 address in the IPv6 forms that lead to it, and how long that is: IPv4-mapped,
/// IPv4-translated, NAT64, 6to4.
const DISGUISES: &[(&str, u32)] = &[("::ffff:0:0", 96), ("::ffff:0:0:0", 96), ("64:ff9b::", 96), ("2002::", 16)];

/// Whether an address is a public unicast one, IPv4 in IPv6 judged as the IPv4 address that it is.
pub fn is_public(address: IpAddr) -> bool {
    let outside =
        |specials: &[(&str, u32)], address| specials.iter().all(|&(network, prefix)| !is_in(network, prefix, address));
    match unmasked(address) {
        address @ IpAddr::V4(_) => outside(SPECIAL_V4, address),
        address @ IpAddr::V6(_) => is_in("2000::", 3, address) && outside(SPECIAL_V6, address),
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does.
pub fn unmasked(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |bits: u128| IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
    for &(network, prefix) in DISGUISES {
        if is_in(network, prefix, address) {
            return v4(v6.to_bits() >> (96 - prefix));
        }
    }
    // Teredo hides the client's address with all bits flipped; IPv4-compatible ones leave out :: and ::1.
    match v6.to_bits() {
        bits if is_in("2001::", 32, address) => v4(!bits),
        bits if bits > 1 && bits >> 32 == 0 => v4(bits),
        _ => address,
    }
}

/// Addresses where a mistake would be: in one of the special IPv4 ranges, chosen by `which`, with `rest` in the bits that
/// are free; and the last before that range and the first after it.
pub fn near_special(which: u8, rest: u32) -> [Ipv4Addr; 3] {
    let (network, prefix) = SPECIAL_V4[usize::from(which) % SPECIAL_V4.len()];
    let (first, free) = (network.parse::<Ipv4Addr>().unwrap().to_bits(), u32::MAX.checked_shr(prefix).unwrap_or(0));
    [first | rest & free, first.wrapping_sub(1), (first | free).wrapping_add(1)].map(Ipv4Addr::from_bits)
}

/// The IPv6 addresses that stand for an IPv4 address, with `rest` in the bits that are free.
pub fn disguised(v4: Ipv4Addr, rest: u128) -> Vec<Ipv6Addr> {
    let bits = u128::from(v4.to_bits());
    let mut forms: Vec<_> = DISGUISES
        .iter()
        .map(|&(network, prefix)| {
            let free = 96 - prefix;
            network.parse::<Ipv6Addr>().unwrap().to_bits() | bits << free | rest & ((1 << free) - 1)
        })
        .collect();
    let teredo = "2001::".parse::<Ipv6Addr>().unwrap().to_bits() | rest >> 32 << 32 & ((1 << 96) - 1);
    forms.push(teredo | bits ^ 0xffff_ffff);
    forms.extend((bits > 1).then_some(bits));
    forms.into_iter().map(Ipv6Addr::from_bits).collect()
}

/// Whether an address is one of `network/prefix`: whether its first bits are the same.
pub fn is_in(network: &str, prefix: u32, address: IpAddr) -> bool {
    match (network.parse().unwrap(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros() >= prefix,
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros() >= prefix,
        _ => false,
    }
}
