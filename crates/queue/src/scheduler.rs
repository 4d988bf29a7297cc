//! All lanes, and where each Notification is.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    time::Instant,
};

use super::{
    breaker::Era,
    courtesy::Courtesies,
    gate::{Gate, Told},
    lane::{Lane, Readiness},
    names::SubscriberKey,
    queue::Turn,
    turns::{LaneNo, Turns},
};

/// Hands out what may start now. Namespaces take turns, so do the lanes of each, and a lane's queue is first in, first
/// out: whatever one of them holds back delays no other.
///
/// Each id is at any moment waiting for its time, queued in its lane, or in flight; every method moves it from one to
/// another. Ids that are not held are ignored, so a late report does no harm. Time never goes back: an earlier `now`
/// than the last one counts as the last one.
///
/// Whoever owns it calls [`Self::next`] after each change until it returns None, then [`Self::courtesy`] likewise, and
/// sleeps until the earlier of [`Self::wake_at`] and [`Self::courtesy_at`]. A lane that is held back costs nothing
/// meanwhile.
#[derive(Debug)]
pub struct Scheduler<Id> {
    pub(super) tickets: HashMap<Id, Ticket>,
    pub(super) names: HashMap<SubscriberKey, LaneNo>,
    pub(super) lanes: HashMap<LaneNo, Lane<Id>>,
    pub(super) next_lane: LaneNo,
    pub(super) turns: Turns,
    pub(super) courtesies: Courtesies,
    /// When to look at which lane again.
    pub(super) timers: BTreeSet<(Instant, LaneNo)>,
    /// Lanes to look at before anything starts.
    pub(super) changed: Vec<LaneNo>,
    /// Lanes where something changed since [`Self::take_changed`].
    pub(super) moved: HashSet<SubscriberKey>,
    /// The latest time known.
    pub(super) seen: Option<Instant>,
}

/// What is known of one id. There may be 100,000 of them: keep it small.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) lane: LaneNo,
    pub(super) place: Place,
    /// What its event is charged while it is in flight.
    pub(super) bytes: u32,
    /// When its last attempt began.
    pub(super) tried: Option<Instant>,
    pub(super) told: Told,
}

#[derive(Debug)]
pub(super) enum Place {
    /// Waits for its time.
    Waiting(Instant),
    /// Due, in its lane's queue.
    Queued { turn: Turn, since: Instant },
    /// Handed out, not yet reported back.
    InFlight { began: Instant, era: Era, probe: bool },
}

impl<Id: Clone + Eq + Hash + Ord> Scheduler<Id> {
    /// An empty scheduler that has at most `max_in_flight` under way at once, whose events have `max_bytes` together. Of
    /// both one namespace has at most a quarter and one lane an eighth, but one event at least; a quarter is a reserve for
    /// namespaces that hold less than their fair share.
    pub fn new(max_in_flight: usize, max_bytes: usize) -> Self {
        Self {
            tickets: HashMap::new(),
            names: HashMap::new(),
            lanes: HashMap::new(),
            next_lane: 0,
            turns: Turns::new(max_in_flight, max_bytes),
            courtesies: Courtesies::default(),
            timers: BTreeSet::new(),
            changed: Vec::new(),
            moved: HashSet::new(),
            seen: None,
        }
    }

