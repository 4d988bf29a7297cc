//! Describes a client of a token service.

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::control_plane::Kubectl;
use crate::endpoints::token_review::TokenReviewer;

/// A registered client.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) id: String,
    pub(crate) proof: Proof,
    pub(crate) scopes: Vec<String>,
}

/// What proves a client's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// This secret.
    Secret(String),
    /// Exactly this client certificate, in DER.
    Certificate(Vec<u8>),
    /// This assertion.
    Assertion(String),
    /// An assertion that is a token of this ServiceAccount, and that was not used before.
    ServiceAccount(TokenReviewer),
}

/// How a client authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// `client_secret_basic`: HTTP Basic.
    Basic,
    /// `client_secret_post`: in the body.
    Post,
    /// `tls_client_auth`: the client certificate, which the TLS configuration verifies.
    Tls,
    /// An assertion in the body (RFC 7523, section 2.2).
    Assertion,
}

impl Client {
    /// A client with its secret. It may request no scopes unless [`Client::scopes`] adds them.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { id: id.into(), proof: Proof::Secret(secret.into()), scopes: Vec::new() }
    }

    /// A client without a secret: it authenticates with exactly this certificate (RFC 8705, section 2.2).
    ///
    /// # Panics
    /// When the PEM contains no certificate.
    pub fn with_certificate(id: impl Into<String>, certificate_pem: &str) -> Self {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap();
        Self { id: id.into(), proof: Proof::Certificate(certificate.to_vec()), scopes: Vec::new() }
    }

    /// A client without a secret: it authenticates with tokens for `audience` of the ServiceAccount with this user name
    /// (`system:serviceaccount:NAMESPACE:NAME`), which the API server of `kubectl` reviews, each token once.
    pub fn with_service_account(id: impl Into<String>, kubectl: &Kubectl, audience: &str, username: &str) -> Self {
        let reviewer = TokenReviewer::new(kubectl, audience, username);
        Self { id: id.into(), proof: Proof::ServiceAccount(reviewer), scopes: Vec::new() }
    }

    /// The secret. Empty if the client has none.
    pub(crate) fn secret(&self) -> &str {
        match &self.proof {
            Proof::Secret(secret) => secret,
            Proof::Certificate(_) | Proof::Assertion(_) | Proof::ServiceAccount(_) => "",
        }
    }

    /// Sets the scopes that the client may request.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }
}
