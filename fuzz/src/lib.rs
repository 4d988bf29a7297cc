//! A second implementation of the egress policy, as tables of address ranges, which the targets compare with the real
//! one. It is independent of `crates/delivery/src/egress/policy.rs`, so that a mistake in either of them shows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 ranges that are not public unicast addresses (RFC 6890 and its registry).
const SPECIAL_V4: &[(&str, u32)] = &[
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    // Azure platform services.
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
/// IPv6 ranges that are not public although they are inside 2000::/3, the global unicast addresses.
const SPECIAL_V6: &[(&str, u32)] = &[("2001::", 23), ("2001:db8::", 32), ("3fff::", 20)];

/// The prefixes of the IPv6 forms that embed an IPv4 address, and their lengths: IPv4-mapped, IPv4-translated, NAT64,
/// 6to4.
const DISGUISES: &[(&str, u32)] = &[("::ffff:0:0", 96), ("::ffff:0:0:0", 96), ("64:ff9b::", 96), ("2002::", 16)];

/// Whether an address is a public unicast address. An IPv6 address that embeds an IPv4 address counts as the IPv4
/// address.
pub fn is_public(address: IpAddr) -> bool {
    let outside =
        |specials: &[(&str, u32)], address| specials.iter().all(|&(network, prefix)| !is_in(network, prefix, address));
    match unmasked(address) {
        address @ IpAddr::V4(_) => outside(SPECIAL_V4, address),
        address @ IpAddr::V6(_) => is_in("2000::", 3, address) && outside(SPECIAL_V6, address),
    }
}

/// The IPv4 address that an IPv6 address embeds; otherwise the address itself.
pub fn unmasked(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |bits: u128| IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
    for &(network, prefix) in DISGUISES {
        if is_in(network, prefix, address) {
            return v4(v6.to_bits() >> (96 - prefix));
        }
    }
    // Teredo flips all bits of the client's address. IPv4-compatible addresses exclude :: and ::1.
    match v6.to_bits() {
        bits if is_in("2001::", 32, address) => v4(!bits),
        bits if bits > 1 && bits >> 32 == 0 => v4(bits),
        _ => address,
    }
}

/// Addresses at which a mistake is likely: one inside the special IPv4 range that `which` selects, with `rest` in its
/// free bits, the last address before that range, and the first address after it.
pub fn near_special(which: u8, rest: u32) -> [Ipv4Addr; 3] {
    let (network, prefix) = SPECIAL_V4[usize::from(which) % SPECIAL_V4.len()];
    let (first, free) = (network.parse::<Ipv4Addr>().unwrap().to_bits(), u32::MAX.checked_shr(prefix).unwrap_or(0));
    [first | rest & free, first.wrapping_sub(1), (first | free).wrapping_add(1)].map(Ipv4Addr::from_bits)
}

/// The IPv6 addresses that embed an IPv4 address, with `rest` in their free bits.
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

/// Whether an address is in `network/prefix`: whether its first `prefix` bits are those of the network.
pub fn is_in(network: &str, prefix: u32, address: IpAddr) -> bool {
    match (network.parse().unwrap(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros() >= prefix,
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros() >= prefix,
        _ => false,
    }
}
