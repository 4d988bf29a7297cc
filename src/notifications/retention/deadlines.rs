//! Decides when each finished Notification is deleted. Pure: the caller passes the time in.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::notifications::stored::StoredNotification;

/// How long finished Notifications are kept.
#[derive(Clone, Copy, Debug)]
pub struct RetentionRules {
    /// Seconds that a Notification created with generateName and without its own TTL is kept; None: forever.
    pub generated_ttl: Option<u32>,
}

impl RetentionRules {
    /// Returns when to delete a Notification that finished at `completed`; None: never.
    pub fn deadline(self, ttl: Option<u32>, generated: bool, completed: Timestamp) -> Option<Timestamp> {
        let seconds = ttl.or(self.generated_ttl.filter(|_| generated))?;
        completed.checked_add(SignedDuration::from_secs(seconds.into())).ok()
    }

    /// Returns when to delete a stored Notification; None: never, or it is not finished.
    pub fn deadline_of(self, stored: &StoredNotification) -> Option<Timestamp> {
        let completed = stored.status.completion_time.as_ref().filter(|_| stored.status.is_finished())?.0;
        self.deadline(stored.spec.ttl_seconds_after_finished, stored.metadata.generate_name.is_some(), completed)
    }
}

/// A Notification and when to delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub at: Timestamp,
    /// The uid: another Notification may get the same name.
    pub uid: Box<str>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    /// The resourceVersion at which this was decided; None: read the Notification first.
    pub version: Option<u64>,
    /// How many deletions have failed.
    pub failures: u32,
}

/// What to do with a Notification that seemed to be due, after it was read again.
#[derive(Debug, PartialEq, Eq)]
pub enum DeletionDecision {
    /// Delete the Notification, if it is still the one that was read.
    Delete,
    /// Wait until then: the Notification finished again, or a clock was wrong.
    Later(Timestamp),
    /// Nothing to delete: this is another Notification, or it is being deleted or replayed. It is added again when it
    /// finishes.
    Forget,
}

/// Decides about the Notification `read`, which has the same name as the one with this uid.
pub fn decide(read: &StoredNotification, uid: &str, rules: RetentionRules, now: Timestamp) -> DeletionDecision {
    if read.metadata.uid.as_deref() != Some(uid) || read.is_being_deleted() || read.requested_replay().is_some() {
        return DeletionDecision::Forget;
    }
    match rules.deadline_of(read) {
        None => DeletionDecision::Forget,
        Some(at) if at > now => DeletionDecision::Later(at),
        Some(_) => DeletionDecision::Delete,
    }
}

/// The maximum number of concurrent deletions, in total and in one namespace, so that a slow namespace leaves room for
/// the others.
const AT_ONCE: usize = 16;
const OF_ONE_NAMESPACE: usize = 8;
/// Both limits grow by the same amount for each second that deletion is late, up to these maxima. Deletion that falls
/// behind while the API server is busy gets a larger share, so the number of stored objects stays bounded.
const AT_ONCE_IF_LATE: usize = 128;
const OF_ONE_NAMESPACE_IF_LATE: usize = 96;
/// The maximum number of concurrent deletions in a namespace whose last deletion failed.
const OF_ONE_THAT_FAILS: usize = 1;

/// All Notifications to delete, by namespace; the namespaces take turns. There may be 100,000 of them, so each entry is
/// small.
///
/// A replay may leave a Notification in here twice. The API server refuses to delete an old version, and the next
/// complete listing drops entries that it did not show.
#[derive(Debug, Default)]
pub struct Deadlines {
    namespaces: BTreeMap<Box<str>, NamespaceDeadlines>,
    /// The namespace that had the last turn.
    last: Box<str>,
    listing: u64,
}

#[derive(Debug, Default)]
struct NamespaceDeadlines {
    /// Sorted by deadline.
    places: BTreeMap<(Timestamp, PackedName), DeadlinePlace>,
    under_way: usize,
    /// The number of consecutive failures, and until when deletion pauses in this namespace.
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct DeadlinePlace {
    /// The number of the newest listing when the entry was last added.
    listing: u64,
    version: Option<u64>,
    failures: u32,
}

/// Uid and name in one text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PackedName(Box<str>);

impl PackedName {
    fn of(due: &Due) -> Self {
        Self([&*due.uid, &due.name].join("/").into())
    }

    /// Splits the text into uid and name. A name contains no slash.
    fn parts(&self) -> (Box<str>, Box<str>) {
        self.0.rsplit_once('/').map(|(uid, name)| (uid.into(), name.into())).unwrap_or_default()
    }
}

impl NamespaceDeadlines {
    fn has_room(&self, now: Timestamp) -> bool {
        let room = match self.failures {
            0 => grown(OF_ONE_NAMESPACE, OF_ONE_NAMESPACE_IF_LATE, self.late_by(now)),
            _ => OF_ONE_THAT_FAILS,
        };
        self.under_way < room
    }

