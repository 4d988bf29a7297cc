//! Writes the statuses of Subscribers. A caller changes the [`StatusCell`](super::status_cell::StatusCell), then calls
//! [`StatusStore::write`].

use std::{sync::Arc, time::Duration};

use kube::{Api, core::PartialObjectMeta};
use serde_json::json;
use tidings_api::{Subscriber, SubscriberStatus};
use tidings_queue::{Backoff, SubscriberKey};
use tracing::warn;

use super::{event_publisher::EventPublisher, roster::Roster, stored_subscriber::StoredSubscriber};
use crate::{
    cluster::{
        SingleTry,
        call::{found, in_time, is_not_found, is_too_large, plain, version},
        patch::{self, add, test},
    },
    metrics::{Metrics, WriteResult, WrittenKind},
    ownership::Mandate,
};

const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

/// The maximum number of immediate tries of a write that conflicts with other writes.
const TRIES: u32 = 8;

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusWrite {
    /// The API server stores the status, or the Subscriber no longer exists.
    Yes,
    /// Nothing was written: the operator does not lead, and its status may be older than what the current leader wrote.
    NotLeading,
}

/// The only writer of the statuses of Subscribers.
///
/// A write holds the turn of the Subscriber's cell and acquires the roster's lock briefly. The order is never reversed.
pub(super) struct StatusStore {
    writer: SingleTry,
    roster: Arc<Roster>,
    publisher: EventPublisher,
    mandate: Mandate,
    metrics: Metrics,
}

impl StatusStore {
    pub(super) fn new(
        writer: SingleTry,
        roster: Arc<Roster>,
        publisher: EventPublisher,
        mandate: Mandate,
        metrics: Metrics,
    ) -> Self {
        Self { writer, roster, publisher, mandate, metrics }
    }

    /// Changes the status of the Subscriber with this uid and writes it. The change applies to this process
    /// immediately. An error means that the API server does not store it yet.
    pub(super) async fn update(
        &self,
        key: &SubscriberKey,
        uid: &str,
        change: impl FnOnce(&mut SubscriberStatus),
    ) -> Result<StatusWrite, kube::Error> {
        self.roster.cell(key, uid, |cell| cell.amend(change));
        self.write(key, uid).await
    }

    /// Writes the unwritten changes. Does nothing for a Subscriber that no longer exists.
    pub(super) async fn write(&self, key: &SubscriberKey, uid: &str) -> Result<StatusWrite, kube::Error> {
        let Some(turn) = self.roster.cell(key, uid, |cell| cell.turn()) else { return Ok(StatusWrite::Yes) };
        let _turn = turn.lock().await;
        // An outdated status must not overwrite what the current leader wrote.
        if !self.mandate.leads(key) {
            return Ok(StatusWrite::NotLeading);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let Some((stored, version, desired)) = self.roster.cell(key, uid, |cell| cell.unwritten()).flatten() else {
                return Ok(StatusWrite::Yes);
            };
            let patched = self.patch(key, uid, version, &desired).await;
            match patched {
                Ok(version) => {
                    self.count(WriteResult::Recorded);
                    self.roster.cell(key, uid, |cell| cell.note_written(desired.clone(), version));
                    self.publisher.publish(key, uid, &stored.conditions, &desired.conditions);
                    return Ok(StatusWrite::Yes);
                }
                Err(kube::Error::Api(status)) if is_not_found(&status) => return Ok(StatusWrite::Yes),
                // The status was written since, or another Subscriber has the name now. The watch reports the latter
                // soon.
                Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => {
                    let current = self.read(key, uid).await.inspect_err(|_| self.count(WriteResult::Error))?;
                    let is_changed = current.as_ref().is_none_or(|(_, of)| *of != version);
                    // If the Subscriber is unchanged, the API server refuses this write, perhaps by a policy.
                    self.count(if is_changed { WriteResult::Conflict } else { WriteResult::Error });
                    match current {
                        Some((current, of)) if is_changed && tries < TRIES => {
                            self.roster.merge_stored(key, uid, current, of)
                        }
                        Some(_) => return Err(kube::Error::Api(status)),
                        None => return Ok(StatusWrite::Yes),
                    }
                }
                Err(error) => {
                    let is_too_large = is_too_large(&error);
                    self.count(if is_too_large { WriteResult::TooLarge } else { WriteResult::Error });
                    return Err(error);
                }
            }
        }
    }

    /// Overwrites the status only if the Subscriber is still at `version`: a late write, from this process or a former
    /// leader, overwrites nothing.
    async fn patch(
        &self,
        key: &SubscriberKey,
        uid: &str,
        version: u64,
        desired: &SubscriberStatus,
    ) -> Result<u64, kube::Error> {
        let operations = vec![
            test(["metadata", "uid"], json!(uid)),
            test(["metadata", "resourceVersion"], json!(version.to_string())),
            add(["status"], json!(desired)),
        ];
        let mut request = patch::request::<Subscriber>(&key.namespace, &key.name, operations)?;
        patch::want_metadata_alone(&mut request);
        // The metadata can be read even if this version cannot read the spec.
        let stored: PartialObjectMeta<Subscriber> = in_time(self.writer.request(request)).await?;
        Ok(crate::cluster::call::version(&stored.metadata))
    }

    fn count(&self, result: WriteResult) {
        self.metrics.api_write(WrittenKind::Subscriber, result);
    }

    /// Reads the current status and its resourceVersion, if the Subscriber still has this uid.
    async fn read(&self, key: &SubscriberKey, uid: &str) -> Result<Option<(SubscriberStatus, u64)>, kube::Error> {
        let current = found(in_time(self.api(key).get(&key.name)).await)?;
        let same = current.filter(|current| current.metadata.uid.as_deref() == Some(uid));
        Ok(same.map(|same| (same.status, version(&same.metadata))))
    }

    fn api(&self, key: &SubscriberKey) -> Api<StoredSubscriber> {
        self.writer.namespaced(&key.namespace)
    }

    /// Repeats the write of the status until it succeeds, or until this operator no longer leads.
    pub(super) async fn write_until_taken(&self, key: &SubscriberKey, uid: &str) {
        for failures in 1.. {
            match self.write(key, uid).await {
                Ok(_) => return,
                Err(_) if !self.mandate.leads(key) => return,
                // If another Subscriber has the name now, the watch reports it soon.
                Err(error) => {
                    warn!(namespace = %key.namespace, subscriber = %key.name, error = %plain(&error), "cannot write the status yet; the operator keeps it and retries");
                }
            }
            tokio::time::sleep(BACKOFF.wait(failures, rand::random())).await;
        }
    }
}
