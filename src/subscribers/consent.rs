//! Reads the consent annotations of a Secret or ServiceAccount: which endpoints its values, or its tokens, may be sent
//! to. Pure.

use std::collections::BTreeMap;

use tidings_api::{CONSENT_ANNOTATION, TOKEN_CONSENT_ANNOTATION, TOKEN_REQUEST_ANNOTATION};
use url::Url;

/// The port of an entry without a port: https.
const HTTPS: u16 = 443;
/// Parts of a path that a server may read as a segment separator or as a step up, even after a URL parser has resolved
/// the path.
const AMBIGUOUS: [&str; 5] = ["%2f", "%5c", "%25", "\\", ";"];

/// The kind of endpoint that a value is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The webhook: it receives header values, its client certificate, and the tokens issued for the credentials.
    Webhook,
    /// The token service: it receives the client credentials, header values and its client certificate.
    TokenService,
    /// The webhook: it receives what the operator signs with the value, and never the value.
    Signature,
}

impl Purpose {
    /// The field of the spec that holds the endpoint's URL.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Webhook | Self::Signature => "webhook.url",
            Self::TokenService => "tokenService.url",
        }
    }

    /// What a Secret that does not allow the endpoint may not do.
    pub const fn use_(self) -> &'static str {
        match self {
            Self::Webhook | Self::TokenService => "be sent",
            Self::Signature => "sign what is sent",
        }
    }
}

/// Checks that a Secret with these annotations allows its values to be used for `url` for this purpose. The error is the
/// name of the annotation that needs an entry for `url`.
///
/// `allowed-hosts` lists webhooks and token services. If `allowed-token-hosts` is present, even empty, only that
/// annotation lists token services, and `allowed-hosts` lists only webhooks.
pub fn check(annotations: &BTreeMap<String, String>, purpose: Purpose, url: &Url) -> Result<(), &'static str> {
    let (hosts, token_hosts) = (annotations.get(CONSENT_ANNOTATION), annotations.get(TOKEN_CONSENT_ANNOTATION));
    let (name, list) = match purpose {
        Purpose::TokenService if token_hosts.is_some() || hosts.is_none() => (TOKEN_CONSENT_ANNOTATION, token_hosts),
        _ => (CONSENT_ANNOTATION, hosts),
    };
    let entries = list.map_or("", String::as_str).split(',');
    entries.into_iter().any(|entry| covers(entry.trim(), url)).then_some(()).ok_or(name)
}

/// Whether a ServiceAccount with these annotations allows its tokens for `audience` to be sent to `url`. An entry is
/// `AUDIENCE host[:port][/path-prefix]`, and an entry of any other form allows nothing.
pub fn allows_token_request(annotations: &BTreeMap<String, String>, audience: &str, url: &Url) -> bool {
    let list = annotations.get(TOKEN_REQUEST_ANNOTATION).map_or("", String::as_str);
    list.split(',').any(|entry| {
        let words: Vec<_> = entry.split_ascii_whitespace().take(3).collect();
        matches!(words[..], [of, endpoint] if of == audience && covers(endpoint, url))
    })
}

/// The entry that allows `url` and every other path of its host and port.
pub fn entry(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host:.253}:{port}"),
        None => format!("{host:.253}"),
    }
}

/// Whether an entry, `host[:port][/path-prefix]`, covers the URL. An invalid entry covers nothing.
fn covers(entry: &str, url: &Url) -> bool {
    let (authority, prefix) = match entry.find('/') {
        Some(at) => entry.split_at(at),
        None => (entry, ""),
    };
    let Some((host, port)) = host_and_port(authority) else {
        return false;
    };
    let is_host = url.host_str().is_some_and(|of_url| !host.is_empty() && of_url.eq_ignore_ascii_case(host));
    is_host && url.port_or_known_default() == Some(port) && is_below(prefix, url.path())
}

/// Splits `host`, `host:port`, `[address]` or `[address]:port` into host and port.
fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    // A colon before a closing bracket belongs to an IPv6 address.
    let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let Some(at) = colon else {
        return Some((authority, HTTPS));
    };
    let port = &authority[at + 1..];
    let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    Some((&authority[..at], is_number.then(|| port.parse().ok())??))
}

