//! One token request.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::FutureExt;
use http::{HeaderValue, StatusCode};
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, Scope, TokenResponse, TokenUrl,
    basic::{BasicClient, BasicErrorResponseType, BasicTokenType},
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::egress::{Client, SendError, retry_after};

/// A token answer may be this long; longer ones are refused.
const ANSWER_LIMIT: usize = 64 * 1024;
/// What a token without `expires_in` is taken to live (RFC 6749, section 5.1 leaves it open).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// No lifetime is believed beyond this, nor any Retry-After.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How the client authenticates at the token endpoint (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAuthentication {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// Client id and secret.
pub struct Credentials {
    /// The client identifier; not a secret.
    pub client_id: String,
    /// The client secret.
    pub client_secret: SecretString,
}

/// Everything that one token request needs.
pub struct TokenRequest {
    /// The token endpoint.
    pub url: Url,
    /// Client id and secret.
    pub credentials: Credentials,
    /// How they are sent.
    pub authentication: ClientAuthentication,
    /// The scopes to ask for.
    pub scopes: Vec<String>,
    /// The audience to ask for.
    pub audience: Option<String>,
    /// What the whole exchange may take.
    pub timeout: Duration,
    /// The way out.
    pub http: Arc<Client>,
}

/// A token, ready for the Authorization header.
pub struct Token {
    /// `Bearer …` (RFC 6750, section 2.1), marked sensitive.
    pub authorization: HeaderValue,
    /// How long it lives from the moment it was asked for.
    pub lifetime: Duration,
}

/// Why there is no token. None of these carries anything that the token service sent but its standard error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The service refuses this client; asking again with the same input does not help (RFC 6749, section 5.2).
    #[error("the token service refuses: {0}")]
    Rejected(&'static str),
    /// The service answered with a status that may pass.
    #[error("the token service answered {status}")]
    Unavailable {
        /// Its status code.
        status: StatusCode,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The service could not be reached.
    #[error("the token service could not be reached: {0}")]
    Unreachable(#[source] SendError),
    /// The answer is no token response (RFC 6749, section 5.1).
    #[error("the token service's answer is not an OAuth 2.0 token response: {0}")]
    Malformed(&'static str),
}

impl TokenRequest {
    /// Asks the token endpoint once.
    pub async fn send(&self) -> Result<Token, TokenError> {
        let url = TokenUrl::from_url(self.url.clone());
        let client = BasicClient::new(ClientId::new(self.credentials.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.credentials.client_secret.expose_secret().into()))
            .set_token_uri(url)
            .set_auth_type(match self.authentication {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Post => AuthType::RequestBody,
            });
        let mut request = client.exchange_client_credentials().add_scopes(self.scopes.iter().cloned().map(Scope::new));
        if let Some(audience) = &self.audience {
            request = request.add_extra_param("audience", audience);
        }
        let (http, timeout) = (self.http.clone(), self.timeout);
        let exchange = move |request| exchange(http.clone(), timeout, request);
        // Boxed: otherwise the compiler cannot see that the future is Send (rust-lang/rust#100013).
        let answer = request.request_async(&exchange).boxed().await.map_err(sort)?;
        if *answer.token_type() != BasicTokenType::Bearer {
            return Err(TokenError::Malformed("token_type is not Bearer"));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", answer.access_token().secret()))
            .map_err(|_| TokenError::Malformed("access_token has characters that cannot stand in a header"))?;
        authorization.set_sensitive(true);
        Ok(Token { authorization, lifetime: answer.expires_in().unwrap_or(DEFAULT_LIFETIME).min(LONGEST) })
    }
}

/// Sends a request for the OAuth library, and keeps from it what it would take for a broken answer.
async fn exchange(http: Arc<Client>, timeout: Duration, request: HttpRequest) -> Result<HttpResponse, TokenError> {
    let answer = http.send(request, ANSWER_LIMIT, timeout).await.map_err(TokenError::Unreachable)?;
    let status = answer.status;
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() || status.is_redirection() {
        let retry_after = retry_after(&answer.headers, SystemTime::now()).map(|wait| wait.min(LONGEST));
        return Err(TokenError::Unavailable { status, retry_after });
    }
    if !answer.complete {
        return Err(TokenError::Malformed("the answer is too long or broke off"));
    }
    if status.is_client_error() && serde_json::from_slice::<serde_json::Value>(&answer.body).is_err() {
        return Err(TokenError::Unavailable { status, retry_after: None });
    }
    let mut response = HttpResponse::new(answer.body);
    *response.status_mut() = status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

/// Sorts a failure without showing it: what the library holds may quote the answer, and that may hold the token.
fn sort(error: RequestTokenError<TokenError, oauth2::basic::BasicErrorResponse>) -> TokenError {
    match error {
        RequestTokenError::Request(error) => error,
        RequestTokenError::ServerResponse(response) => TokenError::Rejected(match response.error() {
            BasicErrorResponseType::InvalidClient => "invalid_client",
            BasicErrorResponseType::InvalidGrant => "invalid_grant",
            BasicErrorResponseType::InvalidRequest => "invalid_request",
            BasicErrorResponseType::InvalidScope => "invalid_scope",
            BasicErrorResponseType::UnauthorizedClient => "unauthorized_client",
            BasicErrorResponseType::UnsupportedGrantType => "unsupported_grant_type",
            BasicErrorResponseType::Extension(_) => "an error code that RFC 6749 does not know",
        }),
        RequestTokenError::Parse(..) => TokenError::Malformed("a field is missing or has a wrong type"),
        RequestTokenError::Other(_) => TokenError::Malformed("not JSON, or empty"),
    }
}