    /// Takes `id` in, an event of `bytes`, due now or at `due`; `told` is the gate that it was told already. One that waits or is queued is
    /// moved, but keeps its place if it is due before and after; one in flight stays as it is.
    pub fn add(
        &mut self,
        id: Id,
        lane: SubscriberKey,
        due: Option<Instant>,
        told: Option<Gate>,
        bytes: usize,
        now: Instant,
    ) {
        let now = self.clock(now);
        let bytes = u32::try_from(bytes.min(self.turns.bytes_of_lane())).unwrap_or(u32::MAX);
        let no = self.lane_no(&lane);
        // What became due meanwhile stands before it.
        self.wake(no, now);
        let mut ticket = match self.tickets.get_mut(&id) {
            Some(Ticket { place: Place::InFlight { .. }, .. }) => return,
            Some(ticket) => {
                told.into_iter().for_each(|gate| ticket.told.insert(gate));
                let due_already = matches!(ticket.place, Place::Queued { .. });
                if due_already && ticket.lane == no && due.is_none_or(|due| due <= now) {
                    return;
                }
                let (tried, told) = (ticket.tried, ticket.told);
                self.remove(&id);
                Ticket { lane: no, place: Place::Waiting(now), bytes, tried, told }
            }
            None => {
                let place = Place::Waiting(now);
                let mut ticket = Ticket { lane: no, place, bytes, tried: None, told: Told::default() };
                told.into_iter().for_each(|gate| ticket.told.insert(gate));
                ticket
            }
        };
        if let Some(lane) = self.lanes.get_mut(&no) {
            ticket.place = match due {
                Some(due) if due > now => {
                    lane.waiting.insert((due, id.clone()));
                    Place::Waiting(due)
                }
                _ => Place::Queued { turn: lane.queue.push_back(id.clone(), ticket.tried), since: now },
            };
        }
        self.tickets.insert(id, ticket);
        self.touch(no);
    }

    /// Forgets `id`, wherever it is. One in flight stays until it is reported back by [`Self::end`].
    pub fn remove(&mut self, id: &Id) {
        if self.is_in_flight(id) {
            return;
        }
        if let Some((id, ticket)) = self.tickets.remove_entry(id) {
            if let Some(lane) = self.lanes.get_mut(&ticket.lane) {
                match ticket.place {
                    Place::Waiting(due) => drop(lane.waiting.remove(&(due, id))),
                    Place::Queued { turn, .. } => lane.queue.remove(turn, ticket.tried),
                    Place::InFlight { .. } => {}
                }
            }
            self.touch(ticket.lane);
        }
    }

    /// The next attempt to start now, if any. It is in flight until [`Self::end`], [`Self::retry`] or
    /// [`Self::put_back`].
    pub fn next(&mut self, now: Instant) -> Option<Id> {
        let now = self.settle(now);
        while let Some(no) = self.turns.take() {
            let Some(lane) = self.lanes.get_mut(&no) else { continue };
            lane.marks.in_round = false;
            let Some(bytes) = self.could_start(no, now) else { continue };
            if !self.turns.admit(no, bytes) {
                self.lanes.entry(no).and_modify(|lane| lane.marks.in_round = true);
            } else if let Some(id) = self.start(no, now) {
                self.turns.started(bytes);
                self.refresh(no, now);
                return Some(id);
            }
        }
        None
    }

    /// The attempt at `id` ended and there will be no other.
    pub fn end(&mut self, id: &Id) {
        self.leave_flight(id, |lane, began| lane.rate.ended(began));
    }

    /// The attempt at `id` ended; the next is due at `due`.
    pub fn retry(&mut self, id: &Id, due: Instant) {
        if let Some((began, mut ticket)) = self.leave_flight(id, |lane, began| lane.rate.ended(began)) {
            if let Some(lane) = self.lanes.get_mut(&ticket.lane) {
                lane.waiting.insert((due, id.clone()));
            }
            ticket.place = Place::Waiting(due);
            ticket.tried = Some(began);
            ticket.told = Told::default();
            self.tickets.insert(id.clone(), ticket);
        }
    }

    /// The attempt at `id` did not start after all: it is first in its lane again, and counts neither for the lane's
    /// rate nor as a probe; what it was told it was told.
    pub fn put_back(&mut self, id: &Id, now: Instant) {
        let now = self.clock(now);
        if let Some((_, mut ticket)) = self.leave_flight(id, |lane, began| lane.rate.give_back(began))
            && let Some(lane) = self.lanes.get_mut(&ticket.lane)
        {
            ticket.place = Place::Queued { turn: lane.queue.push_front(id.clone(), ticket.tried), since: now };
            self.tickets.insert(id.clone(), ticket);
        }
    }

    /// As [`Self::put_back`], but it is due at `due`.
    pub fn put_off(&mut self, id: &Id, due: Instant) {
        if let Some((_, mut ticket)) = self.leave_flight(id, |lane, began| lane.rate.give_back(began))
            && let Some(lane) = self.lanes.get_mut(&ticket.lane)
        {
            lane.waiting.insert((due, id.clone()));
            ticket.place = Place::Waiting(due);
            self.tickets.insert(id.clone(), ticket);
        }
    }

