//! Checks the text of URLs for requests. Pure.

use http::Uri;
use url::Url;

/// Why a text is not a valid endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not a URL.
    #[error("not a valid URL ({0}): use a form like https://hooks.example.com/events")]
    Unreadable(#[from] url::ParseError),
    /// Not https, or with parts that requests do not send.
    #[error("must be an https URL without user name, password or fragment")]
    Unfit,
    /// Valid for browsers, but not for HTTP.
    #[error("has characters that are invalid in a request: check the host name")]
    Unsendable,
}

/// Parses an absolute https URL with a host that a request can carry. A user name, password or fragment is refused, not
/// dropped.
pub fn endpoint(text: &str) -> Result<Url, InvalidEndpoint> {
    let url = Url::parse(text)?;
    if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(InvalidEndpoint::Unfit);
    }
    if url.as_str().parse::<Uri>().is_err() {
        return Err(InvalidEndpoint::Unsendable);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_as_browsers_read_it() {
        for (text, read) in [
            ("https://hooks.example.com/events?a=b", "https://hooks.example.com/events?a=b"),
            ("HTTPS://Hooks.Example.COM:443", "https://hooks.example.com/"),
            ("https:\\\\bücher.example/|^`{}\"", "https://xn--bcher-kva.example/|^%60%7B%7D%22"),
            ("https://0x7f.1/", "https://127.0.0.1/"),
        ] {
            assert_eq!(endpoint(text).map(String::from), Ok(read.into()), "{text}");
        }
    }

    #[test]
    fn what_is_not_https_or_has_more_than_is_sent_is_refused() {
        for text in [
            "http://a.example/",
            "wss://a.example/",
            "file:///a",
            "https://user@a.example/",
            "https://:password@a.example/",
            "https://a.example/#x",
            "https://a.example/#",
        ] {
            assert_eq!(endpoint(text), Err(InvalidEndpoint::Unfit), "{text}");
        }
        for text in ["", "a.example", "/events", "https://", "https://a b/", "https://[::1/", "https://1.2.3.256/"] {
            assert!(matches!(endpoint(text), Err(InvalidEndpoint::Unreadable(_))), "{text}");
        }
    }

    #[test]
    fn a_host_name_that_no_request_can_carry_is_refused() {
        for text in ["https://a\"b.example/", "https://`m/", "https://{a}.example/"] {
            assert_eq!(endpoint(text), Err(InvalidEndpoint::Unsendable), "{text}");
        }
    }
}
