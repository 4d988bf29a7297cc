//! Decides which Subscriber is reconciled next. Pure: times are passed in.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tidings_queue::{Backoff, SubscriberKey};

/// The maximum number of passes under way in one namespace.
const MAX_PER_NAMESPACE: usize = 256;
/// With this many passes under way, only namespaces with fewer than [`FEW`] passes under way start another pass.
const MAX_SHARED: usize = 768;
/// The maximum number of passes under way. The passes between [`MAX_SHARED`] and this number are a reserve, so that
/// endpoints that hang in some namespaces delay no other namespace. A pass spends most of its time waiting for its
/// endpoints. `CONCURRENT_READS` in `operator.rs` limits the load on the API server.
const MAX: usize = 1024;
/// See [`MAX_SHARED`].
const FEW: usize = 8;

/// The waits after passes that panicked, because most panics repeat.
const AFTER_PANIC: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(300) };

/// The intervals between passes that deliveries request, while the requests continue.
const INTERVALS: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30) };
/// After this time without a request from deliveries, the intervals start with the shortest again.
const CALM: Duration = Duration::from_secs(60);

/// The queue of passes. Namespaces take turns, and so do the Subscribers of each namespace. A Subscriber has one pass
/// at a time. Marks that arrive during a pass cause one more pass after it.
#[derive(Debug, Default)]
pub(super) struct ReconcileQueue {
    subscribers: HashMap<SubscriberKey, QueuedSubscriber>,
    namespaces: HashMap<Arc<str>, NamespaceQueue>,
    /// Namespaces with a waiting Subscriber, in the order of their turns.
    order: VecDeque<Arc<str>>,
    timers: BTreeSet<(Instant, SubscriberKey)>,
    under_way: usize,
}

#[derive(Debug, Default)]
struct QueuedSubscriber {
    state: QueueState,
    /// Whether another pass follows the current one.
    again: bool,
    timer: Option<Instant>,
    /// Whether the Subscriber was deleted during the current pass.
    gone: bool,
    /// The latest pass that deliveries requested, and how many passes they have requested since the last calm period.
    troubled: Option<(Instant, u32)>,
    /// The number of consecutive passes that panicked.
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
    /// May contain Subscribers that no longer wait.
    waiting: VecDeque<SubscriberKey>,
    in_order: bool,
}

impl ReconcileQueue {
    /// Schedules a pass over the Subscriber as soon as its turn comes.
    pub(super) fn mark(&mut self, key: &SubscriberKey) {
        let subscriber = self.subscribers.entry(key.clone()).or_default();
        subscriber.gone = false;
        if let Some(at) = subscriber.timer.take() {
            self.timers.remove(&(at, key.clone()));
        }
        match subscriber.state {
            QueueState::Waiting => {}
            QueueState::UnderWay => subscriber.again = true,
            QueueState::Idle => {
                subscriber.state = QueueState::Waiting;
                self.enqueue(key);
            }
        }
    }

    /// Schedules a pass because deliveries are blocked: the first time immediately, then at growing intervals. A
    /// Subscriber that each pass finds healthy, but not the next delivery, therefore causes no storm of passes.
    pub(super) fn trouble(&mut self, key: &SubscriberKey, now: Instant) {
        let subscriber = self.subscribers.entry(key.clone()).or_default();
        let (at, times) = match subscriber.troubled {
            Some((last, times)) if now < last + CALM => {
                ((last + INTERVALS.wait(times, 0.5)).max(now), times.saturating_add(1))
            }
            _ => (now, 1),
        };
        // A pass is already scheduled by then.
        if subscriber.state == QueueState::Waiting || subscriber.timer.is_some_and(|timer| timer <= at) {
            return;
        }
        subscriber.troubled = Some((at, times));
        if at <= now { self.mark(key) } else { self.at(key, at) }
    }

