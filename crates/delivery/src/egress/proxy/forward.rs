//! The proxy and its settings.

use std::{fs, io, net::IpAddr, path::PathBuf, sync::Arc};

use hyper::upgrade::Upgraded;
use hyper_rustls::HttpsConnector;
use rustls::ClientConfig;
use tower::Service;

use super::{
    credentials::{CredentialsFault, CredentialsFile},
    no_proxy::NoProxy,
    sockets, tunnel,
    url::{ProxyUrl, ProxyUrlError},
};
use crate::egress::{
    Authorities, Lookup, ProxyFault, RootsFault, Trust, TrustError,
    error::{NameNotFound, has_cause},
    stores::Stores,
};

/// The settings of the proxy, as the flags have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// The URL of the proxy; empty: no proxy. It is parsed later than other flags, whose errors quote the value: it could
    /// contain a password.
    pub url: String,
    /// A file with `user:password` for the proxy. It is read for each connection.
    pub credentials_file: Option<PathBuf>,
    /// A file with certificate authorities (PEM) that the operator trusts for the proxy in addition to the public
    /// authorities. It is read once.
    pub ca_file: Option<PathBuf>,
    /// The hosts that are connected to directly.
    pub no_proxy: Vec<NoProxy>,
    /// Whether the proxy resolves names. The egress policy then judges no address of a name.
    pub resolves: bool,
}