    /// What was handed out is not attempted at all, and there will be no attempt: it counts neither for the lane's rate nor
    /// as a probe.
    pub fn withdraw(&mut self, id: &Id) {
        self.leave_flight(id, |lane, began| lane.rate.give_back(began));
    }

    /// The earliest moment at which time alone may let something start: call [`Self::next`] then. Until
    /// [`Self::next`] has returned None this is in the past.
    pub fn wake_at(&self) -> Option<Instant> {
        if self.changed.is_empty() { self.timers.first().map(|(at, _)| *at) } else { self.seen }
    }

    /// Whether `id` is waiting, queued or in flight.
    pub fn holds(&self, id: &Id) -> bool {
        self.tickets.contains_key(id)
    }

    /// Whether `id` is in flight.
    pub fn is_in_flight(&self, id: &Id) -> bool {
        matches!(self.tickets.get(id), Some(Ticket { place: Place::InFlight { .. }, .. }))
    }

    /// The lanes where something may have changed since the last call, what time alone changes apart.
    pub fn take_changed(&mut self) -> HashSet<SubscriberKey> {
        std::mem::take(&mut self.moved)
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.turns.in_flight()
    }

    /// What the events in flight are charged, in bytes.
    pub fn bytes_in_flight(&self) -> usize {
        self.turns.bytes_in_flight()
    }

    /// What the lane's next event is charged, if the lane can start it.
    fn could_start(&self, no: LaneNo, now: Instant) -> Option<usize> {
        let lane = self.lanes.get(&no).filter(|lane| lane.readiness(now) == Readiness::Ready)?;
        let bytes = self.tickets.get(lane.candidate()?)?.bytes as usize;
        (lane.bytes + bytes <= self.turns.bytes_of_lane()).then_some(bytes)
    }

    /// Starts the lane's next one.
    fn start(&mut self, no: LaneNo, now: Instant) -> Option<Id> {
        let lane = self.lanes.get_mut(&no)?;
        let id = lane.candidate()?.clone();
        let ticket = self.tickets.get_mut(&id)?;
        if let Place::Queued { turn, .. } = ticket.place {
            lane.queue.remove(turn, ticket.tried);
        }
        lane.in_flight += 1;
        lane.bytes += ticket.bytes as usize;
        lane.rate.start(now);
        ticket.place = Place::InFlight { began: now, probe: lane.breaker.start(), era: lane.breaker.era() };
        Some(id)
    }

    /// Takes `id` out of flight. Returns when it began, and its ticket.
    fn leave_flight(&mut self, id: &Id, rate: impl FnOnce(&mut Lane<Id>, Instant)) -> Option<(Instant, Ticket)> {
        let Place::InFlight { began, era, probe } = self.tickets.get(id)?.place else { return None };
        let ticket = self.tickets.remove(id)?;
        if let Some(lane) = self.lanes.get_mut(&ticket.lane) {
            lane.in_flight -= 1;
            lane.bytes -= ticket.bytes as usize;
            rate(lane, began);
            if probe {
                lane.breaker.probe_ended(era);
            }
            self.turns.ended(&lane.key.namespace, ticket.bytes as usize);
        }
        self.touch(ticket.lane);
        Some((began, ticket))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Health, Limits};

    const SECOND: Duration = Duration::from_secs(1);

    fn lane(name: &str) -> SubscriberKey {
        SubscriberKey { namespace: "a".into(), name: name.into() }
    }

    fn limits(max_in_flight: usize) -> Limits {
        Limits { max_in_flight, rate_per_minute: None }
    }

    /// A scheduler with an open lane for each name.
    fn open(max_in_flight: usize, lanes: &[(&str, usize)]) -> Scheduler<u32> {
        let mut scheduler = Scheduler::new(max_in_flight, 1000);
        for (name, max_in_flight) in lanes {
            scheduler.open(&lane(name), limits(*max_in_flight));
        }
        scheduler
    }

    fn add(scheduler: &mut Scheduler<u32>, id: u32, name: &str, now: Instant) {
        scheduler.add(id, lane(name), None, None, 0, now);
    }

