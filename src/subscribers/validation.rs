//! When a webhook is asked for its consent (CloudEvents web hooks, section 4), and what its answer means. Pure.

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

/// An answer is good for this long; a refusal is asked about again sooner.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
const REFUSAL_GOOD_FOR: Duration = Duration::from_secs(3600);
/// The waits between questions that bring no answer.
const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(300) };

/// A question without an answer, and when it is asked again.
#[derive(Clone, Copy, Debug)]
pub struct FailedValidation {
    /// Why there was none.
    pub error: NoValidationResponse,
    /// How often in a row.
    pub failures: u32,
    /// Nobody asks before this.
    pub ask_again: Instant,
}

impl FailedValidation {
    /// One more without an answer; `chance` is a random number in 0..1.
    pub fn after(before: Option<Self>, error: NoValidationResponse, now: Instant, chance: f64) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let wait = BACKOFF.wait(failures, chance);
        Self { error, failures, ask_again: now + wait.max(error.retry_after().unwrap_or_default()).min(GOOD_FOR) }
    }
}

/// What the status tells of the webhook's last answer to this spec and this origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedValidation {
    /// What was said of it.
    finding: Finding,
    /// The rate granted.
    rate: Option<u32>,
    /// When it came.
    at: Timestamp,
}

impl RecordedValidation {
    /// Reads it back. An answer to another spec, or to another origin, is none.
    pub fn read(status: &SubscriberStatus, generation: Option<i64>, origin: &str) -> Option<Self> {
        let validated = status.condition(ConditionType::Validated)?;
        let webhook = status.webhook.as_ref().filter(|webhook| webhook.origin == origin)?;
        let answers = [Reason::OriginAllowed, Reason::NotSupported, Reason::HandshakeRefused];
        let reason = *answers.iter().find(|reason| validated.reason == reason.as_str())?;
        let at = webhook.validation_time.as_ref().filter(|_| validated.observed_generation == generation)?.0;
        let finding = Finding { holds: reason == Reason::OriginAllowed, reason, message: validated.message.clone() };
        Some(Self { finding, rate: webhook.allowed_rate_per_minute, at })
    }

    /// How much longer it is good for (zero: not any more). One from the future, by a wrong clock, is not good at all.
    fn good_for(&self, now: Timestamp) -> Duration {
        let age = Duration::try_from(now.duration_since(self.at)).ok();
        age.and_then(|age| life(&self.finding).checked_sub(age)).unwrap_or_default()
    }
}

fn life(finding: &Finding) -> Duration {
    if finding.reason == Reason::HandshakeRefused { REFUSAL_GOOD_FOR } else { GOOD_FOR }
}

/// What to do about the webhook's consent.
#[derive(Clone, Debug)]
pub enum ValidationDecision {
    /// Nothing, whatever it would say.
    NotRequired,
    /// Ask it; what it said before counts if there is no answer.
    Ask(Option<RecordedValidation>),
    /// Go by what it said; ask again after this.
    Keep(RecordedValidation, Duration),
    /// It did not answer; ask again after this.
    Wait(FailedValidation, Duration),
    /// It asked to be left alone for this long before it was ever asked.
    Paused(Duration),
}

