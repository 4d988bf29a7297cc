//! All lanes, their turns, and what waits for its time.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    hash::Hash,
    sync::Arc,
    time::Instant,
};

use super::lane::Lane;

/// Names a Subscriber: each has a lane of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    /// The Subscriber's namespace.
    pub namespace: Arc<str>,
    /// The Subscriber's name.
    pub name: Arc<str>,
}

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Hands out what may start now. Lanes take turns, so a long queue delays no other lane.
///
/// Each id is at any moment in one [`Place`]; every method moves it from one place to another, and ids that are not
/// held are ignored, so a late report does no harm.
#[derive(Debug)]
pub struct Scheduler<Id> {
    places: HashMap<Id, (LaneKey, Place)>,
    lanes: HashMap<LaneKey, Lane<Id>>,
    /// Lanes that may have something to start, in turn.
    round: VecDeque<LaneKey>,
    waiting: BTreeSet<(Instant, Id)>,
    in_flight: usize,
    max_in_flight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Waits for its time.
    Waiting(Instant),
    /// Due, in its lane's queue.
    Queued,
    /// Handed out, not yet reported back.
    InFlight,
}

impl<Id: Clone + Eq + Hash + Ord> Scheduler<Id> {
    /// An empty scheduler that has at most `max_in_flight` under way at once.
    pub fn new(max_in_flight: usize) -> Self {
        Self {
            places: HashMap::new(),
            lanes: HashMap::new(),
            round: VecDeque::new(),
            waiting: BTreeSet::new(),
            in_flight: 0,
            max_in_flight,
        }
    }

    /// Takes `id` in, due now or at `due`. One that waits or is queued is moved; one in flight stays as it is.
    pub fn add(&mut self, id: Id, lane: LaneKey, due: Option<Instant>) {
        match self.places.get(&id) {
            Some((_, Place::InFlight)) => return,
            Some(_) => self.remove(&id),
            None => {}
        }
        self.place(id, lane, due);
    }

    /// Forgets `id`, wherever it is. One in flight frees its slot only when it is reported back by [`Self::end`].
    pub fn remove(&mut self, id: &Id) {
        match self.places.get(id) {
            Some((_, Place::InFlight)) | None => {}
            Some(&(_, Place::Waiting(due))) => {
                self.waiting.remove(&(due, id.clone()));
                self.places.remove(id);
            }
            // Its lane's queue drops it when it comes up: no search through a long queue.
            Some((_, Place::Queued)) => drop(self.places.remove(id)),
        }
    }

    /// Opens the lane: up to `capacity` (at least one) may be under way at once.
    pub fn open(&mut self, lane: &LaneKey, capacity: usize) {
        self.lanes.entry(lane.clone()).or_default().set_capacity(capacity.max(1));
        self.enter_round(lane);
    }

    /// Closes the lane: nothing starts in it until it is opened again; what is under way goes on.
    pub fn close(&mut self, lane: &LaneKey) {
        if let Some(held) = self.lanes.get_mut(lane) {
            held.set_capacity(0);
            self.forget_if_idle(lane);
        }
    }

    /// The next attempt to start now, if any. It is in flight until [`Self::end`] or [`Self::retry`].
    pub fn next(&mut self, now: Instant) -> Option<Id> {
        self.wake(now);
        while self.in_flight < self.max_in_flight {
            let key = self.round.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            lane.in_round = false;
            let places = &self.places;
            let started = lane.start(|id| matches!(places.get(id), Some((_, Place::Queued))));
            self.enter_round(&key);
            if let Some(id) = started {
                if let Some((_, place)) = self.places.get_mut(&id) {
                    *place = Place::InFlight;
                }
                self.in_flight += 1;
                return Some(id);
            }
            self.forget_if_idle(&key);
        }
        None
    }

    /// The attempt at `id` ended and there will be no other.
    pub fn end(&mut self, id: &Id) {
        self.leave_flight(id);
    }

    /// The attempt at `id` ended; the next is due at `due`.
    pub fn retry(&mut self, id: &Id, due: Instant) {
        if let Some(lane) = self.leave_flight(id) {
            self.place(id.clone(), lane, Some(due));
        }
    }

    /// The attempt at `id` did not start after all: it is first in its lane again.
    pub fn put_back(&mut self, id: &Id) {
        if let Some(key) = self.leave_flight(id) {
            self.places.insert(id.clone(), (key.clone(), Place::Queued));
            self.lanes.entry(key.clone()).or_default().push_front(id.clone());
            self.enter_round(&key);
        }
    }

