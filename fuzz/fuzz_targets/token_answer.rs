//! Fuzzes the responses of a token service.
#![no_main]

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value, json, value::RawValue};
use tidings_delivery::{
    egress::Response,
    oauth::{Token, TokenError},
};

/// A secret that no error may contain.
const CANARY: &str = "canary-7f3a";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The first bytes of what gzip has packed.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// The limit of a token response, in bytes.
const LIMIT: usize = 64 * 1024;

fn read(status: StatusCode, retry_after: &HeaderValue, body: &[u8], complete: bool) -> Result<Token, TokenError> {
    let headers = HeaderMap::from_iter([(RETRY_AFTER, retry_after.clone())]);
    let answer = Response { status, headers, body: body.to_vec().into(), complete };
    let result = Token::read(answer, SystemTime::UNIX_EPOCH);
    match &result {
        Ok(token) => check_token(token),
        Err(error) => check_error(error, status),
    }
    result
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn check_token(token: &Token) {
    let text = token.authorization.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    assert!(token.authorization.is_sensitive());
    assert!((Duration::from_secs(1)..=DAY).contains(&token.lifetime), "{:?}", token.lifetime);
}

fn check_error(error: &TokenError, answered: StatusCode) {
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(CANARY) && shown.len() < 400, "{shown}");
    match error {
        TokenError::Unavailable { status, retry_after, .. } => {
            assert_eq!(*status, answered);
            assert!(retry_after.is_none_or(|wait| !wait.is_zero() && wait <= DAY));
        }
        TokenError::Rejected(_) => assert!(!answered.is_server_error() && !answered.is_redirection()),
        TokenError::Unauthorized => assert_eq!(answered, StatusCode::UNAUTHORIZED),
        TokenError::Malformed(_) => assert!(answered.is_success()),
        // No response here has the header, and no credentials are known here.
        TokenError::Encoded(_)
        | TokenError::NotAcceptedYet(_)
        | TokenError::NoAssertion(_)
        | TokenError::Unreachable(_)
        | TokenError::Internal => panic!("{shown}"),
    }
}

// The first line is the status, followed by ` cut` if the body is incomplete. The second line is Retry-After. The rest
// is the body.
fuzz_target!(|input: &[u8]| -> Corpus {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let (Some(status), Some(retry_after), Some(body)) = (lines.next(), lines.next(), lines.next()) else {
        return Corpus::Reject;
    };
    let (status, complete) = status.strip_suffix(b" cut").map_or((status, true), |status| (status, false));
    let (Ok(status), Ok(retry_after)) = (StatusCode::from_bytes(status), HeaderValue::from_bytes(retry_after)) else {
        return Corpus::Reject;
    };
    let result = read(status, &retry_after, body, complete);
    if body.len() <= LIMIT && !body.starts_with(GZIP) {
        // A packed response has the same meaning.
        let packed = read(status, &retry_after, &gzip(body), complete);
        let meaning = |result: &Result<Token, TokenError>| match result {
            Ok(token) => Ok(token.authorization.clone()),
            Err(error) => Err(error.clone()),
        };
        assert_eq!(meaning(&packed), meaning(&result));
    }
    if !body.starts_with(GZIP)
        && let Ok(token) = result
    {
        assert!(status.is_success());
        // The token is the access_token of the body, and no other field contradicts it.
        let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let body = serde_json::from_slice::<Value>(text);
        // A connection that breaks after the last brace costs nothing.
        assert!(complete || serde_json::from_slice::<&RawValue>(text).is_ok());
        if let Ok(body) = body {
            assert_eq!(token.authorization, format!("Bearer {}", body["access_token"].as_str().unwrap()));
            let is_bearer = |token_type: &str| {
                let word = token_type.trim().to_ascii_lowercase().replace([' ', '_', '-'], "");
                matches!(word.as_str(), "bearer" | "bearertoken")
            };
            assert!(body["token_type"].is_null() || is_bearer(body["token_type"].as_str().unwrap()));
            assert!(body["error"].as_str().is_none_or(str::is_empty));
        }
    }

    // Any token is either put into the header unchanged or rejected.
    if let Ok(text) = str::from_utf8(body) {
        let token = format!("{CANARY}{text}");
        let body = json!({ "access_token": token, "token_type": "bearer" }).to_string();
        match read(StatusCode::OK, &retry_after, body.as_bytes(), true) {
            Ok(read) => assert_eq!(read.authorization, format!("Bearer {token}")),
            Err(_) => assert!(!token.bytes().all(|byte| byte.is_ascii_graphic()), "{token}"),
        }
        let refusal = json!({ "error": token, "error_description": CANARY, "access_token": CANARY }).to_string();
        assert!(read(status, &retry_after, refusal.as_bytes(), complete).is_err());
    }
    Corpus::Keep
});
