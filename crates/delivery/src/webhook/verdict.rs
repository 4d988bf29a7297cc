//! Judges responses (CloudEvents web hooks, section 2.2). Pure.

use std::time::Duration;

use http::StatusCode;
use tidings_api::AttemptReason;

use super::{Consequence, ResponseRules};
use crate::egress::SendError;

/// The consequence of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The webhook accepted the event.
    Delivered,
    /// The webhook will never accept the event.
    Failed,
    /// The webhook rejects the event. That ends the event, unless the webhook rejects all events: see [`Outcome::hold`].
    Rejected,
    /// The webhook rejects the event, as it rejects all events: retry later. The attempt does not count toward the
    /// maximum.
    Hold,
    /// Retry later.
    Retry,
    /// Retry later. The attempt does not count toward the maximum, because it says nothing about the event.
    Defer,
    /// The webhook requests a pause of this length (None: not specified); then retry. The attempt does not count toward
    /// the maximum.
    Pause(Option<Duration>),
    /// The webhook failed and requests a pause of this length; then retry. The attempt counts, so that an event which the
    /// webhook cannot process does not pause all others forever.
    RetryAfter(Duration),
    /// The webhook answered 410: no more events are sent until a user acts.
    Gone,
}

impl Verdict {
    /// Whether no attempt follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Rejected)
    }

    /// Whether the attempt does not count toward the maximum.
    pub fn is_deferred(self) -> bool {
        matches!(self, Self::Hold | Self::Defer | Self::Pause(_))
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The consequence.
    pub verdict: Verdict,
    /// The reason, as published.
    pub reason: AttemptReason,
    /// The status code of the webhook, if it responded.
    pub status: Option<StatusCode>,
    /// The message for people. Contains nothing that the other side sent, except the names in its
    /// certificate.
    pub message: String,
}

impl Outcome {
    /// Judges a response by its status code, Retry-After and the user's rules. `sent` describes the request, for the
    /// message of a 415.
    pub fn of_answer(status: StatusCode, retry_after: Option<Duration>, sent: &str, rules: &ResponseRules) -> Self {
        let code = status.as_u16();
        let (verdict, reason, message) = by_default(code, retry_after, sent);
        let verdict = if verdict == Verdict::Rejected && rules.fails_rejected() { Verdict::Failed } else { verdict };
        let rule = |meaning: &str| format!("the webhook answered {code}, which {meaning} (webhook.responses)");
        let (verdict, reason, message) = match rules.action(status) {
            None => (verdict, reason, message),
            Some(Consequence::Deliver) => {
                (Verdict::Delivered, AttemptReason::Acknowledged, rule("counts as delivered"))
            }
            Some(Consequence::Fail) => (Verdict::Failed, AttemptReason::Rejected, rule("ends the event")),
            Some(Consequence::Retry) if verdict == Verdict::Failed || verdict == Verdict::Rejected => {
                let verdict = retry_after.map_or(Verdict::Retry, Verdict::RetryAfter);
                (verdict, AttemptReason::UnexpectedStatus, rule("is retried"))
            }
            Some(Consequence::Retry) => (verdict, reason, message),
            Some(Consequence::RenewToken) => {
                let verdict = retry_after.map_or(Verdict::Retry, |wait| Verdict::Pause(Some(wait)));
                (verdict, AttemptReason::Unauthorized, rule("requires another token, also with a renewed token"))
            }
        };
        Self { verdict, reason, status: Some(status), message }
    }

    /// Turns a rejection into a retry, because the webhook rejects all events.
    pub fn hold(&mut self) {
        let code = self.status.map_or_else(String::new, |status| format!(" {}", status.as_u16()));
        self.verdict = Verdict::Hold;
        self.message = format!(
            "the webhook answered{code}; the operator holds this event, because the webhook rejects all events: check the Subscriber's condition Healthy"
        );
    }

    /// Turns a rejection into a retry, because the Subscriber has changed since the event was sent.
    pub fn defer(&mut self) {
        let code = self.status.map_or_else(String::new, |status| format!(" {}", status.as_u16()));
        self.verdict = Verdict::Defer;
        self.message = format!(
            "the webhook answered{code} before the Subscriber changed; the operator sends the event again with the present spec"
        );
    }

