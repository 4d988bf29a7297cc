//! What is known of each unfinished Notification, and which news about it is old.

use std::{
    collections::{HashMap, HashSet, hash_map},
    sync::Arc,
    time::Instant,
};

use k8s_openapi::jiff::Timestamp;
use tidings_queue::SubscriberKey;

use super::{attempt::Recorded, event_memory::EventMemory};
use crate::notifications::wire::Unfinished;

/// What the small texts of a kept object take, about: uid, names, versions.
const NAMES: usize = 256;

/// A Notification's uid.
pub type Uid = Arc<str>;

/// One unfinished Notification.
pub struct Entry {
    /// Its Subscriber.
    pub lane: SubscriberKey,
    /// Its name; the namespace is the lane's.
    pub name: Box<str>,
    /// The newest resourceVersion seen or written.
    pub version: u64,
    /// The attempts recorded.
    pub attempts: u32,
    /// Its creation, or its replay.
    pub began: Timestamp,
    /// Its own `expireAfterSeconds`.
    pub own_expiry: Option<u32>,
    /// When it expires, as far as is known.
    pub expires: Option<Instant>,
    /// When the next attempt was said to be due.
    pub next: Option<Timestamp>,
    /// The bytes of its event.
    pub bytes: u32,
    /// The object itself, kept while it is untried and the budget allows.
    pub object: Option<Box<Unfinished>>,
    /// The number of the newest listing when it was last seen.
    listing: u64,
    /// The version at which the watch saw it leave, while an attempt was still under way.
    pub left: Option<u64>,
}

/// All unfinished Notifications, within a budget of bytes for the events kept in memory.
///
/// After a finishing write the uid stays as a tombstone until the watch has passed that write: older events of it are
/// ignored, so a stale event never causes a second POST.
pub struct Index {
    /// In boxes, so that the room a map keeps for more costs little.
    entries: HashMap<Uid, Box<Entry>>,
    tombstones: HashMap<Uid, Tombstone>,
    /// Each lane's names once, for all of its entries.
    lanes: HashSet<SubscriberKey>,
    memory: EventMemory,
    /// The entries of each namespace, where namespaces are listed one by one.
    namespaces: Option<HashMap<Arc<str>, HashSet<Uid>>>,
    listing: u64,
}

struct Tombstone {
    namespace: Arc<str>,
    version: u64,
    listing: u64,
}

/// What an event of the watch means for the queue.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// New, or changed by somebody else: (re)schedule it.
    Changed(Uid),
    /// Known already, or older than what is known.
    Old,
}

impl Entry {
    /// What `object` says counts from now on. Returns whether that moves it.
    fn take_over(&mut self, object: &Unfinished) -> bool {
        let said = (object.status.attempts, next(object), object.began());
        let moved = (self.attempts, self.next, self.began) != said;
        self.version = object.version();
        (self.attempts, self.next, self.began) = said;
        moved
    }

    /// Keeps the object while it is untried and the budget allows.
    fn keep(&mut self, object: Box<Unfinished>, memory: &mut EventMemory) {
        if object.status.attempts == 0 && memory.keep(&self.lane, size(&object)) {
            self.object = Some(object);
        }
    }

    fn take_object(&mut self, memory: &mut EventMemory) -> Option<Box<Unfinished>> {
        let object = self.object.take()?;
        memory.release(&self.lane, size(&object));
        Some(object)
    }

    fn drop_object(&mut self, memory: &mut EventMemory) {
        drop(self.take_object(memory));
    }
}

impl Index {
    /// An empty index that keeps at most `budget` bytes of events; `by_namespace`: namespaces are listed one by one.
    pub fn new(budget: usize, by_namespace: bool) -> Self {
        let (entries, tombstones, lanes) = Default::default();
        let namespaces = by_namespace.then(HashMap::new);
        Self { entries, tombstones, lanes, memory: EventMemory::new(budget), namespaces, listing: 0 }
    }

