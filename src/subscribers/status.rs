//! Sets a Subscriber's conditions from the findings of a pass. Pure.

use k8s_openapi::jiff::Timestamp;
use tidings_api::{
    Condition, ConditionStatus, ConditionType, Conditions, SubscriberReason as Reason, SubscriberStatus,
};

/// The message for the reason Idle.
pub const IDLE: &str = "no Notifications to send (none pending, or all are held)";

/// What was found about one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the condition is True.
    pub holds: bool,
    /// The reason of the condition.
    pub reason: Reason,
    /// The message of the condition: what happened and what to do.
    pub message: String,
}

/// The findings of one pass over a Subscriber. None: not checked, the condition stays unchanged.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Whether Notifications can be sent, or are held on purpose.
    pub ready: Finding,
    /// Whether the token service issues tokens.
    pub token: Option<Finding>,
    /// Whether the webhook is validated.
    pub validated: Option<Finding>,
    /// How a requested test ended.
    pub tested: Option<Finding>,
}

impl Finding {
    /// The webhook answered 410.
    pub fn gone() -> Self {
        Self::no(
            Reason::EndpointGone,
            "the webhook answered 410 (Gone); no events are sent: change webhook.url, or annotate the Subscriber with tidings.dev/reconcile-requested-at to try the webhook again",
        )
    }

    /// The condition is True.
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { holds: true, reason, message: message.into() }
    }

    /// The condition is False.
    pub fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { holds: false, reason, message: message.into() }
    }
}

impl Findings {
    /// Puts the findings into the status of `generation`. Equal findings leave the conditions unchanged.
    ///
    /// Reconciling and Stalled follow Ready alone: tools that wait for a Subscriber must not wait for a webhook that
    /// never answers the validation request, nor for a circuit to close.
    pub fn put_into(&self, status: &mut SubscriberStatus, generation: Option<i64>, now: Timestamp) {
        let Finding { holds, reason, message } = &self.ready;
        let abnormal = match (holds, reason.needs_action()) {
            (true, _) => None,
            (false, true) => Some(ConditionType::Stalled),
            (false, false) => Some(ConditionType::Reconciling),
        };
        let mut conditions = Conditions::from(&status.conditions, generation, now);
        let findings = [
            (ConditionType::Ready, Some(&self.ready)),
            (ConditionType::TokenAvailable, self.token.as_ref()),
            (ConditionType::Validated, self.validated.as_ref()),
            (ConditionType::Tested, self.tested.as_ref()),
        ];
        for (type_, finding) in findings {
            if let Some(Finding { holds, reason, message }) = finding {
                conditions = conditions.set(type_, *holds, reason.as_str(), message);
            }
        }
        // The health board sets Healthy. Here it gets its first value and this generation.
        let healthy = status.condition(ConditionType::Healthy).cloned();
        conditions = match healthy {
            Some(Condition { status, reason, message, .. }) => {
                conditions.set(ConditionType::Healthy, status == ConditionStatus::True, &reason, &message)
            }
            None => {
                status.pending.get_or_insert(0);
                conditions.set(ConditionType::Healthy, true, Reason::Idle.as_str(), IDLE)
            }
        };
        status.conditions = conditions.finish(abnormal, reason.as_str(), message);
        status.observed_generation = generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(status: &SubscriberStatus, ready: Finding, generation: i64, second: i64) -> SubscriberStatus {
        let mut status = status.clone();
        let findings = Findings { ready, token: None, validated: None, tested: None };
        findings.put_into(&mut status, Some(generation), Timestamp::from_second(second).unwrap());
        status
    }

    fn types(status: &SubscriberStatus) -> Vec<&str> {
        status.conditions.iter().map(|c| c.type_.as_str()).collect()
    }

    #[test]
    fn a_subscriber_that_is_not_ready_is_reconciling_or_stalled_never_both() {
        let waits = put(&SubscriberStatus::default(), Finding::no(Reason::SecretNotFound, ""), 1, 0);
        assert_eq!(types(&waits), ["Ready", "Healthy", "Reconciling"]);
        let stalls = put(&waits, Finding::no(Reason::TokenRejected, ""), 1, 0);
        assert_eq!(types(&stalls), ["Ready", "Healthy", "Stalled"]);
        let ready = put(&stalls, Finding::yes(Reason::Operational, ""), 2, 0);
        assert_eq!(types(&ready), ["Ready", "Healthy"]);
        assert_eq!(ready.observed_generation, Some(2));
    }

    #[test]
    fn each_reason_of_ready_is_reconciling_or_stalled_as_in_the_table() {
        let reconciling =
            [Reason::SecretNotFound, Reason::ConfigMapNotFound, Reason::HandshakePending, Reason::TokenUnavailable];
        let stalled = [
            Reason::InvalidSpec,
            Reason::InvalidSecret,
            Reason::InvalidTrustBundle,
            Reason::SecretNotPermitted,
            Reason::TokenRejected,
            Reason::HandshakeRefused,
            Reason::EgressDenied,
            Reason::EndpointGone,
        ];
        let last = |reason| {
            let status = put(&SubscriberStatus::default(), Finding::no(reason, ""), 1, 0);
            status.conditions.last().unwrap().type_.clone()
        };
        assert!(reconciling.into_iter().all(|reason| last(reason) == "Reconciling"));
        assert!(stalled.into_iter().all(|reason| last(reason) == "Stalled"));
    }

    #[test]
    fn the_same_finding_later_changes_nothing() {
        let first = put(&SubscriberStatus::default(), Finding::no(Reason::TokenRejected, "why"), 1, 0);
        assert_eq!(put(&first, Finding::no(Reason::TokenRejected, "why"), 1, 60), first);
    }
}
