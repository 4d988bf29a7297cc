//! Writes the status of a Notification: one guarded patch, retried until the API server has accepted or refused it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde::Deserialize;
use serde_json::json;
use tidings_api::{NotificationReason, NotificationStatus, Phase, was_handled};
use tidings_queue::Backoff;
use tracing::warn;

use super::{
    size::{Extent, shortened},
    wire::{Status, Unfinished, replay_label, slim},
};
use crate::{
    cluster::{
        SingleTry,
        call::{found, in_time, is_not_found, is_too_large, plain, version},
        patch::{self, add, test},
    },
    metrics::{Metrics, WriteResult, WrittenKind},
};

const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

/// Reads one Notification and writes its status. [`Self::load`] reads the Notification when its turn comes,
/// [`Self::record`] writes the outcome of an attempt or an expiry, and [`Self::explain`] writes which gate the
/// Notification waits behind.
pub struct StatusWriter {
    client: SingleTry,
    metrics: Metrics,
}

/// The part of the response to a write that is read.
#[derive(Deserialize)]
struct PatchResponse {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
}

/// A Notification that waits behind a gate.
pub struct Waiting {
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub uid: String,
    pub attempts: u32,
}

/// The result of a write.
pub enum Patched {
    /// The API server accepted the write, with this resourceVersion.
    Recorded {
        version: u64,
        /// Whether the write replaced a final status of another writer.
        over_final: bool,
        /// Whether the label requests a replay that this status does not mention.
        replay_requested: bool,
    },
    /// The Notification was deleted, or another Notification has its name.
    Gone,
    /// Another writer changed the status and this outcome gives way. Continue from the status of the other writer.
    Superseded(Box<Unfinished>),
    /// The API server does not store the status, because the Notification would be too large.
    TooLarge,
}

/// The status that a write replaces.
#[derive(PartialEq, Eq)]
struct Expected {
    phase: String,
    attempts: u32,
    /// The last handled replay.
    replay: Option<String>,
}

impl Expected {
    fn of(read: &Unfinished) -> Self {
        let Status { phase, attempts, last_handled_replay: replay, .. } = read.status.clone();
        Self { phase, attempts, replay }
    }

    fn is_final(&self) -> bool {
        [Phase::Delivered, Phase::Failed].iter().any(|phase| self.phase == phase.as_str())
    }
}

