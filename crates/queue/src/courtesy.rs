//! Telling Notifications that wait behind a gate which one it is.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

use super::{
    clockwork::pop_due,
    gate::Gate,
    lane::{Lane, Marks},
    scheduler::{Place, Scheduler, Ticket},
    turns::LaneNo,
};

/// A gate that held for less is not worth a word.
const PATIENCE: Duration = Duration::from_secs(5);
/// Five a second.
const SPACING: Duration = Duration::from_millis(200);

/// The lanes with somebody to tell, in turns.
#[derive(Debug, Default)]
pub(super) struct Courtesies {
    timers: BTreeSet<(Instant, LaneNo)>,
    round: VecDeque<LaneNo>,
    next: Option<Instant>,
}

impl Courtesies {
    /// The lane has somebody to tell at `due` (None: nobody).
    pub(super) fn schedule(&mut self, no: LaneNo, marks: &mut Marks, due: Option<Instant>) {
        // Whether one in the round still has somebody is looked at when its turn comes.
        if marks.in_courtesy_round || marks.courtesy_timer == due {
            return;
        }
        if let Some(old) = marks.courtesy_timer.take() {
            self.timers.remove(&(old, no));
        }
        if let Some(due) = due {
            self.timers.insert((due, no));
            marks.courtesy_timer = Some(due);
        }
    }
}

impl<Id: Clone + Eq + Hash + Ord> Lane<Id> {
    /// The next one to tell which gate holds it, and when.
    pub(super) fn untold(&mut self, tickets: &HashMap<Id, Ticket>) -> Option<(Instant, Id, Gate)> {
        let (gate, since) = self.behind?;
        let untold = |id: &Id| match tickets.get(id) {
            Some(Ticket { told, place: Place::Queued { since, .. }, .. }) if !told.contains(gate) => Some(*since),
            _ => None,
        };
        let put_back = self.queue.put_back().filter_map(|id| Some((untold(id)?, id))).min();
        let told_before = &mut self.told_before[gate as usize];
        let mut in_line = None;
        while let Some((turn, id)) = self.queue.from(*told_before) {
            in_line = untold(id).map(|since| (since, id));
            if in_line.is_some() {
                break;
            }
            *told_before = turn + 1;
        }
        let (queued, id) = put_back.into_iter().chain(in_line).min_by_key(|(since, _)| *since)?;
        Some((queued.max(since) + PATIENCE, id.clone(), gate))
    }
}

impl<Id: Clone + Eq + Hash + Ord> Scheduler<Id> {
    /// The next Notification to tell which gate holds it, if any: it has been due and behind this gate for five
    /// seconds, and was not told this gate since its last attempt. It counts as told from now on.
    ///
    /// At most five a second in all, lanes in turns.
    pub fn courtesy(&mut self, now: Instant) -> Option<(Id, Gate)> {
        let now = self.settle(now);
        if self.courtesies.next.is_some_and(|next| next > now) {
            return None;
        }
        while let Some(no) = pop_due(&mut self.courtesies.timers, now) {
            if let Some(lane) = self.lanes.get_mut(&no) {
                lane.marks.courtesy_timer = None;
                lane.marks.in_courtesy_round = true;
                self.courtesies.round.push_back(no);
            }
        }
        while let Some(no) = self.courtesies.round.pop_front() {
            let Some(lane) = self.lanes.get_mut(&no) else { continue };
            lane.marks.in_courtesy_round = false;
            let told = lane.untold(&self.tickets).filter(|(due, ..)| *due <= now);
            if let Some((_, id, gate)) = &told {
                if let Some(ticket) = self.tickets.get_mut(id) {
                    ticket.told.insert(*gate);
                }
                self.courtesies.next = Some(now + SPACING);
            }
            let next = lane.untold(&self.tickets).map(|(due, ..)| due);
            if next.is_some_and(|due| due <= now) {
                lane.marks.in_courtesy_round = true;
                self.courtesies.round.push_back(no);
            } else {
                self.courtesies.schedule(no, &mut lane.marks, next);
            }
            if let Some((_, id, gate)) = told {
                return Some((id, gate));
            }
        }
        None
    }

