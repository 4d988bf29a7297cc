//! Which Subscriber is looked at next. Pure; times are passed in.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tidings_queue::{Backoff, SubscriberKey};

/// The most looks under way at once in one namespace.
const OF_ONE_NAMESPACE: usize = 256;
/// With this many looks under way, only namespaces that have few looks under way begin another one.
const OF_ALL: usize = 768;
/// The most looks under way at once. The places between [`OF_ALL`] and this are a reserve, so that endpoints that hang in
/// some namespaces delay no other namespace. A look waits for its endpoints most of the time; what bounds the load on the
/// API server is `LOOKS_READ_AT_ONCE` in `operator.rs`.
const AT_MOST: usize = 1024;
/// Fewer than this are few.
const FEW: usize = 8;

/// The waits after panics, which come again most likely.
const AFTER_PANIC: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(300) };

/// The spaces between looks that deliveries request, while the requests keep coming.
const SPACES: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30) };
/// After this time without a request of deliveries, the spaces begin with the shortest again.
const CALM: Duration = Duration::from_secs(60);

/// The queue of looks. Namespaces take turns, so do the Subscribers of each; a Subscriber has one look at a time, and every
/// mark that comes during a look leads to one more look after it.
#[derive(Debug, Default)]
pub(super) struct ReconcileQueue {
    subjects: HashMap<SubscriberKey, QueuedSubscriber>,
    namespaces: HashMap<Arc<str>, NamespaceQueue>,
    /// Namespaces with a Subscriber that waits.
    order: VecDeque<Arc<str>>,
    timers: BTreeSet<(Instant, SubscriberKey)>,
    under_way: usize,
}

#[derive(Debug, Default)]
struct QueuedSubscriber {
    place: QueueState,
    /// One more look follows the one that is under way.
    again: bool,
    timer: Option<Instant>,
    /// It was deleted while a look is under way.
    gone: bool,
    /// The latest look that deliveries requested, and how many they requested since it was calm.
    troubled: Option<(Instant, u32)>,
    /// How many looks in a row panicked.
    panics: u32,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum QueueState {
    #[default]
    Idle,
    Waiting,
    UnderWay,
}

#[derive(Debug, Default)]
struct NamespaceQueue {
    under_way: usize,
    /// May still name what waits no more.
    waiting: VecDeque<SubscriberKey>,
    in_order: bool,
}

impl ReconcileQueue {
    /// The Subscriber is to be looked at as soon as its turn comes.
    pub(super) fn mark(&mut self, key: &SubscriberKey) {
        let subject = self.subjects.entry(key.clone()).or_default();
        subject.gone = false;
        if let Some(at) = subject.timer.take() {
            self.timers.remove(&(at, key.clone()));
        }
        match subject.place {
            QueueState::Waiting => {}
            QueueState::UnderWay => subject.again = true,
            QueueState::Idle => {
                subject.place = QueueState::Waiting;
                self.enqueue(key);
            }
        }
    }

    /// Deliveries found the Subscriber in trouble: it is looked at again, the first time at once, then at growing spaces,
    /// so that a Subscriber that is well at each look and not at the next delivery makes no storm.
    pub(super) fn trouble(&mut self, key: &SubscriberKey, now: Instant) {
        let subject = self.subjects.entry(key.clone()).or_default();
        let (at, times) = match subject.troubled {
            Some((last, times)) if now < last + CALM => {
                ((last + SPACES.wait(times, 0.5)).max(now), times.saturating_add(1))
            }
            _ => (now, 1),
        };
        // The look that comes by then anyway will do.
        if subject.place == QueueState::Waiting || subject.timer.is_some_and(|timer| timer <= at) {
            return;
        }
        subject.troubled = Some((at, times));
        if at <= now { self.mark(key) } else { self.at(key, at) }
    }

    /// The Subscriber is looked at then, unless it is before.
    fn at(&mut self, key: &SubscriberKey, at: Instant) {
        let Some(subject) = self.subjects.get_mut(key) else { return };
        if subject.place == QueueState::Waiting || subject.timer.is_some_and(|timer| timer <= at) {
            return;
        }
        if let Some(later) = subject.timer.replace(at) {
            self.timers.remove(&(later, key.clone()));
        }
        self.timers.insert((at, key.clone()));
    }