    /// How many are unfinished.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is known of one.
    pub fn get(&self, uid: &str) -> Option<&Entry> {
        self.entries.get(uid).map(Box::as_ref)
    }

    /// The watch shows `object` unfinished.
    pub fn observe(&mut self, object: Unfinished) -> News {
        let (Some(uid), Some(namespace), Some(name)) =
            (&object.metadata.uid, &object.metadata.namespace, &object.metadata.name)
        else {
            return News::Old;
        };
        let uid: Uid = uid.as_str().into();
        let version = object.version();
        let lane = self.lane(namespace, &object.spec.subscriber_ref.name);
        if let Some(tombstone) = self.tombstones.get_mut(&uid) {
            if version <= tombstone.version {
                tombstone.listing = self.listing;
                return News::Old;
            }
            self.tombstones.remove(&uid);
        }
        match self.entries.entry(uid.clone()) {
            hash_map::Entry::Occupied(mut known) => {
                let entry = known.get_mut();
                entry.listing = self.listing;
                // It came back after it had left, whatever this process has read or written meanwhile.
                entry.left = entry.left.filter(|left| *left != u64::MAX && *left > version);
                if version <= entry.version {
                    return News::Old;
                }
                let moved = entry.take_over(&object);
                let is_news = moved || object.is_being_deleted();
                // The next outcome is written over this one's status, so an older object will not do.
                entry.drop_object(&mut self.memory);
                entry.keep(Box::new(object), &mut self.memory);
                if !is_news {
                    // A label, an annotation, or why it waits: nothing that moves it.
                    return News::Old;
                }
            }
            hash_map::Entry::Vacant(vacant) => {
                if let Some(namespaces) = &mut self.namespaces {
                    namespaces.entry(lane.namespace.clone()).or_default().insert(uid.clone());
                }
                let mut entry = Box::new(Entry {
                    lane,
                    name: name.as_str().into(),
                    version,
                    attempts: object.status.attempts,
                    began: object.began(),
                    own_expiry: object.spec.expire_after_seconds,
                    expires: None,
                    next: next(&object),
                    bytes: u32::try_from(object.spec.event.get().len()).unwrap_or(u32::MAX),
                    object: None,
                    listing: self.listing,
                    left: None,
                });
                entry.keep(Box::new(object), &mut self.memory);
                vacant.insert(entry);
            }
        }
        News::Changed(uid)
    }

    /// The lane of these names, without new copies of them where it is known.
    fn lane(&mut self, namespace: &str, name: &str) -> SubscriberKey {
        let lane = SubscriberKey { namespace: namespace.into(), name: name.into() };
        if let Some(known) = self.lanes.get(&lane) {
            return known.clone();
        }
        if self.lanes.len() > self.entries.len() + 1000 {
            self.lanes.retain(|lane| Arc::strong_count(&lane.name) > 1);
        }
        self.lanes.insert(lane.clone());
        lane
    }

    /// The watch shows that `uid` left the selector at `version`: finished, or deleted.
    pub fn observe_gone(&mut self, uid: &str, version: u64, in_flight: bool) {
        if self.tombstones.get(uid).is_some_and(|tombstone| version >= tombstone.version) {
            self.tombstones.remove(uid);
        }
        let Some(entry) = self.entries.get_mut(uid) else { return };
        if in_flight {
            entry.left = Some(version);
        } else if version >= entry.version {
            self.forget(uid);
        }
    }

    /// A new listing begins; its number goes to [`Self::end_listing`].
    pub fn begin_listing(&mut self) -> u64 {
        self.listing += 1;
        self.listing
    }

