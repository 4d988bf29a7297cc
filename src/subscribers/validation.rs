//! Decides when to send a webhook a validation request (CloudEvents web hooks, section 4), and what its response means.
//! Pure.

use std::{
    fmt,
    time::{Duration, Instant},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::{
    AbuseProtectionPolicy as Policy, ConditionType, SubscriberReason as Reason, SubscriberStatus, WebhookStatus,
};
use tidings_delivery::webhook::{NoValidationResponse, ValidationResponse};
use tidings_queue::Backoff;

use super::status::Finding;

/// How long a validation response is valid. A refusal is valid for a shorter time.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
const REFUSAL_GOOD_FOR: Duration = Duration::from_secs(3600);
/// The waits between validation requests that fail.
const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(300) };

/// A failed validation request, and when the next one is due.
#[derive(Clone, Debug)]
pub struct FailedValidation {
    /// Why the request failed.
    pub error: NoValidationResponse,
    /// The number of consecutive failures.
    pub failures: u32,
    /// The earliest time of the next request.
    pub ask_again: Instant,
}

impl FailedValidation {
    /// Records one more failure. `chance` is a random number in 0..1.
    pub fn after(before: Option<Self>, error: NoValidationResponse, now: Instant, chance: f64) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let wait = BACKOFF.wait(failures, chance);
        let wait = wait.max(error.retry_after().unwrap_or_default()).min(GOOD_FOR);
        Self { error, failures, ask_again: now + wait }
    }
}

/// The webhook's last validation response for this spec and this origin, as the status records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedValidation {
    /// The recorded condition Validated.
    finding: Finding,
    /// The allowed rate, in requests per minute (None: no limit).
    rate: Option<u32>,
    /// When the response arrived.
    at: Timestamp,
}

impl RecordedValidation {
    /// Reads the response from the status. Returns None if the status records a response for another spec or another
    /// origin.
    pub fn read(status: &SubscriberStatus, generation: Option<i64>, origin: &str) -> Option<Self> {
        let validated = status.condition(ConditionType::Validated)?;
        let webhook = status.webhook.as_ref().filter(|webhook| webhook.origin == origin)?;
        let answers = [Reason::OriginAllowed, Reason::NotSupported, Reason::HandshakeRefused];
        let reason = *answers.iter().find(|reason| validated.reason == reason.as_str())?;
        let at = webhook.validation_time.as_ref().filter(|_| validated.observed_generation == generation)?.0;
        let finding = Finding { holds: reason == Reason::OriginAllowed, reason, message: validated.message.clone() };
        Some(Self { finding, rate: webhook.allowed_rate_per_minute, at })
    }

    /// How much longer the response is valid (zero: it has expired). A response from the future, by a wrong clock, has
    /// expired.
    fn good_for(&self, now: Timestamp) -> Duration {
        let age = Duration::try_from(now.duration_since(self.at)).ok();
        age.and_then(|age| life(&self.finding).checked_sub(age)).unwrap_or_default()
    }
}

fn life(finding: &Finding) -> Duration {
    if finding.reason == Reason::HandshakeRefused { REFUSAL_GOOD_FOR } else { GOOD_FOR }
}

/// What to do about the webhook's validation.
#[derive(Clone, Debug)]
pub enum ValidationDecision {
    /// Send no validation request, because the policy is Disabled.
    NotRequired,
    /// Send a validation request. If it fails, the previous response still applies.
    Ask(Option<RecordedValidation>),
    /// Use the previous response. Send the next request after this time.
    Keep(RecordedValidation, Duration),
    /// The last request failed. Send the next request after this time.
    Wait(FailedValidation, Duration),
    /// The webhook requested a pause for this long before any validation request was sent.
    Paused(Duration),
}

impl ValidationDecision {
    /// Decides. `forced`: send a request regardless of earlier responses. `silence`: the rest of the pause that the
    /// webhook requested.
    pub fn of(
        policy: Policy,
        known: Option<RecordedValidation>,
        failed_validation: Option<FailedValidation>,
        forced: bool,
        silence: Duration,
        (now, clock): (Instant, Timestamp),
    ) -> Self {
        let good_for = known.as_ref().map(|known| known.good_for(clock)).unwrap_or_default();
        let left = failed_validation
            .as_ref()
            .map(|failed| failed.ask_again.saturating_duration_since(now))
            .unwrap_or_default();
        let wait = silence.max(if forced { Duration::ZERO } else { left });
        match (known, failed_validation) {
            _ if policy == Policy::Disabled => Self::NotRequired,
            (Some(known), _) if !forced && !good_for.is_zero() => Self::Keep(known, good_for),
            (known, _) if wait.is_zero() => Self::Ask(known),
            (Some(known), _) => Self::Keep(known, wait),
            (None, Some(failed_validation)) => Self::Wait(failed_validation, wait),
            (None, None) => Self::Paused(wait),
        }
    }
}