    /// The Subscriber is not there any more.
    pub(super) fn forget(&mut self, key: &SubscriberKey) {
        let Some(subject) = self.subjects.get_mut(key) else { return };
        if let Some(at) = subject.timer.take() {
            self.timers.remove(&(at, key.clone()));
        }
        if subject.place == QueueState::UnderWay {
            (subject.again, subject.gone) = (false, true);
        } else {
            self.subjects.remove(key);
        }
    }

    /// The next Subscriber to look at now; its look is under way until [`Self::ended`].
    pub(super) fn next(&mut self, now: Instant) -> Option<SubscriberKey> {
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.timers.pop_first()
        {
            if let Some(subject) = self.subjects.get_mut(&key) {
                subject.timer = None;
                self.mark(&key);
            }
        }
        let room = match self.under_way {
            ..OF_ALL => OF_ONE_NAMESPACE,
            OF_ALL..AT_MOST => FEW,
            AT_MOST.. => return None,
        };
        (0..self.order.len()).find_map(|_| {
            let name = self.order.pop_front()?;
            let key = self.take(&name, room);
            self.stand_in_order(&name);
            key
        })
    }

    /// The look is over; the next one is due at `again`, if the Subscriber was not marked during the look.
    pub(super) fn ended(&mut self, key: &SubscriberKey, again: Option<Instant>) {
        if let Some(subject) = self.subjects.get_mut(key) {
            subject.panics = 0;
        }
        self.end(key, again);
    }

    /// The look panicked: it is repeated at growing intervals. `chance` is a random number in 0..1.
    pub(super) fn panicked(&mut self, key: &SubscriberKey, now: Instant, chance: f64) {
        let Some(subject) = self.subjects.get_mut(key) else { return };
        subject.panics = subject.panics.saturating_add(1);
        let again = now + AFTER_PANIC.wait(subject.panics, chance);
        // A mark that came during the look waits as long: a panic at each look must not make a storm.
        subject.again = subject.again && subject.gone;
        self.end(key, Some(again));
    }

    fn end(&mut self, key: &SubscriberKey, again: Option<Instant>) {
        let Some(subject) = self.subjects.get_mut(key) else { return };
        self.under_way -= 1;
        if let Some(namespace) = self.namespaces.get_mut(&key.namespace) {
            namespace.under_way -= 1;
            if namespace.under_way == 0 && namespace.waiting.is_empty() {
                self.namespaces.remove(&key.namespace);
            }
        }
        subject.place = QueueState::Idle;
        if std::mem::take(&mut subject.again) {
            self.mark(key);
        } else if subject.gone {
            self.subjects.remove(key);
        } else if let Some(at) = again {
            self.at(key, at);
        }
    }

    /// When time alone lets something begin.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The first Subscriber of a namespace that has room, out of its queue.
    fn take(&mut self, name: &Arc<str>, room: usize) -> Option<SubscriberKey> {
        let namespace = self.namespaces.get_mut(name)?;
        namespace.in_order = false;
        if namespace.under_way >= room {
            return None;
        }
        while let Some(key) = namespace.waiting.pop_front() {
            let waits = |subject: &&mut QueuedSubscriber| subject.place == QueueState::Waiting;
            if let Some(subject) = self.subjects.get_mut(&key).filter(waits) {
                subject.place = QueueState::UnderWay;
                namespace.under_way += 1;
                self.under_way += 1;
                return Some(key);
            }
        }
        None
    }

    fn enqueue(&mut self, key: &SubscriberKey) {
        self.namespaces.entry(key.namespace.clone()).or_default().waiting.push_back(key.clone());
        self.stand_in_order(&key.namespace);
    }

