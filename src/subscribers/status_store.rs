//! The one road into a Subscriber's status: whoever has something to say changes its page, then has it written.

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
        call::{in_time, version},
        patch::{self, add, test},
    },
    ownership::Mandate,
};

const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

/// A write that meets others' writes is begun anew so often at once.
const TRIES: u32 = 8;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusWrite {
    /// The API server has the status, or the Subscriber is not there any more.
    Yes,
    /// The operator does not lead: what it knows may be older than what the present leader wrote.
    NotLeading,
}

/// The statuses that the API server stores.
///
/// A page's turn is held while its status is written, and the roster's lock is taken for moments meanwhile; never the other
/// way round.
pub(super) struct StatusStore {
    writer: SingleTry,
    roster: Arc<Roster>,
    publisher: EventPublisher,
    mandate: Mandate,
}

impl StatusStore {
    pub(super) fn new(writer: SingleTry, roster: Arc<Roster>, publisher: EventPublisher, mandate: Mandate) -> Self {
        Self { writer, roster, publisher, mandate }
    }

    /// Changes the status of the Subscriber with this uid and writes it. The change stands at once for this process; an
    /// error says that the API server does not have it yet.
    pub(super) async fn update(
        &self,
        key: &SubscriberKey,
        uid: &str,
        change: impl FnOnce(&mut SubscriberStatus),
    ) -> Result<StatusWrite, kube::Error> {
        self.roster.cell(key, uid, |cell| cell.amend(change));
        self.write(key, uid).await
    }

    /// Writes what is not written yet. A Subscriber that is not there any more needs nothing.
    pub(super) async fn write(&self, key: &SubscriberKey, uid: &str) -> Result<StatusWrite, kube::Error> {
        let Some(turn) = self.roster.cell(key, uid, |cell| cell.turn()) else { return Ok(StatusWrite::Yes) };
        let _turn = turn.lock().await;
        // A page that is old by now must not cover what the present leader wrote.
        if !self.mandate.leads(key) {
            return Ok(StatusWrite::NotLeading);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let Some((stored, version, desired)) = self.roster.cell(key, uid, |cell| cell.unwritten()).flatten() else {
                return Ok(StatusWrite::Yes);
            };
            match self.patch(key, uid, version, &desired).await {
                Ok(version) => {
                    self.roster.cell(key, uid, |cell| cell.note_written(desired.clone(), version));
                    self.publisher.publish(key, uid, &stored.conditions, &desired.conditions);
                    return Ok(StatusWrite::Yes);
                }
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(StatusWrite::Yes),
                // Something was written since; or it is another one by now, and the watch will say so soon.
                Err(kube::Error::Api(status)) if status.code == 422 => match self.read(key, uid).await? {
                    Some((current, of)) if of != version && tries < TRIES => {
                        self.roster.merge_stored(key, uid, current, of)
                    }
                    Some(_) => return Err(kube::Error::Api(status)),
                    None => return Ok(StatusWrite::Yes),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes over what was known as of `version`, and only over that: a write that reaches the API server late, from this
    /// process or a former leader, covers nothing.
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
        // Of a Subscriber that this version cannot read, too, the metadata can be read.
        let stored: PartialObjectMeta<Subscriber> = in_time(self.writer.request(request)).await?;
        Ok(crate::cluster::call::version(&stored.metadata))
    }

    /// The status as it is now and its version, if it is still the same Subscriber.
    async fn read(&self, key: &SubscriberKey, uid: &str) -> Result<Option<(SubscriberStatus, u64)>, kube::Error> {
        let current = in_time(self.api(key).get_opt(&key.name)).await?;
        let same = current.filter(|current| current.metadata.uid.as_deref() == Some(uid));
        Ok(same.map(|same| (same.status, version(&same.metadata))))
    }

    fn api(&self, key: &SubscriberKey) -> Api<StoredSubscriber> {
        self.writer.namespaced(&key.namespace)
    }

    /// Writes the status, however often that takes, for as long as this operator leads.
    pub(super) async fn write_until_taken(&self, key: &SubscriberKey, uid: &str) {
        for failures in 1.. {
            match self.write(key, uid).await {
                Ok(_) => return,
                Err(_) if !self.mandate.leads(key) => return,
                // Where another Subscriber has the name now, the watch will say so soon.
                Err(error) => {
                    warn!(subscriber = %key, %error, "the status could not be written yet; it is kept and written again");
                }
            }
            tokio::time::sleep(BACKOFF.wait(failures, rand::random())).await;
        }
    }
}
