//! Which finished Notification is to be deleted when. Pure: time is passed in.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::controller::stored::Stored;

/// How long finished Notifications are kept.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Seconds for those made with generateName that have no time of their own; None keeps them.
    pub generated_ttl: Option<u32>,
}

impl Rules {
    /// When one that was finished at `completed` is to be deleted; None: never.
    pub fn deadline(self, ttl: Option<u32>, generated: bool, completed: Timestamp) -> Option<Timestamp> {
        let seconds = ttl.or(self.generated_ttl.filter(|_| generated))?;
        completed.checked_add(SignedDuration::from_secs(seconds.into())).ok()
    }

    /// The same for what is stored: None too while it is not finished.
    pub fn deadline_of(self, stored: &Stored) -> Option<Timestamp> {
        let completed = stored.status.completion_time.as_ref().filter(|_| stored.status.is_finished())?.0;
        self.deadline(stored.spec.ttl_seconds_after_finished, stored.metadata.generate_name.is_some(), completed)
    }
}

/// One Notification and when it is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// When.
    pub at: Timestamp,
    /// Its uid: another one may get its name.
    pub uid: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// What to do with one whose time seemed to have come, now that it was read again.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its time has come: delete what was read, and only that.
    Delete,
    /// Its time comes then: it was finished anew, or a clock was wrong.
    Later(Timestamp),
    /// It is another one, is being deleted, or is (or is asked) to be sent again; it is heard of when that one finishes.
    Forget,
}

/// Decides about what was read under the name of the one with this uid.
pub fn decide(read: &Stored, uid: &str, rules: Rules, now: Timestamp) -> Decision {
    if read.metadata.uid.as_deref() != Some(uid) || read.is_being_deleted() || read.replay_asked_for().is_some() {
        return Decision::Forget;
    }
    match rules.deadline_of(read) {
        None => Decision::Forget,
        Some(at) if at > now => Decision::Later(at),
        Some(_) => Decision::Delete,
    }
}

/// All that are to be deleted, the next one first. There may be 100,000 of them: each is small.
///
/// One that was moved by a replay may stand here twice; it is read before anything is done, and the next complete
/// listing drops what it did not show.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// By deadline and label, with the number of the newest listing when it was last heard of.
    places: BTreeMap<(Timestamp, Label), u64>,
    listing: u64,
}

/// Uid, namespace and name in one text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Label(Box<str>);

impl Label {
    fn of(due: &Due) -> Self {
        Self([&*due.uid, &due.namespace, &due.name].join("/").into())
    }

    /// Neither a namespace nor a name holds a slash.
    fn due(&self, at: Timestamp) -> Due {
        let mut parts = self.0.rsplitn(3, '/').map(Box::from);
        let mut part = || parts.next().unwrap_or_default();
        Due { at, name: part(), namespace: part(), uid: part() }
    }
}

