//! Decides when a status must say which step a pass is at: while the step takes long and no events are sent. Pure.

use std::time::{Duration, Instant};

use tidings_api::{ConditionType, SubscriberReason as Reason, SubscriberStatus};

use super::{health_board::is_reconciled, status::Finding, step::Step};

/// A new Subscriber that waits for its turn says so after this time.
pub(super) const TURN_AFTER: Duration = Duration::from_secs(3);
/// A step that takes this long is named in the status. Most steps end earlier, and then cause no write.
const STEP_AFTER: Duration = Duration::from_secs(1);
/// How often each pass under way is checked.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(500);

/// What a Subscriber waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its first pass has not started.
    Turn,
    /// Its pass is at this step.
    Step(Step),
}

impl Progress {
    /// Returns the step to name in the status, of a pass over `generation` that has been at `step` since an instant.
    ///
    /// Returns None where the status stands: it is about this spec, and its reason is not disproved by the step. So a
    /// request that is repeated again and again does not hide why the last one failed, and a restart writes nothing.
    /// `is_renewed`: the pass was requested, or has new credentials.
    pub(super) fn of_step(
        status: &SubscriberStatus,
        generation: i64,
        (step, since): (Step, Instant),
        is_renewed: bool,
        now: Instant,
    ) -> Option<Self> {
        let reason = status.condition(ConditionType::Ready).map(|ready| ready.reason.as_str());
        let is_disproved = reason.is_none_or(|reason| {
            reason == Reason::Progressing.as_str() || failed_step(reason).is_some_and(|failed| failed < step)
        });
        let is_outdated = status.observed_generation != Some(generation) || is_renewed || is_disproved;
        (is_outdated && now.saturating_duration_since(since) >= STEP_AFTER).then_some(Self::Step(step))
    }

    /// What the condition Ready says meanwhile.
    pub(super) fn finding(self) -> Finding {
        let Self::Step(step) = self else {
            return Finding::no(Reason::Progressing, "the operator checks other Subscribers of this namespace first");
        };
        let what = match step {
            Step::Secret => {
                "the operator is reading the Secrets and ConfigMaps that the spec names and resolving the host names in the spec"
            }
            Step::Token => "the operator is waiting for a response from tokenService.url",
            Step::Handshake => "the operator is waiting for webhook.url to respond to the validation request (OPTIONS)",
            Step::Delivery => "the operator is waiting for webhook.url to respond to the test event",
        };
        let (number, name) = step.number_and_name();
        Finding::no(Reason::Progressing, format!("step {number} of 4, {name}: {what}"))
    }
}

/// The step whose failure is the reason of Ready (None: the reason is no failure of a step).
fn failed_step(reason: &str) -> Option<Step> {
    let is = |reasons: &[Reason]| reasons.iter().any(|known| known.as_str() == reason);
    if is(&[Reason::TokenUnavailable, Reason::TokenRejected]) {
        Some(Step::Token)
    } else if is(&[Reason::HandshakePending, Reason::HandshakeRefused]) {
        Some(Step::Handshake)
    } else if is(&[
        Reason::InvalidSpec,
        Reason::SecretNotFound,
        Reason::ConfigMapNotFound,
        Reason::InvalidSecret,
        Reason::InvalidTrustBundle,
        Reason::SecretNotPermitted,
        Reason::SecretTypeDenied,
        Reason::ServiceAccountNotFound,
        Reason::ServiceAccountNotPermitted,
        Reason::TokenRequestDenied,
        Reason::EgressDenied,
    ]) {
        Some(Step::Secret)
    } else {
        None
    }
}

/// Whether a Subscriber whose first pass has not started has an empty status.
pub(super) fn waits_for_its_turn(status: &SubscriberStatus) -> bool {
    !is_reconciled(status)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::{super::status::Findings, *};

    fn status(reason: Reason, generation: i64) -> SubscriberStatus {
        let mut status = SubscriberStatus::default();
        let holds = matches!(reason, Reason::Operational | Reason::Suspended);
        let ready = Finding { holds, reason, message: String::new() };
        let findings = Findings { ready, token: None, validated: None, tested: None };
        findings.put_into(&mut status, Some(generation), Timestamp::UNIX_EPOCH);
        status
    }

    /// What the status says after a second at this step of a pass over generation 2.
    fn progress(status: &SubscriberStatus, step: Step, is_renewed: bool) -> Option<Progress> {
        let since = Instant::now();
        let at = |now| Progress::of_step(status, 2, (step, since), is_renewed, now);
        assert_eq!(at(since + STEP_AFTER - Duration::from_millis(1)), None, "a quick step is not named");
        at(since + STEP_AFTER)
    }

    #[test]
    fn a_step_that_takes_long_is_named_where_the_status_is_empty_or_about_another_spec_or_disproved() {
        for step in [Step::Secret, Step::Token, Step::Handshake] {
            let named = Some(Progress::Step(step));
            assert_eq!(progress(&SubscriberStatus::default(), step, false), named);
            for reason in [Reason::Operational, Reason::TokenRejected, Reason::Suspended, Reason::EndpointGone] {
                assert_eq!(progress(&status(reason, 1), step, false), named, "{reason} of the former spec");
                assert_eq!(progress(&status(reason, 2), step, true), named, "{reason}, and the pass was requested");
            }
            assert_eq!(progress(&status(Reason::Progressing, 2), step, false), named);
        }
        assert_eq!(progress(&status(Reason::SecretNotFound, 2), Step::Token, false), Some(Progress::Step(Step::Token)));
        let handshake = Some(Progress::Step(Step::Handshake));
        assert_eq!(progress(&status(Reason::TokenRejected, 2), Step::Handshake, false), handshake);
    }

    #[test]
    fn a_status_that_stands_is_not_replaced_by_a_repeated_request_or_a_restart() {
        for (reason, step) in [
            (Reason::Operational, Step::Token),
            (Reason::Operational, Step::Handshake),
            (Reason::Suspended, Step::Delivery),
            (Reason::SecretNotFound, Step::Secret),
            (Reason::TokenUnavailable, Step::Token),
            (Reason::TokenRejected, Step::Secret),
            (Reason::HandshakePending, Step::Token),
            (Reason::HandshakeRefused, Step::Handshake),
        ] {
            assert_eq!(progress(&status(reason, 2), step, false), None, "{reason} at {step:?}");
        }
    }

    #[test]
    fn the_message_names_the_step_and_what_the_operator_waits_for() {
        let message = |progress: Progress| progress.finding().message;
        assert!(message(Progress::Turn).contains("other Subscribers"));
        let token = message(Progress::Step(Step::Token));
        assert!(token.starts_with("step 2 of 4, token: ") && token.contains("tokenService.url"));
        assert!(message(Progress::Step(Step::Handshake)).starts_with("step 3 of 4, handshake: "));
        assert!(!Progress::Turn.finding().reason.needs_action(), "Reconciling, not Stalled");
    }

    #[test]
    fn every_reason_that_a_step_leaves_belongs_to_that_step() {
        let of_no_step = [Reason::Operational, Reason::Progressing, Reason::Suspended, Reason::EndpointGone];
        for reason in Reason::ALL.iter().filter(|reason| reason.needs_action()) {
            assert!(failed_step(reason.as_str()).is_some() || of_no_step.contains(reason), "{reason}");
        }
    }
}