/// Why the proxy cannot be used. The errors name the flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxy {
    /// A flag that has no meaning without a proxy.
    #[error("{0} requires --egress-proxy: set --egress-proxy or remove {0}")]
    Alone(&'static str),
    /// The URL is not valid.
    #[error("--egress-proxy: {0}")]
    Url(#[from] ProxyUrlError),
    /// The file with the credentials cannot be used.
    #[error("--egress-proxy-credentials-file: the file {0}")]
    Credentials(#[from] CredentialsFault),
    /// The file with the certificate authorities cannot be read.
    #[error("--egress-proxy-ca-file: the file cannot be read ({0})")]
    CaFile(io::ErrorKind),
    /// The file with the certificate authorities holds none, or a broken one.
    #[error("--egress-proxy-ca-file: {0}")]
    Ca(RootsFault),
    /// Certificate authorities for a proxy without TLS.
    #[error("--egress-proxy-ca-file requires an https URL in --egress-proxy: correct the URL or remove the file")]
    CaWithoutTls,
    /// The TLS library rejects the operator's own settings: a bug.
    #[error("the TLS library rejects the operator's own settings: please report this")]
    Unsupported,
}

/// A forward proxy for all requests. Its own address is an administrator's choice and is not judged.
#[derive(Debug)]
pub struct Proxy {
    url: ProxyUrl,
    credentials: Option<CredentialsFile>,
    tls: Arc<ClientConfig>,
    no_proxy: Vec<NoProxy>,
    resolves: bool,
}

impl Proxy {
    /// Checks the settings and reads the files that they name. Returns None if the settings name no proxy.
    pub fn configured(settings: ProxySettings) -> Result<Option<Self>, InvalidProxy> {
        let ProxySettings { url, credentials_file, ca_file, no_proxy, resolves } = settings;
        if url.is_empty() {
            let flags = [
                ("--egress-proxy-credentials-file", credentials_file.is_some()),
                ("--egress-proxy-ca-file", ca_file.is_some()),
                ("--egress-no-proxy", !no_proxy.is_empty()),
                ("--egress-proxy-resolves", resolves),
            ];
            let alone = flags.iter().find(|(_, is_set)| *is_set);
            return alone.map_or(Ok(None), |(flag, _)| Err(InvalidProxy::Alone(flag)));
        }
        let url: ProxyUrl = url.parse()?;
        if ca_file.is_some() && !url.is_https() {
            return Err(InvalidProxy::CaWithoutTls);
        }
        let credentials = credentials_file.map(CredentialsFile);
        if let Some(credentials) = &credentials {
            credentials.authorization()?;
        }
        Ok(Some(Self { tls: tls(ca_file)?, url, credentials, no_proxy, resolves }))
    }

    /// Whether the proxy resolves names.
    pub(super) fn resolves(&self) -> bool {
        self.resolves
    }

    /// Whether the host, a name in a URL, is connected to directly.
    pub(super) fn is_without(&self, host: &str, port: u16) -> bool {
        self.no_proxy.iter().any(|entry| entry.names(host, port))
    }

    /// Whether the address is connected to directly.
    pub(super) fn is_without_address(&self, address: IpAddr, port: u16) -> bool {
        self.no_proxy.iter().any(|entry| entry.holds(address, port))
    }

    /// Opens a tunnel to `target`, a host and a port. `names` resolves the name of the proxy.
    pub(super) async fn open(&self, target: &str, names: &Arc<dyn Lookup>) -> Result<Upgraded, ProxyFault> {
        // A small local file.
        let authorization = self.credentials.as_ref().map(CredentialsFile::authorization).transpose()?;
        let mut connector = HttpsConnector::from((sockets::by_name(names.clone()), self.tls.clone()));
        let io = connector.call(self.url.uri()).await.map_err(|error| fault(&*error))?;
        tunnel::open(io, target, authorization).await
    }
}

/// Classifies a failed connection to the proxy.
fn fault(error: &(dyn std::error::Error + 'static)) -> ProxyFault {
    if has_cause::<NameNotFound>(error) {
        ProxyFault::Dns
    } else if has_cause::<rustls::Error>(error) {
        ProxyFault::Tls
    } else {
        ProxyFault::Connection
    }
}

/// Makes the TLS configuration for the connections to the proxy.
fn tls(ca_file: Option<PathBuf>) -> Result<Arc<ClientConfig>, InvalidProxy> {
    let authorities = match ca_file {
        Some(file) => Authorities::PublicAnd(fs::read(file).map_err(|error| InvalidProxy::CaFile(error.kind()))?),
        None => Authorities::Public,
    };
    let trust = Trust { authorities, identity: None };
    let roots = Stores::default().with(&trust.authorities).map_err(InvalidProxy::Ca)?;
    let config = trust.config(roots).map_err(|error| match error {
        TrustError::Roots(fault) => InvalidProxy::Ca(fault),
        TrustError::Identity(_) | TrustError::Unsupported => InvalidProxy::Unsupported,
    })?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use testkit::{Authority, folder::Folder};

    use super::*;

    fn at(url: &str) -> ProxySettings {
        ProxySettings { url: url.into(), ..ProxySettings::default() }
    }

    #[test]
    fn no_proxy_is_none_and_a_flag_that_needs_a_proxy_is_named() {
        assert!(Proxy::configured(ProxySettings::default()).unwrap().is_none());
        let none = ProxySettings::default;
        for (settings, flag) in [
            (
                ProxySettings { credentials_file: Some("f".into()), ..none() },
                "--egress-proxy-credentials-file requires",
            ),
            (ProxySettings { ca_file: Some("f".into()), ..none() }, "--egress-proxy-ca-file requires"),
            (ProxySettings { no_proxy: vec!["a.example".parse().unwrap()], ..none() }, "--egress-no-proxy requires"),
            (ProxySettings { resolves: true, ..none() }, "--egress-proxy-resolves requires"),
        ] {
            let error = Proxy::configured(settings).unwrap_err().to_string();
            assert!(error.starts_with(flag), "{error}");
        }
    }

    #[test]
    fn the_files_are_checked_at_the_start() {
        let folder = Folder::new("proxy").unwrap();
        let (http, https) = ("http://proxy.example.com:3128", "https://proxy.example.com");
        let ca = Some(folder.write("ca", Authority::new().ca_pem()).unwrap());
        let credentials = Some(folder.write("credentials", "user:password").unwrap());
        let (empty, missing) = (Some(folder.write("empty", "").unwrap()), Some(folder.path().join("missing")));
        let with = |url, credentials: &Option<PathBuf>, ca: &Option<PathBuf>| {
            let (credentials_file, ca_file) = (credentials.clone(), ca.clone());
            Proxy::configured(ProxySettings { credentials_file, ca_file, ..at(url) }).map(drop)
        };
        assert_eq!(with(https, &credentials, &ca), Ok(()));
        assert_eq!(with(http, &credentials, &None), Ok(()));
        assert_eq!(with(http, &None, &ca), Err(InvalidProxy::CaWithoutTls));
        assert_eq!(with(https, &None, &empty), Err(InvalidProxy::Ca(RootsFault::Empty)));
        assert_eq!(with(https, &None, &missing), Err(InvalidProxy::CaFile(io::ErrorKind::NotFound)));
        let fault = |fault| Err(InvalidProxy::Credentials(fault));
        assert_eq!(with(http, &empty, &None), fault(CredentialsFault::Malformed));
        assert_eq!(with(http, &missing, &None), fault(CredentialsFault::Unreadable(io::ErrorKind::NotFound)));
    }
}
