//! Writes a first status for a Subscriber whose first pass takes long: which step the pass is at.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tidings_api::{SubscriberReason as Reason, SubscriberStatus};
use tracing::debug;

use super::{
    health_board::is_reconciled,
    roster::Roster,
    status::{Finding, Findings},
    status_store::StatusStore,
    step::Step,
    stored_subscriber::StoredSubscriber,
    validation::describe,
};
use crate::cluster::call::plain;

/// After this time, an empty status gets a first status. Most passes have ended by then.
pub(super) const INITIAL_STATUS_AFTER: Duration = Duration::from_secs(3);

/// Writes the first statuses of Subscribers.
pub(super) struct InitialStatuses {
    roster: Arc<Roster>,
    statuses: Arc<StatusStore>,
    origin: String,
}

impl InitialStatuses {
    /// `origin` is the operator's name in WebHook-Request-Origin.
    pub(super) fn new(roster: Arc<Roster>, statuses: Arc<StatusStore>, origin: String) -> Self {
        Self { roster, statuses, origin }
    }

    /// Whether the status of this Subscriber is empty.
    pub(super) fn are_missing_for(&self, subscriber: &StoredSubscriber) -> bool {
        let (key, uid) = (subscriber.key(), subscriber.id().uid);
        self.roster.cell(&key, &uid, |cell| !is_reconciled(cell.desired())).unwrap_or(false)
    }

    /// Writes which step the pass is at, unless the pass has ended.
    pub(super) async fn write(&self, subscriber: &StoredSubscriber) {
        let (key, uid) = (subscriber.key(), subscriber.id().uid);
        let step = self.roster.step(&key, &uid);
        let change = |status: &mut SubscriberStatus| {
            if !is_reconciled(status) {
                let findings = Findings { ready: initial_status(step), token: None, validated: None, tested: None };
                findings.put_into(status, subscriber.metadata.generation, Timestamp::now());
                describe(status, &subscriber.webhook_host(), &self.origin, None);
            }
        };
        if let Err(error) = self.statuses.update(&key, &uid, change).await {
            debug!(subscriber = %key, error = %plain(&error), "cannot write the first status; the pass writes one when it ends");
        }
    }
}

fn initial_status(step: Option<Step>) -> Finding {
    let what = match step {
        None => {
            return Finding::no(Reason::Progressing, "the operator checks other Subscribers of this namespace first");
        }
        Some(Step::Secret) => {
            "the operator is reading the Secrets and ConfigMaps that the spec names and resolving the host names in the spec"
        }
        Some(Step::Token) => "the operator is waiting for a response from tokenService.url",
        Some(Step::Handshake) => {
            "the operator is waiting for webhook.url to respond to the validation request (OPTIONS)"
        }
        Some(Step::Delivery) => "the operator is waiting for webhook.url to respond to the test event",
    };
    let (number, name) = step.map_or((0, ""), Step::number_and_name);
    Finding::no(Reason::Progressing, format!("step {number} of 4, {name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_status_names_the_step_and_what_the_operator_waits_for() {
        let message = |step| initial_status(step).message;
        assert!(message(None).contains("other Subscribers"));
        assert!(
            message(Some(Step::Token)).starts_with("step 2 of 4, token: ")
                && message(Some(Step::Token)).contains("tokenService.url")
        );
        assert!(message(Some(Step::Handshake)).starts_with("step 3 of 4, handshake: "));
        assert!(!initial_status(None).reason.needs_action(), "Reconciling, not Stalled");
    }
}