    /// The namespace stands last in order, if one of its Subscribers waits; an idle one is forgotten.
    fn stand_in_order(&mut self, name: &Arc<str>) {
        let Some(namespace) = self.namespaces.get_mut(name) else { return };
        if !namespace.waiting.is_empty() && !namespace.in_order {
            namespace.in_order = true;
            self.order.push_back(name.clone());
        } else if namespace.waiting.is_empty() && namespace.under_way == 0 {
            self.namespaces.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(namespace: &str, name: impl ToString) -> SubscriberKey {
        SubscriberKey { namespace: namespace.into(), name: name.to_string().into() }
    }

    fn begin_all(reconcile_queue: &mut ReconcileQueue, now: Instant) -> Vec<SubscriberKey> {
        std::iter::from_fn(|| reconcile_queue.next(now)).collect()
    }

    /// Marks `count` Subscribers of a namespace.
    fn crowd(reconcile_queue: &mut ReconcileQueue, namespace: &str, count: usize) {
        (0..count).for_each(|n| reconcile_queue.mark(&key(namespace, n)));
    }

    #[test]
    fn a_namespace_of_three_hundred_that_hang_delays_no_other_also_when_each_is_asked_for_again_and_again() {
        let (mut reconcile_queue, now) = (ReconcileQueue::default(), Instant::now());
        crowd(&mut reconcile_queue, "hangs", 300);
        assert_eq!(begin_all(&mut reconcile_queue, now).len(), OF_ONE_NAMESPACE);
        crowd(&mut reconcile_queue, "hangs", 300);
        reconcile_queue.mark(&key("well", "s"));
        assert_eq!(begin_all(&mut reconcile_queue, now), [key("well", "s")], "at once");
        reconcile_queue.ended(&key("hangs", 0), None);
        reconcile_queue.mark(&key("well", "t"));
        let next = begin_all(&mut reconcile_queue, now);
        assert_eq!((next.len(), next.contains(&key("well", "t"))), (2, true));
    }

    #[test]
    fn namespaces_that_hold_all_that_is_open_to_all_leave_a_place_for_those_that_have_few() {
        let (mut reconcile_queue, now) = (ReconcileQueue::default(), Instant::now());
        (0..5).for_each(|n| crowd(&mut reconcile_queue, &format!("hangs-{n}"), 300));
        let begun = begin_all(&mut reconcile_queue, now);
        assert_eq!(begun.len(), OF_ALL);
        crowd(&mut reconcile_queue, "well", FEW + 1);
        assert_eq!(begin_all(&mut reconcile_queue, now).len(), FEW);
        (0..250).for_each(|n| reconcile_queue.mark(&key(&format!("other-{n}"), "s")));
        assert_eq!(begin_all(&mut reconcile_queue, now).len(), AT_MOST - OF_ALL - FEW, "a bound all the same");
        begun.iter().for_each(|key| reconcile_queue.ended(key, None));
        assert!(begin_all(&mut reconcile_queue, now).contains(&key("well", FEW)));
    }

    #[test]
    fn namespaces_take_turns_and_so_do_the_subscribers_of_each() {
        let (mut reconcile_queue, now) = (ReconcileQueue::default(), Instant::now());
        crowd(&mut reconcile_queue, "many", 3);
        crowd(&mut reconcile_queue, "few", 2);
        let begun: Vec<_> = begin_all(&mut reconcile_queue, now).iter().map(ToString::to_string).collect();
        assert_eq!(begun, ["many/0", "few/0", "many/1", "few/1", "many/2"]);
    }

    #[test]
    fn a_subscriber_has_one_look_at_a_time_and_what_happens_meanwhile_leads_to_one_more() {
        let (mut reconcile_queue, now, s) = (ReconcileQueue::default(), Instant::now(), key("a", "s"));
        reconcile_queue.mark(&s);
        reconcile_queue.mark(&s);
        assert_eq!(begin_all(&mut reconcile_queue, now), from_ref(&s));
        reconcile_queue.mark(&s);
        reconcile_queue.mark(&s);
        assert!(begin_all(&mut reconcile_queue, now).is_empty());
        reconcile_queue.ended(&s, Some(now + SECOND));
        assert_eq!(begin_all(&mut reconcile_queue, now), from_ref(&s));
        reconcile_queue.ended(&s, None);
        assert!(begin_all(&mut reconcile_queue, now + 3600 * SECOND).is_empty());
    }

    #[test]
    fn a_look_that_is_due_later_begins_then_and_one_that_is_asked_for_before_replaces_it() {
        let (mut reconcile_queue, now, s) = (ReconcileQueue::default(), Instant::now(), key("a", "s"));
        reconcile_queue.mark(&s);
        begin_all(&mut reconcile_queue, now);
        reconcile_queue.ended(&s, Some(now + 5 * SECOND));
        assert_eq!(reconcile_queue.wake_at(), Some(now + 5 * SECOND));
        assert!(begin_all(&mut reconcile_queue, now + 4 * SECOND).is_empty());
        assert_eq!(begin_all(&mut reconcile_queue, now + 5 * SECOND), from_ref(&s));
        reconcile_queue.ended(&s, Some(now + 10 * SECOND));
        reconcile_queue.mark(&s);
        assert_eq!(begin_all(&mut reconcile_queue, now + 6 * SECOND), from_ref(&s));
        reconcile_queue.ended(&s, None);
        assert_eq!((reconcile_queue.wake_at(), begin_all(&mut reconcile_queue, now + 60 * SECOND)), (None, vec![]));
    }

    #[test]
    fn deliveries_that_ask_again_and_again_have_it_looked_at_at_growing_spaces() {
        let (mut reconcile_queue, begin, s) = (ReconcileQueue::default(), Instant::now(), key("a", "s"));
        let mut seconds = Vec::new();
        // Each look finds nothing, and the next delivery half a second later finds the trouble again.
        for half in 0..240 {
            let now = begin + half * SECOND / 2;
            reconcile_queue.trouble(&s, now);
            for key in begin_all(&mut reconcile_queue, now) {
                seconds.push(half / 2);
                reconcile_queue.ended(&key, None);
            }
        }
        assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 61, 91]);
        let calm = begin + 300 * SECOND;
        reconcile_queue.trouble(&s, calm);
        assert_eq!(begin_all(&mut reconcile_queue, calm), from_ref(&s), "at once, after a calm");
        reconcile_queue.trouble(&s, calm);
        reconcile_queue.mark(&s);
        reconcile_queue.ended(&s, None);
        assert_eq!(begin_all(&mut reconcile_queue, calm), [s], "a changed spec waits for no space");
    }

