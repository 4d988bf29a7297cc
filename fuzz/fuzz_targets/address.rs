//! Fuzzes the egress policy with addresses that a name may resolve to.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use tidings_delivery::egress::{Cidr, Policy};
use tidings_fuzz::{disguised, is_in, is_public, near_special, unmasked};

// An address and a range that a flag allows. The range is IPv4 if the last number is even.
fuzz_target!(|input: ([u8; 16], [u8; 16], u8, u8)| {
    let (address, network, prefix, kind) = input;
    let v6 = Ipv6Addr::from(address);
    let v4 = Ipv4Addr::from_bits(v6.to_bits() as u32);
    let (network, prefix): (IpAddr, u32) = match kind % 2 {
        0 => {
            let (bits, prefix) = (u128::from_be_bytes(network) as u32, u32::from(prefix) % 33);
            (Ipv4Addr::from_bits(bits & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).into(), prefix)
        }
        _ => {
            let (bits, prefix) = (u128::from_be_bytes(network), u32::from(prefix) % 129);
            (Ipv6Addr::from_bits(bits & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).into(), prefix)
        }
    };
    let Ok(range) = format!("{network}/{prefix}").parse::<Cidr>() else {
        assert!(matches!(network, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()), "{network}/{prefix}");
        return;
    };
    let (closed, open) = (Policy::default(), Policy::allowing(vec![range]));
    let named = Policy::default().allowing_hosts(vec!["*.example.com".parse().unwrap()]);
    let denying = Policy::allowing(vec!["::/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap()]).denying(vec![range]);

    let check = |address: IpAddr| {
        let public = is_public(address);
        assert_eq!(closed.allows(None, address), public, "{address}");
        assert_eq!(closed.allows(Some("a.example.com"), address), public, "{address}");
        // For an IPv6 address that embeds an IPv4 address, an allowed range applies to the IPv4 address.
        let in_range = is_in(&network.to_string(), prefix, unmasked(address));
        assert_eq!(open.allows(None, address), public || in_range, "{address} with {range:?}");
        let denied = in_range || is_in(&network.to_string(), prefix, address);
        assert_eq!(denying.allows(None, address), !denied, "{address} without {range:?}");
        assert!(!closed.allows(Some("a.b.svc"), address), "{address} inside the cluster");
        assert_eq!(named.allows(None, address), public, "{address}");
        assert_eq!(named.allows(Some("example.com"), address), public, "{address}");
        let of_one_host = match unmasked(address) {
            IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast()),
            IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast()),
        };
        assert_eq!(named.allows(Some("a.example.com"), address), public || of_one_host, "{address}");
        // The textual form of the address makes no difference.
        assert_eq!(address.to_string().parse(), Ok(address));
    };
    check(v6.into());
    for v4 in near_special(kind / 2, v4.to_bits()).into_iter().chain([v4]) {
        check(v4.into());
        for disguise in disguised(v4, v6.to_bits()) {
            assert_eq!(unmasked(disguise.into()), IpAddr::V4(v4), "{disguise}");
            check(disguise.into());
        }
    }
});
