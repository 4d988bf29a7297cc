//! What a Subscriber's status says. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::api::{Condition, ConditionStatus, ConditionType, SubscriberReason, SubscriberStatus, set_condition};

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
    let mut conditions = old.conditions.clone();
    let mut set = |type_: ConditionType, (holds, reason, message): (bool, SubscriberReason, String)| {
        set_condition(
            &mut conditions,
            Condition {
                type_: type_.to_string(),
                status: ConditionStatus::from(holds),
                observed_generation: generation,
                last_transition_time: Time(now),
                reason: reason.to_string(),
                message: message.chars().take(1024).collect(),
            },
        );
    };
    let (ready, reason, message) = finding.ready.clone();
    set(ConditionType::Ready, (ready, reason, message.clone()));
    if let Some(token) = finding.token.clone() {
        set(ConditionType::TokenAvailable, token);
    }
    let abnormal = match (ready, reason.needs_action()) {
        (true, _) => None,
        (false, true) => Some(ConditionType::Stalled),
        (false, false) => Some(ConditionType::Reconciling),
    };
    if let Some(type_) = abnormal {
        set(type_, (true, reason, message));
    }
    // kstatus: Reconciling and Stalled are there only while they are true.
    conditions.retain(|condition| {
        let type_ = condition.type_.as_str();
        let is_abnormal = [ConditionType::Reconciling, ConditionType::Stalled].iter().any(|t| t.as_str() == type_);
        !is_abnormal || abnormal.is_some_and(|t| t.as_str() == type_)
    });
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
