//! Token sources like the operator's, for tests that send without the operator.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::HeaderMap;
use secrecy::SecretString;
use testkit::{Authority, TokenService};
use tidings_delivery::{
    egress::{Authorities, Trust},
    oauth::{AuthMethod, Credentials, CredentialsFingerprint, TokenCache, TokenKey, TokenRequest, TokenSource},
};

/// Trust in an authority's certificates.
pub fn trusting(authority: &Authority) -> Trust {
    trusting_pem(authority.ca_pem())
}

/// Trust in the authorities of a bundle.
pub fn trusting_pem(bundle: &str) -> Trust {
    Trust { authorities: Authorities::PublicAnd(bundle.into()), identity: None }
}

/// A way to send a client secret.
pub type Way = fn(SecretString) -> AuthMethod;

/// A source of the service's tokens for the client `id` with the secret `secret`.
pub fn source_of(service: &TokenService, http: Arc<tidings_delivery::egress::Client>, way: Way) -> Arc<TokenSource> {
    source_at(&service.url(), Duration::from_secs(5), http, way)
}

/// Like [`source_of`], for the token service at `url`.
pub fn source_at(
    url: &str,
    timeout: Duration,
    http: Arc<tidings_delivery::egress::Client>,
    way: Way,
) -> Arc<TokenSource> {
    source_in(&TokenCache::default(), url, http, way, |key| key.timeout = timeout)
}

/// A client that sends this secret.
pub fn client(id: &str, secret: &str, way: Way) -> Credentials {
    Credentials { client_id: id.into(), authentication: way(secret.into()) }
}

/// The source in `cache` for the client `id`. `change` may alter the key.
pub fn source_in(
    cache: &TokenCache,
    url: &str,
    http: Arc<tidings_delivery::egress::Client>,
    way: Way,
    change: impl FnOnce(&mut TokenKey),
) -> Arc<TokenSource> {
    let mut key = TokenKey {
        namespace: "test".into(),
        secret_uid: "uid".into(),
        credentials: client("id", "secret", way).fingerprint(),
        authentication: client("id", "secret", way).method(),
        secret_keys: vec!["client_id".into(), "client_secret".into()],
        url: url.into(),
        client_id: "id".into(),
        scopes: Vec::new(),
        audience: None,
        resources: Vec::new(),
        parameters: BTreeMap::new(),
        headers: CredentialsFingerprint::of_headers(&HeaderMap::new()),
        timeout: Duration::from_secs(5),
        trust: Trust::default().fingerprint(),
    };
    change(&mut key);
    let request = TokenRequest {
        url: key.url.parse().unwrap(),
        credentials: client(&key.client_id, "secret", way),
        scopes: key.scopes.clone(),
        audience: key.audience.clone(),
        resources: key.resources.clone(),
        parameters: key.parameters.clone(),
        headers: HeaderMap::new(),
        timeout: key.timeout,
        http,
    };
    cache.source(key, || request)
}