    /// How many seconds the first entry is late; 0 in a namespace with failures, whose lateness has other reasons.
    fn late_by(&self, now: Timestamp) -> usize {
        let first = self.places.first_key_value().filter(|_| self.failures == 0);
        let late = first.and_then(|((at, _), _)| Duration::try_from(now.duration_since(*at)).ok());
        late.map_or(0, |late| usize::try_from(late.as_secs()).unwrap_or(usize::MAX))
    }

    /// How long until the first entry may be deleted; None: there is none, or the limit is reached.
    fn wait(&self, now: Timestamp, instant: Instant) -> Option<Duration> {
        let at = self.places.first_key_value().filter(|_| self.has_room(now))?.0.0;
        let until_due = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        let pause = self.not_before.map_or(Duration::ZERO, |end| end.saturating_duration_since(instant));
        Some(until_due.max(pause))
    }
}

impl Deadlines {
    /// Adds a Notification with the time of its deletion.
    pub fn add(&mut self, due: &Due) {
        let place = DeadlinePlace { listing: self.listing, version: due.version, failures: due.failures };
        let namespace = self.namespaces.entry(due.namespace.clone()).or_default();
        namespace.places.insert((due.at, PackedName::of(due)), place);
    }

    /// Returns how many deletions may run concurrently.
    pub fn at_once(&self, now: Timestamp) -> usize {
        let late = self.namespaces.values().map(|namespace| namespace.late_by(now)).max();
        grown(AT_ONCE, AT_ONCE_IF_LATE, late.unwrap_or_default())
    }

    /// Returns how long until the next Notification may be deleted.
    pub fn wait(&self, now: Timestamp, instant: Instant) -> Option<Duration> {
        self.namespaces.values().filter_map(|namespace| namespace.wait(now, instant)).min()
    }

    /// Takes the Notification that has been due longest in the namespace whose turn it is, if one is due. [`Self::end`]
    /// frees its slot.
    pub fn take_due(&mut self, now: Timestamp, instant: Instant) -> Option<Due> {
        let behind = self.namespaces.range::<str, _>((Excluded(&*self.last), Unbounded));
        let mut in_turn = behind.chain(self.namespaces.range::<str, _>((Unbounded, Included(&*self.last))));
        let (name, _) = in_turn.find(|(_, namespace)| namespace.wait(now, instant) == Some(Duration::ZERO))?;
        self.last.clone_from(name);
        let namespace = self.namespaces.get_mut(&self.last)?;
        let ((at, label), DeadlinePlace { version, failures, .. }) = namespace.places.pop_first()?;
        namespace.under_way += 1;
        let (uid, name) = label.parts();
        Some(Due { at, uid, namespace: self.last.clone(), name, version, failures })
    }

    /// Records the end of a deletion in this namespace. After a failure, deletion pauses there for the time that
    /// `pause` returns for the number of consecutive failures.
    pub fn end(&mut self, of: &str, failed: bool, instant: Instant, pause: impl FnOnce(u32) -> Duration) {
        let Some(namespace) = self.namespaces.get_mut(of) else { return };
        namespace.under_way = namespace.under_way.saturating_sub(1);
        if !failed {
            (namespace.failures, namespace.not_before) = (0, None);
        } else if namespace.not_before.is_none_or(|end| end <= instant) {
            // Failures of concurrent deletions count as one.
            namespace.failures = namespace.failures.saturating_add(1);
            namespace.not_before = Some(instant + pause(namespace.failures));
        }
        if namespace.under_way == 0 && namespace.places.is_empty() {
            self.namespaces.remove(of);
        }
    }

    /// Starts a listing of one namespace or of all, and returns its number.
    pub fn begin_listing(&mut self) -> u64 {
        self.listing += 1;
        self.listing
    }