    #[test]
    fn a_look_that_panics_is_repeated_at_growing_intervals_and_delays_no_other() {
        let (mut reconcile_queue, mut now, s) = (ReconcileQueue::default(), Instant::now(), key("a", "s"));
        reconcile_queue.mark(&s);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(begin_all(&mut reconcile_queue, now), from_ref(&s));
            reconcile_queue.mark(&s);
            reconcile_queue.panicked(&s, now, 0.5);
            reconcile_queue.mark(&key("a", "other"));
            assert_eq!(begin_all(&mut reconcile_queue, now), [key("a", "other")]);
            reconcile_queue.ended(&key("a", "other"), None);
            let at = reconcile_queue.wake_at().unwrap();
            waits.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        begin_all(&mut reconcile_queue, now);
        reconcile_queue.ended(&s, None);
        reconcile_queue.mark(&s);
        begin_all(&mut reconcile_queue, now);
        reconcile_queue.panicked(&s, now, 0.5);
        assert_eq!(reconcile_queue.wake_at(), Some(now + 5 * SECOND));
    }

    #[test]
    fn a_deleted_subscriber_is_not_looked_at_and_leaves_nothing_behind() {
        let (mut reconcile_queue, now) = (ReconcileQueue::default(), Instant::now());
        let [waits, later, runs] = ["waits", "later", "runs"].map(|name| key("a", name));
        reconcile_queue.mark(&later);
        reconcile_queue.mark(&runs);
        begin_all(&mut reconcile_queue, now);
        reconcile_queue.ended(&later, Some(now + SECOND));
        reconcile_queue.mark(&waits);
        [&waits, &later, &runs].into_iter().for_each(|key| reconcile_queue.forget(key));
        assert!(begin_all(&mut reconcile_queue, now + SECOND).is_empty());
        // Another one of that name waits until the look at the first is over.
        reconcile_queue.mark(&runs);
        assert!(begin_all(&mut reconcile_queue, now).is_empty());
        reconcile_queue.ended(&runs, Some(now + SECOND));
        assert_eq!(begin_all(&mut reconcile_queue, now), from_ref(&runs));
        reconcile_queue.forget(&runs);
        reconcile_queue.ended(&runs, Some(now + SECOND));
        assert!(
            reconcile_queue.subjects.is_empty()
                && reconcile_queue.namespaces.is_empty()
                && reconcile_queue.timers.is_empty()
        );
        assert!(reconcile_queue.order.is_empty() && reconcile_queue.under_way == 0);
    }
}
