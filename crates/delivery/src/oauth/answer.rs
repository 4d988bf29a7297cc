//! Parses the response of a token endpoint (RFC 6749, section 5). Pure.

use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};
use oauth2::basic::BasicErrorResponseType;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    TokenError,
    encoding::{UnpackedBody, unreadable},
    secret_header::secret_header,
};
use crate::egress::{Response, retry_after};

/// The lifetime of a token without `expires_in` (RFC 6749, section 5.1 leaves it open).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// The minimum lifetime: with less, every delivery would request its own token.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
/// The maximum lifetime and Retry-After.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The codes of RFC 6749, section 5.2: permanent refusals.
static REFUSALS_OF_OAUTH: [BasicErrorResponseType; 6] = [
    BasicErrorResponseType::InvalidRequest,
    BasicErrorResponseType::InvalidClient,
    BasicErrorResponseType::InvalidGrant,
    BasicErrorResponseType::UnauthorizedClient,
    BasicErrorResponseType::UnsupportedGrantType,
    BasicErrorResponseType::InvalidScope,
];
/// Codes of other permanent refusals: only another spec, Secret or registration resolves them.
const REFUSALS: &[&str] = &[
    // RFC 6749, section 4.1.2.1, and RFC 8628, section 3.5: a decision of the service.
    "access_denied",
    // RFC 8707, section 2: the parameter `resource`. RFC 9396, section 5: `authorization_details`.
    "invalid_target",
    "invalid_authorization_details",
    // Microsoft Entra ID, for the same as `invalid_target`.
    "invalid_resource",
    // RFC 9449, sections 5 and 8: the service requires proofs of possession, which Tidings does not support.
    "invalid_dpop_proof",
    "use_dpop_nonce",
];

/// Standard codes of temporary failures: RFC 6749, section 4.1.2.1, and RFC 8628, section 3.5.
const TROUBLES: &[&str] = &["server_error", "temporarily_unavailable", "slow_down"];

/// A token, ready for the Authorization header.
pub struct Token {
    /// `Bearer …` (RFC 6750, section 2.1), marked sensitive.
    pub authorization: HeaderValue,
    /// The lifetime, from the moment of the request.
    pub lifetime: Duration,
}

/// The relevant fields, each as its JSON text, so that a wrong type is reported and does not fail the parsing.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    access_token: Option<&'a RawValue>,
    #[serde(borrow)]
    token_type: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    /// The same in Apigee's default format.
    #[serde(borrow, rename = "ErrorCode")]
    error_code: Option<&'a RawValue>,
}

impl Token {
    /// Parses a response.
    ///
    /// The body counts, not its Content-Type or Content-Encoding, which real services often get wrong. A body that is
    /// packed with gzip is unpacked. Success need not be 200, and a failure may be any status. A status that means a
    /// temporary failure takes precedence over the body. A 401 is a refusal of the client whatever the body says. A
    /// body that is a complete JSON object is complete, even if the connection ended without saying so.
    pub fn read(answer: Response, now: SystemTime) -> Result<Self, TokenError> {
        let Response { status, headers, body, complete } = answer;
        let unavailable = |code, encoding| {
            let retry_after = retry_after(&headers, now).map(|wait| wait.min(LONGEST));
            TokenError::Unavailable { status, code, encoding, retry_after }
        };
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() || status.is_redirection() {
            return Err(unavailable(None, None));
        }
        let UnpackedBody { body, fault } = UnpackedBody::unpack(body, complete);
        let fields = fields(&body);
        let code = fields
            .as_ref()
            .and_then(|fields| fields.error.or(fields.error_code))
            .map(|error| text(error).unwrap_or_default());
        if let Some(code) = &code {
            let is_code = |known: &&'static str| *known == code.as_str();
            let refusals = REFUSALS_OF_OAUTH.iter().map(AsRef::as_ref).chain(REFUSALS.iter().copied());
            if let Some(code) = { refusals }.find(is_code) {
                return Err(TokenError::Rejected(code));
            }
            if status != StatusCode::UNAUTHORIZED
                && let Some(code) = TROUBLES.iter().copied().find(is_code)
            {
                return Err(unavailable(Some(code), None));
            }
        }
        // A body that can be read is not encoded, whatever the header says.
        let encoding = if fields.is_none() { unreadable(&headers) } else { None };
        match fields {
            _ if status == StatusCode::UNAUTHORIZED => Err(TokenError::Unauthorized),
            _ if !status.is_success() => Err(unavailable(None, encoding)),
            None if let Some(encoding) = encoding => Err(TokenError::Encoded(encoding)),
            None if let Some(fault) = fault => Err(TokenError::Malformed(fault)),
            None => Err(TokenError::Malformed("the body is not a JSON object, or has a duplicate field")),
            Some(_) if code.is_some_and(|code| !code.is_empty()) => {
                Err(TokenError::Malformed("the body has a non-standard OAuth 2.0 error code"))
            }
            Some(fields) => token(&fields),
        }
    }
}

