//! Fuzzes the URLs of webhooks and token services, and the host names that a flag allows.
#![no_main]

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, LazyLock},
};

use libfuzzer_sys::{Corpus, fuzz_target};
use tidings_delivery::egress::{Client, Egress, HostPattern, Lookup, Policy, SendError, Trust, endpoint};
use tidings_fuzz::is_public;
use url::{Host, Url};

/// Resolves every name to the loopback address.
#[derive(Debug)]
struct Home;

impl Lookup for Home {
    fn lookup(&self, _: &str) -> futures::future::BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

fn client(policy: Policy) -> Arc<Client> {
    Egress::with_lookup(policy, Arc::new(Home)).client("test", &Trust::default()).unwrap()
}

static CLOSED: LazyLock<Arc<Client>> = LazyLock::new(|| client(Policy::default()));
static NAMED: LazyLock<Arc<Client>> =
    LazyLock::new(|| client(Policy::default().allowing_hosts(vec!["*.example.com".parse().unwrap()])));

fn verdict(client: &Client, url: &Url) -> Result<(), SendError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(client.check(url))
}

// A URL, and on the second line a host name as in a flag.
fuzz_target!(|text: &str| -> Corpus {
    let (text, pattern) = text.split_once('\n').unwrap_or((text, ""));
    let pattern: Option<HostPattern> = pattern.parse().ok();
    let Ok(url) = endpoint(text) else { return Corpus::Reject };
    assert_eq!((url.scheme(), url.username(), url.password(), url.fragment()), ("https", "", None, None));
    assert!(url.has_host(), "{url}");
    // The URL that is checked is the URL that is connected to: its text parses to the same host.
    assert_eq!(endpoint(url.as_str()).as_ref(), Ok(&url));
    let uri: http::Uri = url.as_str().parse().unwrap();
    assert_eq!(Url::parse(&uri.to_string()).as_ref(), Ok(&url));

    let (closed, named) = (verdict(&CLOSED, &url), verdict(&NAMED, &url));
    match url.host().unwrap() {
        Host::Ipv4(_) | Host::Ipv6(_) => {
            let address: IpAddr = url.host_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
            let expected = if is_public(address) { Ok(()) } else { Err(SendError::Denied) };
            assert_eq!((closed, named), (expected.clone(), expected), "{url}");
            assert!(!pattern.is_some_and(|pattern| pattern.matches(url.host_str().unwrap())), "{url}");
        }
        Host::Domain(name) => {
            assert!(name.parse::<IpAddr>().is_err(), "{name}");
            let below = name
                .strip_suffix('.')
                .unwrap_or(name)
                .strip_suffix(".example.com")
                .is_some_and(|labels| !labels.is_empty());
            assert_eq!(closed, Err(SendError::Denied), "{url}");
            assert_eq!(named, if below { Ok(()) } else { Err(SendError::Denied) }, "{url}");
            if let Some(pattern) = pattern {
                // Names are compared as in DNS: case-insensitively, with or without the trailing dot.
                let matches = pattern.matches(name);
                assert_eq!(pattern.matches(&name.to_ascii_uppercase()), matches);
                let rooted = format!("{}.", name.strip_suffix('.').unwrap_or(name));
                assert_eq!(pattern.matches(&rooted), matches, "{name}");
            }
        }
    }
    Corpus::Keep
});
