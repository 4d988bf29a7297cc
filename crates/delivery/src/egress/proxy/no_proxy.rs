//! The hosts that are connected to without the proxy. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::egress::{
    Cidr,
    host::{dns_name, is_below, without_root},
};

/// One entry of the list of hosts without a proxy, as most programs read the variable `NO_PROXY`: a DNS name with all
/// names below it (`example.com`), only the names below it (`.example.com` or `*.example.com`), an address or an address
/// range. A name or an address may have a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProxy {
    hosts: NoProxyHosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NoProxyHosts {
    /// A name, unless only the names below it count, and the names below it.
    Named { name: String, is_included: bool },
    /// The addresses of a range.
    Range(Cidr),
}

/// The text is not an entry for hosts without a proxy.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a host without a proxy: use a form like example.com (with all names below it), .example.com (only the names below it), 10.0.0.0/8, 10.1.2.3 or example.com:8443; to use no proxy at all, remove --egress-proxy"
)]
pub struct NoProxyError;

impl FromStr for NoProxy {
    type Err = NoProxyError;

    fn from_str(text: &str) -> Result<Self, NoProxyError> {
        let text = text.trim();
        if let Ok(range) = text.parse() {
            return Ok(Self { hosts: NoProxyHosts::Range(range), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, Some(port_of(port)?)),
            _ => (text, None),
        };
        let hosts = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            // As a range, whose rules for IPv4 addresses inside IPv6 addresses apply.
            Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => {
                NoProxyHosts::Range(v6.parse().map_err(|_error| NoProxyError)?)
            }
            Some(_) => return Err(NoProxyError),
            None => match host.parse::<Ipv4Addr>() {
                Ok(v4) => NoProxyHosts::Range(IpAddr::from(v4).into()),
                Err(_) => NoProxyHosts::named(host)?,
            },
        };
        Ok(Self { hosts, port })
    }
}

fn port_of(text: &str) -> Result<u16, NoProxyError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0).ok_or(NoProxyError)
}

impl NoProxyHosts {
    fn named(text: &str) -> Result<Self, NoProxyError> {
        let below = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
        let name = dns_name(below.unwrap_or(text)).ok_or(NoProxyError)?;
        Ok(Self::Named { name, is_included: below.is_none() })
    }
}

impl NoProxy {
    /// Whether the entry names `host`, the name in a URL, with this port.
    pub(in crate::egress) fn names(&self, host: &str, at: u16) -> bool {
        let NoProxyHosts::Named { name, is_included } = &self.hosts else {
            return false;
        };
        let host = without_root(host).to_ascii_lowercase();
        self.is_at(at) && (*is_included && host == *name || is_below(&host, name))
    }

    /// Whether the entry holds `address` with this port.
    pub(in crate::egress) fn holds(&self, address: IpAddr, at: u16) -> bool {
        matches!(&self.hosts, NoProxyHosts::Range(range) if range.contains(address)) && self.is_at(at)
    }

    fn is_at(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_covers_itself_and_what_is_below_it_and_a_dot_or_star_only_what_is_below_it() {
        let cases = [
            ("example.com", "example.com", 443, true),
            ("example.com", "a.b.example.com", 443, true),
            ("Example.COM.", "a.EXAMPLE.com.", 8443, true),
            ("example.com", "evilexample.com", 443, false),
            ("example.com", "example.com.evil.example", 443, false),
            (".example.com", "example.com", 443, false),
            (".example.com", "a.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("*.example.com", "a.b.example.com", 443, true),
            ("example.com:8443", "example.com", 8443, true),
            ("example.com:8443", "a.example.com", 8443, true),
            ("example.com:8443", "example.com", 443, false),
            (".svc", "hooks.shop.svc", 443, true),
            ("svc", "hooks.shop.svc", 443, true),
            (" localhost ", "localhost", 443, true),
            ("bücher.example", "xn--bcher-kva.example", 443, true),
            ("10.0.0.0/8", "10.example", 443, false),
        ];
        for (entry, host, port, expected) in cases {
            assert_eq!(entry.parse::<NoProxy>().unwrap().names(host, port), expected, "{entry} {host}:{port}");
        }
    }

    #[test]
    fn a_range_or_an_address_covers_addresses_and_no_names() {
        let cases = [
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.0.0.0/8", "11.1.2.3", 443, false),
            ("10.1.2.3", "10.1.2.3", 8443, true),
            ("10.1.2.3:8443", "10.1.2.3", 8443, true),
            ("10.1.2.3:8443", "10.1.2.3", 443, false),
            ("fd00::/8", "fd00::1", 443, true),
            ("fd00::1", "fd00::1", 443, true),
            ("[fd00::1]", "fd00::1", 443, true),
            ("[fd00::1]:8443", "fd00::1", 8443, true),
            ("[fd00::1]:8443", "fd00::1", 443, false),
            ("example.com", "10.1.2.3", 443, false),
        ];
        for (entry, address, port, expected) in cases {
            let entry_of = entry.parse::<NoProxy>().unwrap();
            assert_eq!(entry_of.holds(address.parse().unwrap(), port), expected, "{entry} {address}:{port}");
        }
    }

    #[test]
    fn an_entry_that_would_match_everything_or_nothing_is_refused_with_the_forms_that_work() {
        for text in [
            "",
            " ",
            "*",
            ".",
            "*.",
            "..example.com",
            "*example.com",
            "a.*.example.com",
            "https://example.com",
            "example.com/x",
            "example.com:",
            "example.com:0",
            "example.com:+443",
            "example.com:70000",
            "example.com:https",
            "10.1.2.3/8",
            "10.0.0.0/8:443",
            "[10.1.2.3]:443",
            "[example.com]:443",
            "fd00::1]:443",
            "::ffff:10.1.2.3",
            "[::ffff:10.1.2.3]",
            "[::ffff:10.1.2.3]:443",
            "0x7f.1",
            "a b",
        ] {
            let error = text.parse::<NoProxy>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.0/8") && error.contains("--egress-proxy"), "{text:?}");
        }
    }
}
