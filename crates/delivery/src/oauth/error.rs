//! Token errors.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::NoAssertion;
use crate::egress::{SendError, TokenRequestResult};

/// Why a token request returned no token. The errors contain nothing that the token service sent except the status and
/// a standard error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The service rejects this client; the same request will fail again (RFC 6749, section 5.2).
    #[error("the token service rejected the client: {0}")]
    Rejected(&'static str),
    /// The service answered 401 without the code of a refusal. The same request will fail again.
    #[error("the token service answered 401 Unauthorized")]
    Unauthorized,
    /// The service rejects credentials that replaced accepted credentials a short time ago. Some services need time
    /// until they accept new credentials. Holds the error code, if there is one.
    #[error("the token service does not accept the new client credentials yet: {}", .0.unwrap_or("401 Unauthorized"))]
    NotAcceptedYet(Option<&'static str>),
    /// The service responded with a temporary failure.
    #[error("the token service answered {status}{}{}{}", in_brackets(*code), encoded(*encoding), advice(*status))]
    Unavailable {
        /// The status code.
        status: StatusCode,
        /// The error code, if it is a standard code.
        code: Option<&'static str>,
        /// The content encoding of the body, if the operator cannot read it.
        encoding: Option<&'static str>,
        /// The requested pause (Retry-After).
        retry_after: Option<Duration>,
    },
    /// The service could not be reached.
    #[error("cannot reach the token service: {0}")]
    Unreachable(#[source] SendError),
    /// The response is not a token response (RFC 6749, section 5.1).
    #[error("the response of the token service is not an OAuth 2.0 token response: {0}")]
    Malformed(&'static str),
    /// The response has a content encoding that the operator cannot read (RFC 9110, section 8.4).
    #[error(
        "the response of the token service has {0}, which the operator cannot read: have the token service, or the gateway in front of it, obey the request header Accept-Encoding: identity"
    )]
    Encoded(&'static str),
    /// The party that issues the client's assertions issued none; no request was sent.
    #[error(transparent)]
    NoAssertion(#[from] NoAssertion),
    /// The operator itself failed.
    #[error("internal error during a token request; see the operator's log")]
    Internal,
}

impl TokenError {
    /// The result of a request that failed with this error, for metrics.
    pub(super) fn result(&self) -> TokenRequestResult {
        match self {
            Self::Rejected(_) | Self::NotAcceptedYet(Some(_)) => TokenRequestResult::Rejected,
            Self::Unauthorized | Self::NotAcceptedYet(None) => TokenRequestResult::Unauthorized,
            Self::Unavailable { .. } => TokenRequestResult::Unavailable,
            Self::Unreachable(_) => TokenRequestResult::Unreachable,
            Self::Malformed(_) | Self::Encoded(_) => TokenRequestResult::Malformed,
            Self::NoAssertion(_) => TokenRequestResult::NoAssertion,
            Self::Internal => TokenRequestResult::Internal,
        }
    }
}

/// Why there is no token, and when the next request follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct NoToken {
    /// The error.
    #[source]
    pub error: TokenError,
    /// No request is sent before this instant.
    pub ask_again: Instant,
}

fn in_brackets(code: Option<&str>) -> String {
    code.map_or_else(String::new, |code| format!(" ({code})"))
}

fn encoded(encoding: Option<&str>) -> String {
    encoding.map_or_else(String::new, |encoding| format!(", with {encoding}, which the operator cannot read"))
}

/// Returns advice about a status that rarely resolves by itself.
fn advice(status: StatusCode) -> &'static str {
    match status {
        _ if status.is_redirection() => ", a redirect; the operator follows no redirects: check tokenService.url",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => ": check tokenService.url",
        _ => "",
    }
}