    /// The listing `begun` of `namespace` (None: of all) is complete: what it did not show is gone. Returns those
    /// that nobody works on, with the time at which they would have expired.
    pub fn end_listing(
        &mut self,
        begun: u64,
        namespace: Option<&str>,
        in_flight: impl Fn(&Uid) -> bool,
    ) -> Vec<(Uid, Option<Instant>)> {
        let listed = |entry_namespace: &str| namespace.is_none_or(|namespace| namespace == entry_namespace);
        self.tombstones.retain(|_, tombstone| tombstone.listing >= begun || !listed(&tombstone.namespace));
        let is_missing = |entry: &Entry| entry.listing < begun && listed(&entry.lane.namespace);
        let missing: Vec<Uid> = match (&self.namespaces, namespace) {
            (Some(namespaces), Some(namespace)) => {
                let of_namespace = namespaces.get(namespace).into_iter().flatten();
                of_namespace
                    .filter(|uid| self.entries.get(*uid).is_some_and(|entry| is_missing(entry)))
                    .cloned()
                    .collect()
            }
            _ => self.entries.iter().filter(|(_, entry)| is_missing(entry)).map(|(uid, _)| uid.clone()).collect(),
        };
        let mut gone = Vec::new();
        for uid in missing {
            let Some(entry) = self.entries.get_mut(&uid) else { continue };
            if in_flight(&uid) {
                entry.left = Some(u64::MAX);
            } else {
                gone.push((uid, entry.expires));
            }
        }
        for (uid, _) in &gone {
            self.forget(uid);
        }
        gone
    }

    /// Takes the object that is kept for an attempt, if it is.
    pub fn take_object(&mut self, uid: &str) -> Option<Box<Unfinished>> {
        self.entries.get_mut(uid)?.take_object(&mut self.memory)
    }

    /// Gives an object back that was taken for an attempt that did not start.
    pub fn return_object(&mut self, uid: &str, object: Box<Unfinished>) {
        if let Some(entry) = self.entries.get_mut(uid)
            && entry.object.is_none()
            && entry.version <= object.version()
        {
            entry.keep(object, &mut self.memory);
        }
    }

    /// This process read `current` while it worked on it: the watch's news up to it are old.
    pub fn read(&mut self, uid: &str, current: &Unfinished) {
        if let Some(entry) = self.entries.get_mut(uid)
            && entry.version <= current.version()
        {
            entry.take_over(current);
            entry.drop_object(&mut self.memory);
        }
    }

    /// Whether the watch showed it unfinished after `version`.
    pub fn is_newer(&self, uid: &str, version: u64) -> bool {
        self.entries.get(uid).is_some_and(|entry| entry.left.is_none() && entry.version > version)
    }

    /// This process recorded an attempt: the watch's news up to it are old. False if the watch has shown a replay since,
    /// which began anew.
    pub fn wrote(&mut self, uid: &str, recorded: &Recorded) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else {
            return true;
        };
        if entry.version > recorded.version {
            return entry.attempts >= recorded.attempts;
        }
        entry.version = recorded.version;
        (entry.attempts, entry.next, entry.began) = (recorded.attempts, recorded.next, recorded.began);
        entry.drop_object(&mut self.memory);
        true
    }

    /// It expires then; returns what was known before.
    pub fn expires(&mut self, uid: &str, at: Option<Instant>) -> Option<Instant> {
        self.entries.get_mut(uid).and_then(|entry| std::mem::replace(&mut entry.expires, at))
    }

    /// This process finished `uid` by writing `version`. `out_of_sight`: over another one's final status, so the watch has
    /// nothing more to show of it.
    pub fn finished(&mut self, uid: &str, version: u64, out_of_sight: bool) {
        if let Some((uid, entry)) = self.take(uid)
            && !out_of_sight
            && entry.left.is_none_or(|left| left < version)
        {
            let namespace = entry.lane.namespace;
            self.tombstones.insert(uid, Tombstone { namespace, version, listing: self.listing });
        }
    }

    /// Drops what is known of `uid`.
    pub fn forget(&mut self, uid: &str) {
        self.take(uid);
    }

    fn take(&mut self, uid: &str) -> Option<(Uid, Box<Entry>)> {
        let (uid, mut entry) = self.entries.remove_entry(uid)?;
        entry.drop_object(&mut self.memory);
        if let Some(namespaces) = &mut self.namespaces
            && let Some(of_namespace) = namespaces.get_mut(&entry.lane.namespace)
        {
            of_namespace.remove(&uid);
            if of_namespace.is_empty() {
                namespaces.remove(&entry.lane.namespace);
            }
        }
        Some((uid, entry))
    }
}