    /// Ends the listing with this number, which is complete: entries that were not added since it began are removed.
    pub fn end_listing(&mut self, listing: u64, scope: Option<&str>) {
        self.namespaces.retain(|name, namespace| {
            if scope.is_none_or(|scope| scope == &**name) {
                namespace.places.retain(|_, place| place.listing >= listing);
            }
            namespace.under_way > 0 || !namespace.places.is_empty()
        });
    }
}

/// Returns `usual`, plus the same amount for each second of lateness, up to `most`.
fn grown(usual: usize, most: usize, late_by: usize) -> usize {
    usual.saturating_mul(late_by.saturating_add(1)).min(most)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const RULES: RetentionRules = RetentionRules { generated_ttl: Some(100) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn due(second: i64, uid: &str) -> Due {
        due_in("a", second, uid)
    }

    fn due_in(namespace: &str, second: i64, uid: &str) -> Due {
        let name = format!("name-of-{uid}").into();
        Due { at: at(second), uid: uid.into(), namespace: namespace.into(), name, version: Some(7), failures: 0 }
    }

    /// Takes all Notifications that are due, as if each deletion ended immediately, or (`holding`) as if none ended.
    fn take(deadlines: &mut Deadlines, second: i64, holding: bool) -> Vec<Due> {
        let instant = Instant::now();
        let next = || {
            let due = deadlines.take_due(at(second), instant)?;
            if !holding {
                deadlines.end(&due.namespace, false, instant, |_| Duration::ZERO);
            }
            Some(due)
        };
        std::iter::from_fn(next).collect()
    }

    /// Finished at second 50 with a time to live of 10.
    fn stored(change: impl FnOnce(&mut Value)) -> StoredNotification {
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
        let keep = RetentionRules { generated_ttl: None };
        assert_eq!(keep.deadline(None, true, at(1)), None);
        assert_eq!(keep.deadline(Some(5), true, at(1)), Some(at(6)));
        assert_eq!(RULES.deadline(Some(u32::MAX), false, Timestamp::MAX), None, "beyond the calendar");
    }

    #[test]
    fn it_is_deleted_at_its_time_and_not_before() {
        let stored = stored(|_| ());
        assert_eq!(decide(&stored, "u", RULES, at(59)), DeletionDecision::Later(at(60)));
        assert_eq!(decide(&stored, "u", RULES, at(60)), DeletionDecision::Delete);
        assert_eq!(
            decide(&stored, "u", RULES, at(-1000)),
            DeletionDecision::Later(at(60)),
            "a clock that was set back"
        );
    }

    #[test]
    fn a_namesake_a_replayed_one_and_one_without_a_ttl_are_not_deleted() {
        let pending = |n: &mut Value| n["status"] = json!({"phase": "Pending", "attempts": 0});
        let stale = |n: &mut Value| n["status"]["phase"] = json!("Pending");
        let unfinished_time = |n: &mut Value| n["status"]["completionTime"] = Value::Null;
        let kept = |n: &mut Value| n["spec"] = json!({});
        let going = |n: &mut Value| n["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:51Z");
        let requested = |n: &mut Value| n["metadata"]["labels"] = json!({"tidings.dev/replay": "2"});
        assert_eq!(decide(&stored(|_| ()), "another", RULES, at(99)), DeletionDecision::Forget);
        let left_alone = [pending, stale, unfinished_time, kept, going, requested];
        for object in left_alone.map(|change: fn(&mut Value)| stored(change)) {
            assert_eq!(decide(&object, "u", RULES, at(99)), DeletionDecision::Forget, "{object:?}");
        }
        let handled = stored(|n| {
            requested(n);
            n["status"]["lastHandledReplay"] = json!("2");
        });
        assert_eq!(decide(&handled, "u", RULES, at(99)), DeletionDecision::Delete);
        let renewed = stored(|n| n["status"]["completionTime"] = json!("1970-01-01T00:01:30Z"));
        assert_eq!(decide(&renewed, "u", RULES, at(99)), DeletionDecision::Later(at(100)));
    }

    #[test]
    fn generate_name_is_recognized_by_the_metadata() {
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
        let now = Instant::now();
        assert_eq!(deadlines.wait(at(4), now), Some(Duration::from_secs(6)));
        assert_eq!(deadlines.take_due(at(9), now), None);
        assert_eq!(take(&mut deadlines, 20, false), [due(10, "a"), due(10, "a2"), due(20, "b")]);
        assert_eq!(deadlines.wait(at(20), now), Some(Duration::from_secs(10)));
    }

    #[test]
    fn namespaces_take_turns_however_many_are_due_in_one() {
        let mut deadlines = Deadlines::default();
        for uid in ["1", "2", "3"] {
            deadlines.add(&due_in("a", 1, uid));
        }
        deadlines.add(&due_in("b", 9, "late"));
        deadlines.add(&due_in("c", 5, "c"));
        let order: Vec<_> = take(&mut deadlines, 10, false).into_iter().map(|due| due.uid).collect();
        assert_eq!(order.iter().map(|uid| &**uid).collect::<Vec<_>>(), ["1", "late", "c", "2", "3"]);
        assert!(deadlines.namespaces.is_empty(), "a namespace with nothing left takes no memory");
    }

    #[test]
    fn one_namespace_has_a_share_of_what_is_under_way() {
        let mut deadlines = Deadlines::default();
        for n in 0..20 {
            deadlines.add(&due_in("a", 1, &n.to_string()));
        }
        deadlines.add(&due_in("b", 1, "b"));
        let taken = take(&mut deadlines, 1, true);
        assert_eq!(taken.iter().filter(|due| &*due.namespace == "a").count(), OF_ONE_NAMESPACE);
        assert_eq!(taken.len(), OF_ONE_NAMESPACE + 1);
        let now = Instant::now();
        assert_eq!(deadlines.wait(at(1), now), None, "the end of one of them is what comes next");
        deadlines.end("a", false, now, |_| Duration::ZERO);
        assert!(deadlines.take_due(at(1), now).is_some());
    }

    #[test]
    fn a_namespace_that_fails_pauses_alone_and_then_tries_one_at_a_time() {
        let mut deadlines = Deadlines::default();
        for uid in ["1", "2", "3"] {
            deadlines.add(&due_in("a", 1, uid));
        }
        let now = Instant::now();
        let pause = |failures: u32| Duration::from_secs(10 * u64::from(failures));
        let failed: Vec<_> = (0..2).map(|_| deadlines.take_due(at(1), now).unwrap()).collect();
        for due in &failed {
            deadlines.end(&due.namespace, true, now, pause);
            deadlines.add(&Due { at: at(100), failures: 1, ..due.clone() });
        }
        assert_eq!(deadlines.take_due(at(1), now), None);
        assert_eq!(deadlines.wait(at(1), now), Some(Duration::from_secs(10)), "two at the same time are one failure");
        deadlines.add(&due_in("b", 1, "b"));
        assert_eq!(deadlines.take_due(at(1), now), Some(due_in("b", 1, "b")));

        let later = now + Duration::from_secs(10);
        assert_eq!(deadlines.take_due(at(200), later), Some(due_in("a", 1, "3")));
        assert_eq!(deadlines.take_due(at(200), later), None, "one at a time");
        deadlines.end("a", false, later, pause);
        let again = deadlines.take_due(at(200), later).unwrap();
        assert_eq!((&*again.uid, again.failures, again.version), ("1", 1, Some(7)));
        assert!(deadlines.take_due(at(200), later).is_some(), "after a success the pause is over");
    }

    #[test]
    fn a_complete_listing_drops_entries_not_added_since_it_began() {
        let mut deadlines = Deadlines::default();
        for (second, uid) in [(10, "deleted"), (20, "listed"), (30, "moved")] {
            deadlines.add(&due(second, uid));
        }
        deadlines.add(&due_in("b", 10, "elsewhere"));
        deadlines.begin_listing();
        deadlines.add(&due(20, "listed"));
        let listing = deadlines.begin_listing(); // the first one broke off
        for (second, uid) in [(20, "listed"), (35, "moved"), (40, "finished meanwhile")] {
            deadlines.add(&due(second, uid));
        }
        deadlines.end_listing(listing, Some("a"));
        let mut left = take(&mut deadlines, 99, false);
        left.sort_by_key(|due| due.at);
        let expected = [due(20, "listed"), due(35, "moved"), due(40, "finished meanwhile")];
        assert_eq!(left, [&[due_in("b", 10, "elsewhere")], &expected[..]].concat());
    }

    #[test]
    fn a_listing_of_one_namespace_says_nothing_of_one_that_began_before_it() {
        let mut deadlines = Deadlines::default();
        let of_a = deadlines.begin_listing();
        deadlines.add(&due(10, "kept"));
        let of_b = deadlines.begin_listing();
        deadlines.end_listing(of_b, Some("b"));
        deadlines.end_listing(of_a, Some("a"));
        assert_eq!(take(&mut deadlines, 99, false), [due(10, "kept")]);
        let of_all = deadlines.begin_listing();
        deadlines.add(&due(10, "kept"));
        deadlines.end_listing(of_all, None);
        assert_eq!(take(&mut deadlines, 99, false), [due(10, "kept")]);
    }

    #[test]
    fn what_is_late_gets_more_at_once_up_to_a_bound_and_what_fails_does_not() {
        let mut deadlines = Deadlines::default();
        let (begin, pause) = (Instant::now(), |_| Duration::from_secs(1));
        (0..200).for_each(|n| deadlines.add(&due(10, &n.to_string())));
        let taken =
            |deadlines: &mut Deadlines, second| std::iter::from_fn(|| deadlines.take_due(at(second), begin)).count();
        assert_eq!((deadlines.at_once(at(10)), taken(&mut deadlines, 10)), (16, 8));
        assert_eq!((deadlines.at_once(at(12)), taken(&mut deadlines, 12)), (48, 16), "24 are under way");
        assert_eq!((deadlines.at_once(at(99)), taken(&mut deadlines, 99)), (128, 72), "96 are under way");
        deadlines.end("a", true, begin, pause);
        assert_eq!((deadlines.at_once(at(99)), taken(&mut deadlines, 99)), (16, 0));
    }
}
