//! Replay: sets a Notification with a new value of the label `tidings.dev/replay` back to Pending, with one write.
//!
//! The label stays. The status keeps the last ten values that were handled, so a label that is kept in Git sends nothing
//! twice, not even if Git restores it over a newer value.
//! The queue then sees the Notification again through its own watch and sends the event with the same event id.
//!
//! An attempt that is in flight when a replay is requested writes its outcome only until the replay is written: the
//! patch tests the last handled value. If the outcome comes first, the replay replaces it. If the outcome comes later,
//! from this process or a former leader, it is dropped. Either way, an attempt follows that starts after the label was
//! set. If the attempt itself started after the replay was written, with an object that did not show the replay yet,
//! its outcome counts for the replay: [`HandledReplays`] knows this. After a crash at any point, the label differs from
//! the handled value, and the next start finds it.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, future, stream::FuturesUnordered};
use json_patch::PatchOperation;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tidings_api::{NotificationReason, NotificationStatus, Phase, REPLAY_LABEL};
use tidings_queue::Backoff;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{replayed::HandledReplays, retention::FinishedCount, status::in_phase, stored::StoredNotification};
use crate::{
    cluster::{
        SingleTry,
        call::{WATCH_SECONDS, found, in_namespace, in_time, is_too_large, plain, plain_watch},
        patch::{self, add, test},
    },
    metrics::{Metrics, WatchedKind, WriteResult, WrittenKind},
};

/// The maximum number of concurrent replays.
const AT_ONCE: usize = 8;
/// The number of objects in a page. Each object includes its event of up to 1.5 MiB, and a page is held twice while it
/// is read.
const PAGE: u32 = 4;
/// How many times the operator tries to write one replay before it postpones the replay.
const TRIES: u32 = 8;
/// The waits between these tries: 11 s in total.
const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };
/// A postponed replay is read and tried again after this time.
const LATER: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(600) };

/// Watches for Notifications to replay.
pub struct Replays {
    client: Client,
    writer: SingleTry,
    metrics: Metrics,
    /// The count of finished Notifications, which a replay reduces.
    finished_count: FinishedCount,
    /// The record of handled replays.
    handled: Arc<HandledReplays>,
}

/// A Notification to check for a replay.
enum ReplayTask {
    /// Shown by the watch.
    Read(Box<StoredNotification>),
    /// Postponed before.
    Again(FailedReplay),
}

/// A replay that failed and is postponed.
struct FailedReplay {
    uid: String,
    namespace: String,
    name: String,
    failures: u32,
}

impl Replays {
    /// Lists and watches with `client`, reads and writes with `writer`. Each replay reduces `finished_count` and is
    /// recorded in `handled`.
    pub fn new(
        client: Client,
        writer: SingleTry,
        metrics: Metrics,
        finished_count: FinishedCount,
        handled: Arc<HandledReplays>,
    ) -> Self {
        Self { client, writer, metrics, finished_count, handled }
    }

    /// Replays Notifications on request in one namespace (None: in all) until `shutdown`.
    pub async fn run(self, namespace: Option<String>, shutdown: impl Future<Output = ()>) {
        future::select(pin!(self.watch(namespace.as_deref())), pin!(shutdown)).await;
    }

    /// Follows the watch until it is dropped. A replay that fails is retried with growing waits, and takes no slot of
    /// other replays while it waits.
    async fn watch(&self, namespace: Option<&str>) {
        let mut requested = pin!(self.requested(namespace));
        let (mut under_way, mut waiting) = (FuturesUnordered::new(), FuturesUnordered::new());
        // By uid: a Notification that changes while it waits is tried immediately, but waits only once.
        let mut left: HashSet<String> = HashSet::new();
        loop {
            let has_room = under_way.len() < AT_ONCE;
            tokio::select! {
                Some(read) = requested.next(), if has_room => under_way.push(self.attend(ReplayTask::Read(Box::new(read)))),
                Some(again) = waiting.next(), if has_room => {
                    let again: FailedReplay = again;
                    left.remove(&again.uid);
                    under_way.push(self.attend(ReplayTask::Again(again)));
                }
                Some(undone) = under_way.next() => if let Some(undone) = undone && left.insert(undone.uid.clone()) {
                    let wait = LATER.wait(undone.failures, rand::random());
                    waiting.push(async move {
                        sleep(wait).await;
                        undone
                    });
                },
                else => return,
            }
        }
    }