impl StatusWriter {
    /// Makes a writer that uses `client` and counts its writes in `metrics`.
    pub fn new(client: SingleTry, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    /// Reads the Notification with this name, if it still has this uid.
    pub async fn load(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<Box<Unfinished>>, kube::Error> {
        let stored = found(in_time(self.client.namespaced::<Unfinished>(namespace).get(name)).await)?;
        Ok(stored.filter(|stored| stored.metadata.uid.as_deref() == Some(uid)).map(Box::new))
    }

    /// Counts a Notification that finished in this phase at this time, and how long that took.
    pub fn finished(&self, read: &Unfinished, phase: Phase, at: Timestamp) {
        self.metrics.finished(phase);
        if phase == Phase::Delivered {
            self.metrics.delivered_after(Duration::try_from(at.duration_since(read.began())).unwrap_or_default());
        }
    }

    /// Replaces the status in `read` with `status`, and no other status: the patch tests uid, phase, attempts, and the
    /// last handled replay. A write that reaches the API server late, from this process or a former leader, therefore
    /// changes nothing: attempts only grow, and a replay starts a new life.
    ///
    /// Returns when the API server has accepted or refused the write, however long that takes, and with it the status
    /// that was written: if the API server refuses the status because of its size, a shorter status is written. Until
    /// then the outcome is in memory, and the event is not sent again. A 2xx outcome replaces Pending and Failed; no
    /// outcome replaces Delivered.
    pub async fn record(&self, read: &Unfinished, mut status: NotificationStatus) -> (NotificationStatus, Patched) {
        let mut extent = Extent::Whole;
        loop {
            let patched = self.write(read, &status).await;
            match (&patched, extent.shorter()) {
                (Patched::TooLarge, Some(shorter)) => extent = shorter,
                _ => return (status, patched),
            }
            status = shortened(&status, extent, Timestamp::now());
        }
    }

    async fn write(&self, read: &Unfinished, status: &NotificationStatus) -> Patched {
        let mut expected = Expected::of(read);
        let mut failures = 0;
        loop {
            match self.patch(read, &expected, status).await {
                Ok(metadata) => {
                    self.count(WriteResult::Recorded);
                    return recorded(&metadata, status, &expected);
                }
                Err(kube::Error::Api(answer)) if is_not_found(&answer) => return Patched::Gone,
                Err(kube::Error::Api(answer)) if matches!(answer.code, 409 | 422) => {
                    match self.load_again(read).await {
                        Ok(None) => return Patched::Gone,
                        Ok(Some(current)) => {
                            if is_ours(&current, status) {
                                self.count(WriteResult::Conflict);
                                return recorded(&current.metadata, status, &expected);
                            }
                            let found = Expected::of(&current);
                            // A replay happened since, by a label that this attempt did not see: the outcome belongs to
                            // the life before the replay.
                            let other_life = found.replay != read.status.last_handled_replay
                                && found.replay != status.last_handled_replay;
                            let moved = (&found.phase, found.attempts) != (&expected.phase, expected.attempts);
                            if found == expected {
                                // No other writer changed the status: the API server refuses this write, perhaps by a
                                // policy.
                                self.failed(read, &kube::Error::Api(answer));
                            } else {
                                self.count(WriteResult::Conflict);
                                if other_life
                                    || current.status.phase == Phase::Delivered.as_str()
                                    || (moved && status.phase != Phase::Delivered)
                                {
                                    return Patched::Superseded(current);
                                }
                                expected = found;
                                continue;
                            }
                        }
                        Err(error) => self.failed(read, &error),
                    }
                }
                Err(error) if is_too_large(&error) => {
                    self.count(WriteResult::TooLarge);
                    return Patched::TooLarge;
                }
                Err(error) => self.failed(read, &error),
            }
            failures += 1;
            tokio::time::sleep(BACKOFF.wait(failures, rand::random())).await;
        }
    }

    /// Writes why a Notification waits, with a single try, if its status is unchanged. The watch shows what was
    /// written.
    pub async fn explain(&self, at: &Waiting, reason: NotificationReason) -> Result<(), kube::Error> {
        let message = explanation(reason);
        let operations = vec![
            test(["metadata", "uid"], json!(at.uid)),
            test(["status", "phase"], json!(Phase::Pending.as_str())),
            test(["status", "attempts"], json!(at.attempts)),
            add(["status", "reason"], json!(reason)),
            add(["status", "message"], json!(message)),
        ];
        let mut request = patch::request::<Unfinished>(&at.namespace, &at.name, operations)?;
        patch::want_metadata_alone(&mut request);
        let written = in_time(self.client.request::<PatchResponse>(request)).await;
        match &written {
            Ok(_) => self.count(WriteResult::Explanation),
            // The Notification has changed or is gone: there is nothing to explain.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 422) => {}
            Err(_) => self.count(WriteResult::Error),
        }
        written.map(drop)
    }

    async fn patch(
        &self,
        read: &Unfinished,
        expected: &Expected,
        status: &NotificationStatus,
    ) -> Result<ObjectMeta, kube::Error> {
        let request = over(read, expected, status)?;
        let written = in_time(self.client.request::<PatchResponse>(request)).await?;
        Ok(written.metadata)
    }

    async fn load_again(&self, read: &Unfinished) -> Result<Option<Box<Unfinished>>, kube::Error> {
        self.load(namespace(read), name(read), read.metadata.uid.as_deref().unwrap_or_default()).await
    }

    fn count(&self, result: WriteResult) {
        self.metrics.api_write(WrittenKind::Notification, result);
    }

    fn failed(&self, read: &Unfinished, error: &kube::Error) {
        self.count(WriteResult::Error);
        warn!(namespace = namespace(read), name = name(read), uid = read.metadata.uid, error = %plain(error), "the outcome could not be written yet; the operator keeps it and retries");
    }
}

/// What a Notification waits for, and the first thing that a user can do.
fn explanation(reason: NotificationReason) -> String {
    let meaning = reason.meaning().trim().trim_start_matches("Pending: ").trim_end_matches('.');
    let remedy = reason.remedy();
    let mut remedy = remedy.split_once(". ").map_or(remedy, |(first, _)| first).trim_end_matches('.').chars();
    let first = remedy.next().map(|first| first.to_ascii_lowercase());
    let text = [meaning, ": "].into_iter().flat_map(str::chars).chain(first).chain(remedy);
    text.filter(|character| *character != '`').collect()
}

/// Makes the request that replaces the expected status with `status`, and no other status.
fn over(
    read: &Unfinished,
    expected: &Expected,
    status: &NotificationStatus,
) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let operations = vec![
        test(["metadata", "uid"], json!(read.metadata.uid)),
        test(["status", "phase"], json!(expected.phase)),
        test(["status", "attempts"], json!(expected.attempts)),
        test(["status", "lastHandledReplay"], json!(expected.replay)),
        add(["status"], json!(status)),
    ];
    let mut request = patch::request::<Unfinished>(namespace(read), name(read), operations)?;
    patch::want_metadata_alone(&mut request);
    Ok(request)
}

/// Returns the result of an accepted write: `status` replaced the expected status in the object with this metadata.
fn recorded(metadata: &ObjectMeta, status: &NotificationStatus, expected: &Expected) -> Patched {
    let is_handled = |label| was_handled(label, status.last_handled_replay.as_deref(), &status.handled_replays);
    let replay_requested = replay_label(metadata).is_some_and(|label| !is_handled(label));
    Patched::Recorded { version: version(metadata), over_final: expected.is_final(), replay_requested }
}

fn namespace(read: &Unfinished) -> &str {
    read.metadata.namespace.as_deref().unwrap_or_default()
}

fn name(read: &Unfinished) -> &str {
    read.metadata.name.as_deref().unwrap_or_default()
}

/// Whether `current` holds the status that this writer tried to write: the response to the write was lost.
fn is_ours(current: &Unfinished, status: &NotificationStatus) -> bool {
    let seconds = |time: &Time| time.0.as_second();
    current.status.phase == status.phase.as_str()
        && current.status.attempts == status.attempts
        && current.status.last_attempt.as_ref().map(|a| seconds(&a.time))
            == status.last_attempt.as_ref().map(|a| seconds(&a.time))
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;
    use kube::{
        Config,
        config::{KubeConfigOptions, Kubeconfig},
    };
    use testkit::{ControlPlane, chart};

    use super::*;
    use crate::cluster;

    #[test]
    fn an_explanation_says_what_a_notification_waits_for_and_what_to_do() {
        let expected = "the Subscriber is suspended: set the Subscriber's spec.suspend to false";
        assert_eq!(explanation(NotificationReason::Suspended), expected);
        for reason in NotificationReason::ALL {
            assert!(explanation(*reason).len() <= 256, "{reason}");
        }
    }

    #[test]
    fn an_outcome_tests_all_that_it_was_decided_from_and_wants_little_in_return() {
        let read = serde_json::from_value(json!({
            "metadata": {"name": "n", "namespace": "a", "uid": "u", "resourceVersion": "7"},
            "spec": {"subscriberRef": {"name": "s"}, "event": {"id": "e"}},
            "status": {"phase": "Pending", "attempts": 2, "lastHandledReplay": "1"},
        }));
        let status = NotificationStatus { phase: Phase::Delivered, attempts: 3, ..NotificationStatus::default() };
        let read = read.unwrap();
        let request = over(&read, &Expected::of(&read), &status).unwrap();
        let path = "/apis/tidings.dev/v1alpha1/namespaces/a/notifications/n/status";
        assert_eq!((request.method().as_str(), request.uri().path()), ("PATCH", path));
        assert!(request.uri().query().unwrap().contains("fieldManager=tidings"));
        assert_eq!(request.headers()["content-type"], "application/json-patch+json");
        assert!(request.headers()[ACCEPT].to_str().unwrap().starts_with("application/json;as=PartialObjectMetadata;"));
        let patch: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        let expected = json!([
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "test", "path": "/status/phase", "value": "Pending"},
            {"op": "test", "path": "/status/attempts", "value": 2},
            {"op": "test", "path": "/status/lastHandledReplay", "value": "1"},
            {"op": "add", "path": "/status", "value": status},
        ]);
        assert_eq!(patch, expected);
    }

