//! Sends one token request.

use std::time::SystemTime;

use super::{TokenError, TokenRequest, answer::Token, encoding::ANSWER_LIMIT, form};
use crate::egress::SendError;

/// Sends `request` once, even if a reused connection fails: another module limits the number of token requests.
pub(super) async fn send(request: &TokenRequest) -> Result<Token, TokenError> {
    let encoded = form::encode(request).map_err(|_error| TokenError::Unreachable(SendError::Broken))?;
    let answer = request.http.send_once(encoded, ANSWER_LIMIT, request.timeout).await;
    Token::read(answer.map_err(TokenError::Unreachable)?, SystemTime::now())
}