    /// Returns all Notifications with the label that the watch shows, whether or not the label was handled.
    fn requested(&self, namespace: Option<&str>) -> impl Stream<Item = StoredNotification> {
        let api: Api<StoredNotification> = in_namespace(&self.client, namespace);
        let config = watcher::Config::default().labels(REPLAY_LABEL).page_size(PAGE).timeout(WATCH_SECONDS);
        watcher::watcher(api, config).default_backoff().filter_map(|event| async {
            match event {
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => Some(object),
                Ok(_) => None,
                Err(error) => {
                    self.metrics.watch_restarted(WatchedKind::Notification);
                    warn!(error = %plain_watch(&error), "watching for Notifications to replay failed; retrying");
                    None
                }
            }
        })
    }

    /// Handles one Notification. Returns the replay if it must be tried again later.
    async fn attend(&self, task: ReplayTask) -> Option<FailedReplay> {
        let (read, failures) = match task {
            ReplayTask::Read(read) => (*read, 0),
            ReplayTask::Again(left) => {
                let api: Api<StoredNotification> = self.writer.namespaced(&left.namespace);
                match found(in_time(api.get(&left.name)).await) {
                    Ok(read) => (read.filter(|read| read.metadata.uid.as_ref() == Some(&left.uid))?, left.failures),
                    Err(_) => return Some(FailedReplay { failures: left.failures.saturating_add(1), ..left }),
                }
            }
        };
        let (uid, namespace, name) = (read.metadata.uid.clone()?, read.namespace().to_owned(), read.name().to_owned());
        let is_done = self.handle(read).await;
        (!is_done).then(|| FailedReplay { uid, namespace, name, failures: failures.saturating_add(1) })
    }

    /// Replays `read` if its label requests that. Returns false if the replay is requested and failed.
    ///
    /// After every failure, this decides again from the stored object: a write whose response was lost is then found to
    /// be handled.
    async fn handle(&self, mut read: StoredNotification) -> bool {
        for tries in 1..=TRIES {
            let Some(status) = replayed(&read, Timestamp::now()) else {
                if tries > 1 {
                    self.handled.note(&read);
                }
                return true;
            };
            let error = match self.write(&read, &status).await {
                Ok(()) => {
                    self.succeeded(&read);
                    return true;
                }
                // It is checked again when it changes, or after a restart.
                Err(error) if is_too_large(&error) => {
                    self.count(WriteResult::TooLarge);
                    warn!(
                        namespace = read.namespace(),
                        name = read.name(),
                        "cannot replay the Notification: the object is too large for its status; create a Notification with less data"
                    );
                    return true;
                }
                Err(error) => error,
            };
            sleep(BACKOFF.wait(tries, rand::random())).await;
            let current = found(in_time(self.api(&read).get(read.name())).await);
            let is_same = |current: &StoredNotification| {
                (&current.metadata.uid, &current.metadata.resource_version)
                    == (&read.metadata.uid, &read.metadata.resource_version)
            };
            let is_unchanged = !matches!(&current, Ok(current) if !current.as_ref().is_some_and(is_same));
            self.failed(&read, &error, is_unchanged);
            match current {
                Ok(Some(current)) if current.metadata.uid == read.metadata.uid => {
                    read = current;
                    if is_unchanged && is_refusal(&error) {
                        // The write depends on nothing that has changed: a policy refuses it.
                        return false;
                    }
                }
                Ok(_) => return true,
                Err(_) => {}
            }
        }
        replayed(&read, Timestamp::now()).is_none()
    }

    async fn write(&self, read: &StoredNotification, status: &NotificationStatus) -> Result<(), kube::Error> {
        in_time(self.writer.request::<PartialObjectMeta<StoredNotification>>(request(read, status)?)).await.map(drop)
    }

    fn succeeded(&self, read: &StoredNotification) {
        self.handled.note(read);
        self.count(WriteResult::Recorded);
        if read.status.is_finished() {
            self.finished_count.changed(read.namespace(), -1);
        }
        info!(
            namespace = read.namespace(),
            name = read.name(),
            label = read.replay_label(),
            "replayed; the event will be sent again"
        );
    }