fn token(fields: &Fields<'_>) -> Result<Token, TokenError> {
    // A response without token_type can only mean Bearer.
    if let Some(token_type) = fields.token_type
        && !text(token_type).is_some_and(|token_type| is_bearer(&token_type))
    {
        return Err(TokenError::Malformed("token_type is not Bearer"));
    }
    let token = fields.access_token.ok_or(TokenError::Malformed("access_token is missing"))?;
    let token = text(token).ok_or(TokenError::Malformed("access_token is not a string"))?;
    let unfit = TokenError::Malformed("access_token is empty, or has characters that are invalid in a header");
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unfit);
    }
    let authorization = secret_header(Zeroizing::new(format!("Bearer {}", *token))).map_err(|_error| unfit)?;
    Ok(Token { authorization, lifetime: fields.expires_in.map_or(DEFAULT_LIFETIME, lifetime) })
}

/// Whether a token type means Bearer, in any case, or with the word "token": Apigee's default is `BearerToken`.
fn is_bearer(token_type: &str) -> bool {
    let letters = token_type.trim().replace(['_', '-', ' '], "");
    ["bearer", "bearertoken"].iter().any(|known| letters.eq_ignore_ascii_case(known))
}

/// Parses a number of seconds, or a string with a number. A value that is zero, negative or not a number means no
/// lifetime.
fn lifetime(expires_in: &RawValue) -> Duration {
    let number = expires_in.get().trim_matches('"').trim();
    match number.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 => {
            Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())).max(SHORTEST_LIFETIME)
        }
        _ => DEFAULT_LIFETIME,
    }
}

