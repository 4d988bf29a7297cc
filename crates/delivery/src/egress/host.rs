//! Host names that are allowed whatever their addresses.

use std::str::FromStr;

use url::Host;

/// A DNS name, such as `hooks.example.com`, or every name below it: `*.example.com`. The comparison ignores case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: String,
    is_suffix: bool,
}

/// The text is not a pattern for host names.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a DNS name: use a form like hooks.example.com, or *.example.com for every name below it; for an IP address or a range, use --egress-allow-cidr"
)]
pub struct HostPatternError;

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let (name, is_suffix) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        Ok(Self { name: dns_name(name).ok_or(HostPatternError)?, is_suffix })
    }
}

impl HostPattern {
    /// Whether the pattern matches `host`, the host of a URL.
    pub fn matches(&self, host: &str) -> bool {
        let host = without_root(host).to_ascii_lowercase();
        if self.is_suffix { is_below(&host, &self.name) } else { host == self.name }
    }
}

/// Parses a DNS name as in URLs: in lower case, without the root dot. Returns None for an IP address.
pub(super) fn dns_name(text: &str) -> Option<String> {
    // The URL parser decides what is an IP address: it accepts forms like `0x7f.1`.
    let Ok(Host::Domain(name)) = Host::parse(without_root(text)) else {
        return None;
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(fits);
    (name.len() <= 253 && name.split('.').all(is_label)).then_some(name)
}

/// The domains for private use: of the machine itself, the link, a site or a home (RFC 6761, RFC 6762, RFC 8375, and
/// ICANN's reservation of `internal`).
const PRIVATE_DOMAINS: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// Whether a name has a meaning only inside a network: a name without a dot, or below a domain for private use.
pub(super) fn is_private_name(host: &str) -> bool {
    let host = without_root(host).to_ascii_lowercase();
    !host.contains('.') || PRIVATE_DOMAINS.iter().any(|domain| is_below(&host, domain))
}

/// Whether a name is below a domain; both in lower case and without the root dot.
pub(super) fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).is_some_and(|labels| !labels.is_empty())
}

/// Returns a name without the root dot.
pub(super) fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_itself_and_a_suffix_what_is_below_it() {
        let cases = [
            ("hooks.example.com", "hooks.example.com", true),
            ("Hooks.Example.COM", "hooks.EXAMPLE.com.", true),
            ("hooks.example.com.", "hooks.example.com", true),
            ("localhost", "localhost", true),
            ("bücher.example", "xn--bcher-kva.example", true),
            ("hooks.example.com", "x.hooks.example.com", false),
            ("hooks.example.com", "hooks.example.com.evil.example", false),
            ("hooks.example.com", "hooksxexample.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.EXAMPLE.com.", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "evilexample.com", false),
            ("*.example.com", "example.com.evil.example", false),
        ];
        for (pattern, host, expected) in cases {
            assert_eq!(pattern.parse::<HostPattern>().unwrap().matches(host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn an_address_and_whatever_is_no_name_are_refused_with_the_way_to_allow_addresses() {
        for text in [
            "",
            ".",
            "*",
            "*.",
            "*.*.example.com",
            "a.*.example.com",
            "*example.com",
            "a..b",
            ".a",
            "a b",
            "https://example.com",
            "example.com:443",
            "example.com/x",
            "user@example.com",
            "127.0.0.1",
            "*.127.0.0.1",
            "2130706433",
            "0x7f.1",
            "1.2",
            "::1",
            "[::1]",
            "10.0.0.0/8",
        ] {
            let error = text.parse::<HostPattern>().unwrap_err().to_string();
            assert!(error.contains("--egress-allow-cidr"), "{text:?}");
        }
        let long = format!("{}.example", "x".repeat(64));
        assert!(long.parse::<HostPattern>().is_err());
    }
}
