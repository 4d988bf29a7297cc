//! Checks `tokenService.resources`.

use schemars::{Schema, SchemaGenerator, json_schema};

const URI_FAULT: &str = "must be an absolute URI, for example https://hooks.example.com/ (RFC 8707, section 2)";
const FRAGMENT_FAULT: &str = "must not contain a fragment (#...), which RFC 8707, section 2, forbids: remove it";
const LENGTH_FAULT: &str = "must not be longer than 2048 characters";
/// Maximum length of a resource, in bytes.
const LONGEST: usize = 2048;

/// Returns what is wrong with a resource indicator (RFC 8707, section 2). The API server checks the same rules.
pub fn resource_fault(resource: &str) -> Option<&'static str> {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
    };
    let is_absolute = resource.split_once(':').is_some_and(|(scheme, rest)| {
        is_scheme(scheme) && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic())
    });
    match resource {
        _ if !is_absolute => Some(URI_FAULT),
        _ if resource.contains('#') => Some(FRAGMENT_FAULT),
        _ if resource.len() > LONGEST => Some(LENGTH_FAULT),
        _ => None,
    }
}

/// The schema of `tokenService.resources`: resource indicators without duplicates.
pub(super) fn resources(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST,
            "x-kubernetes-validations": [
                { "rule": "self.matches('^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$')", "message": URI_FAULT },
                { "rule": "!self.contains('#')", "message": FRAGMENT_FAULT },
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_an_absolute_uri_without_a_fragment() {
        for resource in ["https://hooks.example.com/", "urn:acme:hooks", "api://8f3c/.default?a=b", "a+b.c-1:x"] {
            assert_eq!(resource_fault(resource), None, "{resource}");
        }
        for resource in
            ["", "hooks.example.com", "/events", "https:", ":x", "1a:x", "a b:x", "urn:é", "urn:a b", "urn:a\n"]
        {
            assert_eq!(resource_fault(resource), Some(URI_FAULT), "{resource:?}");
        }
        for resource in ["https://hooks.example.com/#", "urn:a#b"] {
            assert_eq!(resource_fault(resource), Some(FRAGMENT_FAULT), "{resource}");
        }
        assert_eq!(resource_fault(&format!("urn:{}", "a".repeat(2045))), Some(LENGTH_FAULT));
    }
}
