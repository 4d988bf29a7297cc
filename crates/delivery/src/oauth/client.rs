//! Asks a token endpoint once.

use std::time::SystemTime;

use super::{TokenError, TokenRequest, answer::Token, form};
use crate::egress::SendError;

/// A token answer may be this long; of a longer one this much is read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Sends `request` once, whatever the connection: how often a token service is asked is bounded elsewhere.
pub(super) async fn send(request: &TokenRequest) -> Result<Token, TokenError> {
    let encoded = form::encode(request).map_err(|_error| TokenError::Unreachable(SendError::Broken))?;
    let answer = request.http.send_once(encoded, ANSWER_LIMIT, request.timeout).await;
    Token::read(answer.map_err(TokenError::Unreachable)?, SystemTime::now())
}