    /// Schedules a pass at that time, unless one is scheduled earlier.
    fn at(&mut self, key: &SubscriberKey, at: Instant) {
        let Some(subscriber) = self.subscribers.get_mut(key) else { return };
        if subscriber.state == QueueState::Waiting || subscriber.timer.is_some_and(|timer| timer <= at) {
            return;
        }
        if let Some(later) = subscriber.timer.replace(at) {
            self.timers.remove(&(later, key.clone()));
        }
        self.timers.insert((at, key.clone()));
    }

    /// Removes a Subscriber that no longer exists.
    pub(super) fn forget(&mut self, key: &SubscriberKey) {
        let Some(subscriber) = self.subscribers.get_mut(key) else { return };
        if let Some(at) = subscriber.timer.take() {
            self.timers.remove(&(at, key.clone()));
        }
        if subscriber.state == QueueState::UnderWay {
            (subscriber.again, subscriber.gone) = (false, true);
        } else {
            self.subscribers.remove(key);
        }
    }

    /// Returns the next Subscriber to reconcile now. Its pass is under way until [`Self::ended`].
    pub(super) fn next(&mut self, now: Instant) -> Option<SubscriberKey> {
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.timers.pop_first()
        {
            if let Some(subscriber) = self.subscribers.get_mut(&key) {
                subscriber.timer = None;
                self.mark(&key);
            }
        }
        let room = match self.under_way {
            ..MAX_SHARED => MAX_PER_NAMESPACE,
            MAX_SHARED..MAX => FEW,
            MAX.. => return None,
        };
        (0..self.order.len()).find_map(|_| {
            let name = self.order.pop_front()?;
            let key = self.take(&name, room);
            self.queue_namespace(&name);
            key
        })
    }

    /// Ends a pass. The next one is due at `again`, or immediately if the Subscriber was marked during the pass.
    pub(super) fn ended(&mut self, key: &SubscriberKey, again: Option<Instant>) {
        if let Some(subscriber) = self.subscribers.get_mut(key) {
            subscriber.panics = 0;
        }
        self.end(key, again);
    }

    /// Ends a pass that panicked. It is repeated at growing intervals. `chance` is a random number in 0..1.
    pub(super) fn panicked(&mut self, key: &SubscriberKey, now: Instant, chance: f64) {
        let Some(subscriber) = self.subscribers.get_mut(key) else { return };
        subscriber.panics = subscriber.panics.saturating_add(1);
        let again = now + AFTER_PANIC.wait(subscriber.panics, chance);
        // A mark that arrived during the pass waits too: a panic in every pass must not cause a storm of passes.
        subscriber.again = subscriber.again && subscriber.gone;
        self.end(key, Some(again));
    }

    fn end(&mut self, key: &SubscriberKey, again: Option<Instant>) {
        let Some(subscriber) = self.subscribers.get_mut(key) else { return };
        self.under_way -= 1;
        if let Some(namespace) = self.namespaces.get_mut(&key.namespace) {
            namespace.under_way -= 1;
            if namespace.under_way == 0 && namespace.waiting.is_empty() {
                self.namespaces.remove(&key.namespace);
            }
        }
        subscriber.state = QueueState::Idle;
        if std::mem::take(&mut subscriber.again) {
            self.mark(key);
        } else if subscriber.gone {
            self.subscribers.remove(key);
        } else if let Some(at) = again {
            self.at(key, at);
        }
    }

    /// When the next timer fires.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes the first Subscriber out of a namespace's queue, if fewer than `room` passes are under way there.
    fn take(&mut self, name: &Arc<str>, room: usize) -> Option<SubscriberKey> {
        let namespace = self.namespaces.get_mut(name)?;
        namespace.in_order = false;
        if namespace.under_way >= room {
            return None;
        }
        while let Some(key) = namespace.waiting.pop_front() {
            let waits = |subscriber: &&mut QueuedSubscriber| subscriber.state == QueueState::Waiting;
            if let Some(subscriber) = self.subscribers.get_mut(&key).filter(waits) {
                subscriber.state = QueueState::UnderWay;
                namespace.under_way += 1;
                self.under_way += 1;
                return Some(key);
            }
        }
        None
    }

