//! How deliveries go, from the queue and the attempts into each Subscriber's status.

use std::sync::{Arc, MutexGuard, PoisonError};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tokio::sync::watch;
use tracing::debug;

use super::{
    Subscribers,
    examine::seconds_of,
    vitals::{Census, Vitals},
};
use crate::{
    api::{AttemptReason, LastFailure},
    dispatch::LaneKey,
};

impl Subscribers {
    /// Writes, as often as it is due, how deliveries go, until `census` ends.
    pub async fn report(self: Arc<Self>, mut census: watch::Receiver<Vec<(LaneKey, Census)>>) {
        while census.changed().await.is_ok() {
            let of = |(key, census): &(LaneKey, Census)| Some((key.clone(), self.registry.uid(key)?, *census));
            let counted: Vec<_> = census.borrow_and_update().iter().filter_map(of).collect();
            let clock = seconds_of(Timestamp::now());
            let due = {
                let mut vitals = self.vitals();
                vitals.count(counted);
                let written = |key: &LaneKey, uid: &str| self.registry.page(key, uid, |page| page.written().clone());
                let unwritten = |key: &LaneKey, uid: &str| {
                    self.registry.page(key, uid, |page| page.unwritten().is_some()).unwrap_or(false)
                };
                vitals.due(std::time::Instant::now(), clock, written, unwritten)
            };
            for (key, vital) in due {
                if let Err(error) = self.update(&key, vital.uid(), |status| vital.put_into(status, clock)).await {
                    debug!(subscriber = %key, %error, "how deliveries go could not be written yet");
                }
            }
        }
    }

    /// An attempt for the Subscriber with this uid ended; `failure` says how, if it did not deliver.
    pub fn attempted(&self, key: &LaneKey, uid: &str, failure: Option<(AttemptReason, Option<u16>)>) {
        let at = seconds_of(Timestamp::now());
        let failure = failure.map(|(reason, status_code)| LastFailure {
            time: Time(at),
            status_code,
            reason: reason.to_string(),
        });
        self.vitals().attempted(key, uid, at, failure);
    }

    fn vitals(&self) -> MutexGuard<'_, Vitals> {
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
