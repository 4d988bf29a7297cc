//! Writes into the statuses of Subscribers which step their passes are at, while a step takes long.

use std::{sync::Arc, time::Instant};

use k8s_openapi::jiff::Timestamp;
use tracing::debug;

use super::{
    roster::Roster, status::Findings, status_store::StatusStore, stored_subscriber::StoredSubscriber,
    validation::describe,
};
use crate::{cluster::call::plain, ownership::Mandate};

/// Writes into statuses what Subscribers wait for.
pub(super) struct ProgressStatuses {
    roster: Arc<Roster>,
    statuses: Arc<StatusStore>,
    mandate: Mandate,
    origin: String,
}

impl ProgressStatuses {
    /// `origin` is the operator's name in WebHook-Request-Origin.
    pub(super) fn new(roster: Arc<Roster>, statuses: Arc<StatusStore>, mandate: Mandate, origin: String) -> Self {
        Self { roster, statuses, mandate, origin }
    }

    /// Notes in the status of this process what the Subscriber waits for. Returns whether [`Self::write`] must follow.
    pub(super) fn note(&self, subscriber: &StoredSubscriber, now: Instant) -> bool {
        let (key, id) = (subscriber.key(), subscriber.id());
        // The status of another leader must not be replaced.
        self.mandate.leads(&key)
            && self.roster.note_progress(&key, &id, now, |status, progress| {
                let findings = Findings { ready: progress.finding(), token: None, validated: None, tested: None };
                findings.put_into(status, subscriber.metadata.generation, Timestamp::now());
                describe(status, &subscriber.webhook_host(), &self.origin, None);
            })
    }

    /// Writes what was noted, unless the pass has written its result since.
    pub(super) async fn write(&self, subscriber: &StoredSubscriber) {
        let (key, uid) = (subscriber.key(), subscriber.id().uid);
        if let Err(error) = self.statuses.write(&key, &uid).await {
            debug!(namespace = %key.namespace, subscriber = %key.name, error = %plain(&error), "cannot write the step into the status; the pass writes its result when it ends");
        }
    }
}