    /// The outcome of a former leader, or of a write that timed out, may reach the API server after the Notification
    /// was replayed.
    #[tokio::test]
    async fn an_outcome_of_the_life_before_a_replay_changes_nothing() {
        let plane = ControlPlane::shared().await.unwrap();
        chart::install_crds_once(plane).await.unwrap();
        let namespace = "replay-late";
        plane.kubectl(&["create", "namespace", namespace]).await.unwrap().ok().unwrap();
        let notification = json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": "n"},
            "spec": {"subscriberRef": {"name": "shop"}, "event": {"id": "n", "source": "/shop", "type": "order.paid"}},
        });
        plane.admin().apply(&notification.to_string(), &["-n", namespace]).await.unwrap();
        let kubeconfig = Kubeconfig::read_from(plane.admin_kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let writer = StatusWriter::new(cluster::writer(&config).await.unwrap(), Metrics::default());
        let api = writer.client.namespaced::<Unfinished>(namespace);
        let stored = async || {
            let get = ["-n", namespace, "get", "notification", "n", "-o", "json"];
            let stored = plane.kubectl(&get).await.unwrap().ok().unwrap();
            serde_json::from_str::<serde_json::Value>(&stored).unwrap()
        };
        let read = api.get("n").await.unwrap();
        let outcome = json!({"phase": "Delivered", "reason": "Acknowledged", "attempts": 1});
        let outcome: NotificationStatus = serde_json::from_value(outcome).unwrap();
        let replayed = json!({"status": {"phase": "Pending", "attempts": 0, "lastHandledReplay": "1"}}).to_string();
        let patch = ["-n", namespace, "patch", "ntf", "n", "--subresource=status", "--type=merge", "-p", &replayed];
        plane.kubectl(&patch).await.unwrap().ok().unwrap();
        let before = stored().await;
        writer.record(&read, outcome.clone()).await;
        assert_eq!(stored().await, before);
        writer.record(&api.get("n").await.unwrap(), outcome).await;
        assert_eq!(stored().await["status"]["phase"], "Delivered", "the outcome of this life is written");
    }
}
