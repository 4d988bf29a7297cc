//! Header names that users may not set.

/// Headers, in lower case, that Tidings sets itself or that HTTP reserves for the connection (RFC 9110, section 7.6.1;
/// RFC 9112).
pub const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Prefixes, in lower case, of headers that Tidings or HTTP owns.
pub const RESERVED_HEADER_PREFIXES: &[&str] = &["ce-", "content-", "proxy-", "webhook-"];

/// Headers, in lower case, that Tidings sets in a token request, in addition to [`RESERVED_HEADERS`].
pub const RESERVED_TOKEN_HEADERS: &[&str] = &["accept", "accept-encoding"];

/// Whether Tidings sets this header in a token request. Case-insensitive.
pub fn is_reserved_token_header(name: &str) -> bool {
    RESERVED_TOKEN_HEADERS.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// Whether Tidings or HTTP owns this header. Case-insensitive.
pub fn is_reserved_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED_HEADERS.contains(&name.as_str()) || RESERVED_HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s07_reserved_names_are_found_in_any_case() {
        for name in
            ["Authorization", "HOST", "content-type", "Ce-Id", "WebHook-Request-Origin", "TE", "Proxy-Authorization"]
        {
            assert!(is_reserved_header(name), "{name}");
        }
        for name in ["X-Tenant", "cet", "contents", "Authorization-Info", "webhooks", "x-ce-id"] {
            assert!(!is_reserved_header(name), "{name}");
        }
        assert!(is_reserved_token_header("Accept") && is_reserved_token_header("ACCEPT-ENCODING"));
        assert!(!is_reserved_token_header("Accept-Language") && !is_reserved_token_header("X-Api-Key"));
    }
}