    /// Counts a write that failed. `is_unchanged`: the Notification is as the write expected it, as far as is known.
    fn failed(&self, read: &StoredNotification, error: &kube::Error, is_unchanged: bool) {
        if !is_unchanged && matches!(error, kube::Error::Api(answer) if matches!(answer.code, 404 | 409 | 422)) {
            self.count(WriteResult::Conflict);
        } else {
            self.count(WriteResult::Error);
            warn!(namespace = read.namespace(), name = read.name(), error = %plain(error), "cannot replay the Notification yet; retrying");
        }
    }

    fn count(&self, result: WriteResult) {
        self.metrics.api_write(WrittenKind::Notification, result);
    }

    fn api(&self, read: &StoredNotification) -> Api<StoredNotification> {
        self.writer.namespaced(read.namespace())
    }
}

/// Whether the API server refused the write itself, so that a retry is refused too.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if (400..500).contains(&answer.code) && !matches!(answer.code, 408 | 409 | 429))
}

/// Returns the status that sends `read` again (None: the value of its label was handled already).
fn replayed(read: &StoredNotification, now: Timestamp) -> Option<NotificationStatus> {
    let asked = read.requested_replay().filter(|_| !read.is_being_deleted())?;
    let message = format!("queued again by the label {REPLAY_LABEL}={asked}");
    Some(NotificationStatus {
        attempts: 0,
        deferred_attempts: 0,
        last_attempt: None,
        replay_time: Some(Time(now)),
        last_handled_replay: Some(asked.to_owned()),
        handled_replays: read.status.and_handled(asked),
        ..in_phase(&read.metadata, &read.status, Phase::Pending, NotificationReason::Queued, &message, now)
    })
}

fn request(read: &StoredNotification, status: &NotificationStatus) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let mut request = patch::request::<StoredNotification>(read.namespace(), read.name(), operations(read, status))?;
    patch::want_metadata_alone(&mut request);
    Ok(request)
}