    /// When the next waiting id is due.
    pub fn wake_at(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Whether `id` is in flight.
    pub fn is_in_flight(&self, id: &Id) -> bool {
        matches!(self.places.get(id), Some((_, Place::InFlight)))
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn place(&mut self, id: Id, lane: LaneKey, due: Option<Instant>) {
        match due {
            Some(due) => {
                self.waiting.insert((due, id.clone()));
                self.places.insert(id, (lane, Place::Waiting(due)));
            }
            None => {
                self.lanes.entry(lane.clone()).or_default().push(id.clone());
                self.enter_round(&lane);
                self.places.insert(id, (lane, Place::Queued));
            }
        }
    }

    fn leave_flight(&mut self, id: &Id) -> Option<LaneKey> {
        if !self.is_in_flight(id) {
            return None;
        }
        let (key, _) = self.places.remove(id)?;
        self.in_flight -= 1;
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.end();
        }
        self.enter_round(&key);
        self.forget_if_idle(&key);
        Some(key)
    }

    /// Moves what has become due into its lane.
    fn wake(&mut self, now: Instant) {
        while self.waiting.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, id)) = self.waiting.pop_first()
                && let Some((lane, _)) = self.places.remove(&id)
            {
                self.place(id, lane, None);
            }
        }
    }

    fn enter_round(&mut self, key: &LaneKey) {
        if let Some(lane) = self.lanes.get_mut(key)
            && !lane.in_round
            && lane.can_start()
        {
            lane.in_round = true;
            self.round.push_back(key.clone());
        }
    }

    fn forget_if_idle(&mut self, key: &LaneKey) {
        if self.lanes.get(key).is_some_and(|lane| lane.is_idle() && !lane.in_round) {
            self.lanes.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lane(name: &str) -> LaneKey {
        LaneKey { namespace: "a".into(), name: name.into() }
    }

    /// A scheduler with an open lane for each name.
    fn open(max_in_flight: usize, lanes: &[(&str, usize)]) -> Scheduler<u32> {
        let mut scheduler = Scheduler::new(max_in_flight);
        for (name, capacity) in lanes {
            scheduler.open(&lane(name), *capacity);
        }
        scheduler
    }

    fn start_all(scheduler: &mut Scheduler<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| scheduler.next(now)).collect()
    }

    #[test]
    fn lanes_take_turns_so_a_long_queue_delays_no_other() {
        let mut scheduler = open(10, &[("busy", 8), ("quiet", 8)]);
        for id in 0..100 {
            scheduler.add(id, lane("busy"), None);
        }
        scheduler.add(100, lane("quiet"), None);
        assert_eq!(start_all(&mut scheduler, Instant::now())[..3], [0, 100, 1]);
    }

    #[test]
    fn neither_a_lane_nor_all_of_them_exceed_their_cap_and_a_freed_slot_is_used() {
        let mut scheduler = open(3, &[("a", 2), ("b", 2)]);
        for id in 0..4 {
            scheduler.add(id, lane("a"), None);
            scheduler.add(10 + id, lane("b"), None);
        }
        let now = Instant::now();
        assert_eq!(start_all(&mut scheduler, now), [0, 10, 1]);
        scheduler.end(&10);
        assert_eq!(start_all(&mut scheduler, now), [11]);
        scheduler.end(&0);
        assert_eq!(start_all(&mut scheduler, now).len(), 1);
        assert_eq!(scheduler.in_flight(), 3);
    }

    #[test]
    fn a_closed_lane_starts_nothing_and_loses_nothing() {
        let mut scheduler = open(10, &[]);
        let now = Instant::now();
        scheduler.add(1, lane("a"), None);
        scheduler.add(2, lane("a"), Some(now + SECOND));
        assert!(start_all(&mut scheduler, now + SECOND).is_empty());
        scheduler.open(&lane("a"), 4);
        assert_eq!(start_all(&mut scheduler, now + SECOND), [1, 2]);
        scheduler.close(&lane("a"));
        scheduler.put_back(&2);
        assert!(start_all(&mut scheduler, now + SECOND).is_empty());
        scheduler.open(&lane("a"), 4);
        assert_eq!(start_all(&mut scheduler, now + SECOND), [2]);
    }

    #[test]
    fn nothing_starts_before_its_time() {
        let mut scheduler = open(10, &[("a", 4)]);
        let now = Instant::now();
        scheduler.add(1, lane("a"), Some(now + SECOND));
        assert_eq!(scheduler.next(now), None);
        assert_eq!(scheduler.wake_at(), Some(now + SECOND));
        assert_eq!(scheduler.next(now + SECOND), Some(1));
        scheduler.retry(&1, now + 5 * SECOND);
        assert_eq!(scheduler.next(now + 4 * SECOND), None);
        assert_eq!(scheduler.next(now + 5 * SECOND), Some(1));
        assert_eq!(scheduler.wake_at(), None);
    }

    #[test]
    fn what_is_removed_never_starts_and_what_is_in_flight_is_never_started_twice() {
        let mut scheduler = open(10, &[("a", 4)]);
        let now = Instant::now();
        scheduler.add(1, lane("a"), None);
        scheduler.add(2, lane("a"), Some(now + SECOND));
        scheduler.remove(&1);
        scheduler.remove(&2);
        assert!(start_all(&mut scheduler, now + SECOND).is_empty());
        scheduler.add(3, lane("a"), None);
        assert_eq!(scheduler.next(now), Some(3));
        scheduler.add(3, lane("a"), None);
        scheduler.remove(&3);
        assert_eq!(scheduler.next(now), None);
        assert!(scheduler.is_in_flight(&3));
        scheduler.end(&3);
        scheduler.end(&3);
        assert_eq!(scheduler.in_flight(), 0);
    }

    #[test]
    fn adding_a_queued_one_again_starts_it_once() {
        let mut scheduler = open(10, &[("a", 4)]);
        scheduler.add(1, lane("a"), None);
        scheduler.add(1, lane("a"), None);
        assert_eq!(start_all(&mut scheduler, Instant::now()), [1]);
        scheduler.end(&1);
        assert!(start_all(&mut scheduler, Instant::now()).is_empty());
    }

    #[test]
    fn a_lane_that_is_done_is_forgotten() {
        let mut scheduler = open(10, &[("a", 4)]);
        scheduler.add(1, lane("a"), None);
        assert_eq!(scheduler.next(Instant::now()), Some(1));
        scheduler.close(&lane("a"));
        scheduler.end(&1);
        assert!(scheduler.lanes.is_empty() && scheduler.places.is_empty() && scheduler.round.is_empty());
    }
}