impl Deadlines {
    /// It is to be deleted then.
    pub fn add(&mut self, due: &Due) {
        self.places.insert((due.at, Label::of(due)), self.listing);
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.places.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the one that has been due longest, if one is.
    pub fn take_due(&mut self, now: Timestamp) -> Option<Due> {
        let first = self.places.first_entry().filter(|first| first.key().0 <= now)?;
        let (at, label) = first.remove_entry().0;
        Some(label.due(at))
    }

    /// A listing of everything begins.
    pub fn begin_listing(&mut self) {
        self.listing += 1;
    }

    /// The listing is complete: what was not heard of since it began is gone.
    pub fn end_listing(&mut self) {
        self.places.retain(|_, heard| *heard == self.listing);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const RULES: Rules = Rules { generated_ttl: Some(100) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn due(second: i64, uid: &str) -> Due {
        Due { at: at(second), uid: uid.into(), namespace: "a".into(), name: format!("name-of-{uid}").into() }
    }

    /// Finished at second 50 with a time to live of 10.
    fn stored(change: impl FnOnce(&mut Value)) -> Stored {
        let mut object = json!({
            "metadata": {"name": "n", "namespace": "a", "uid": "u"},
            "spec": {"ttlSecondsAfterFinished": 10},
            "status": {"phase": "Delivered", "attempts": 1, "completionTime": "1970-01-01T00:00:50Z"},
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn its_own_time_counts_then_that_of_generated_ones_and_without_either_it_is_kept() {
        assert_eq!(RULES.deadline(Some(5), false, at(1)), Some(at(6)));
        assert_eq!(RULES.deadline(Some(0), true, at(1)), Some(at(1)));
        assert_eq!(RULES.deadline(None, true, at(1)), Some(at(101)));
        assert_eq!(RULES.deadline(None, false, at(1)), None);
        let keep = Rules { generated_ttl: None };
        assert_eq!(keep.deadline(None, true, at(1)), None);
        assert_eq!(keep.deadline(Some(5), true, at(1)), Some(at(6)));
        assert_eq!(RULES.deadline(Some(u32::MAX), false, Timestamp::MAX), None, "beyond the calendar");
    }

    #[test]
    fn it_is_deleted_at_its_time_and_not_before() {
        let stored = stored(|_| ());
        assert_eq!(decide(&stored, "u", RULES, at(59)), Decision::Later(at(60)));
        assert_eq!(decide(&stored, "u", RULES, at(60)), Decision::Delete);
        assert_eq!(decide(&stored, "u", RULES, at(-1000)), Decision::Later(at(60)), "a clock that was set back");
    }

    #[test]
    fn another_one_of_its_name_one_sent_again_and_one_without_a_time_are_left_alone() {
        let pending = |n: &mut Value| n["status"] = json!({"phase": "Pending", "attempts": 0});
        let stale = |n: &mut Value| n["status"]["phase"] = json!("Pending");
        let unfinished_time = |n: &mut Value| n["status"]["completionTime"] = Value::Null;
        let kept = |n: &mut Value| n["spec"] = json!({});
        let going = |n: &mut Value| n["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:51Z");
        let asked_for = |n: &mut Value| n["metadata"]["labels"] = json!({"tidings.dev/replay": "2"});
        assert_eq!(decide(&stored(|_| ()), "another", RULES, at(99)), Decision::Forget);
        let left_alone = [pending, stale, unfinished_time, kept, going, asked_for];
        for object in left_alone.map(|change: fn(&mut Value)| stored(change)) {
            assert_eq!(decide(&object, "u", RULES, at(99)), Decision::Forget, "{object:?}");
        }
        let handled = stored(|n| {
            asked_for(n);
            n["status"]["lastHandledReplay"] = json!("2");
        });
        assert_eq!(decide(&handled, "u", RULES, at(99)), Decision::Delete);
        let anew = stored(|n| n["status"]["completionTime"] = json!("1970-01-01T00:01:30Z"));
        assert_eq!(decide(&anew, "u", RULES, at(99)), Decision::Later(at(100)));
    }

    #[test]
    fn one_made_with_generate_name_is_told_by_its_metadata() {
        let generated = stored(|n| {
            n["spec"] = json!({});
            n["metadata"]["generateName"] = json!("n-");
        });
        assert_eq!(RULES.deadline_of(&generated), Some(at(150)));
    }

    #[test]
    fn they_come_in_the_order_of_their_deadlines_and_none_too_early() {
        let mut deadlines = Deadlines::default();
        for (second, uid) in [(30, "c"), (10, "a"), (20, "b"), (10, "a2")] {
            deadlines.add(&due(second, uid));
        }
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.take_due(at(9)), None);
        let taken: Vec<_> = std::iter::from_fn(|| deadlines.take_due(at(20))).collect();
        assert_eq!(taken, [due(10, "a"), due(10, "a2"), due(20, "b")]);
        assert_eq!(deadlines.next(), Some(at(30)));
    }

    #[test]
    fn a_complete_listing_drops_what_was_not_heard_of_since_it_began() {
        let mut deadlines = Deadlines::default();
        for (second, uid) in [(10, "deleted"), (20, "listed"), (30, "moved")] {
            deadlines.add(&due(second, uid));
        }
        deadlines.begin_listing();
        deadlines.add(&due(20, "listed"));
        deadlines.begin_listing(); // the first one broke off
        for (second, uid) in [(20, "listed"), (35, "moved"), (40, "finished meanwhile")] {
            deadlines.add(&due(second, uid));
        }
        deadlines.end_listing();
        let left: Vec<_> = std::iter::from_fn(|| deadlines.take_due(at(99))).collect();
        assert_eq!(left, [due(20, "listed"), due(35, "moved"), due(40, "finished meanwhile")]);
    }
}
