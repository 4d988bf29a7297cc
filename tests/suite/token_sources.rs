//! Token sources like the operator's, for tests that send without the operator.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use testkit::{Authority, TokenService};
use tidings_delivery::{
    egress::{Authorities, Trust},
    oauth::{AuthMethod, Credentials, TokenCache, TokenKey, TokenRequest, TokenSource},
};

/// Trust in an authority's certificates.
pub fn trusting(authority: &Authority) -> Trust {
    trusting_pem(authority.ca_pem())
}

/// Trust in the authorities of a bundle.
pub fn trusting_pem(bundle: &str) -> Trust {
    Trust { authorities: Authorities::PublicAnd(bundle.into()), identity: None }
}

/// A source of the service's tokens for the client `id` with the secret `secret`.
pub fn source_of(
    service: &TokenService,
    http: Arc<tidings_delivery::egress::Client>,
    authentication: AuthMethod,
) -> Arc<TokenSource> {
    source_at(&service.url(), Duration::from_secs(5), http, authentication)
}

/// Like [`source_of`], for the token service at `url`.
pub fn source_at(
    url: &str,
    timeout: Duration,
    http: Arc<tidings_delivery::egress::Client>,
    authentication: AuthMethod,
) -> Arc<TokenSource> {
    source_in(&TokenCache::default(), url, http, |key| (key.timeout, key.authentication) = (timeout, authentication))
}

/// The source in `cache` for the client `id`. `change` may alter the key.
pub fn source_in(
    cache: &TokenCache,
    url: &str,
    http: Arc<tidings_delivery::egress::Client>,
    change: impl FnOnce(&mut TokenKey),
) -> Arc<TokenSource> {
    let mut key = TokenKey {
        namespace: "test".into(),
        secret_uid: "uid".into(),
        credentials: Credentials { client_id: "id".into(), client_secret: "secret".into() }.fingerprint(),
        secret_keys: ["client_id".into(), "client_secret".into()],
        url: url.into(),
        client_id: "id".into(),
        authentication: AuthMethod::Post,
        scopes: Vec::new(),
        audience: None,
        parameters: BTreeMap::new(),
        timeout: Duration::from_secs(5),
        trust: Trust::default().fingerprint(),
    };
    change(&mut key);
    let request = TokenRequest {
        url: key.url.parse().unwrap(),
        credentials: Credentials { client_id: key.client_id.clone(), client_secret: "secret".into() },
        authentication: key.authentication,
        scopes: key.scopes.clone(),
        audience: key.audience.clone(),
        parameters: key.parameters.clone(),
        timeout: key.timeout,
        http,
    };
    cache.source(key, || request)
}
