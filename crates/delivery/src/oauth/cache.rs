//! Keeps one token source for each key.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    mem::Discriminant,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{AuthMethod, CredentialsFingerprint, TokenRequest, TokenSource, lineage::Lineage};
use crate::egress::{Fingerprint, WeakMap};

/// The bytes of one namespace's sources that are kept after their last use, for an hour at most: several hundred
/// ordinary sources, and the largest that a Subscriber can request.
const SHARE: usize = 256 * 1024;

/// Everything that determines a token: tenants never share a token. A changed Secret has a key of its own; the token of
/// the former content serves on only as [`TokenSource::follow`] permits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenKey {
    /// The namespace that owns the credentials.
    pub namespace: String,
    /// The uid of the Secret, or of the ServiceAccount, with the credentials.
    pub secret_uid: String,
    /// The content of the credentials: a change of the Secret that leaves them as they are does not matter.
    pub credentials: CredentialsFingerprint,
    /// How the credentials are sent.
    pub authentication: Discriminant<AuthMethod>,
    /// The keys of the credentials in it.
    pub secret_keys: Vec<String>,
    /// The token endpoint.
    pub url: String,
    /// The client id.
    pub client_id: String,
    /// The scopes, in the order they are sent.
    pub scopes: Vec<String>,
    /// The audience.
    pub audience: Option<String>,
    /// The resources, in the order they are sent.
    pub resources: Vec<String>,
    /// Further parameters.
    pub parameters: BTreeMap<String, String>,
    /// The content of the additional headers.
    pub headers: CredentialsFingerprint,
    /// The timeout of a request.
    pub timeout: Duration,
    /// The trust in the endpoint, and the client certificate for it.
    pub trust: Fingerprint,
}

/// A SHA-256 of a whole key, which distinguishes keys without storing them.
type KeyHash = [u8; 32];

/// One token source for each key that is in use or was in use recently.
#[derive(Default)]
pub struct TokenCache(Mutex<Sources>);

#[derive(Default)]
struct Sources {
    by_key: WeakMap<KeyHash, TokenSource>,
    /// The bytes that each namespace may still keep.
    memories: WeakMap<String, Semaphore>,
}

impl TokenCache {
    /// Returns the source for `key`. `request` makes it if there is none.
    pub fn source(&self, key: TokenKey, request: impl FnOnce() -> TokenRequest) -> Arc<TokenSource> {
        let hash = key.hashed();
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.by_key.get(&hash) {
            return source;
        }
        let (lineage, memory) = (key.lineage(), sources.memory(key.namespace));
        let source = Arc::new(TokenSource::new(request(), lineage, memory));
        sources.by_key.insert(hash, &source);
        source
    }
}

impl Sources {
    /// Returns the memory of a namespace, which its sources share.
    fn memory(&mut self, namespace: String) -> Arc<Semaphore> {
        self.memories.get(&namespace).unwrap_or_else(|| {
            let memory = Arc::new(Semaphore::new(SHARE));
            self.memories.insert(namespace, &memory);
            memory
        })
    }
}

impl TokenKey {
    /// The uid of the Secret is a part: only users of the same Secret share a token.
    fn lineage(&self) -> Lineage {
        let Self {
            namespace,
            secret_uid,
            credentials,
            // Neither changes what a token permits, nor whom the service accepts.
            secret_keys: _,
            timeout: _,
            authentication,
            url,
            client_id,
            scopes,
            audience,
            resources,
            parameters,
            headers,
            trust,
        } = self;
        let tokens = hash(&(
            (namespace, secret_uid, url, client_id, authentication, scopes, audience),
            (resources, parameters, headers, trust),
        ));
        Lineage { tokens, credentials: *credentials }
    }

    fn hashed(&self) -> KeyHash {
        hash(self)
    }
}

/// Hashes a key. Each part goes in behind its length or with its end, so no two keys run together into one text.
fn hash(key: &impl Hash) -> KeyHash {
    struct Hashing(Sha256);
    impl Hasher for Hashing {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0 // it is not used
        }
    }
    let mut hashing = Hashing(Sha256::new());
    key.hash(&mut hashing);
    hashing.0.finalize().into()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::{
        egress::{Client, Egress, Policy, SendError, Trust},
        oauth::{AuthMethod, Credentials, TokenError},
    };

    /// A client that may not dial the token service: a request fails at once, and nothing is sent.
    fn http() -> Arc<Client> {
        Egress::new(Policy::default()).client("test", &Trust::default()).unwrap()
    }

    fn source(cache: &TokenCache, http: &Arc<Client>, namespace: &str, scope: &str) -> Arc<TokenSource> {
        let authentication = AuthMethod::Basic("secret".into());
        let credentials = Credentials { client_id: "id".into(), authentication };
        let key = TokenKey {
            namespace: namespace.into(),
            secret_uid: "uid".into(),
            credentials: credentials.fingerprint(),
            authentication: credentials.method(),
            secret_keys: vec!["client_id".into(), "client_secret".into()],
            url: "https://127.0.0.1:1/".into(),
            client_id: "id".into(),
            scopes: vec![scope.into()],
            audience: None,
            resources: Vec::new(),
            parameters: BTreeMap::new(),
            headers: CredentialsFingerprint::of_headers(&HeaderMap::new()),
            timeout: Duration::from_secs(1),
            trust: Trust::default().fingerprint(),
        };
        cache.source(key.clone(), || TokenRequest {
            url: key.url.parse().unwrap(),
            credentials,
            scopes: key.scopes.clone(),
            audience: None,
            resources: Vec::new(),
            parameters: BTreeMap::new(),
            headers: HeaderMap::new(),
            timeout: key.timeout,
            http: http.clone(),
        })
    }

    fn alive(cache: &TokenCache) -> usize {
        cache.0.lock().unwrap().by_key.held()
    }

    async fn ask(source: Arc<TokenSource>) {
        let failure = source.token().await.unwrap_err();
        assert_eq!(failure.error, TokenError::Unreachable(SendError::Denied));
    }

    #[tokio::test]
    async fn s17_only_requested_tokens_are_remembered_within_a_share_of_bytes() {
        let (cache, http) = (TokenCache::default(), http());
        let held = source(&cache, &http, "noisy", "held");
        drop(source(&cache, &http, "noisy", "never requested"));
        assert_eq!(alive(&cache), 1);
        for n in 0..1100 {
            ask(source(&cache, &http, "noisy", &format!("{n} {}", "x".repeat(2000)))).await;
        }
        let remembered = alive(&cache) - 1;
        assert!((50..=SHARE / 2000).contains(&remembered), "{remembered} are remembered");
        let entries = cache.0.lock().unwrap().by_key.entries();
        assert!(entries <= 2 * (remembered + 2), "what is forgotten leaves little behind: {entries}");
        // Whatever that namespace does, the memory of another one is its own.
        for n in 0..10 {
            ask(source(&cache, &http, "quiet", &n.to_string())).await;
        }
        assert_eq!(alive(&cache), 1 + remembered + 10);
        drop(held);
        assert_eq!(alive(&cache), remembered + 10);
    }

    #[tokio::test]
    async fn s17_a_source_larger_than_the_share_is_not_remembered_and_takes_nothing_from_others() {
        let (cache, http) = (TokenCache::default(), http());
        ask(source(&cache, &http, "test", &"x".repeat(SHARE))).await;
        assert_eq!(alive(&cache), 0);
        ask(source(&cache, &http, "test", "small")).await;
        assert_eq!(alive(&cache), 1);
    }
}
