//! The input of one token request.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded::byte_serialize};

use crate::egress::Client;

/// How the client authenticates at the token endpoint (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// `client_secret_basic`: the Authorization header, with id and secret form-encoded.
    Basic,
    /// The Authorization header with id and secret as they are (RFC 7617), for servers that do not decode them.
    BasicUnencoded,
    /// `client_secret_post`: the form body.
    Post,
}

/// Client id and secret.
pub struct Credentials {
    /// The client identifier; not a secret.
    pub client_id: String,
    /// The client secret.
    pub client_secret: SecretString,
}

/// Identifies the content of credentials within this process: a SHA-256 with a random key of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialsFingerprint([u8; 32]);

/// Shows enough of it to distinguish fingerprints in a log.
impl fmt::Debug for CredentialsFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl Credentials {
    /// Returns the fingerprint: equal for equal credentials.
    pub fn fingerprint(&self) -> CredentialsFingerprint {
        static KEY: LazyLock<[u8; 32]> = LazyLock::new(rand::random);
        let mut hash = Sha256::new_with_prefix(*KEY);
        hash.update(self.client_id.len().to_be_bytes());
        hash.update(&self.client_id);
        hash.update(self.client_secret.expose_secret());
        CredentialsFingerprint(hash.finalize().into())
    }
}

/// Everything that one token request needs.
pub struct TokenRequest {
    /// The token endpoint.
    pub url: Url,
    /// Client id and secret.
    pub credentials: Credentials,
    /// How the credentials are sent.
    pub authentication: AuthMethod,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// The requested audience.
    pub audience: Option<String>,
    /// Additional parameters, whose names OAuth does not define for this request.
    pub parameters: BTreeMap<String, String>,
    /// The timeout of the whole exchange.
    pub timeout: Duration,
    /// The HTTP client.
    pub http: Arc<Client>,
}

/// What a token request has, for advice after a rejection. No value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestOutline {
    /// How the credentials are sent.
    pub authentication: AuthMethod,
    /// Whether form-encoding changes the client id or the client secret.
    pub changes_credentials: bool,
    /// Whether the request has scopes.
    pub has_scopes: bool,
    /// Whether the request names a target: by an audience, or by a resource (RFC 8707).
    pub has_audience: bool,
}

/// The memory that a source takes in addition to the texts of its request.
const OVERHEAD: usize = 1024;

impl TokenRequest {
    /// Whether the Authorization header has another id or secret than the Secret: form-encoding changes them.
    pub(super) fn changes_credentials(&self) -> bool {
        let Credentials { client_id, client_secret } = &self.credentials;
        let encoded = |text: &str| Zeroizing::new(byte_serialize(text.as_bytes()).collect::<String>());
        let is_changed = |text: &str| *encoded(text) != text;
        self.authentication == AuthMethod::Basic && (is_changed(client_id) || is_changed(client_secret.expose_secret()))
    }

    /// Returns what this request has.
    pub(super) fn outline(&self) -> RequestOutline {
        RequestOutline {
            authentication: self.authentication,
            changes_credentials: self.changes_credentials(),
            has_scopes: !self.scopes.is_empty(),
            has_audience: self.audience.is_some() || self.parameters.contains_key("resource"),
        }
    }

    /// Returns the approximate memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let Credentials { client_id, client_secret } = &self.credentials;
        let texts = self.scopes.iter().chain(&self.audience).chain(self.parameters.iter().flat_map(<[_; 2]>::from));
        let texts: usize = texts.map(|text| text.len() + size_of::<String>()).sum();
        OVERHEAD + self.url.as_str().len() + client_id.len() + client_secret.expose_secret().len() + texts
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Two ways to this for a type that can be shown, and the compiler refuses to choose; one for any other.
    trait Hidden<Way> {
        fn is_hidden() {}
    }
    impl<T> Hidden<()> for T {}
    impl<T: Debug> Hidden<u8> for T {}
    struct Written;
    impl<T: serde::Serialize> Hidden<Written> for T {}

    #[test]
    fn s10_types_that_hold_a_secret_can_be_neither_shown_nor_written() {
        // Each line compiles only while its type has neither Debug nor Serialize.
        <Credentials as Hidden<_>>::is_hidden();
        <TokenRequest as Hidden<_>>::is_hidden();
        <crate::oauth::Token as Hidden<_>>::is_hidden();
        <crate::egress::Response as Hidden<_>>::is_hidden();
        <crate::oauth::TokenSource as Hidden<_>>::is_hidden();
    }
}