    fn enqueue(&mut self, key: &SubscriberKey) {
        self.namespaces.entry(key.namespace.clone()).or_default().waiting.push_back(key.clone());
        self.queue_namespace(&key.namespace);
    }

    /// Puts the namespace last in the order if one of its Subscribers waits. Removes an idle namespace.
    fn queue_namespace(&mut self, name: &Arc<str>) {
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

    fn begin_all(queue: &mut ReconcileQueue, now: Instant) -> Vec<SubscriberKey> {
        std::iter::from_fn(|| queue.next(now)).collect()
    }

    /// Marks `count` Subscribers of a namespace.
    fn mark_many(queue: &mut ReconcileQueue, namespace: &str, count: usize) {
        (0..count).for_each(|n| queue.mark(&key(namespace, n)));
    }

    #[test]
    fn a_namespace_of_three_hundred_that_hang_delays_no_other_even_when_each_is_marked_repeatedly() {
        let (mut queue, now) = (ReconcileQueue::default(), Instant::now());
        mark_many(&mut queue, "hangs", 300);
        assert_eq!(begin_all(&mut queue, now).len(), MAX_PER_NAMESPACE);
        mark_many(&mut queue, "hangs", 300);
        queue.mark(&key("well", "s"));
        assert_eq!(begin_all(&mut queue, now), [key("well", "s")], "immediately");
        queue.ended(&key("hangs", 0), None);
        queue.mark(&key("well", "t"));
        let next = begin_all(&mut queue, now);
        assert_eq!((next.len(), next.contains(&key("well", "t"))), (2, true));
    }

    #[test]
    fn namespaces_that_fill_the_shared_limit_leave_room_for_namespaces_with_few_passes() {
        let (mut queue, now) = (ReconcileQueue::default(), Instant::now());
        (0..5).for_each(|n| mark_many(&mut queue, &format!("hangs-{n}"), 300));
        let begun = begin_all(&mut queue, now);
        assert_eq!(begun.len(), MAX_SHARED);
        mark_many(&mut queue, "well", FEW + 1);
        assert_eq!(begin_all(&mut queue, now).len(), FEW);
        (0..250).for_each(|n| queue.mark(&key(&format!("other-{n}"), "s")));
        assert_eq!(begin_all(&mut queue, now).len(), MAX - MAX_SHARED - FEW, "a limit anyway");
        begun.iter().for_each(|key| queue.ended(key, None));
        assert!(begin_all(&mut queue, now).contains(&key("well", FEW)));
    }

    #[test]
    fn namespaces_take_turns_and_so_do_the_subscribers_of_each() {
        let (mut queue, now) = (ReconcileQueue::default(), Instant::now());
        mark_many(&mut queue, "many", 3);
        mark_many(&mut queue, "few", 2);
        let begun: Vec<_> = begin_all(&mut queue, now).iter().map(ToString::to_string).collect();
        assert_eq!(begun, ["many/0", "few/0", "many/1", "few/1", "many/2"]);
    }

    #[test]
    fn a_subscriber_has_one_pass_at_a_time_and_marks_during_it_cause_one_more() {
        let (mut queue, now, s) = (ReconcileQueue::default(), Instant::now(), key("a", "s"));
        queue.mark(&s);
        queue.mark(&s);
        assert_eq!(begin_all(&mut queue, now), from_ref(&s));
        queue.mark(&s);
        queue.mark(&s);
        assert!(begin_all(&mut queue, now).is_empty());
        queue.ended(&s, Some(now + SECOND));
        assert_eq!(begin_all(&mut queue, now), from_ref(&s));
        queue.ended(&s, None);
        assert!(begin_all(&mut queue, now + 3600 * SECOND).is_empty());
    }

    #[test]
    fn a_pass_that_is_due_later_starts_then_and_an_earlier_mark_replaces_it() {
        let (mut queue, now, s) = (ReconcileQueue::default(), Instant::now(), key("a", "s"));
        queue.mark(&s);
        begin_all(&mut queue, now);
        queue.ended(&s, Some(now + 5 * SECOND));
        assert_eq!(queue.wake_at(), Some(now + 5 * SECOND));
        assert!(begin_all(&mut queue, now + 4 * SECOND).is_empty());
        assert_eq!(begin_all(&mut queue, now + 5 * SECOND), from_ref(&s));
        queue.ended(&s, Some(now + 10 * SECOND));
        queue.mark(&s);
        assert_eq!(begin_all(&mut queue, now + 6 * SECOND), from_ref(&s));
        queue.ended(&s, None);
        assert_eq!((queue.wake_at(), begin_all(&mut queue, now + 60 * SECOND)), (None, vec![]));
    }

    #[test]
    fn repeated_requests_from_deliveries_cause_passes_at_growing_intervals() {
        let (mut queue, begin, s) = (ReconcileQueue::default(), Instant::now(), key("a", "s"));
        let mut seconds = Vec::new();
        // Each pass finds no fault, and the next delivery half a second later finds the fault again.
        for half in 0..240 {
            let now = begin + half * SECOND / 2;
            queue.trouble(&s, now);
            for key in begin_all(&mut queue, now) {
                seconds.push(half / 2);
                queue.ended(&key, None);
            }
        }
        assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 61, 91]);
        let calm = begin + 300 * SECOND;
        queue.trouble(&s, calm);
        assert_eq!(begin_all(&mut queue, calm), from_ref(&s), "immediately, after a calm period");
        queue.trouble(&s, calm);
        queue.mark(&s);
        queue.ended(&s, None);
        assert_eq!(begin_all(&mut queue, calm), [s], "a changed spec waits for no interval");
    }

    #[test]
    fn a_pass_that_panics_is_repeated_at_growing_intervals_and_delays_no_other() {
        let (mut queue, mut now, s) = (ReconcileQueue::default(), Instant::now(), key("a", "s"));
        queue.mark(&s);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(begin_all(&mut queue, now), from_ref(&s));
            queue.mark(&s);
            queue.panicked(&s, now, 0.5);
            queue.mark(&key("a", "other"));
            assert_eq!(begin_all(&mut queue, now), [key("a", "other")]);
            queue.ended(&key("a", "other"), None);
            let at = queue.wake_at().unwrap();
            waits.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        begin_all(&mut queue, now);
        queue.ended(&s, None);
        queue.mark(&s);
        begin_all(&mut queue, now);
        queue.panicked(&s, now, 0.5);
        assert_eq!(queue.wake_at(), Some(now + 5 * SECOND));
    }

    #[test]
    fn a_deleted_subscriber_is_not_reconciled_and_leaves_nothing_behind() {
        let (mut queue, now) = (ReconcileQueue::default(), Instant::now());
        let [waits, later, runs] = ["waits", "later", "runs"].map(|name| key("a", name));
        queue.mark(&later);
        queue.mark(&runs);
        begin_all(&mut queue, now);
        queue.ended(&later, Some(now + SECOND));
        queue.mark(&waits);
        [&waits, &later, &runs].into_iter().for_each(|key| queue.forget(key));
        assert!(begin_all(&mut queue, now + SECOND).is_empty());
        // Another Subscriber of that name waits until the pass over the first one has ended.
        queue.mark(&runs);
        assert!(begin_all(&mut queue, now).is_empty());
        queue.ended(&runs, Some(now + SECOND));
        assert_eq!(begin_all(&mut queue, now), from_ref(&runs));
        queue.forget(&runs);
        queue.ended(&runs, Some(now + SECOND));
        assert!(queue.subscribers.is_empty() && queue.namespaces.is_empty() && queue.timers.is_empty());
        assert!(queue.order.is_empty() && queue.under_way == 0);
    }
}