    /// When to ask [`Self::courtesy`] again, after it returned None; None if nothing can come by time alone. As with
    /// [`Self::wake_at`], what becomes due changes it: look again after each [`Self::next`].
    pub fn courtesy_at(&self) -> Option<Instant> {
        let first = if self.courtesies.round.is_empty() && self.changed.is_empty() {
            Some(self.courtesies.timers.first()?.0)
        } else {
            self.seen
        };
        first.max(self.courtesies.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, SubscriberKey};

    const SECOND: Duration = Duration::from_secs(1);

    fn lane(name: &str) -> SubscriberKey {
        SubscriberKey { namespace: "a".into(), name: name.into() }
    }

    fn open(scheduler: &mut Scheduler<u32>, name: &str) {
        scheduler.open(&lane(name), Limits { max_in_flight: 8, rate_per_minute: None });
    }

    /// All that is told until `until`, with the milliseconds since `now`.
    fn tell_all(scheduler: &mut Scheduler<u32>, mut now: Instant, until: Instant) -> Vec<(u32, Gate, u128)> {
        let (mut told, begin) = (Vec::new(), now);
        while now <= until {
            assert_eq!(scheduler.next(now), None);
            match scheduler.courtesy(now) {
                Some((id, gate)) => told.push((id, gate, (now - begin).as_millis())),
                None => match scheduler.courtesy_at() {
                    Some(at) => now = at,
                    None => break,
                },
            }
        }
        told
    }

    #[test]
    fn after_five_seconds_behind_a_gate_each_is_told_once_five_a_second_lanes_in_turns() {
        let (mut scheduler, now) = (Scheduler::new(64, 1000), Instant::now());
        for id in 0..3 {
            scheduler.add(id, lane("a"), None, None, 0, now);
            scheduler.add(10 + id, lane("b"), None, None, 0, now);
        }
        scheduler.close(&lane("b"), Gate::Suspended);
        let told = tell_all(&mut scheduler, now, now + 60 * SECOND);
        let (a, b) = (Gate::SubscriberNotFound, Gate::Suspended);
        let expected = [(0, a, 5000), (10, b, 5200), (1, a, 5400), (11, b, 5600), (2, a, 5800), (12, b, 6000)];
        assert_eq!(told, expected);
        assert_eq!(scheduler.courtesy_at(), None);
    }

    #[test]
    fn another_gate_is_told_after_five_seconds_of_its_own_and_a_gate_told_before_is_not_told_again() {
        let (mut scheduler, now) = (Scheduler::new(64, 1000), Instant::now());
        scheduler.add(1, lane("a"), None, Some(Gate::SubscriberNotFound), 0, now);
        scheduler.close(&lane("a"), Gate::SubscriberNotFound);
        assert_eq!(tell_all(&mut scheduler, now, now + 60 * SECOND), []);
        open(&mut scheduler, "a");
        scheduler.pause(&lane("a"), now + 100 * SECOND);
        let paused = now + 60 * SECOND;
        assert_eq!(tell_all(&mut scheduler, paused, paused + 60 * SECOND), [(1, Gate::Paused, 5000)]);
        scheduler.close(&lane("a"), Gate::SubscriberNotFound);
        assert_eq!(tell_all(&mut scheduler, now + 70 * SECOND, now + 99 * SECOND), []);
    }

    #[test]
    fn a_gate_that_opens_before_five_seconds_is_not_told() {
        let (mut scheduler, now) = (Scheduler::new(64, 1000), Instant::now());
        scheduler.add(1, lane("a"), None, None, 0, now);
        scheduler.close(&lane("a"), Gate::Suspended);
        assert_eq!(tell_all(&mut scheduler, now, now + 4 * SECOND), []);
        open(&mut scheduler, "a");
        scheduler.close(&lane("a"), Gate::Suspended);
        let again = now + 4 * SECOND;
        assert_eq!(tell_all(&mut scheduler, again, again + 60 * SECOND), [(1, Gate::Suspended, 5000)]);
    }

    #[test]
    fn an_attempt_lets_it_be_told_again_and_one_that_was_put_back_is_not() {
        let (mut scheduler, now) = (Scheduler::new(64, 1000), Instant::now());
        let (first, second) = (now + 10 * SECOND, now + 20 * SECOND);
        for id in [1, 2] {
            scheduler.add(id, lane("a"), None, Some(Gate::Suspended), 0, now);
        }
        open(&mut scheduler, "a");
        assert_eq!((scheduler.next(now), scheduler.next(now)), (Some(1), Some(2)));
        scheduler.retry(&1, first);
        scheduler.put_back(&2, first);
        scheduler.close(&lane("a"), Gate::Suspended);
        assert_eq!(tell_all(&mut scheduler, first, second), [(1, Gate::Suspended, 5000)]);
    }
}
