//! Names of objects.

/// Whether the name is a DNS subdomain (RFC 1123).
pub(super) fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_read_another_object_is_invalid() {
        for name in ["acme-oauth", "a", "a.b-c.d1"] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", "a/b", "../../other/secrets/x", "..", "a%2Fb", "A", "-a", "a-", "a?x", "a#x", "a b"] {
            assert!(!is_object_name(name), "{name}");
        }
    }
}
