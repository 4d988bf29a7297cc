//! The URL of the proxy.

use std::str::FromStr;

use http::Uri;
use url::Url;

/// The URL of a proxy: `http://` or `https://`, a host and a port; without a port, 80 or 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProxyUrl {
    uri: Uri,
    is_https: bool,
}

/// The text is not the URL of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// Not an http or https URL that consists of a host and a port.
    #[error("not the URL of a proxy: use a form like http://proxy.example.com:3128 or https://proxy.example.com")]
    Unfit,
    /// With credentials, which everyone could read who may read the Pod.
    #[error(
        "must not contain a user name or password: store user:password in the file of --egress-proxy-credentials-file"
    )]
    Credentials,
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let unfit = ProxyUrlError::Unfit;
        let url = Url::parse(text).map_err(|_error| unfit)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unfit);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ProxyUrlError::Credentials);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(unfit);
        }
        Ok(Self { is_https: url.scheme() == "https", uri: url.as_str().parse().map_err(|_error| unfit)? })
    }
}

impl ProxyUrl {
    /// Whether the connection to the proxy uses TLS.
    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    /// The URL as the client takes it.
    pub(super) fn uri(&self) -> Uri {
        self.uri.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_http_or_https_url_of_a_host_and_a_port() {
        for (text, uri, is_https) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128/", false),
            ("HTTPS://Proxy.example.com/", "https://proxy.example.com/", true),
            ("https://10.0.0.1:8443", "https://10.0.0.1:8443/", true),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128/", false),
        ] {
            let url = text.parse::<ProxyUrl>().unwrap();
            assert_eq!((url.uri().to_string().as_str(), url.is_https()), (uri, is_https), "{text}");
        }
        for text in [
            "",
            "proxy.example.com:3128",
            "proxy.example.com",
            "socks5://proxy.example.com:1080",
            "http://",
            "http://proxy.example.com/path",
            "http://proxy.example.com/?a",
            "http://proxy.example.com/#a",
            "http://proxy.example.com:70000",
        ] {
            assert_eq!(text.parse::<ProxyUrl>(), Err(ProxyUrlError::Unfit), "{text}");
        }
        for text in ["http://user@proxy.example.com", "http://user:canary@proxy.example.com", "http://:canary@a"] {
            let error = text.parse::<ProxyUrl>().unwrap_err();
            assert_eq!(error, ProxyUrlError::Credentials, "{text}");
            assert!(!error.to_string().contains("canary"));
        }
    }
}
