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