fn next(object: &Unfinished) -> Option<Timestamp> {
    object.status.next_attempt_time.as_ref().map(|time| time.0)
}

/// Bytes that a kept object takes.
fn size(object: &Unfinished) -> usize {
    size_of::<Unfinished>() + NAMES + object.spec.event.get().len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, version: u64) -> Unfinished {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "a", "uid": uid, "resourceVersion": version.to_string()},
            "spec": {"subscriberRef": {"name": "s"}, "event": {"source": "/s", "type": "t"}},
            "status": {"phase": "Pending"}
        }))
        .unwrap()
    }

    fn recorded(version: u64, attempts: u32) -> Recorded {
        let wait = std::time::Duration::ZERO;
        Recorded { version, attempts, began: Timestamp::UNIX_EPOCH, next: None, wait }
    }

    #[test]
    fn a_recorded_attempt_that_undid_a_replay_puts_its_beginning_back() {
        let mut index = Index::new(10_000, false);
        index.observe(object("u", 5));
        let mut replayed = object("u", 6);
        let time: Timestamp = "2026-10-01T10:02:00Z".parse().unwrap();
        replayed.status.replay_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
        index.observe(replayed);
        assert_eq!(index.get("u").unwrap().began, time);
        assert!(index.wrote("u", &recorded(7, 1)));
        assert_eq!(index.get("u").unwrap().began, Timestamp::UNIX_EPOCH);
    }

    fn changed(uid: &str) -> News {
        News::Changed(uid.into())
    }

    #[test]
    fn news_older_than_a_finishing_write_is_ignored_until_the_watch_has_passed_it() {
        let mut index = Index::new(10_000, false);
        assert_eq!(index.observe(object("u", 5)), changed("u"));
        index.finished("u", 7, false);
        assert_eq!(index.observe(object("u", 6)), News::Old);
        index.observe_gone("u", 7, false);
        assert!(index.tombstones.is_empty());
        assert_eq!(index.observe(object("u", 9)), changed("u"), "set back to Pending by a replay");
    }

    #[test]
    fn a_replay_seen_before_the_report_of_the_finishing_write_is_not_lost() {
        let mut index = Index::new(10_000, false);
        index.observe(object("u", 5));
        index.observe_gone("u", 7, true);
        index.observe(object("u", 9));
        assert!(index.is_newer("u", 7) && !index.is_newer("u", 9));
        index.observe_gone("u", 11, true);
        assert!(!index.is_newer("u", 7), "it left once more");
    }

    #[test]
    fn a_recorded_attempt_drops_the_untried_object_unless_a_replay_followed() {
        let mut index = Index::new(10_000, false);
        index.observe(object("u", 5));
        assert!(index.wrote("u", &recorded(6, 1)));
        assert!(index.get("u").unwrap().object.is_none() && index.memory.used() == 0);
        assert_eq!(index.observe(object("u", 9)), changed("u"), "replayed");
        assert!(!index.wrote("u", &recorded(8, 1)));
        assert!(index.get("u").unwrap().object.is_some() && index.get("u").unwrap().attempts == 0);
    }

    #[test]
    fn the_object_kept_is_the_newest() {
        let mut index = Index::new(10_000, false);
        index.observe(object("u", 5));
        let mut replayed = object("u", 6);
        replayed.status.last_handled_replay = Some("1".into());
        assert_eq!(index.observe(replayed), News::Old, "nothing moves");
        let old = object("u", 5);
        let kept = index.take_object("u").unwrap();
        assert_eq!(kept.status.last_handled_replay.as_deref(), Some("1"));
        index.return_object("u", Box::new(old));
        assert!(index.get("u").unwrap().object.is_none() && index.memory.used() == 0);
        index.return_object("u", kept);
        let mut tried = object("u", 8);
        tried.status.attempts = 1;
        assert_eq!(index.observe(tried), changed("u"));
        assert!(index.get("u").unwrap().object.is_none() && index.memory.used() == 0);
    }

    #[test]
    fn a_write_whose_echo_came_before_its_report_leaves_no_tombstone() {
        let mut index = Index::new(10_000, false);
        index.observe(object("u", 5));
        index.observe_gone("u", 7, true);
        index.finished("u", 7, false);
        assert!(index.tombstones.is_empty() && index.len() == 0);
    }

    #[test]
    fn a_listing_drops_what_it_does_not_show() {
        let mut index = Index::new(10_000, true);
        for uid in ["stays", "goes", "flies"] {
            index.observe(object(uid, 5));
        }
        let mut elsewhere = object("elsewhere", 5);
        elsewhere.metadata.namespace = Some("b".into());
        index.observe(elsewhere);
        let begun = index.begin_listing();
        index.observe(object("stays", 5));
        let gone = index.end_listing(begun, Some("a"), |uid| &**uid == "flies");
        assert_eq!(gone, [(Uid::from("goes"), None)]);
        assert_eq!(index.get("flies").unwrap().left, Some(u64::MAX));
        assert_eq!(index.len(), 3);
        assert!(index.end_listing(begun, Some("c"), |_| false).is_empty());
    }

    #[test]
    fn a_listing_that_still_shows_a_finished_one_as_pending_keeps_its_tombstone() {
        let mut index = Index::new(10_000, false);
        index.observe(object("u", 5));
        index.finished("u", 7, false);
        let begun = index.begin_listing();
        assert_eq!(index.observe(object("u", 5)), News::Old);
        index.end_listing(begun, None, |_| false);
        assert_eq!(index.observe(object("u", 6)), News::Old);
        let begun = index.begin_listing();
        index.end_listing(begun, None, |_| false);
        assert!(index.tombstones.is_empty());
    }

    #[test]
    fn an_old_departure_does_not_end_what_is_known_to_be_newer_and_a_return_ends_it() {
        let mut index = Index::new(10_000, false);
        index.observe(object("u", 5));
        index.read("u", &object("u", 9));
        index.observe_gone("u", 7, false);
        assert!(index.get("u").is_some(), "this process read a newer one");
        index.observe_gone("u", 7, true);
        assert_eq!(index.observe(object("u", 9)), News::Old);
        assert_eq!(index.get("u").unwrap().left, None, "it is back");
    }

    #[test]
    fn what_was_written_over_a_final_status_leaves_no_tombstone() {
        let mut index = Index::new(10_000, false);
        index.observe(object("u", 5));
        index.observe_gone("u", 7, true);
        index.finished("u", 8, true);
        assert!(index.tombstones.is_empty() && index.len() == 0);
    }

    #[test]
    fn a_lanes_names_are_kept_once_and_not_for_ever() {
        let mut index = Index::new(0, false);
        index.observe(object("a", 1));
        index.observe(object("b", 2));
        let names = |index: &Index, uid| Arc::as_ptr(&index.get(uid).unwrap().lane.name);
        assert_eq!(names(&index, "a"), names(&index, "b"));
        for n in 0..3000 {
            let mut other = object("c", n + 3);
            other.spec.subscriber_ref.name = n.to_string();
            index.observe(other);
            index.forget("c");
        }
        assert!(index.lanes.len() < 1100, "{}", index.lanes.len());
    }

    #[test]
    fn events_are_kept_within_the_budget() {
        let length = size(&object("a", 1));
        let mut index = Index::new(length * 3 / 2, false);
        index.observe(object("a", 1));
        index.observe(object("b", 2));
        assert!(index.get("a").unwrap().object.is_some() && index.get("b").unwrap().object.is_none());
        let taken = index.take_object("a").unwrap();
        assert_eq!(index.memory.used(), 0);
        index.return_object("a", taken);
        assert_eq!(index.memory.used(), length);
        index.forget("a");
        assert_eq!(index.memory.used(), 0);
    }
}
