//! One source of tokens for each key.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{ClientAuthentication, TokenRequest, TokenSource};
use crate::egress::Fingerprint;

/// So many sources are remembered, for an hour at most, that nobody uses any more.
const REMEMBERED: usize = 1024;

/// What makes two tokens the same: tenants never share one, and a changed Secret never meets an old token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenKey {
    /// The namespace that owns the credentials.
    pub namespace: String,
    /// The Secret's uid.
    pub secret_uid: String,
    /// The Secret's resourceVersion.
    pub secret_version: String,
    /// The keys of client id and client secret in it.
    pub secret_keys: [String; 2],
    /// The token endpoint.
    pub url: String,
    /// The client id.
    pub client_id: String,
    /// How the client authenticates.
    pub authentication: ClientAuthentication,
    /// The scopes, in the order they are sent.
    pub scopes: Vec<String>,
    /// The audience.
    pub audience: Option<String>,
    /// Further parameters.
    pub parameters: BTreeMap<String, String>,
    /// What one request may take.
    pub timeout: Duration,
    /// Who is trusted at the endpoint, and the client certificate shown there.
    pub trust: Fingerprint,
}

/// One source of tokens for each key that somebody still holds, or held a short time ago.
pub struct TokenCache {
    sources: Mutex<HashMap<TokenKey, Weak<TokenSource>>>,
    memory: Arc<Semaphore>,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self { sources: Mutex::default(), memory: Arc::new(Semaphore::new(REMEMBERED)) }
    }
}

impl TokenCache {
    /// The source for `key`; `request` makes it when there is none.
    pub fn source(&self, key: TokenKey, request: impl FnOnce() -> TokenRequest) -> Arc<TokenSource> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get(&key).and_then(Weak::upgrade) {
            return source;
        }
        let source = Arc::new(TokenSource::new(request(), self.memory.clone()));
        sources.retain(|_, source| source.strong_count() > 0);
        sources.insert(key, Arc::downgrade(&source));
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        egress::{Client, Egress, Policy, SendError, Trust},
        oauth::{Credentials, TokenError},
    };

    /// A client that may not dial the token service: a request fails at once, and nothing is sent.
    fn http() -> Arc<Client> {
        Egress::new(Policy::default()).client("test", &Trust::default()).unwrap()
    }

    fn source(cache: &TokenCache, http: &Arc<Client>, scope: &str) -> Arc<TokenSource> {
        let key = TokenKey {
            namespace: "test".into(),
            secret_uid: "uid".into(),
            secret_version: "1".into(),
            secret_keys: ["client_id".into(), "client_secret".into()],
            url: "https://127.0.0.1:1/".into(),
            client_id: "id".into(),
            authentication: ClientAuthentication::Basic,
            scopes: vec![scope.into()],
            audience: None,
            parameters: BTreeMap::new(),
            timeout: Duration::from_secs(1),
            trust: Trust::default().fingerprint(),
        };
        cache.source(key.clone(), || TokenRequest {
            url: key.url.parse().unwrap(),
            credentials: Credentials { client_id: key.client_id.clone(), client_secret: "secret".into() },
            authentication: key.authentication,
            scopes: key.scopes.clone(),
            audience: None,
            parameters: BTreeMap::new(),
            timeout: key.timeout,
            http: http.clone(),
        })
    }

    fn alive(cache: &TokenCache) -> usize {
        cache.sources.lock().unwrap().values().filter(|source| source.strong_count() > 0).count()
    }

    #[tokio::test]
    async fn only_what_was_asked_for_is_remembered_and_only_so_many() {
        let (cache, http) = (TokenCache::default(), http());
        let held = source(&cache, &http, "held");
        drop(source(&cache, &http, "never asked for"));
        assert_eq!(alive(&cache), 1);
        for n in 0..REMEMBERED + 100 {
            let failure = source(&cache, &http, &n.to_string()).token().await.unwrap_err();
            assert_eq!(failure.error, TokenError::Unreachable(SendError::Denied));
        }
        assert_eq!(alive(&cache), REMEMBERED + 1);
        assert!(cache.sources.lock().unwrap().len() <= REMEMBERED + 2, "what is forgotten leaves nothing behind");
        drop(held);
        assert_eq!(alive(&cache), REMEMBERED);
    }
}