/// Parses the fields of the body, if it is a JSON object. Some services start the body with a byte order mark.
fn fields(body: &[u8]) -> Option<Fields<'_>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    if body.first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// Returns the text of a JSON string.
fn text(value: &RawValue) -> Option<Zeroizing<String>> {
    serde_json::from_str(value.get()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use http::{
        HeaderMap,
        header::{CONTENT_TYPE, RETRY_AFTER},
    };
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.into()),
            complete: true,
        }
    }

    /// What is read of an answer: the header and the seconds of life, or the error.
    fn outcome(answer: Response) -> Result<(String, f64), TokenError> {
        let token = Token::read(answer, SystemTime::UNIX_EPOCH)?;
        Ok((token.authorization.to_str().unwrap().to_owned(), token.lifetime.as_secs_f64()))
    }

    fn error(status: u16, body: &str) -> TokenError {
        outcome(answer(status, body)).unwrap_err()
    }

    fn unavailable(status: u16, code: Option<&'static str>) -> TokenError {
        let status = StatusCode::from_u16(status).unwrap();
        TokenError::Unavailable { status, code, encoding: None, retry_after: None }
    }

    #[test]
    fn expires_in_may_be_a_number_a_numeric_string_or_absent() {
        let cases = [
            ("3600", 3600.0),
            ("\"3600\"", 3600.0),
            ("\" 3600 \"", 3600.0),
            ("3599.5", 3599.5),
            ("\"3599.5\"", 3599.5),
            ("3.6e3", 3600.0),
            ("0.001", 1.0),
            ("86401", 86400.0),
            ("99999999999999999999999999", 86400.0),
            ("1e999", 86400.0),
            ("\"inf\"", 86400.0),
            // None of these says how long it lives.
            ("null", 300.0),
            ("0", 300.0),
            ("-1", 300.0),
            ("\"-3600\"", 300.0),
            ("\"\"", 300.0),
            ("\"soon\"", 300.0),
            ("\"NaN\"", 300.0),
            ("true", 300.0),
            ("[3600]", 300.0),
            ("{\"seconds\":3600}", 300.0),
        ];
        for (expires_in, seconds) in cases {
            let body = format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{expires_in}}}"#);
            assert_eq!(outcome(answer(200, body)), Ok(("Bearer t".into(), seconds)), "{expires_in}");
        }
        assert_eq!(outcome(answer(200, r#"{"access_token":"t","token_type":"Bearer"}"#)).unwrap().1, 300.0);
    }

    #[test]
    fn token_type_is_compared_without_case_and_another_one_is_refused() {
        for token_type in ["\"Bearer\"", "\"bearer\"", "\"BEARER\"", "null"] {
            let body = format!(r#"{{"token_type":{token_type},"access_token":"t"}}"#);
            assert_eq!(outcome(answer(200, body)).unwrap().0, "Bearer t", "{token_type}");
        }
        assert_eq!(outcome(answer(200, r#"{"access_token":"t"}"#)).unwrap().0, "Bearer t");
        for token_type in ["\"mac\"", "\"DPoP\"", "\"\"", "1"] {
            let refused = error(200, &format!(r#"{{"token_type":{token_type},"access_token":"t"}}"#));
            assert_eq!(refused, TokenError::Malformed("token_type is not Bearer"), "{token_type}");
        }
    }

    #[test]
    fn a_token_with_characters_that_cannot_stand_in_a_header_is_refused() {
        for token in [r"a\nb", r"a\r\nX-Injected: 1", "a b", "", r"\u0000", "tökén", r"a\u007f", " a"] {
            let refused = error(200, &format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#));
            assert!(matches!(refused, TokenError::Malformed(why) if why.contains("characters")), "{token}: {refused}");
        }
        for token in ["a-b._~+/=", "1|abc:{x}", r"\u0041"] {
            let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#);
            assert!(outcome(answer(200, body)).is_ok(), "{token}");
        }
    }

    #[test]
    fn the_content_type_does_not_matter_nor_which_success_it_is() {
        let body = r#"{"access_token":"t","token_type":"Bearer","scope":"a","refresh_token":"r","more":{"x":[1]}}"#;
        let types =
            ["application/json", "application/json;charset=UTF-8", "APPLICATION/JSON; charset=utf-8", "text/html"];
        for content_type in types {
            let mut typed = answer(200, body);
            typed.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert!(outcome(typed).is_ok(), "{content_type}");
        }
        for status in [200, 201, 203] {
            assert!(outcome(answer(status, body)).is_ok(), "{status}");
        }
        assert!(outcome(answer(200, [b"\xef\xbb\xbf\r\n ", body.as_bytes()].concat())).is_ok(), "a byte order mark");
    }

    #[test]
    fn what_is_no_token_response_is_refused_and_says_why() {
        let cases = [
            ("", "not a JSON object"),
            ("canary", "not a JSON object"),
            (r#""canary""#, "not a JSON object"),
            (r#"["canary","Bearer"]"#, "not a JSON object"),
            (r#"{"access_token":"canary""#, "not a JSON object"),
            (r#"{"access_token":"canary"} canary"#, "not a JSON object"),
            (r#"{"access_token":"canary","access_token":"other"}"#, "has a duplicate field"),
            (r#"{"token_type":"Bearer"}"#, "access_token is missing"),
            (r#"{"access_token":null}"#, "access_token is missing"),
            (r#"{"access_token":1}"#, "access_token is not a string"),
            (r#"{"access_token":{"canary":1}}"#, "access_token is not a string"),
            (r#"{"access_token":"t","error":"canary"}"#, "a non-standard OAuth 2.0 error code"),
        ];
        for (body, expected) in cases {
            let error = error(200, body);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(expected) && !shown.contains("canary"), "{body}: {shown}");
        }
        let nested = format!(r#"{{"access_token":"t","pad":{}1{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert!(outcome(answer(200, nested)).is_ok(), "depth costs no stack");
        let cut = Response { complete: false, ..answer(200, r#"{"access_token":"t""#) };
        assert_eq!(outcome(cut), Err(TokenError::Malformed("the body is too long or incomplete")));
        assert!(outcome(answer(200, r#"{"access_token":"t","error":null}"#)).is_ok());
        assert!(outcome(answer(200, r#"{"access_token":"t","error":""}"#)).is_ok());
    }

    #[test]
    fn a_standard_code_that_requires_action_is_a_refusal_whatever_the_status() {
        let codes = "invalid_request invalid_client invalid_grant unauthorized_client unsupported_grant_type invalid_scope \
                     access_denied invalid_target invalid_resource";
        for code in codes.split_whitespace() {
            let body = format!(r#"{{"error":"{code}","error_description":"canary","error_uri":"https://canary/"}}"#);
            for status in [200, 400, 401, 403] {
                let error = error(status, &body);
                assert!(matches!(error, TokenError::Rejected(known) if known == code), "{status} {code}: {error}");
                assert!(!format!("{error} {error:?}").contains("canary"));
            }
        }
        for (status, body) in [
            (200, r#"{"error":"invalid_scope","access_token":"t"}"#),
            (400, r#"{"ErrorCode":"invalid_scope","Error":"canary"}"#),
        ] {
            assert_eq!(error(status, body), TokenError::Rejected("invalid_scope"));
        }
    }

    #[test]
    fn a_temporary_or_unknown_code_is_a_temporary_failure() {
        for code in ["server_error", "temporarily_unavailable", "slow_down"] {
            for status in [200, 400, 403] {
                assert_eq!(error(status, &format!(r#"{{"error":"{code}"}}"#)), unavailable(status, Some(code)));
            }
        }
        for body in [r#"{"error":"canary"}"#, r#"{"error":{"code":"invalid_client"}}"#, r#"{"error":7}"#, "<html>", ""]
        {
            assert_eq!(error(400, body), unavailable(400, None), "{body}");
            assert_eq!(error(404, body), unavailable(404, None), "{body}");
        }
    }

    #[test]
    fn a_401_is_invalid_client_even_where_its_body_does_not_say_so() {
        for body in ["", "<html>", r#"{"error":"canary"}"#, r#"{"message":"wrong secret"}"#] {
            assert_eq!(error(401, body), TokenError::Unauthorized, "{body}");
        }
        let cut = Response { complete: false, ..answer(401, "x".repeat(100)) };
        assert_eq!(outcome(cut), Err(TokenError::Unauthorized));
    }

    #[test]
    fn a_status_of_a_temporary_failure_counts_and_retry_after_is_limited_to_a_day() {
        for status in [301, 302, 303, 307, 308, 429, 500, 502, 503, 599] {
            assert_eq!(error(status, r#"{"error":"invalid_client","access_token":"t"}"#), unavailable(status, None));
        }
        for (value, seconds) in [("7", Some(7)), ("99999999", Some(86400)), ("soon", None)] {
            for (status, body) in [(429, ""), (503, ""), (400, r#"{"error":"slow_down"}"#)] {
                let mut answer = answer(status, body);
                answer.headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
                let Err(TokenError::Unavailable { retry_after, .. }) = outcome(answer) else { panic!("{status}") };
                assert_eq!(retry_after.map(|wait| wait.as_secs()), seconds, "{status} {value}");
            }
        }
    }

    #[test]
    fn field_10_a_token_type_of_bearer_token_is_bearer_and_proofs_of_possession_are_refused() {
        for token_type in ["BearerToken", "bearertoken", "Bearer Token", "bearer_token", " Bearer "] {
            let body = format!(r#"{{"access_token":"t","token_type":"{token_type}","expires_in":"3599"}}"#);
            assert_eq!(outcome(answer(200, body)), Ok(("Bearer t".into(), 3599.0)), "{token_type}");
        }
        for token_type in ["mac", "DPoP", "N_A", "", "Bearerish", "NotBearer", "bear,er", "Bearer, mac"] {
            let body = format!(r#"{{"access_token":"t","token_type":"{token_type}"}}"#);
            assert_eq!(
                outcome(answer(200, body)),
                Err(TokenError::Malformed("token_type is not Bearer")),
                "{token_type}"
            );
        }
    }

    #[test]
    fn field_11_a_401_is_a_refusal_of_the_client_whatever_its_body_says() {
        let service_now = r#"{"error":"server_error","error_description":"access_denied"}"#;
        for body in [service_now, r#"{"error":"temporarily_unavailable"}"#, r#"{"error":"slow_down"}"#, "", "<html>"] {
            assert_eq!(error(401, body), TokenError::Unauthorized, "{body}");
        }
        assert_eq!(error(401, r#"{"error":"invalid_scope"}"#), TokenError::Rejected("invalid_scope"));
        assert_eq!(error(400, service_now), unavailable(400, Some("server_error")));
    }

    #[test]
    fn field_15_a_complete_json_object_is_complete_however_the_connection_ended() {
        let cut = |status: u16, body: &str| outcome(Response { complete: false, ..answer(status, body) });
        for body in [r#"{"access_token":"t"}"#, "{\"access_token\":\"t\"}\r\n", "\u{feff}{\"access_token\":\"t\"}"] {
            assert!(cut(200, body).is_ok(), "{body:?}");
        }
        assert_eq!(cut(400, r#"{"error":"invalid_scope"}"#), Err(TokenError::Rejected("invalid_scope")));
        for body in [r#"{"access_token":"t""#, r#"{"access_token":"t"#, "{", ""] {
            assert_eq!(cut(200, body), Err(TokenError::Malformed("the body is too long or incomplete")), "{body:?}");
        }
    }

    #[test]
    fn a_wrong_url_is_hinted_at() {
        for status in [302, 404, 405] {
            assert!(error(status, "").to_string().contains("check tokenService.url"), "{status}");
        }
        assert_eq!(error(503, "").to_string(), "the token service answered 503 Service Unavailable");
        let slow = error(400, r#"{"error":"slow_down"}"#).to_string();
        assert_eq!(slow, "the token service answered 400 Bad Request (slow_down)");
    }

    proptest! {
        #[test]
        fn s12_whatever_is_answered_is_read_without_a_panic_and_within_bounds(
            status in 100u16..1000,
            start in r#"(\{"(access_token|token_type|expires_in|error)":)?"#,
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(token) = Token::read(answer(status, [start.as_bytes(), &rest].concat()), SystemTime::UNIX_EPOCH) {
                prop_assert!((SHORTEST_LIFETIME..=LONGEST).contains(&token.lifetime));
            }
        }

        #[test]
        fn any_number_of_seconds_is_a_lifetime_within_bounds(seconds: f64) {
            let body = format!(r#"{{"access_token":"t","expires_in":"{seconds}"}}"#);
            let (_, lifetime) = outcome(answer(200, body)).unwrap();
            prop_assert!((1.0..=86400.0).contains(&lifetime), "{lifetime}");
        }
    }
}
