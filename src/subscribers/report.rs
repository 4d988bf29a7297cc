//! How deliveries go, from the queue and the attempts into each Subscriber's status.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError},
    time::Instant,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::{AttemptReason, LastFailure};
use tidings_queue::SubscriberKey;
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tracing::debug;

use super::{
    Subscribers,
    examine::seconds_of,
    vitals::{CENSUS, Counted, Vital, Vitals},
};

/// The most statuses written at once: a slow API server slows the writes down.
const WRITING: usize = 32;

impl Subscribers {
    /// Writes, as often as it is due, how deliveries go, until `census` ends.
    pub async fn report(self: Arc<Self>, mut census: mpsc::UnboundedReceiver<Vec<Counted>>) {
        let mut writing = JoinSet::new();
        let mut ticks = tokio::time::interval(CENSUS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                counted = census.recv() => match counted {
                    Some(counted) => self.vitals().count(counted),
                    None => return,
                },
                Some(_) = writing.join_next() => {}
                _ = ticks.tick() => {
                    let clock = seconds_of(Timestamp::now());
                    for (key, vital) in self.due(clock, WRITING.saturating_sub(writing.len())) {
                        let subscribers = self.clone();
                        writing.spawn(async move { subscribers.write_vital(&key, &vital, clock).await });
                    }
                }
            }
        }
    }

    /// The Subscribers whose status is to be written now, up to a limit. Neither lock is held while the other is taken.
    fn due(&self, clock: Timestamp, at_most: usize) -> Vec<(SubscriberKey, Vital)> {
        let now = Instant::now();
        let overwritten = self.registry.overwritten();
        let unsettled = {
            let mut vitals = self.vitals();
            vitals.disturb(overwritten);
            vitals.unsettled(now)
        };
        let pages = self.registry.pages(&unsettled);
        let mut vitals = self.vitals();
        // An attempt may end after its Subscriber was deleted.
        let known: HashSet<_> = pages.iter().map(|page| &page.key).collect();
        unsettled.iter().filter(|(key, _)| !known.contains(key)).for_each(|(key, _)| vitals.forget(key));
        vitals.due(now, clock, pages, at_most)
    }

    async fn write_vital(&self, key: &SubscriberKey, vital: &Vital, clock: Timestamp) {
        if let Err(error) = self.update(key, vital.uid(), |status| vital.put_into(status, clock)).await {
            debug!(subscriber = %key, %error, "how deliveries go could not be written yet");
        }
    }

    /// An attempt for the Subscriber with this uid ended; `failure` says how, if it did not deliver.
    pub fn attempted(&self, key: &SubscriberKey, uid: &str, failure: Option<(AttemptReason, Option<u16>)>) {
        let at = seconds_of(Timestamp::now());
        let failure = failure.map(|(reason, status_code)| LastFailure {
            time: Time(at),
            status_code,
            reason: reason.to_string(),
        });
        self.vitals().attempted(key, uid, at, failure);
    }

    pub(super) fn vitals(&self) -> MutexGuard<'_, Vitals> {
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
