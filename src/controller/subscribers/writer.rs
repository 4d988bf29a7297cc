//! The one road into a Subscriber's status: whoever has something to say changes its page, then has it written.

use std::time::Duration;

use json_patch::Patch as JsonPatch;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tracing::warn;

use super::Subscribers;
use crate::{
    api::{Subscriber, SubscriberStatus},
    controller::{FIELD_MANAGER, listings::version, registry::Spec, resolve::Unresolved, status::in_time},
    dispatch::{Backoff, LaneKey},
};

const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

impl Subscribers {
    /// Changes the status of the Subscriber with this uid and writes it. The change stands at once for this process; an
    /// error says that the API server does not have it yet.
    pub(super) async fn update(
        &self,
        key: &LaneKey,
        uid: &str,
        change: impl FnOnce(&mut SubscriberStatus),
    ) -> Result<(), kube::Error> {
        self.registry.page(key, uid, |page| page.amend(change));
        self.write(key, uid).await
    }

    /// Writes what is not written yet. A Subscriber that is not there any more needs nothing.
    pub(super) async fn write(&self, key: &LaneKey, uid: &str) -> Result<(), kube::Error> {
        let Some(turn) = self.registry.page(key, uid, |page| page.turn()) else { return Ok(()) };
        let _turn = turn.lock().await;
        // A page that is old by now must not cover what the present leader wrote.
        if !self.leadership.holds() {
            return Err(kube::Error::Service(Box::new(Unresolved::NotLeading)));
        }
        let Some((written, wanted)) = self.registry.page(key, uid, |page| page.unwritten()).flatten() else {
            return Ok(());
        };
        let patch: JsonPatch = serde_json::from_value(json!([
            { "op": "test", "path": "/metadata/uid", "value": uid },
            { "op": "add", "path": "/status", "value": wanted },
        ]))
        .map_err(kube::Error::SerdeError)?;
        let api = Api::<Subscriber>::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let version = match in_time(api.patch_status(&key.name, &params, &Patch::<()>::Json(patch))).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            result => version(&result?.metadata),
        };
        self.registry.page(key, uid, |page| page.wrote(wanted.clone(), version));
        self.announcer.announce(key, uid, &written.conditions, &wanted.conditions);
        Ok(())
    }

    /// Writes that nothing is sent to the Subscriber before `until`; the latest wins. Returns when it is written.
    pub async fn record_pause(&self, key: &LaneKey, spec: &Spec, until: Timestamp) {
        self.registry.page(key, &spec.0, |page| {
            // A pause that another spec asked for ended with it.
            if page.wanted().observed_generation == Some(spec.1) {
                page.amend(|status| pause(status, until));
            }
        });
        for failures in 1.. {
            match self.write(key, &spec.0).await {
                Ok(()) => return,
                // Another Subscriber has the name now.
                Err(kube::Error::Api(status)) if status.code == 422 => return,
                Err(_) if !self.leadership.holds() => return,
                Err(error) => {
                    warn!(subscriber = %key, %error, "the pause could not be written yet; it is kept and written again");
                }
            }
            tokio::time::sleep(BACKOFF.wait(failures, rand::random())).await;
        }
    }

    /// The webhook of this spec is gone: the reconciler, which owns the conditions, writes it.
    pub fn record_gone(&self, key: &LaneKey, spec: &Spec) {
        self.registry.mark_gone(key, spec);
        self.registry.look_again(key);
    }
}

/// The latest end wins.
pub(super) fn pause(status: &mut SubscriberStatus, until: Timestamp) {
    let latest = status.paused_until_time.as_ref().map_or(until, |known| known.0.max(until));
    status.paused_until_time = Some(Time(latest));
}
