//! Why there is no token.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::egress::SendError;

/// Why a token request brought no token. None of these carries anything that the token service sent but its status and
/// a standard error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The service refuses this client; asking again with the same input does not help (RFC 6749, section 5.2).
    #[error("the token service rejected the client: {0}")]
    Rejected(&'static str),
    /// The service answered with what may pass.
    #[error("the token service answered {status}{}{}", in_brackets(*code), advice(*status))]
    Unavailable {
        /// Its status code.
        status: StatusCode,
        /// Its error code, where that is a standard one.
        code: Option<&'static str>,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The service could not be reached.
    #[error("cannot reach the token service: {0}")]
    Unreachable(#[source] SendError),
    /// The answer is no token response (RFC 6749, section 5.1).
    #[error("the response of the token service is not an OAuth 2.0 token response: {0}")]
    Malformed(&'static str),
    /// The operator itself failed.
    #[error("internal error during a token request; see the operator's log")]
    Internal,
}

/// Why there is no token, and when the service will be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct NoToken {
    /// What went wrong.
    #[source]
    pub error: TokenError,
    /// Nobody asks before this.
    pub ask_again: Instant,
}

fn in_brackets(code: Option<&str>) -> String {
    code.map_or_else(String::new, |code| format!(" ({code})"))
}

/// What to do about a status that seldom passes by itself.
fn advice(status: StatusCode) -> &'static str {
    match status {
        _ if status.is_redirection() => ", a redirect; the operator follows no redirects: check tokenService.url",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => ": check tokenService.url",
        _ => "",
    }
}
