//! The validation handshake with a webhook (CloudEvents web hooks, section 4), from the sender's side.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::Target;
use crate::egress::{SendError, ValidationResult, retry_after};

/// The maximum granted rate: the maximum of an integer in the API.
const MOST: u32 = i32::MAX as u32;

/// The validation response of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidationResponse {
    /// The webhook allows events, up to this many per minute (None: no limit).
    Granted(Option<u32>),
    /// The webhook allows only other origins.
    Refused,
    /// The response has no `WebHook-Allowed-Origin`: the webhook does not support validation.
    Silent,
}

impl ValidationResponse {
    /// Reads the permission from `WebHook-Allowed-Origin` only (section 4.2.1): exactly our origin, or `*`. If the rate
    /// is missing or invalid, the requested rate applies. Pure.
    pub fn read(headers: &HeaderMap, origin: &HeaderValue, asked: Option<u32>) -> Self {
        let mut allowed = headers.get_all("webhook-allowed-origin").iter().peekable();
        if allowed.peek().is_none() {
            Self::Silent
        } else if allowed.any(|value| value == origin || value == "*") {
            Self::Granted(rate(headers, asked))
        } else {
            Self::Refused
        }
    }
}

/// The webhook did not respond to the validation request, but may do so later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoValidationResponse {
    /// The exchange failed.
    #[error("{0}")]
    Failed(#[from] SendError),
    /// The webhook responded with a temporary failure.
    #[error("the webhook answered {status}")]
    Trouble {
        /// The status code.
        status: StatusCode,
        /// The requested pause (Retry-After).
        retry_after: Option<Duration>,
    },
}

impl NoValidationResponse {
    /// Returns the pause that the webhook requests.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Trouble { retry_after, .. } => *retry_after,
            Self::Failed(_) => None,
        }
    }
}

/// Sends a validation request: does the webhook allow events from us, and at what rate? The request has no token,
/// because it is about the webhook's decision and not about our permissions. `WebHook-Request-Callback` is not sent, so
/// no later response is expected.
pub async fn request_validation(
    target: &Target,
    request_rate: Option<u32>,
) -> Result<ValidationResponse, NoValidationResponse> {
    let response = validate(target, request_rate).await;
    target.http.observer().validation_requested(match &response {
        Ok(ValidationResponse::Granted(_)) => ValidationResult::Granted,
        Ok(ValidationResponse::Refused) => ValidationResult::Refused,
        Ok(ValidationResponse::Silent) => ValidationResult::NotSupported,
        Err(NoValidationResponse::Trouble { .. }) => ValidationResult::Unavailable,
        Err(NoValidationResponse::Failed(_)) => ValidationResult::Unreachable,
    });
    response
}

async fn validate(target: &Target, request_rate: Option<u32>) -> Result<ValidationResponse, NoValidationResponse> {
    let mut headers = HeaderMap::new();
    if let Some(rate) = request_rate {
        headers.insert("webhook-request-rate", HeaderValue::from(rate));
    }
    let answer = target.exchange(Method::OPTIONS, headers, Bytes::new(), target.timeout, &|| true).await?;
    match ValidationResponse::read(&answer.headers, &target.origin, request_rate) {
        ValidationResponse::Silent if is_trouble(answer.status) => {
            let retry_after = retry_after(&answer.headers, SystemTime::now());
            Err(NoValidationResponse::Trouble { status: answer.status, retry_after })
        }
        consent => Ok(consent),
    }
}

fn rate(headers: &HeaderMap, asked: Option<u32>) -> Option<u32> {
    let rates = headers.get_all("webhook-allowed-rate").iter();
    let rates = rates.filter_map(|value| value.to_str().ok()).filter_map(|value| match value {
        "*" => Some(None),
        number if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            Some(Some(number.parse().unwrap_or(MOST).min(MOST))).filter(|rate| *rate != Some(0))
        }
        _ => None,
    });
    // Of several rates, the lowest; no rate is higher than any rate.
    rates.min_by_key(|rate| rate.unwrap_or(u32::MAX)).unwrap_or(asked)
}

/// Whether the status is a temporary failure. This says nothing about the permission, only when to retry.
fn is_trouble(status: StatusCode) -> bool {
    // With 501 and 505 a server says that it does not support the request.
    (status.is_server_error() && !matches!(status.as_u16(), 501 | 505)) || matches!(status.as_u16(), 408 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)], asked: Option<u32>) -> ValidationResponse {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        ValidationResponse::read(&headers, &HeaderValue::from_static("notify.example.com"), asked)
    }

    #[test]
    fn only_the_exact_origin_or_the_asterisk_is_permission() {
        let silent = read(&[("allow", "POST")], None);
        let read = |origin| read(&[("webhook-allowed-origin", origin)], None);
        for origin in ["notify.example.com", "*"] {
            assert_eq!(read(origin), ValidationResponse::Granted(None), "{origin}");
        }
        for origin in
            ["example.com", "notify.example.com.evil.example", "xnotify.example.com", "*.example.com", "", "**", "null"]
        {
            assert_eq!(read(origin), ValidationResponse::Refused, "{origin}");
        }
        assert_eq!(silent, ValidationResponse::Silent);
    }

    #[test]
    fn a_rate_is_an_asterisk_or_a_positive_integer_or_else_the_requested_one() {
        let rate = |rate, asked| read(&[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", rate)], asked);
        assert_eq!(rate("120", Some(600)), ValidationResponse::Granted(Some(120)));
        assert_eq!(rate("*", Some(600)), ValidationResponse::Granted(None));
        assert_eq!(rate("99999999999", None), ValidationResponse::Granted(Some(MOST)));
        for odd in ["0", "-1", "1.5", "many", "", "+5"] {
            assert_eq!(rate(odd, Some(600)), ValidationResponse::Granted(Some(600)), "{odd}");
        }
        assert_eq!(read(&[("webhook-allowed-origin", "*")], Some(600)), ValidationResponse::Granted(Some(600)));
    }
}