/// What is known of the webhook's validation after a pass.
#[derive(Clone, Debug)]
pub struct Validation {
    /// The finding for the condition Validated (None: the condition stays unchanged).
    pub validated: Option<Finding>,
    /// Why no events may be sent (None: events may be sent).
    pub blocked: Option<Finding>,
    /// The allowed rate, in requests per minute (None: no limit).
    pub rate: Option<u32>,
    /// When the webhook responded (None: it did not respond in this pass).
    pub answered: Option<Timestamp>,
    /// How long until the next check.
    pub again: Option<Duration>,
}

impl Validation {
    /// No validation request is sent, because the policy is Disabled.
    pub fn not_required() -> Self {
        let finding =
            Finding::yes(Reason::NotRequired, "abuseProtection.policy is Disabled: no validation request is sent");
        Self { validated: Some(finding), blocked: None, rate: None, answered: None, again: None }
    }

    /// The previous response still applies.
    pub fn kept(known: RecordedValidation, again: Duration) -> Self {
        let RecordedValidation { finding, rate, .. } = known;
        let blocked = (finding.reason == Reason::HandshakeRefused).then_some(finding);
        Self { validated: None, blocked, rate, answered: None, again: Some(again) }
    }

    /// The webhook's response now, to a sender of this origin.
    pub fn answer(response: ValidationResponse, policy: Policy, origin: &str, now: Timestamp) -> Self {
        let refused = |what: &str| {
            Finding::no(
                Reason::HandshakeRefused,
                format!(
                    "the webhook {what}; no events are sent: have the webhook answer OPTIONS requests with WebHook-Allowed-Origin: {origin} (or *), then annotate the Subscriber with tidings.dev/reconcile-requested-at"
                ),
            )
        };
        let finding = match (response, policy) {
            (ValidationResponse::Granted(None), _) => {
                Finding::yes(Reason::OriginAllowed, format!("the webhook allows the origin {origin}"))
            }
            (ValidationResponse::Granted(Some(rate)), _) => Finding::yes(
                Reason::OriginAllowed,
                format!("the webhook allows the origin {origin} at up to {rate} requests per minute"),
            ),
            (ValidationResponse::Silent, Policy::Required) => {
                refused("did not return WebHook-Allowed-Origin, and abuseProtection.policy is Required")
            }
            (ValidationResponse::Silent, _) => Finding::no(
                Reason::NotSupported,
                "the webhook did not return WebHook-Allowed-Origin; events are sent because abuseProtection.policy is Optional",
            ),
            (ValidationResponse::Refused, _) => refused("allows only other origins"),
        };
        let blocked = (finding.reason == Reason::HandshakeRefused).then(|| finding.clone());
        let rate = if let ValidationResponse::Granted(rate) = response { rate } else { None };
        let again = Some(life(&finding));
        Self { validated: Some(finding), blocked, rate, answered: Some(now), again }
    }

    /// The webhook has not responded yet.
    pub fn pending(why: impl fmt::Display, policy: Policy, again: Duration) -> Self {
        let effect = match policy {
            Policy::Required => "no events are sent until the webhook allows the origin",
            _ => "events are sent because abuseProtection.policy is Optional",
        };
        let message = format!(
            "validation of the webhook (OPTIONS request) is pending: {why}; the operator tries again; {effect}"
        );
        let finding = Finding::no(Reason::HandshakePending, message);
        let blocked = (policy == Policy::Required).then(|| finding.clone());
        Self { validated: Some(finding), blocked, rate: None, answered: None, again: Some(again) }
    }
}

