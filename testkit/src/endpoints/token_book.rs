//! The tokens that a token service has issued.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_rustls::rustls::crypto::aws_lc_rs;

/// The valid tokens. Clones share one book: the token service writes to it, and the receiver reads it.
#[derive(Clone, Debug, Default)]
pub struct TokenBook(Arc<Mutex<HashMap<String, Grant>>>);

/// The grant of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The client it was issued to.
    pub client_id: String,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// When the token expires; never if absent.
    pub expires: Option<Instant>,
}

impl TokenBook {
    /// Issues a new random token, valid for `life` (forever if absent).
    #[must_use]
    pub fn issue(&self, client_id: &str, scopes: &[String], life: Option<Duration>) -> String {
        let mut random = [0; 32];
        aws_lc_rs::default_provider().secure_random.fill(&mut random).unwrap();
        let token = URL_SAFE_NO_PAD.encode(random);
        let expires = life.map(|life| Instant::now() + life);
        let grant = Grant { client_id: client_id.to_owned(), scopes: scopes.to_vec(), expires };
        self.0.lock().unwrap().insert(token.clone(), grant);
        token
    }

    /// Returns the grant of this token if it was issued here, is not revoked and has not expired.
    #[must_use]
    pub fn check(&self, token: &str) -> Option<Grant> {
        let grant = self.0.lock().unwrap().get(token).cloned()?;
        grant.expires.is_none_or(|expires| expires > Instant::now()).then_some(grant)
    }

    /// Every token that was issued here and not revoked, including expired tokens.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    /// Revokes every token issued so far.
    pub fn revoke_all(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Revokes every token issued to this client so far.
    pub fn revoke(&self, client_id: &str) {
        self.0.lock().unwrap().retain(|_, grant| grant.client_id != client_id);
    }
}
