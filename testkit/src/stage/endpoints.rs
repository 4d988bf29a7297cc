//! The endpoints of a stage.

use crate::endpoints::{Client, Receiver, TokenService};
use crate::error::Result;
use crate::pki::Authority;

/// A webhook and a token service, with certificates of the same authority. The webhook accepts the tokens of the
/// service.
pub struct Endpoints {
    /// The authority that issued both certificates.
    pub authority: Authority,
    /// The token service.
    pub tokens: TokenService,
    /// The webhook.
    pub receiver: Receiver,
}

/// Endpoints in another process.
pub struct Elsewhere {
    ca_pem: String,
}

impl Endpoints {
    /// Starts both endpoints and registers these clients.
    pub(super) async fn start(clients: Vec<Client>) -> Result<Self> {
        let authority = Authority::new();
        let tokens = TokenService::start(&authority).await?;
        clients.into_iter().for_each(|client| tokens.register(client));
        let receiver = Receiver::start(&authority, tokens.tokens()).await?;
        Ok(Self { authority, tokens, receiver })
    }
}

impl Elsewhere {
    /// Endpoints with certificates of this authority.
    pub(super) fn new(ca_pem: &str) -> Self {
        Self { ca_pem: ca_pem.to_owned() }
    }

    /// The certificate of their authority.
    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}