    /// Judges an exchange without a response.
    pub fn of_error(error: &SendError) -> Self {
        let reason = match error {
            // No attempt counts: the operator holds the event and reconciles the Subscriber, see `engine/attempt.rs`.
            SendError::Denied => AttemptReason::EgressDenied,
            SendError::Dns => AttemptReason::NameNotResolved,
            SendError::Connection | SendError::Broken => AttemptReason::ConnectionFailed,
            SendError::Tls(_) => AttemptReason::TLSFailed,
            SendError::Proxy(_) => AttemptReason::ProxyFailed,
            SendError::Timeout => AttemptReason::Timeout,
        };
        // The event reached nothing but the operator's own proxy.
        let is_of_proxy = matches!(error, SendError::Proxy(fault) if fault.is_of_proxy());
        let verdict = if is_of_proxy { Verdict::Defer } else { Verdict::Retry };
        Self { verdict, reason, status: None, message: format!("webhook: {error}") }
    }
}

/// The meaning of a status code without rules of the user.
fn by_default(code: u16, retry_after: Option<Duration>, sent: &str) -> (Verdict, AttemptReason, String) {
    use AttemptReason as Reason;
    use Verdict::{Delivered, Gone, Pause, Rejected, RetryAfter};
    let retry = retry_after.map_or(Verdict::Retry, RetryAfter);
    // The webhook does not accept the sender now: that says nothing about the event.
    let later = retry_after.map_or(Verdict::Retry, |wait| Pause(Some(wait)));
    match code {
        202 => (Delivered, Reason::Accepted, "the webhook accepted the event".into()),
        200..=299 => (Delivered, Reason::Acknowledged, "the webhook acknowledged the event".into()),
        300..=399 => (
            retry,
            Reason::RedirectRefused,
            format!(
                "the webhook answered {code}, a redirect; the operator follows no redirects: set webhook.url to the target, or check whether the webhook redirects to a login or maintenance page"
            ),
        ),
        405 => (
            retry,
            Reason::MethodNotAllowed,
            "the webhook answered 405: it accepts no POST at this URL; check the path in webhook.url".into(),
        ),
        415 => (
            Rejected,
            Reason::Rejected,
            format!(
                "the webhook answered 415: it does not accept {sent}; set webhook.contentMode or webhook.contentType"
            ),
        ),
        400 | 413 | 414 | 422 | 431 => (
            Rejected,
            Reason::Rejected,
            format!(
                "the webhook answered {code}: it rejects this event; create a Notification with an event that the webhook accepts"
            ),
        ),
        401 => (
            later,
            Reason::Unauthorized,
            "the webhook answered 401: it does not accept the token; check tokenService.audience and tokenService.scopes".into(),
        ),
        403 => (
            later,
            Reason::Forbidden,
            "the webhook answered 403: the client of the token lacks permission; check the client's permissions at the webhook".into(),
        ),
        410 => (
            Gone,
            Reason::Gone,
            "the webhook answered 410 (Gone): change webhook.url, or annotate the Subscriber with tidings.dev/reconcile-requested-at to retry"
                .into(),
        ),
        429 => (Pause(retry_after), Reason::Throttled, "the webhook answered 429: too many requests".into()),
        503 if retry_after.is_some() => (
            Pause(retry_after),
            Reason::Throttled,
            "the webhook answered 503 and requested a pause (Retry-After)".into(),
        ),
        408 => (retry, Reason::Timeout, "the webhook answered 408: it timed out while it waited for the request".into()),
        404 => (retry, Reason::UnexpectedStatus, "the webhook answered 404: check the path in webhook.url".into()),
        500..=599 => (retry, Reason::ServerError, format!("the webhook answered {code}")),
        _ => (retry, Reason::UnexpectedStatus, format!("the webhook answered {code}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};

    use super::*;
    use crate::egress::retry_after;

    #[test]
    fn every_status_with_every_form_of_retry_after_has_its_verdict() {
        use Verdict::{Delivered, Gone, Pause, Rejected, Retry, RetryAfter};
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let forms = [
            (None, None),
            (Some("30"), seconds(30)),
            (Some("Sun, 09 Sep 2001 01:47:40 GMT"), seconds(60)),
            (Some("Sun, 09 Sep 2001 01:45:40 GMT"), None),
            (Some("-30"), None),
            (Some("99999999999999999999"), seconds(u64::from(u32::MAX))),
            (Some("soon"), None),
        ];
        for code in 200..=599 {
            for (header, asked) in forms {
                let mut headers = HeaderMap::new();
                if let Some(header) = header {
                    headers.insert(RETRY_AFTER, HeaderValue::from_static(header));
                }
                let expected = match code {
                    200..=299 => Delivered,
                    400 | 413 | 414 | 415 | 422 | 431 => Rejected,
                    410 => Gone,
                    429 => Pause(asked),
                    401 | 403 | 503 if asked.is_some() => Pause(asked),
                    _ => asked.map_or(Retry, RetryAfter),
                };
                let status = StatusCode::from_u16(code).unwrap();
                let outcome =
                    Outcome::of_answer(status, retry_after(&headers, now), "a test", &ResponseRules::default());
                assert_eq!(outcome.verdict, expected, "{code} {header:?}");
                assert_eq!(outcome.status, Some(status));
                assert!(outcome.message.contains(&code.to_string()) || code < 300, "{}", outcome.message);
            }
        }
    }

    #[test]
    fn accepted_differs_from_acknowledged_and_415_names_what_was_sent() {
        let outcome = |code| {
            Outcome::of_answer(
                StatusCode::from_u16(code).unwrap(),
                None,
                "Binary text/plain",
                &ResponseRules::default(),
            )
        };
        assert_eq!(outcome(202).reason, AttemptReason::Accepted);
        assert_eq!(outcome(204).reason, AttemptReason::Acknowledged);
        assert!(outcome(415).message.contains("Binary text/plain"));
    }

    #[test]
    fn rules_change_the_meaning_of_a_code_except_of_2xx_410_and_429() {
        use Consequence::{Deliver, Fail, RenewToken, Retry};
        let codes = || 200..=599_u16;
        for (action, expected) in [
            (Deliver, (Verdict::Delivered, AttemptReason::Acknowledged)),
            (Fail, (Verdict::Failed, AttemptReason::Rejected)),
            (RenewToken, (Verdict::Retry, AttemptReason::Unauthorized)),
        ] {
            let rules = ResponseRules::new(codes().map(|code| (code, action)), false);
            for code in codes() {
                let judged = |rules: &ResponseRules| {
                    let outcome = Outcome::of_answer(StatusCode::from_u16(code).unwrap(), None, "a test", rules);
                    (outcome.verdict, outcome.reason)
                };
                let is_fixed = code < 300 || code == 410 || code == 429;
                let expected = if is_fixed { judged(&ResponseRules::default()) } else { expected };
                assert_eq!(judged(&rules), expected, "{code} {action:?}");
            }
        }
        let rules = ResponseRules::new(codes().map(|code| (code, Retry)), false);
        for code in codes().filter(|code| *code >= 300 && *code != 410 && *code != 429) {
            let wait = Some(Duration::from_secs(7));
            let outcome = Outcome::of_answer(StatusCode::from_u16(code).unwrap(), wait, "a test", &rules);
            let is_pause = matches!(code, 401 | 403 | 503);
            let expected = if is_pause { Verdict::Pause(wait) } else { Verdict::RetryAfter(Duration::from_secs(7)) };
            assert_eq!(outcome.verdict, expected, "{code}");
            assert_ne!(outcome.reason, AttemptReason::Rejected, "{code}");
        }
    }

    #[test]
    fn a_rejection_always_ends_its_event_if_the_user_says_so_and_is_a_retry_while_it_is_held() {
        for code in [400, 413, 414, 415, 422, 431] {
            let outcome = |fails| {
                let rules = ResponseRules::new([], fails);
                Outcome::of_answer(StatusCode::from_u16(code).unwrap(), None, "a test", &rules)
            };
            assert_eq!((outcome(false).verdict, outcome(true).verdict), (Verdict::Rejected, Verdict::Failed));
            let mut held = outcome(false);
            held.hold();
            assert_eq!((held.verdict, held.reason), (Verdict::Hold, AttemptReason::Rejected));
            assert!(held.message.contains(&code.to_string()) && held.message.contains("Healthy"), "{}", held.message);
        }
    }
}