impl ValidationDecision {
    /// Decides. `forced`: ask, whatever is known. `silence`: it asked to be left alone for this long.
    pub fn of(
        policy: Policy,
        known: Option<RecordedValidation>,
        failed_validation: Option<FailedValidation>,
        forced: bool,
        silence: Duration,
        (now, clock): (Instant, Timestamp),
    ) -> Self {
        let good_for = known.as_ref().map(|known| known.good_for(clock)).unwrap_or_default();
        let left = failed_validation.map(|u| u.ask_again.saturating_duration_since(now)).unwrap_or_default();
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

/// What is known of the webhook's consent after a look.
#[derive(Clone, Debug)]
pub struct Validation {
    /// For the condition Validated (None: the last word stands).
    pub validated: Option<Finding>,
    /// Why nothing may be sent (None: it may).
    pub blocked: Option<Finding>,
    /// The rate granted, in requests a minute (None: no limit).
    pub rate: Option<u32>,
    /// When it answered (None: it did not, or not now).
    pub answered: Option<Timestamp>,
    /// Look again after this.
    pub again: Option<Duration>,
}

impl Validation {
    /// The webhook need not be asked.
    pub fn not_required() -> Self {
        let finding = Finding::yes(Reason::NotRequired, "abuseProtection.policy is Disabled: the webhook is not asked");
        Self { validated: Some(finding), blocked: None, rate: None, answered: None, again: None }
    }

    /// What it said before still counts.
    pub fn kept(known: RecordedValidation, again: Duration) -> Self {
        let RecordedValidation { finding, rate, .. } = known;
        let blocked = (finding.reason == Reason::HandshakeRefused).then_some(finding);
        Self { validated: None, blocked, rate, answered: None, again: Some(again) }
    }

    /// What it says now, to a sender of this origin.
    pub fn answer(consent: ValidationResponse, policy: Policy, origin: &str, now: Timestamp) -> Self {
        let refused = |what: &str| {
            Finding::no(
                Reason::HandshakeRefused,
                format!(
                    "the webhook {what}: have it answer OPTIONS with WebHook-Allowed-Origin: {origin} (or *), then annotate the Subscriber with tidings.dev/reconcile-requested-at; nothing is sent meanwhile"
                ),
            )
        };
        let finding = match (consent, policy) {
            (ValidationResponse::Granted(None), _) => {
                Finding::yes(Reason::OriginAllowed, "the webhook allows this origin")
            }
            (ValidationResponse::Granted(Some(rate)), _) => Finding::yes(
                Reason::OriginAllowed,
                format!("the webhook allows this origin, with at most {rate} requests a minute"),
            ),
            (ValidationResponse::Silent, Policy::Required) => {
                refused("did not say whether it takes events, and abuseProtection.policy is Required")
            }
            (ValidationResponse::Silent, _) => Finding::no(
                Reason::NotSupported,
                "the webhook does not say whether it takes events (no WebHook-Allowed-Origin in its answer to OPTIONS): they are sent, since abuseProtection.policy is Optional",
            ),
            (ValidationResponse::Refused, _) => refused("allows other origins only"),
        };
        let blocked = (finding.reason == Reason::HandshakeRefused).then(|| finding.clone());
        let rate = if let ValidationResponse::Granted(rate) = consent { rate } else { None };
        let again = Some(life(&finding));
        Self { validated: Some(finding), blocked, rate, answered: Some(now), again }
    }

    /// It did not answer yet.
    pub fn pending(why: impl fmt::Display, policy: Policy, again: Duration) -> Self {
        let meanwhile = match policy {
            Policy::Required => "nothing is sent before it consents",
            _ => "events are sent meanwhile",
        };
        let message = format!("the webhook was asked for its consent (OPTIONS): {why}; it is asked again, {meanwhile}");
        let finding = Finding::no(Reason::HandshakePending, message);
        let blocked = (policy == Policy::Required).then(|| finding.clone());
        Self { validated: Some(finding), blocked, rate: None, answered: None, again: Some(again) }
    }
}

/// Puts what is known of the webhook into the status; `None`: it was not looked at.
pub fn describe(status: &mut SubscriberStatus, host: &str, origin: &str, finding: Option<&Validation>) {
    let old = status.webhook.take().filter(|old| old.host == host && old.origin == origin).unwrap_or_default();
    let (validation_time, allowed_rate_per_minute) = match finding.filter(|finding| finding.validated.is_some()) {
        Some(finding) => (finding.answered.map(Time), finding.rate),
        // The last word stands.
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

    /// The status after an answer at second 0 to generation 1.
    fn answered(consent: ValidationResponse) -> SubscriberStatus {
        let finding = Validation::answer(consent, Policy::Optional, ORIGIN, at(0));
        let Finding { holds, reason, message } = finding.validated.clone().unwrap();
        let conditions = tidings_api::Conditions::from(&[], Some(1), at(0));
        let conditions: Vec<Condition> =
            conditions.set(ConditionType::Validated, holds, reason.as_str(), &message).into_vec();
        let mut status = SubscriberStatus { conditions, ..SubscriberStatus::default() };
        describe(&mut status, "hooks.example.com", ORIGIN, Some(&finding));
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
    fn an_answer_is_read_back_for_the_same_spec_and_origin_alone() {
        for consent in [
            ValidationResponse::Granted(None),
            ValidationResponse::Granted(Some(120)),
            ValidationResponse::Silent,
            ValidationResponse::Refused,
        ] {
            let (status, said) = (answered(consent), Validation::answer(consent, Policy::Optional, ORIGIN, at(0)));
            let read = Validation::kept(RecordedValidation::read(&status, Some(1), ORIGIN).unwrap(), Duration::ZERO);
            assert_eq!((read.blocked, read.rate), (said.blocked, said.rate), "{consent:?}");
            assert_eq!(RecordedValidation::read(&status, Some(2), ORIGIN), None);
            assert_eq!(RecordedValidation::read(&status, Some(1), "other.example.com"), None);
        }
        assert_eq!(RecordedValidation::read(&SubscriberStatus::default(), None, ORIGIN), None);
    }

    #[test]
    fn the_webhook_is_asked_once_a_day_and_one_that_refused_every_hour() {
        let granted = RecordedValidation::read(&answered(ValidationResponse::Granted(None)), Some(1), ORIGIN);
        assert!(
            matches!(decision(granted.clone(), None, false, 24 * HOUR - 1), ValidationDecision::Keep(_, again) if again.as_secs() == 1)
        );
        assert!(matches!(decision(granted.clone(), None, false, 24 * HOUR), ValidationDecision::Ask(_)));
        assert!(matches!(decision(granted.clone(), None, false, -1), ValidationDecision::Ask(_)), "a clock was wrong");
        assert!(matches!(decision(granted.clone(), None, true, 0), ValidationDecision::Ask(_)), "somebody asks for it");
        let refused = RecordedValidation::read(&answered(ValidationResponse::Refused), Some(1), ORIGIN);
        assert!(matches!(decision(refused.clone(), None, false, HOUR - 1), ValidationDecision::Keep(..)));
        assert!(matches!(decision(refused, None, false, HOUR), ValidationDecision::Ask(_)));
    }

    #[test]
    fn a_webhook_that_does_not_answer_is_asked_at_growing_intervals_and_its_last_answer_counts_meanwhile() {
        let error = NoValidationResponse::Failed(SendError::Timeout);
        let (now, mut failed_validation) = (Instant::now(), None);
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let next = FailedValidation::after(failed_validation, error, now, 0.5);
                failed_validation = Some(next);
                (next.ask_again - now).as_secs()
            })
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(matches!(decision(None, failed_validation, false, 0), ValidationDecision::Wait(..)));
        assert!(matches!(decision(None, failed_validation, true, 0), ValidationDecision::Ask(_)));
        let granted = RecordedValidation::read(&answered(ValidationResponse::Granted(None)), Some(1), ORIGIN);
        assert!(matches!(decision(granted, failed_validation, false, 25 * HOUR), ValidationDecision::Keep(..)));
        let trouble = NoValidationResponse::Trouble {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            retry_after: Some(Duration::from_secs(900)),
        };
        assert_eq!((FailedValidation::after(None, trouble, now, 0.5).ask_again - now).as_secs(), 900);
    }

    #[test]
    fn nothing_is_asked_where_the_policy_is_disabled_or_while_the_webhook_asked_for_silence() {
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
    fn only_the_policy_required_needs_consent_but_a_refusal_counts_always() {
        let blocked =
            |consent, policy| Validation::answer(consent, policy, ORIGIN, at(0)).blocked.map(|finding| finding.reason);
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