/// Makes the patch that replaces the status in `read` with `status`, and no other status: an outdated label replays
/// nothing.
fn operations(read: &StoredNotification, status: &NotificationStatus) -> Vec<PatchOperation> {
    vec![
        test(["metadata", "uid"], json!(read.metadata.uid)),
        test(["metadata", "labels", REPLAY_LABEL], json!(status.last_handled_replay)),
        test(["status", "phase"], json!(read.status.phase)),
        test(["status", "attempts"], json!(read.status.attempts)),
        test(["status", "lastHandledReplay"], json!(read.status.last_handled_replay)),
        add(["status"], json!(status)),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use tidings_api::ConditionStatus;

    fn stored(change: impl FnOnce(&mut Value)) -> StoredNotification {
        let condition = |type_, status| {
            json!({"type": type_, "status": status, "reason": "Exhausted", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let mut object = json!({
            "metadata": {
                "name": "n", "namespace": "a", "uid": "u", "resourceVersion": "7", "generation": 1,
                "labels": {"tidings.dev/replay": "1", "other": "x"},
            },
            "spec": {"subscriberRef": {"name": "s"}, "event": {"id": "e"}},
            "status": {
                "observedGeneration": 1, "phase": "Failed", "reason": "Exhausted", "message": "m", "attempts": 5,
                "deferredAttempts": 2, "eventID": "e", "completionTime": "2026-01-01T00:00:00Z",
                "nextAttemptTime": "2026-01-01T00:00:00Z",
                "lastAttempt": {"time": "2026-01-01T00:00:00Z", "reason": "ServerError", "durationMilliseconds": 1},
                "conditions": [condition("Ready", "False"), condition("Delivered", "False"), condition("Stalled", "True")],
            },
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    fn now() -> Timestamp {
        "2026-02-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_new_value_resets_everything_but_the_event_id_and_the_conditions() {
        let status = replayed(&stored(|_| ()), now()).unwrap();
        let written = serde_json::to_value(&status).unwrap();
        let fields: Vec<_> = written.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "attempts",
            "conditions",
            "eventID",
            "handledReplays",
            "lastHandledReplay",
            "message",
            "observedGeneration",
            "phase",
            "reason",
            "replayTime",
        ];
        assert_eq!(fields, expected);
        assert_eq!((&written["phase"], &written["reason"]), (&json!("Pending"), &json!("Queued")));
        assert_eq!((&written["attempts"], &written["eventID"]), (&json!(0), &json!("e")));
        assert_eq!((&written["lastHandledReplay"], &written["handledReplays"]), (&json!("1"), &json!(["1"])));
        assert_eq!(written["replayTime"], "2026-02-01T00:00:00Z");
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status, c.reason.as_str(), c.last_transition_time.0 == now()))
            .collect();
        let expected = [
            ("Ready", ConditionStatus::False, "Queued", false),
            ("Delivered", ConditionStatus::False, "Queued", false),
            ("Reconciling", ConditionStatus::True, "Queued", true),
        ];
        assert_eq!(conditions, expected);
    }

    #[test]
    fn every_phase_can_be_replayed() {
        for phase in ["Pending", "Delivered", "Failed", "SomethingNew"] {
            assert!(replayed(&stored(|n| n["status"]["phase"] = json!(phase)), now()).is_some(), "{phase}");
        }
    }

    #[test]
    fn no_label_a_handled_value_or_a_deletion_under_way_change_nothing() {
        let unlabelled = stored(|n| n["metadata"]["labels"] = json!({"other": "1"}));
        let handled = stored(|n| n["status"]["lastHandledReplay"] = json!("1"));
        let deleted = stored(|n| n["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        for (what, object) in [("unlabelled", unlabelled), ("handled", handled), ("deleted", deleted)] {
            assert_eq!(replayed(&object, now()), None, "{what}");
        }
        assert!(replayed(&stored(|n| n["status"]["lastHandledReplay"] = json!("0")), now()).is_some());
    }

    #[test]
    fn a_value_that_was_handled_before_another_value_is_not_new() {
        let handled = |values: Value| {
            stored(|n| (n["status"]["lastHandledReplay"], n["status"]["handledReplays"]) = (json!("2"), values))
        };
        assert_eq!(replayed(&handled(json!(["1", "2"])), now()), None);
        let status = replayed(&handled(json!(["0", "2"])), now()).unwrap();
        assert_eq!(status.handled_replays, ["0", "2", "1"]);
        // Of an earlier version, or not readable.
        for values in [Value::Null, json!("1")] {
            assert_eq!(replayed(&handled(values), now()).unwrap().handled_replays, ["2", "1"]);
        }
    }

    #[test]
    fn an_empty_value_is_a_value_too() {
        let empty = stored(|n| n["metadata"]["labels"]["tidings.dev/replay"] = json!(""));
        let status = replayed(&empty, now()).unwrap();
        assert_eq!(status.last_handled_replay.as_deref(), Some(""));
    }

    #[test]
    fn the_message_fits_with_the_longest_value() {
        let longest = stored(|n| n["metadata"]["labels"]["tidings.dev/replay"] = json!("x".repeat(63)));
        let message = replayed(&longest, now()).unwrap().message.unwrap();
        assert!(message.chars().count() <= 256, "{message}");
    }

    #[test]
    fn the_answer_to_the_write_is_to_be_the_metadata_alone() {
        let read = stored(|_| ());
        let request = request(&read, &replayed(&read, now()).unwrap()).unwrap();
        let accept = request.headers()[http::header::ACCEPT].to_str().unwrap();
        assert!(accept.starts_with("application/json;as=PartialObjectMetadata;"), "{accept}");
    }

    #[test]
    fn the_patch_tests_all_that_was_decided_from() {
        let tested = |read: &StoredNotification| {
            let status = replayed(read, now()).unwrap();
            let patch = json!(operations(read, &status));
            let (add, tests) = patch.as_array().unwrap().split_last().unwrap();
            assert_eq!((&add["op"], &add["path"]), (&json!("add"), &json!("/status")));
            assert!(tests.iter().all(|test| test["op"] == "test"), "{tests:?}");
            let paths = tests.iter().map(|test| (test["path"].as_str().unwrap().to_owned(), test["value"].clone()));
            paths.collect::<Vec<_>>()
        };
        let base = [
            ("/metadata/uid".to_owned(), json!("u")),
            ("/metadata/labels/tidings.dev~1replay".to_owned(), json!("1")),
            ("/status/phase".to_owned(), json!("Failed")),
            ("/status/attempts".to_owned(), json!(5)),
        ];
        let with = |handled| [&base[..], &[("/status/lastHandledReplay".to_owned(), handled)]].concat();
        assert_eq!(tested(&stored(|_| ())), with(Value::Null));
        let again = stored(|n| n["status"]["lastHandledReplay"] = json!("0"));
        assert_eq!(tested(&again), with(json!("0")));
    }
}
