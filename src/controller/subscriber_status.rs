//! What a Subscriber's status says. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::api::{ConditionType, Conditions, SubscriberReason, SubscriberStatus};

/// What one look at a Subscriber found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Whether Notifications can be delivered, and why.
    pub ready: (bool, SubscriberReason, String),
    /// Whether the token service issues tokens; None: not asked, the last word stands.
    pub token: Option<(bool, SubscriberReason, String)>,
}

/// The new status: `old` with the finding put in. Equal to `old` when nothing changed.
pub fn status(old: &SubscriberStatus, finding: &Finding, generation: Option<i64>, now: Timestamp) -> SubscriberStatus {
    let (ready, reason, message) = &finding.ready;
    let abnormal = match (ready, reason.needs_action()) {
        (true, _) => None,
        (false, true) => Some(ConditionType::Stalled),
        (false, false) => Some(ConditionType::Reconciling),
    };
    let mut conditions =
        Conditions::from(&old.conditions, generation, now).set(ConditionType::Ready, *ready, reason.as_str(), message);
    if let Some((available, reason, message)) = &finding.token {
        conditions = conditions.set(ConditionType::TokenAvailable, *available, reason.as_str(), message);
    }
    let conditions = conditions.finish(abnormal, reason.as_str(), message);
    SubscriberStatus { observed_generation: generation, conditions, ..old.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(ready: bool, reason: SubscriberReason) -> Finding {
        Finding { ready: (ready, reason, "why".into()), token: None }
    }

    fn types(status: &SubscriberStatus) -> Vec<&str> {
        status.conditions.iter().map(|c| c.type_.as_str()).collect()
    }

    #[test]
    fn a_subscriber_that_is_not_ready_is_reconciling_or_stalled_never_both() {
        let now = Timestamp::UNIX_EPOCH;
        let waits =
            status(&SubscriberStatus::default(), &finding(false, SubscriberReason::SecretNotFound), Some(1), now);
        assert_eq!(types(&waits), ["Ready", "Reconciling"]);
        let stalls = status(&waits, &finding(false, SubscriberReason::TokenRejected), Some(1), now);
        assert_eq!(types(&stalls), ["Ready", "Stalled"]);
        let ready = status(&stalls, &finding(true, SubscriberReason::Operational), Some(2), now);
        assert_eq!(types(&ready), ["Ready"]);
        assert_eq!(ready.observed_generation, Some(2));
    }

    #[test]
    fn the_same_finding_later_changes_nothing() {
        let finding = finding(false, SubscriberReason::TokenRejected);
        let first = status(&SubscriberStatus::default(), &finding, Some(1), Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(60).unwrap();
        assert_eq!(status(&first, &finding, Some(1), later), first);
    }
}
