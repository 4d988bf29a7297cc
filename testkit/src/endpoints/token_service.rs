//! Runs an OAuth 2.0 token service for the client credentials grant (RFC 6749, section 4.4).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio_rustls::rustls::ServerConfig;

use crate::endpoints::https::HttpsServer;
use crate::endpoints::script::Behaviour;
use crate::endpoints::token_book::TokenBook;
use crate::endpoints::token_client::Client;
use crate::endpoints::token_endpoint::TokenEndpoint;
use crate::endpoints::token_request::TokenRequest;
use crate::error::Result;
use crate::pki::Authority;

/// The default path. Every other path works too, so that tests that share a service can distinguish their requests.
const PATH: &str = "/oauth2/token";

/// A token service over HTTPS. Dropping it closes its port.
pub struct TokenService(HttpsServer<TokenEndpoint>);

impl TokenService {
    /// Starts a service with a certificate of this authority. Its tokens are valid for one hour.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(authority: &Authority) -> Result<Self> {
        Self::start_with(authority.server_config(&[])).await
    }

    /// The same with another TLS configuration, for example one that requires client certificates.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start_with(tls: Arc<ServerConfig>) -> Result<Self> {
        let service = Self(HttpsServer::start(Arc::default(), tls).await?);
        service.set_expires_in(Some(Duration::from_secs(3600)));
        Ok(service)
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// The URL of the token endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(PATH)
    }

    /// The URL of the token endpoint at another path, which has its own scripts and requests.
    #[must_use]
    pub fn url_of(&self, path: &str) -> String {
        format!("https://{}{path}", self.0.address())
    }

    /// Registers a client, or replaces the secret and the scopes of a registered client.
    pub fn register(&self, client: Client) {
        self.endpoint().clients.lock().unwrap().insert(client.id.clone(), client);
    }

    /// Puts a gateway in front, which answers 401 to requests without this header and value.
    ///
    /// # Panics
    /// When the name or the value is invalid.
    pub fn require_header(&self, name: &'static str, value: &str) {
        let header = (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        *self.endpoint().gateway.lock().unwrap() = Some(header);
    }

    /// Sets the lifetime of the tokens issued from now on. Without a value, they never expire and `expires_in` is not
    /// sent.
    pub fn set_expires_in(&self, life: Option<Duration>) {
        *self.endpoint().expires_in.lock().unwrap() = life;
    }

    /// The tokens issued here, for a receiver and for revocation.
    #[must_use]
    pub fn tokens(&self) -> &TokenBook {
        &self.endpoint().book
    }

    /// Answers the next `count` requests to the default path with `behaviour`, whatever they request.
    pub fn answer_next(&self, count: usize, behaviour: &Behaviour) {
        self.answer_next_at(PATH, count, behaviour);
    }

    /// [`TokenService::answer_next`] for another path.
    pub fn answer_next_at(&self, path: &str, count: usize, behaviour: &Behaviour) {
        self.endpoint().scripts.next(path, count, behaviour);
    }

    /// Answers all requests to the default path with `behaviour`, until [`TokenService::behave`].
    pub fn answer_always(&self, behaviour: Behaviour) {
        self.answer_always_at(PATH, behaviour);
    }

    /// [`TokenService::answer_always`] for another path, until [`TokenService::behave_at`].
    pub fn answer_always_at(&self, path: &str, behaviour: Behaviour) {
        self.endpoint().scripts.always(path, behaviour);
    }

    /// Removes the planned behaviors of the default path: requests are answered correctly again.
    pub fn behave(&self) {
        self.behave_at(PATH);
    }

    /// [`TokenService::behave`] for another path.
    pub fn behave_at(&self, path: &str) {
        self.endpoint().scripts.forget(path);
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.endpoint().requests.lock().unwrap().clone()
    }

    /// Every request so far that named this client.
    #[must_use]
    pub fn requests_of(&self, client_id: &str) -> Vec<TokenRequest> {
        let mut requests = self.requests();
        requests.retain(|request| request.client_id.as_deref() == Some(client_id));
        requests
    }

    /// Stops listening: connections are refused until [`TokenService::resume`].
    pub fn stop(&mut self) {
        self.0.stop();
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When another program has taken the port.
    pub async fn resume(&mut self) -> Result<()> {
        self.0.resume().await
    }

    fn endpoint(&self) -> &TokenEndpoint {
        self.0.endpoint()
    }
}
