//! What delivery learns about a Subscriber as a whole, written into its status before the outcome that it came with.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use json_patch::Patch as JsonPatch;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::api::Patch;
use serde_json::json;
use tokio::sync::Mutex as AsyncMutex;
use tracing::warn;

use super::{registry::Spec, subscribers::Subscribers};
use crate::dispatch::{Backoff, LaneKey};

const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

/// The latest pause written for each Subscriber that was ever paused.
#[derive(Default)]
pub struct Pauses(Mutex<HashMap<LaneKey, Arc<Pause>>>);

/// Locked while it is written: who comes meanwhile with the same pause returns only when it is written, too.
type Pause = AsyncMutex<Option<(Spec, Timestamp)>>;

impl Pauses {
    /// The Subscriber's pause was ended.
    pub fn forget(&self, key: &LaneKey) {
        self.lock().remove(key);
    }

    fn of(&self, key: &LaneKey) -> Arc<Pause> {
        let mut pauses = self.lock();
        let is_over = |pause: &Arc<Pause>| {
            let until = pause.try_lock().map(|pause| pause.as_ref().map(|(_, until)| *until));
            Arc::strong_count(pause) == 1 && until.is_ok_and(|until| until < Some(Timestamp::now()))
        };
        pauses.retain(|of, pause| of == key || !is_over(pause));
        pauses.entry(key.clone()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LaneKey, Arc<Pause>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscribers {
    /// Writes that nothing is sent to the Subscriber before `until`; the latest wins. Returns when it is written.
    pub async fn record_pause(&self, key: &LaneKey, spec: &Spec, until: Timestamp) {
        let pause = self.pauses.of(key);
        let mut written = pause.lock().await;
        if written.as_ref().is_some_and(|(of, written)| of == spec && *written >= until) {
            return;
        }
        let patch = json!([
            { "op": "test", "path": "/metadata/uid", "value": spec.0 },
            { "op": "add", "path": "/status/pausedUntilTime", "value": Time(until) },
        ]);
        self.write_until_taken(key, "the pause", patch).await;
        *written = Some((spec.clone(), until));
    }

    /// The webhook of this spec is gone: the reconciler, which owns the conditions, writes it.
    pub fn record_gone(&self, key: &LaneKey, spec: &Spec) {
        self.registry.mark_gone(key, spec.clone());
        self.registry.look_again(key);
    }

    async fn write_until_taken(&self, key: &LaneKey, what: &str, patch: serde_json::Value) {
        let Ok(patch) = serde_json::from_value::<JsonPatch>(patch) else {
            return;
        };
        for failures in 1.. {
            match self.patch_status(key, &Patch::<()>::Json(patch.clone())).await {
                // 422: another Subscriber has the name now.
                Ok(()) => return,
                Err(kube::Error::Api(status)) if status.code == 422 => return,
                Err(error) => {
                    warn!(subscriber = %key, %error, "{what} could not be written yet; it is kept and written again")
                }
            }
            tokio::time::sleep(BACKOFF.wait(failures, rand::random())).await;
        }
    }
}
