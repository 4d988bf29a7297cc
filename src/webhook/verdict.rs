//! What an answer means (CloudEvents web hooks, section 2.2). Pure.

use http::StatusCode;

use crate::{api::AttemptReason, egress::SendError};

/// What follows from one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The webhook has the event.
    Delivered,
    /// The webhook will never take it.
    Failed,
    /// Try again later.
    Retry,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What follows.
    pub verdict: Verdict,
    /// The same in one word.
    pub reason: AttemptReason,
    /// The webhook's status code, if it answered.
    pub status: Option<StatusCode>,
    /// The same for people. Never anything that the other side sent.
    pub message: String,
}

impl Outcome {
    /// Judges an answer by its status code; `sent` says what was sent, for an answer that does not understand it.
    pub fn of_answer(status: StatusCode, sent: &str) -> Self {
        use AttemptReason as Reason;
        use Verdict::{Delivered, Failed, Retry};
        let code = status.as_u16();
        let (verdict, reason, message) = match code {
            202 => (Delivered, Reason::Accepted, "the webhook accepted the event".into()),
            200..=299 => (Delivered, Reason::Acknowledged, "the webhook acknowledged the event".into()),
            300..=399 => (
                Failed,
                Reason::RedirectRefused,
                format!(
                    "the webhook answered {code}, a redirect, and events never follow one: set webhook.url to the address that it redirects to, then create the Notification again"
                ),
            ),
            415 => (
                Failed,
                Reason::Rejected,
                format!(
                    "the webhook answered 415: it does not understand {sent}; see webhook.contentMode and webhook.contentType"
                ),
            ),
            400 | 405 | 413 | 414 | 422 | 431 => {
                (Failed, Reason::Rejected, format!("the webhook answered {code}: it does not take this event"))
            }
            401 => (Retry, Reason::Unauthorized, "the webhook answered 401: it does not accept the token".into()),
            403 => (Retry, Reason::Forbidden, "the webhook answered 403: the token does not permit this".into()),
            410 => (Retry, Reason::Gone, "the webhook answered 410: it is gone".into()),
            429 => (Retry, Reason::Throttled, "the webhook answered 429: too many requests".into()),
            408 => (Retry, Reason::Timeout, "the webhook answered 408: it waited too long for the request".into()),
            500..=599 => (Retry, Reason::ServerError, format!("the webhook answered {code}")),
            _ => (Retry, Reason::UnexpectedStatus, format!("the webhook answered {code}")),
        };
        Self { verdict, reason, status: Some(status), message }
    }

    /// Judges an exchange that brought no answer.
    pub fn of_error(error: SendError) -> Self {
        let reason = match error {
            SendError::Denied => AttemptReason::EgressDenied,
            SendError::Dns => AttemptReason::NameNotResolved,
            SendError::Connection | SendError::Broken => AttemptReason::ConnectionFailed,
            SendError::Tls => AttemptReason::TLSFailed,
            SendError::Timeout => AttemptReason::Timeout,
        };
        Self { verdict: Verdict::Retry, reason, status: None, message: format!("webhook: {error}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: u16) -> Verdict {
        Outcome::of_answer(StatusCode::from_u16(code).unwrap(), "a test").verdict
    }

    #[test]
    fn every_status_has_its_verdict() {
        for code in 200..=599 {
            let expected = match code {
                200..=299 => Verdict::Delivered,
                300..=399 | 400 | 405 | 413 | 414 | 415 | 422 | 431 => Verdict::Failed,
                _ => Verdict::Retry,
            };
            assert_eq!(verdict(code), expected, "{code}");
        }
    }

    #[test]
    fn accepted_is_told_from_acknowledged_and_415_names_what_was_sent() {
        let outcome = |code| Outcome::of_answer(StatusCode::from_u16(code).unwrap(), "Binary text/plain");
        assert_eq!(outcome(202).reason, AttemptReason::Accepted);
        assert_eq!(outcome(204).reason, AttemptReason::Acknowledged);
        assert!(outcome(415).message.contains("Binary text/plain"));
    }
}
