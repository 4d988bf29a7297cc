//! Sends one token request.

use std::time::SystemTime;

use super::{
    TokenError, TokenRequest,
    answer::Token,
    encoding::ANSWER_LIMIT,
    form::{self, NotEncoded},
};
use crate::egress::SendError;

/// Sends `request` once, even if a reused connection fails: another module limits the number of token requests.
pub(super) async fn send(request: &TokenRequest) -> Result<Token, TokenError> {
    let encoded = form::encode(request, SystemTime::now(), rand::random()).map_err(|error| match error {
        NotEncoded::Target | NotEncoded::Credentials(_) => TokenError::Unreachable(SendError::Broken),
        NotEncoded::Unsigned(_) => TokenError::Internal,
    })?;
    let answer = request.http.send_once(encoded, ANSWER_LIMIT, request.timeout).await;
    Token::read(answer.map_err(TokenError::Unreachable)?, SystemTime::now())
}
