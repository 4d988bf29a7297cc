//! Sends one token request.

use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use super::{
    AuthMethod, TokenError, TokenRequest,
    answer::Token,
    encoding::ANSWER_LIMIT,
    form::{self, NotEncoded},
};
use crate::egress::SendError;

/// Sends `request` once, even if a reused connection fails: another module limits the number of token requests.
pub(super) async fn send(request: &TokenRequest) -> Result<Token, TokenError> {
    let assertion = assertion(request).await?;
    let encoded = form::encode(request, assertion.as_ref().map(ExposeSecret::expose_secret));
    drop(assertion);
    let encoded = encoded.map_err(|error| match error {
        NotEncoded::Target | NotEncoded::Credentials(_) => TokenError::Unreachable(SendError::Broken),
        NotEncoded::NoAssertion => TokenError::Internal,
    })?;
    let answer = request.http.send_once(encoded, ANSWER_LIMIT, request.timeout).await;
    Token::read(answer.map_err(TokenError::Unreachable)?, SystemTime::now())
}

/// The client assertion of this request, if the client authenticates with one.
async fn assertion(request: &TokenRequest) -> Result<Option<SecretString>, TokenError> {
    let credentials = &request.credentials;
    match &credentials.authentication {
        AuthMethod::PrivateKeyJwt(issuer) => {
            let issued = issuer.issue(&credentials.client_id, SystemTime::now(), rand::random());
            Ok(Some(issued.map_err(|_unsigned| TokenError::Internal)?))
        }
        AuthMethod::IssuedAssertion(issued) => Ok(Some(issued.next().await?)),
        AuthMethod::Basic(_) | AuthMethod::BasicUnencoded(_) | AuthMethod::Post(_) | AuthMethod::Tls => Ok(None),
    }
}
