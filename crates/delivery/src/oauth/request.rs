//! The input of one token request.

use std::{
    collections::BTreeMap,
    mem::{self, Discriminant},
    sync::Arc,
    time::Duration,
};

use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use url::{Url, form_urlencoded::byte_serialize};

use super::{AssertionIssuer, CredentialsFingerprint, IssuedAssertions};
use crate::egress::Client;

/// How the client authenticates at the token endpoint, with what that needs.
pub enum AuthMethod {
    /// `client_secret_basic` (RFC 6749, section 2.3.1): the Authorization header, with id and secret form-encoded.
    Basic(SecretString),
    /// The Authorization header with id and secret as they are (RFC 7617), for servers that do not decode them.
    BasicUnencoded(SecretString),
    /// `client_secret_post` (RFC 6749, section 2.3.1): the form body.
    Post(SecretString),
    /// `tls_client_auth` and `self_signed_tls_client_auth` (RFC 8705, section 2): the client certificate of the
    /// connection, with the client id in the form body.
    Tls,
    /// `private_key_jwt` (RFC 7523, section 2.2): a new assertion for each request, in the form body.
    PrivateKeyJwt(AssertionIssuer),
    /// A new assertion of another party for each request (RFC 7523, section 2.2), in the form body.
    IssuedAssertion(IssuedAssertions),
}

/// What a client proves its identity with, for advice about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// A client secret in the Authorization header, form-encoded.
    Basic {
        /// Whether form-encoding changes the client id or the client secret.
        is_changed: bool,
    },
    /// A client secret in the Authorization header, as it is.
    BasicUnencoded,
    /// A client secret in the form body.
    Post,
    /// The client certificate.
    Certificate,
    /// An assertion that the client's private key signed.
    Assertion,
    /// An assertion that another party issued for the client.
    IssuedAssertion,
}

/// Client id, and what proves the client's identity.
pub struct Credentials {
    /// The client identifier; not a secret.
    pub client_id: String,
    /// How the client authenticates.
    pub authentication: AuthMethod,
}

impl Credentials {
    /// Returns the fingerprint: equal for equal credentials, however they are sent.
    pub fn fingerprint(&self) -> CredentialsFingerprint {
        let (kind, parts): (&[u8], Vec<&[u8]>) = match &self.authentication {
            AuthMethod::Basic(secret) | AuthMethod::BasicUnencoded(secret) | AuthMethod::Post(secret) => {
                (b"secret", vec![secret.expose_secret().as_bytes()])
            }
            AuthMethod::Tls => (b"certificate", Vec::new()),
            AuthMethod::PrivateKeyJwt(issuer) => (b"key", vec![&issuer.fingerprint().0[..]]),
            AuthMethod::IssuedAssertion(issued) => (b"issued", vec![&issued.fingerprint().0[..]]),
        };
        CredentialsFingerprint::of([kind, self.client_id.as_bytes()].into_iter().chain(parts))
    }

    /// Returns how the client authenticates, without what that needs.
    pub fn method(&self) -> Discriminant<AuthMethod> {
        mem::discriminant(&self.authentication)
    }
}

/// Everything that one token request needs.
pub struct TokenRequest {
    /// The token endpoint.
    pub url: Url,
    /// The client, and how it authenticates.
    pub credentials: Credentials,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// The requested audience.
    pub audience: Option<String>,
    /// The resources, each a parameter of its own (RFC 8707, section 2).
    pub resources: Vec<String>,
    /// Additional parameters, whose names OAuth does not define for this request.
    pub parameters: BTreeMap<String, String>,
    /// Additional headers, none of which this module sets itself.
    pub headers: HeaderMap,
    /// The timeout of the whole exchange.
    pub timeout: Duration,
    /// The HTTP client.
    pub http: Arc<Client>,
}

/// What a token request has, for advice after a rejection. No value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestOutline {
    /// What the client proves its identity with.
    pub proof: ClientProof,
    /// Whether the request has scopes.
    pub has_scopes: bool,
    /// Whether the request names a target: by an audience, or by a resource (RFC 8707).
    pub has_audience: bool,
}

/// The memory that a source takes in addition to the texts of its request.
const OVERHEAD: usize = 1024;

impl TokenRequest {
    /// What the client proves its identity with.
    fn proof(&self) -> ClientProof {
        let is_changed = |text: &str| {
            let encoded = Zeroizing::new(byte_serialize(text.as_bytes()).collect::<String>());
            *encoded != text
        };
        match &self.credentials.authentication {
            AuthMethod::Basic(secret) => ClientProof::Basic {
                is_changed: is_changed(&self.credentials.client_id) || is_changed(secret.expose_secret()),
            },
            AuthMethod::BasicUnencoded(_) => ClientProof::BasicUnencoded,
            AuthMethod::Post(_) => ClientProof::Post,
            AuthMethod::Tls => ClientProof::Certificate,
            AuthMethod::PrivateKeyJwt(_) => ClientProof::Assertion,
            AuthMethod::IssuedAssertion(_) => ClientProof::IssuedAssertion,
        }
    }

    /// Returns what this request has.
    pub(super) fn outline(&self) -> RequestOutline {
        RequestOutline {
            proof: self.proof(),
            has_scopes: !self.scopes.is_empty(),
            has_audience: self.audience.is_some()
                || !self.resources.is_empty()
                || self.parameters.contains_key("resource"),
        }
    }

    /// Returns the approximate memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let Credentials { client_id, authentication } = &self.credentials;
        let texts = self
            .scopes
            .iter()
            .chain(&self.audience)
            .chain(&self.resources)
            .chain(self.parameters.iter().flat_map(<[_; 2]>::from));
        let texts: usize = texts.map(|text| text.len() + size_of::<String>()).sum();
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let texts = texts + headers.sum::<usize>();
        let secret = match authentication {
            AuthMethod::Basic(secret) | AuthMethod::BasicUnencoded(secret) | AuthMethod::Post(secret) => {
                secret.expose_secret().len()
            }
            AuthMethod::Tls => 0,
            AuthMethod::PrivateKeyJwt(issuer) => issuer.bytes(),
            AuthMethod::IssuedAssertion(issued) => issued.bytes(),
        };
        OVERHEAD + self.url.as_str().len() + client_id.len() + secret + texts
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
        <AuthMethod as Hidden<_>>::is_hidden();
        <crate::oauth::AssertionIssuer as Hidden<_>>::is_hidden();
        <crate::oauth::ClientKey as Hidden<_>>::is_hidden();
        <crate::oauth::IssuedAssertions as Hidden<_>>::is_hidden();
        <TokenRequest as Hidden<_>>::is_hidden();
        <crate::oauth::Token as Hidden<_>>::is_hidden();
        <crate::egress::Response as Hidden<_>>::is_hidden();
        <crate::oauth::TokenSource as Hidden<_>>::is_hidden();
    }
}
