//! Remembers the replays that this process handled recently, for attempts whose watch has not shown them yet.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::api::ObjectMeta;

use super::{stored::StoredNotification, wire::Unfinished};

/// After this time, every watch has shown the replay or has listed again.
const REMEMBERED: Duration = Duration::from_secs(300);
/// The maximum number of remembered replays. A replay beyond that may be sent twice.
const MOST: usize = 10_000;

/// The replays that this process wrote, or found written, within the last [`REMEMBERED`]: for each Notification the
/// value of the label, and since when the API server has that value as handled.
///
/// `replay.rs` records them. `source.rs` queries them when the write of an outcome meets a replay: an attempt that
/// began after the replay was written is what that replay requested, and its outcome counts. Times are those of this
/// process's monotonic clock.
#[derive(Default)]
pub struct HandledReplays(Mutex<Handled>);

#[derive(Default)]
struct Handled {
    /// By uid: the value of the label, and since when the API server is known to have it as handled.
    by_uid: HashMap<String, (String, Instant)>,
    /// When each replay was recorded, the oldest first.
    noted: VecDeque<(Instant, String)>,
}

impl HandledReplays {
    /// Records that the API server has the label of `read` as handled now.
    pub fn note(&self, read: &StoredNotification) {
        if let (Some(uid), Some(label)) = (read.metadata.uid.as_deref(), read.replay_label()) {
            self.note_at(uid, label, Instant::now());
        }
    }

    /// Whether `current` was replayed, `read` does not show the replay, and the replay was handled before `attempt`
    /// began. Then the attempt is the one that the replay requested.
    pub fn came_before(&self, attempt: Instant, read: &Unfinished, current: &Unfinished) -> bool {
        let label = current.status.last_handled_replay.as_ref();
        let is_unheard = label != read.status.last_handled_replay.as_ref();
        is_unheard && label.is_some_and(|label| self.was_handled(&current.metadata, label, attempt))
    }

    fn was_handled(&self, of: &ObjectMeta, label: &str, before: Instant) -> bool {
        let handled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = of.uid.as_ref().and_then(|uid| handled.by_uid.get(uid));
        known.is_some_and(|(handled, since)| handled == label && *since <= before)
    }

    fn note_at(&self, uid: &str, label: &str, now: Instant) {
        let mut handled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Handled { by_uid, noted } = &mut *handled;
        let is_over = |at: &Instant| now.duration_since(*at) >= REMEMBERED;
        while noted.len() >= MOST || noted.front().is_some_and(|(at, _)| is_over(at)) {
            let Some((at, uid)) = noted.pop_front() else { break };
            // The replay may have been recorded again since.
            if by_uid.get(&uid).is_some_and(|(_, since)| *since == at) {
                by_uid.remove(&uid);
            }
        }
        by_uid.insert(uid.to_owned(), (label.to_owned(), now));
        noted.push_back((now, uid.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn handled(label: Option<&str>) -> Unfinished {
        let object = json!({"metadata": {"name": "n", "uid": "u"}, "spec": {"subscriberRef": {"name": "s"}, "event": {}},
            "status": {"phase": "Pending", "lastHandledReplay": label}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_attempt_counts_for_a_replay_if_it_began_after_the_replay() {
        let (replays, handled_at) = (HandledReplays::default(), Instant::now());
        let (before, after) = (handled_at - Duration::from_secs(1), handled_at + Duration::from_secs(1));
        replays.note_at("u", "2", handled_at);
        let came_before = |attempt, read, current| replays.came_before(attempt, &handled(read), &handled(current));
        assert!(came_before(after, Some("1"), Some("2")) && came_before(after, None, Some("2")));
        assert!(!came_before(before, Some("1"), Some("2")), "the attempt began before the replay");
        assert!(!came_before(after, Some("2"), Some("2")), "the attempt knows the replay");
        assert!(!came_before(after, Some("2"), Some("3")), "this process did not handle that replay");
    }

    #[test]
    fn what_was_handled_long_ago_is_forgotten() {
        let (replays, now) = (HandledReplays::default(), Instant::now());
        replays.note_at("u", "1", now);
        replays.note_at("v", "1", now);
        replays.note_at("v", "2", now + REMEMBERED / 2);
        replays.note_at("w", "1", now + REMEMBERED);
        let handled = replays.0.lock().unwrap();
        let mut known: Vec<_> = handled.by_uid.keys().map(String::as_str).collect();
        known.sort_unstable();
        assert_eq!((known, handled.noted.len()), (vec!["v", "w"], 2));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for_and_the_newest_are() {
        let (replays, now) = (HandledReplays::default(), Instant::now());
        (0..MOST + 5).for_each(|uid| replays.note_at(&uid.to_string(), "1", now));
        let handled = replays.0.lock().unwrap();
        assert_eq!((handled.by_uid.len(), handled.noted.len()), (MOST, MOST));
        assert!(handled.by_uid.contains_key(&(MOST + 4).to_string()) && !handled.by_uid.contains_key("4"));
    }
}