    fn start_all(scheduler: &mut Scheduler<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| scheduler.next(now)).collect()
    }

    #[test]
    fn lanes_take_turns_so_a_long_queue_delays_no_other() {
        let (mut scheduler, now) = (open(64, &[("busy", 8), ("quiet", 8)]), Instant::now());
        (0..100).for_each(|id| add(&mut scheduler, id, "busy", now));
        add(&mut scheduler, 100, "quiet", now);
        assert_eq!(start_all(&mut scheduler, now)[..3], [0, 100, 1]);
    }

    #[test]
    fn a_lane_holds_an_eighth_of_all_slots_and_a_namespace_a_quarter_whatever_their_limits() {
        let (mut scheduler, now) = (open(16, &[("a", 100), ("b", 100), ("c", 100)]), Instant::now());
        let other = SubscriberKey { namespace: "other".into(), name: "a".into() };
        scheduler.open(&other, limits(1));
        for id in 0..10 {
            for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
                add(&mut scheduler, 10 * n as u32 + id, name, now);
            }
            scheduler.add(100 + id, other.clone(), None, None, 0, now);
        }
        assert_eq!(start_all(&mut scheduler, now), [0, 100, 10, 20, 1]);
        scheduler.end(&0);
        assert_eq!(start_all(&mut scheduler, now), [11], "the slot goes to the lane whose turn it is");
        scheduler.end(&100);
        assert_eq!(start_all(&mut scheduler, now), [101]);
        assert_eq!(scheduler.in_flight(), 5);
    }

    #[test]
    fn all_lanes_together_do_not_exceed_the_cap() {
        let (mut scheduler, now) = (Scheduler::new(3, 1000), Instant::now());
        for id in 0..5 {
            let lane = SubscriberKey { namespace: id.to_string().into(), name: "a".into() };
            scheduler.open(&lane, limits(4));
            scheduler.add(id, lane, None, None, 0, now);
        }
        assert_eq!(start_all(&mut scheduler, now), [0, 1, 2]);
        scheduler.end(&1);
        assert_eq!(start_all(&mut scheduler, now), [3]);
    }

    #[test]
    fn a_closed_lane_starts_nothing_and_loses_nothing() {
        let (mut scheduler, now) = (open(64, &[]), Instant::now());
        add(&mut scheduler, 1, "a", now);
        scheduler.add(2, lane("a"), Some(now + SECOND), None, 0, now);
        assert!(start_all(&mut scheduler, now + SECOND).is_empty());
        scheduler.open(&lane("a"), limits(4));
        assert_eq!(start_all(&mut scheduler, now + SECOND), [1, 2]);
        scheduler.close(&lane("a"), Gate::Suspended);
        scheduler.put_back(&2, now + SECOND);
        assert!(start_all(&mut scheduler, now + SECOND).is_empty());
        scheduler.open(&lane("a"), limits(4));
        assert_eq!(start_all(&mut scheduler, now + SECOND), [2]);
    }

    #[test]
    fn only_lanes_where_something_happened_are_told_as_changed() {
        let (mut scheduler, now) = (open(64, &[("a", 4), ("b", 4)]), Instant::now());
        start_all(&mut scheduler, now);
        assert_eq!(scheduler.take_changed(), [lane("a"), lane("b")].into());
        add(&mut scheduler, 1, "a", now);
        start_all(&mut scheduler, now);
        assert_eq!(scheduler.take_changed(), [lane("a")].into());
        start_all(&mut scheduler, now + SECOND);
        assert!(scheduler.take_changed().is_empty());
        scheduler.report(&1, Health::Failure, now);
        scheduler.end(&1);
        start_all(&mut scheduler, now);
        assert_eq!(scheduler.take_changed(), [lane("a")].into());
        scheduler.close(&lane("b"), Gate::Suspended);
        start_all(&mut scheduler, now);
        assert_eq!(scheduler.take_changed(), [lane("b")].into());
    }

    #[test]
    fn what_is_put_off_or_withdrawn_counts_for_no_rate() {
        let (mut scheduler, now) = (open(64, &[]), Instant::now());
        scheduler.open(&lane("a"), Limits { max_in_flight: 4, rate_per_minute: Some(1) });
        (1..=3).for_each(|id| add(&mut scheduler, id, "a", now));
        assert_eq!(scheduler.next(now), Some(1));
        scheduler.put_off(&1, now + SECOND);
        assert_eq!(scheduler.next(now), Some(2));
        scheduler.withdraw(&2);
        assert!(!scheduler.holds(&2));
        assert_eq!(scheduler.next(now), Some(3), "neither counted");
        scheduler.withdraw(&3);
        assert_eq!((scheduler.next(now), scheduler.next(now + SECOND)), (None, Some(1)));
    }

    #[test]
    fn nothing_starts_before_its_time() {
        let (mut scheduler, now) = (open(64, &[("a", 4)]), Instant::now());
        scheduler.add(1, lane("a"), Some(now + SECOND), None, 0, now);
        assert_eq!(scheduler.next(now), None);
        assert_eq!(scheduler.wake_at(), Some(now + SECOND));
        assert_eq!(scheduler.next(now + SECOND), Some(1));
        scheduler.retry(&1, now + 5 * SECOND);
        assert_eq!(scheduler.next(now + 4 * SECOND), None);
        assert_eq!(scheduler.next(now + 5 * SECOND), Some(1));
        assert_eq!(scheduler.next(now + 5 * SECOND), None);
        assert_eq!(scheduler.wake_at(), None);
    }

    #[test]
    fn what_is_removed_never_starts_and_what_is_in_flight_is_never_started_twice() {
        let (mut scheduler, now) = (open(64, &[("a", 4)]), Instant::now());
        add(&mut scheduler, 1, "a", now);
        scheduler.add(2, lane("a"), Some(now + SECOND), None, 0, now);
        scheduler.remove(&1);
        scheduler.remove(&2);
        assert!(start_all(&mut scheduler, now + SECOND).is_empty());
        add(&mut scheduler, 3, "a", now);
        assert_eq!(scheduler.next(now), Some(3));
        add(&mut scheduler, 3, "a", now);
        scheduler.remove(&3);
        assert_eq!(scheduler.next(now), None);
        assert!(scheduler.is_in_flight(&3));
        scheduler.end(&3);
        scheduler.end(&3);
        assert_eq!(scheduler.in_flight(), 0);
    }

    #[test]
    fn one_that_is_queued_and_added_again_keeps_its_place_and_starts_once() {
        let (mut scheduler, now) = (open(64, &[("a", 4)]), Instant::now());
        add(&mut scheduler, 1, "a", now);
        add(&mut scheduler, 2, "a", now);
        add(&mut scheduler, 1, "a", now);
        assert_eq!(start_all(&mut scheduler, now), [1, 2]);
    }

    #[test]
    fn one_that_is_added_again_with_another_time_or_lane_is_moved() {
        let (mut scheduler, now) = (open(64, &[("a", 4), ("b", 4)]), Instant::now());
        add(&mut scheduler, 1, "a", now);
        scheduler.add(1, lane("a"), Some(now + SECOND), None, 0, now);
        assert_eq!(scheduler.next(now), None);
        add(&mut scheduler, 1, "b", now);
        scheduler.close(&lane("b"), Gate::Suspended);
        assert_eq!(scheduler.next(now + SECOND), None);
        assert_eq!((scheduler.ids_of(&lane("a")), scheduler.ids_of(&lane("b"))), (vec![], vec![1]));
    }

    #[test]
    fn one_that_is_put_back_gives_its_place_in_the_rate_back() {
        let (mut scheduler, now) = (open(64, &[]), Instant::now());
        scheduler.open(&lane("a"), Limits { max_in_flight: 4, rate_per_minute: Some(1) });
        add(&mut scheduler, 1, "a", now);
        add(&mut scheduler, 2, "a", now);
        assert_eq!(start_all(&mut scheduler, now), [1]);
        assert!(scheduler.is_rate_limited(&lane("a"), now));
        assert_eq!(scheduler.wake_at(), Some(now + 60 * SECOND));
        scheduler.put_back(&1, now + SECOND);
        assert_eq!(start_all(&mut scheduler, now + SECOND), [1]);
        scheduler.end(&1);
        scheduler.close(&lane("a"), Gate::Suspended);
        scheduler.open(&lane("a"), Limits { max_in_flight: 4, rate_per_minute: Some(1) });
        assert_eq!(scheduler.next(now + 60 * SECOND), None, "61 s after the first start that counts");
        assert_eq!(scheduler.next(now + 61 * SECOND), Some(2));
    }

    #[test]
    fn a_lane_that_is_done_is_forgotten_once_its_pause_is_over() {
        let (mut scheduler, now) = (open(64, &[("a", 4)]), Instant::now());
        add(&mut scheduler, 1, "a", now);
        assert_eq!(scheduler.next(now), Some(1));
        scheduler.pause(&lane("a"), now + SECOND);
        scheduler.close(&lane("a"), Gate::SubscriberNotFound);
        scheduler.end(&1);
        assert_eq!(scheduler.next(now), None);
        assert_eq!(scheduler.paused_until(&lane("a"), now), Some(now + SECOND));
        assert_eq!(scheduler.wake_at(), Some(now + SECOND));
        assert_eq!(scheduler.next(now + SECOND), None);
        assert!(scheduler.lanes.is_empty() && scheduler.names.is_empty() && scheduler.tickets.is_empty());
        assert!(scheduler.timers.is_empty() && scheduler.wake_at().is_none());
    }

    #[test]
    fn a_probe_is_the_one_tried_longest_ago_and_a_failure_from_before_does_not_put_the_next_one_off() {
        let (mut scheduler, now) = (open(64, &[("a", 8)]), Instant::now());
        (0..7).for_each(|id| add(&mut scheduler, id, "a", now));
        assert_eq!(start_all(&mut scheduler, now).len(), 7);
        for id in 0..5 {
            scheduler.report(&id, Health::Failure, now);
            scheduler.retry(&id, now + SECOND);
        }
        assert_eq!(scheduler.gate(&lane("a"), now), Some(Gate::CircuitOpen));
        add(&mut scheduler, 7, "a", now + 2 * SECOND);
        assert_eq!(scheduler.next(now + 29 * SECOND), None);
        assert_eq!(scheduler.wake_at(), Some(now + 30 * SECOND));
        let probed = now + 30 * SECOND;
        assert_eq!(start_all(&mut scheduler, probed), [7], "never tried");
        scheduler.report(&5, Health::Failure, probed);
        scheduler.retry(&5, probed + SECOND);
        scheduler.report(&7, Health::Failure, probed);
        scheduler.retry(&7, probed + SECOND);
        assert_eq!(scheduler.next(probed + 59 * SECOND), None);
        assert_eq!(start_all(&mut scheduler, probed + 60 * SECOND), [0], "tried longest ago, first in line");
        scheduler.put_back(&0, probed + 60 * SECOND);
        assert_eq!(start_all(&mut scheduler, probed + 60 * SECOND), [0]);
        scheduler.report(&0, Health::Answered, probed + 60 * SECOND);
        assert!(!scheduler.is_open_circuit(&lane("a")));
        assert_eq!(start_all(&mut scheduler, probed + 60 * SECOND), [1, 2, 3, 4, 5, 7]);
    }

    #[test]
    fn a_reset_ends_the_pause_and_closes_the_circuit() {
        let (mut scheduler, now) = (open(64, &[("a", 8)]), Instant::now());
        (0..6).for_each(|id| add(&mut scheduler, id, "a", now));
        assert_eq!(start_all(&mut scheduler, now).len(), 6);
        (0..5).for_each(|id| scheduler.report(&id, Health::Failure, now));
        scheduler.pause(&lane("a"), now + SECOND);
        scheduler.put_back(&5, now);
        assert_eq!((scheduler.next(now), scheduler.wake_at()), (None, Some(now + SECOND)));
        scheduler.reset(&lane("a"));
        assert_eq!((scheduler.next(now), scheduler.gate(&lane("a"), now)), (Some(5), None));
    }

    #[test]
    fn a_ticket_is_small() {
        assert!(size_of::<Ticket>() <= 64, "{} bytes", size_of::<Ticket>());
    }
}