/// Puts what is known of the webhook into the status. `validation` is None if the webhook was not checked.
pub fn describe(status: &mut SubscriberStatus, host: &str, origin: &str, validation: Option<&Validation>) {
    let old = status.webhook.take().filter(|old| old.host == host && old.origin == origin).unwrap_or_default();
    let (validation_time, allowed_rate_per_minute) =
        match validation.filter(|validation| validation.validated.is_some()) {
            Some(validation) => (validation.answered.map(Time), validation.rate),
            // The previous response still applies.
            None => (old.validation_time, old.allowed_rate_per_minute),
        };
    let (host, origin) = (host.to_owned(), origin.to_owned());
    status.webhook = Some(WebhookStatus { host, origin, validation_time, allowed_rate_per_minute });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_api::Condition;
    use tidings_delivery::egress::SendError;

    const ORIGIN: &str = "notify.example.com";
    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The status after a response at second 0 for generation 1.
    fn answered(response: ValidationResponse) -> SubscriberStatus {
        let validation = Validation::answer(response, Policy::Optional, ORIGIN, at(0));
        let Finding { holds, reason, message } = validation.validated.clone().unwrap();
        let conditions = tidings_api::Conditions::from(&[], Some(1), at(0));
        let conditions: Vec<Condition> =
            conditions.set(ConditionType::Validated, holds, reason.as_str(), &message).into_vec();
        let mut status = SubscriberStatus { conditions, ..SubscriberStatus::default() };
        describe(&mut status, "hooks.example.com", ORIGIN, Some(&validation));
        status
    }

    fn decision(
        known: Option<RecordedValidation>,
        failed_validation: Option<FailedValidation>,
        forced: bool,
        second: i64,
    ) -> ValidationDecision {
        ValidationDecision::of(
            Policy::Optional,
            known,
            failed_validation,
            forced,
            Duration::ZERO,
            (Instant::now(), at(second)),
        )
    }

    #[test]
    fn a_response_is_read_back_only_for_the_same_spec_and_origin() {
        for response in [
            ValidationResponse::Granted(None),
            ValidationResponse::Granted(Some(120)),
            ValidationResponse::Silent,
            ValidationResponse::Refused,
        ] {
            let (status, fresh) = (answered(response), Validation::answer(response, Policy::Optional, ORIGIN, at(0)));
            let read = Validation::kept(RecordedValidation::read(&status, Some(1), ORIGIN).unwrap(), Duration::ZERO);
            assert_eq!((read.blocked, read.rate), (fresh.blocked, fresh.rate), "{response:?}");
            assert_eq!(RecordedValidation::read(&status, Some(2), ORIGIN), None);
            assert_eq!(RecordedValidation::read(&status, Some(1), "other.example.com"), None);
        }
        assert_eq!(RecordedValidation::read(&SubscriberStatus::default(), None, ORIGIN), None);
    }

    #[test]
    fn a_validation_request_is_sent_once_a_day_and_after_a_refusal_every_hour() {
        let granted = RecordedValidation::read(&answered(ValidationResponse::Granted(None)), Some(1), ORIGIN);
        assert!(
            matches!(decision(granted.clone(), None, false, 24 * HOUR - 1), ValidationDecision::Keep(_, again) if again.as_secs() == 1)
        );
        assert!(matches!(decision(granted.clone(), None, false, 24 * HOUR), ValidationDecision::Ask(_)));
        assert!(matches!(decision(granted.clone(), None, false, -1), ValidationDecision::Ask(_)), "a wrong clock");
        assert!(matches!(decision(granted.clone(), None, true, 0), ValidationDecision::Ask(_)), "a user requests it");
        let refused = RecordedValidation::read(&answered(ValidationResponse::Refused), Some(1), ORIGIN);
        assert!(matches!(decision(refused.clone(), None, false, HOUR - 1), ValidationDecision::Keep(..)));
        assert!(matches!(decision(refused, None, false, HOUR), ValidationDecision::Ask(_)));
    }

    #[test]
    fn failed_requests_are_repeated_at_growing_intervals_and_the_last_response_still_applies() {
        let error = NoValidationResponse::Failed(SendError::Timeout);
        let (now, mut failed_validation) = (Instant::now(), None);
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let next = FailedValidation::after(failed_validation.take(), error.clone(), now, 0.5);
                failed_validation = Some(next.clone());
                (next.ask_again - now).as_secs()
            })
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(matches!(decision(None, failed_validation.clone(), false, 0), ValidationDecision::Wait(..)));
        assert!(matches!(decision(None, failed_validation.clone(), true, 0), ValidationDecision::Ask(_)));
        let granted = RecordedValidation::read(&answered(ValidationResponse::Granted(None)), Some(1), ORIGIN);
        assert!(matches!(decision(granted, failed_validation, false, 25 * HOUR), ValidationDecision::Keep(..)));
        let trouble = NoValidationResponse::Trouble {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            retry_after: Some(Duration::from_secs(900)),
        };
        assert_eq!((FailedValidation::after(None, trouble, now, 0.5).ask_again - now).as_secs(), 900);
    }

    #[test]
    fn no_request_is_sent_where_the_policy_is_disabled_or_during_a_pause() {
        let clock = (Instant::now(), at(0));
        assert!(matches!(
            ValidationDecision::of(Policy::Disabled, None, None, true, Duration::ZERO, clock),
            ValidationDecision::NotRequired
        ));
        let granted = RecordedValidation::read(&answered(ValidationResponse::Granted(None)), Some(1), ORIGIN);
        let minute = Duration::from_secs(60);
        let late = (clock.0, at(25 * HOUR));
        assert!(matches!(
            ValidationDecision::of(Policy::Optional, granted, None, false, minute, late),
            ValidationDecision::Keep(..)
        ));
        assert!(
            matches!(ValidationDecision::of(Policy::Optional, None, None, true, minute, clock), ValidationDecision::Paused(wait) if wait == minute)
        );
    }

    #[test]
    fn only_the_policy_required_needs_a_response_but_a_refusal_always_applies() {
        let blocked = |response, policy| {
            Validation::answer(response, policy, ORIGIN, at(0)).blocked.map(|finding| finding.reason)
        };
        for policy in [Policy::Required, Policy::Optional] {
            assert_eq!(blocked(ValidationResponse::Granted(None), policy), None);
            assert_eq!(blocked(ValidationResponse::Refused, policy), Some(Reason::HandshakeRefused));
        }
        assert_eq!(blocked(ValidationResponse::Silent, Policy::Required), Some(Reason::HandshakeRefused));
        assert_eq!(blocked(ValidationResponse::Silent, Policy::Optional), None);
        let pending = |policy| {
            Validation::pending(NoValidationResponse::Failed(SendError::Timeout), policy, Duration::ZERO).blocked
        };
        assert_eq!(pending(Policy::Required).unwrap().reason, Reason::HandshakePending);
        assert!(pending(Policy::Optional).is_none());
    }
}