/// Whether `path` is the prefix or continues it with whole segments. A path that a server may read as a different path
/// is below no prefix.
fn is_below(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return true;
    }
    let lower = path.to_ascii_lowercase();
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && !AMBIGUOUS.iter().any(|part| lower.contains(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// The annotations of a Secret with these values of `allowed-hosts` and `allowed-token-hosts`.
    fn annotations(hosts: Option<&str>, token_hosts: Option<&str>) -> BTreeMap<String, String> {
        let both = [(CONSENT_ANNOTATION, hosts), (TOKEN_CONSENT_ANNOTATION, token_hosts)];
        both.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect()
    }

    fn allows(annotations: &BTreeMap<String, String>, purpose: Purpose, url: &Url) -> bool {
        check(annotations, purpose, url).is_ok()
    }

    fn permits(list: &str, target: &str) -> bool {
        let by_hosts = allows(&annotations(Some(list), None), Purpose::Webhook, &url(target));
        // A key that signs for a webhook needs the same consent as a value that is sent to it.
        assert_eq!(by_hosts, allows(&annotations(Some(list), Some("")), Purpose::Signature, &url(target)), "{list}");
        // Both annotations have the same syntax.
        assert_eq!(by_hosts, allows(&annotations(None, Some(list)), Purpose::TokenService, &url(target)), "{list}");
        by_hosts
    }

    #[test]
    fn s09_a_secret_allows_the_hosts_that_it_names_and_no_others() {
        let target = "https://hooks.example.com/events";
        for allowed in ["hooks.example.com", "login.example.com, Hooks.Example.com", "hooks.example.com:443,"] {
            assert!(permits(allowed, target), "{allowed}");
        }
        for allowed in ["", ",", "/", ":443", "*", "*.example.com", "example.com", "xhooks.example.com"] {
            assert!(!permits(allowed, target), "{allowed}");
        }
        for allowed in
            ["hooks.example.com.evil.example", "hooks.example", "https://hooks.example.com", "a@hooks.example.com"]
        {
            assert!(!permits(allowed, target), "{allowed}");
        }
        assert!(!allows(&BTreeMap::new(), Purpose::Webhook, &url(target)));
    }

    #[test]
    fn s24_an_entry_names_one_port_and_443_where_it_names_none() {
        let cases = [
            ("hooks.example.com", "https://hooks.example.com:443/a", true),
            ("hooks.example.com", "https://hooks.example.com:8443/a", false),
            ("hooks.example.com:8443", "https://hooks.example.com:8443/a", true),
            ("hooks.example.com:8443", "https://hooks.example.com/a", false),
            ("[2001:db8::1]", "https://[2001:db8::1]/a", true),
            ("[2001:db8::1]:8443/a", "https://[2001:db8::1]:8443/a", true),
            ("[2001:db8::1]", "https://[2001:db8::1]:8443/a", false),
            ("2001:db8::1", "https://[2001:db8::1]/a", false),
            ("hooks.example.com:", "https://hooks.example.com/a", false),
            ("hooks.example.com:+443", "https://hooks.example.com/a", false),
            ("hooks.example.com:65979", "https://hooks.example.com/a", false),
            ("hooks.example.com:https", "https://hooks.example.com/a", false),
        ];
        for (entry, target, expected) in cases {
            assert_eq!(permits(entry, target), expected, "{entry} {target}");
        }
    }

    #[test]
    fn s24_a_path_prefix_ends_where_a_segment_ends() {
        let cases = [
            ("h.example/hooks/acme", "/hooks/acme", true),
            ("h.example/hooks/acme", "/hooks/acme/", true),
            ("h.example/hooks/acme/", "/hooks/acme", true),
            ("h.example/hooks/acme", "/hooks/acme/orders?x=/other", true),
            ("h.example/hooks/acme", "/hooks/acme2", false),
            ("h.example/hooks/acme", "/hooks", false),
            ("h.example/hooks/acme", "/Hooks/acme", false),
            ("h.example/hooks/acme", "/other?/hooks/acme", false),
            ("h.example/", "/anything", true),
            // Paths that leave the prefix, either in the URL parser or at a server.
            ("h.example/hooks/acme", "/hooks/acme/../other", false),
            ("h.example/hooks/acme", "/hooks/acme/%2e%2E/other", false),
            ("h.example/hooks/acme", "/hooks/acme/..%2fother", false),
            ("h.example/hooks/acme", "/hooks/acme/..%5Cother", false),
            ("h.example/hooks/acme", "/hooks/acme/..%252fother", false),
            ("h.example/hooks/acme", "/hooks/acme/..;/other", false),
            ("h.example/hooks/acme", "/hooks/acme/..\\other", false),
            ("h.example", "/hooks/acme/..%2fother", true),
        ];
        for (entry, path, expected) in cases {
            assert_eq!(permits(entry, &format!("https://h.example{path}")), expected, "{entry} {path}");
        }
    }

    #[test]
    fn s24_token_services_and_webhooks_have_lists_of_their_own_where_both_are_given() {
        let (login, hooks) = (url("https://login.example/token"), url("https://hooks.example/events"));
        let allowed = |annotations: &BTreeMap<_, _>| {
            [
                (Purpose::TokenService, &login),
                (Purpose::Webhook, &login),
                (Purpose::TokenService, &hooks),
                (Purpose::Webhook, &hooks),
            ]
            .map(|(purpose, url)| allows(annotations, purpose, url))
        };
        let one = annotations(Some("login.example,hooks.example"), None);
        assert_eq!(allowed(&one), [true, true, true, true]);
        let both = annotations(Some("hooks.example"), Some("login.example"));
        assert_eq!(allowed(&both), [true, false, false, true]);
        // An empty list allows no token service; `allowed-hosts` does not replace it.
        let no_tokens = annotations(Some("login.example,hooks.example"), Some(""));
        assert_eq!(allowed(&no_tokens), [false, true, false, true]);
        let no_webhooks = annotations(None, Some("login.example"));
        assert_eq!(allowed(&no_webhooks), [true, false, false, false]);
    }

    #[test]
    fn s24_the_annotation_that_lacks_an_entry_is_named() {
        let target = url("https://h.example/");
        let missing =
            |hosts, token_hosts, purpose| check(&annotations(hosts, token_hosts), purpose, &target).unwrap_err();
        assert_eq!(missing(None, None, Purpose::Webhook), CONSENT_ANNOTATION);
        assert_eq!(missing(None, None, Purpose::TokenService), TOKEN_CONSENT_ANNOTATION);
        assert_eq!(missing(Some("a"), None, Purpose::TokenService), CONSENT_ANNOTATION);
        assert_eq!(missing(Some("h.example"), Some("a"), Purpose::TokenService), TOKEN_CONSENT_ANNOTATION);
        assert_eq!(missing(Some("a"), Some("h.example"), Purpose::Webhook), CONSENT_ANNOTATION);
    }

    fn allows_token(list: &str, audience: &str, target: &str) -> bool {
        let annotations = BTreeMap::from([(TOKEN_REQUEST_ANNOTATION.to_owned(), list.to_owned())]);
        allows_token_request(&annotations, audience, &url(target))
    }

    #[test]
    fn s27_a_service_account_allows_an_audience_and_an_endpoint_together() {
        let list = "https://a.example/x@y:1 login.example:8443/oauth2,\n api://B   login.example ,,";
        for (audience, target, expected) in [
            ("https://a.example/x@y:1", "https://login.example:8443/oauth2/token", true),
            ("api://B", "https://login.example/token", true),
            // The audience of one entry with the endpoint of another.
            ("api://B", "https://login.example:8443/oauth2/token", false),
            ("https://a.example/x@y:1", "https://login.example/token", false),
            ("https://a.example/x@y:1", "https://login.example:8443/other", false),
            ("api://b", "https://login.example/token", false),
            ("api://B/", "https://login.example/token", false),
            ("", "https://login.example/token", false),
        ] {
            assert_eq!(allows_token(list, audience, target), expected, "{audience} {target}");
        }
        for list in [
            "",
            "login.example",
            "a",
            " login.example",
            "a@login.example",
            "login.example a",
            "a b login.example",
            "a login.example b",
            "* login.example",
            "a *",
            "a, login.example",
        ] {
            assert!(!allows_token(list, "a", "https://login.example/token"), "{list}");
        }
        let other = annotations(Some("a login.example"), Some("a login.example"));
        assert!(!allows_token_request(&other, "a", &url("https://login.example/token")), "another annotation");
    }

    proptest! {
        /// Any audience that the schema accepts, with any separator between words and entries.
        #[test]
        fn s27_an_entry_allows_its_own_audience_at_its_own_endpoint_and_no_other(
            audiences in proptest::collection::btree_set("[!-+.-~-]{1,12}", 2), at in 0usize..2,
            before in "[ \t\n]{0,3}", between in "[ \t\n]{1,3}", after in "[ \t\n]{0,3}",
            host in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}", other in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}",
        ) {
            let audiences: Vec<_> = audiences.into_iter().collect();
            let (allowed, not) = (&audiences[at], &audiences[1 - at]);
            let list = format!("{before}{allowed}{between}{host}{after},{not} elsewhere.example");
            let target = format!("https://{host}/token");
            prop_assert!(allows_token(&list, allowed, &target));
            prop_assert!(!allows_token(&list, not, &target));
            prop_assert_eq!(allows_token(&list, allowed, &format!("https://{other}/token")), other == host);
        }

        #[test]
        fn s27_any_annotation_value_that_does_not_name_the_endpoint_allows_nothing(
            list in "\\PC{0,60}", audience in "[!-+.-~-]{1,6}",
        ) {
            prop_assert!(!allows_token(&list.replace("h.example", ""), &audience, "https://h.example/token"));
        }

        #[test]
        fn s24_the_entry_of_a_url_covers_that_host_and_port_alone(
            host in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}", other in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}",
            port in 1u16.., another in 1u16.., path in "(/[a-z]{0,4}){0,3}",
        ) {
            let target = url(&format!("https://{host}:{port}{path}"));
            prop_assert!(covers(&entry(&target), &target));
            let elsewhere = url(&format!("https://{other}:{another}{path}"));
            prop_assert_eq!(covers(&entry(&target), &elsewhere), (host, port) == (other, another));
        }

        #[test]
        fn s24_a_prefix_covers_what_begins_with_all_of_its_segments(
            prefix in proptest::collection::vec("[ab]{1,2}", 0..3), path in proptest::collection::vec("[ab]{1,2}", 0..4),
        ) {
            let target = url(&format!("https://h.example/{}", path.join("/")));
            let covered = covers(&format!("h.example/{}", prefix.join("/")), &target);
            prop_assert_eq!(covered, path.starts_with(&prefix));
        }

        #[test]
        fn any_annotation_value_is_read_without_a_panic(list in "\\PC{0,40}", path in "\\PC{0,20}") {
            if let Ok(target) = Url::parse(&format!("https://h.example/{path}")) {
                prop_assert!(!covers(&list.replace("h.example", ""), &target));
            }
        }
    }
}
