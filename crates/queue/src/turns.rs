//! Fair sharing: namespaces take turns, and so do the lanes of each namespace; all share slots and bytes.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use crate::numbers::LaneNumber;

/// A resource that all attempts in flight share: slots, or bytes.
#[derive(Debug)]
pub(crate) struct Pool {
    capacity: usize,
    used: usize,
}

/// Whether a namespace may take more from a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Admitted,
    /// No, until one of its own attempts ends.
    AfterItsOwn,
    /// No, until any attempt ends.
    AfterAny,
}

impl Pool {
    fn new(capacity: usize) -> Self {
        Self { capacity, used: 0 }
    }

    /// Returns the maximum of one lane: an eighth.
    fn share_of_lane(&self) -> usize {
        (self.capacity / 8).max(1)
    }

    /// Decides whether a namespace that holds `held` may take `weight` more, while `active` namespaces have work.
    ///
    /// A namespace holds at most a quarter. The last free quarter is a reserve: a namespace takes from it only up to
    /// its fair share, and a namespace that holds nothing may always take from it. A namespace that had no work before
    /// therefore finds room, however slow the webhooks of other namespaces are.
    fn admits(&self, held: usize, weight: usize, active: usize) -> Admission {
        let after = self.used + weight;
        let into_reserve = after > self.capacity - self.capacity / 4;
        let fair = self.capacity / (active + 1);
        if held > 0 && held + weight > (self.capacity / 4).max(1) {
            Admission::AfterItsOwn
        } else if after > self.capacity || (into_reserve && held > 0 && held + weight > fair) {
            Admission::AfterAny
        } else {
            Admission::Admitted
        }
    }
}

/// Decides whose turn it is, and records what the attempts of each namespace hold.
///
/// A lane enters when it may have an event to start; whether it has one is checked at its turn.
#[derive(Debug)]
pub(crate) struct Turns {
    namespaces: HashMap<Arc<str>, NamespaceTurns>,
    /// The namespaces that have a lane in their round and may have room for an attempt.
    order: VecDeque<Arc<str>>,
    /// The namespaces that lost their turn because too little is free; they come first when that changes.
    held: VecDeque<Arc<str>>,
    slots: Pool,
    bytes: Pool,
}

#[derive(Debug, Default)]
struct NamespaceTurns {
    slots: usize,
    bytes: usize,
    round: VecDeque<LaneNumber>,
    /// Whether the namespace is in `order` or in `held`.
    in_order: bool,
}

impl Turns {
    /// Allows at most `slots` concurrent attempts, with events of `bytes` in total.
    pub(crate) fn new(slots: usize, bytes: usize) -> Self {
        let (namespaces, order, held) = Default::default();
        Self { namespaces, order, held, slots: Pool::new(slots), bytes: Pool::new(bytes) }
    }

    /// Returns the number of attempts in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.used
    }

    /// Returns the bytes of the events in flight, as they are counted.
    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.bytes.used
    }

    /// Returns the maximum number of slots of one lane.
    pub(crate) fn slots_of_lane(&self) -> usize {
        self.slots.share_of_lane()
    }

    /// Returns the maximum bytes of one lane. A larger event counts as this much and is sent alone.
    pub(crate) fn bytes_of_lane(&self) -> usize {
        self.bytes.share_of_lane()
    }

    /// Adds the lane to the round of its namespace. The lane must not be in the round.
    pub(crate) fn enter(&mut self, name: &Arc<str>, lane: LaneNumber) {
        self.namespaces.entry(name.clone()).or_default().round.push_back(lane);
        self.enqueue(name);
    }

    /// Takes the lane whose turn it is out of its round. The turn stays with its namespace until [`Self::started`].
    pub(crate) fn take(&mut self) -> Option<LaneNumber> {
        loop {
            let active = self.namespaces.len();
            let namespace = self.namespaces.get_mut(self.order.front()?);
            let admission = namespace.as_ref().map(|namespace| self.slots.admits(namespace.slots, 1, active));
            if admission.is_none_or(|admission| admission == Admission::Admitted) {
                if let Some(lane) = namespace.and_then(|namespace| namespace.round.pop_front()) {
                    return Some(lane);
                }
                if let Some(name) = self.leave() {
                    self.enqueue(&name);
                }
            } else if admission == Some(Admission::AfterItsOwn) {
                self.leave();
            } else {
                self.hold();
            }
        }
    }

    /// Whether the lane just taken may start an event of this size now. If not, the lane is first in its round again
    /// and its namespace waits, so that a large event does not wait forever behind small ones.
    pub(crate) fn admit(&mut self, lane: LaneNumber, bytes: usize) -> bool {
        let active = self.namespaces.len();
        let Some(namespace) = self.order.front().and_then(|name| self.namespaces.get_mut(name)) else { return false };
        let admitted = self.bytes.admits(namespace.bytes, bytes, active) == Admission::Admitted;
        if !admitted {
            namespace.round.push_front(lane);
            self.hold();
        }
        admitted
    }

    /// Records that the lane just taken starts an attempt with an event of this size. The turn passes to the next
    /// namespace.
    pub(crate) fn started(&mut self, bytes: usize) {
        self.slots.used += 1;
        self.bytes.used += bytes;
        if let Some(name) = self.leave() {
            let namespace = self.namespaces.entry(name.clone()).or_default();
            namespace.slots += 1;
            namespace.bytes += bytes;
            self.enqueue(&name);
        }
    }

    /// Records that an attempt of this namespace, with an event of this size, has ended.
    pub(crate) fn ended(&mut self, name: &Arc<str>, bytes: usize) {
        self.slots.used = self.slots.used.saturating_sub(1);
        self.bytes.used = self.bytes.used.saturating_sub(bytes);
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.slots = namespace.slots.saturating_sub(1);
            namespace.bytes = namespace.bytes.saturating_sub(bytes);
        }
        self.enqueue(name);
        self.look_again();
    }

    /// Records that lanes or shares changed: namespaces that were held get their turn first.
    pub(crate) fn look_again(&mut self) {
        while let Some(name) = self.held.pop_back() {
            self.order.push_front(name);
        }
    }

    /// Holds the first namespace, which has no room now.
    fn hold(&mut self) {
        self.held.extend(self.order.pop_front());
    }

    /// Removes the first namespace from the order.
    fn leave(&mut self) -> Option<Arc<str>> {
        let name = self.order.pop_front()?;
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.in_order = false;
        }
        Some(name)
    }

    /// Adds the namespace at the end of the order, if it has a lane in its round and is not there. An idle namespace is
    /// removed, which makes the shares of the others larger.
    fn enqueue(&mut self, name: &Arc<str>) {
        let Entry::Occupied(mut entry) = self.namespaces.entry(name.clone()) else { return };
        let namespace = entry.get_mut();
        if namespace.in_order {
            return;
        }
        if !namespace.round.is_empty() {
            namespace.in_order = true;
            self.order.push_back(name.clone());
        } else if namespace.slots == 0 {
            entry.remove();
            self.look_again();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(room: usize, lanes: &[(&Arc<str>, LaneNumber)]) -> Turns {
        let mut turns = Turns::new(4 * room, 64);
        lanes.iter().for_each(|(name, lane)| turns.enter(name, *lane));
        turns
    }

    fn start_all(turns: &mut Turns) -> Vec<LaneNumber> {
        std::iter::from_fn(|| turns.take().inspect(|_| turns.started(0))).collect()
    }

    #[test]
    fn a_namespace_with_many_lanes_delays_no_other() {
        let (many, few) = ("many".into(), "few".into());
        let mut turns = turns(10, &[(&many, 1), (&many, 2), (&many, 3), (&few, 4), (&few, 5)]);
        assert_eq!(start_all(&mut turns), [1, 4, 2, 5, 3]);
    }

    #[test]
    fn a_lane_that_starts_nothing_costs_its_namespace_no_turn() {
        let (a, b) = ("a".into(), "b".into());
        let mut turns = turns(10, &[(&a, 1), (&a, 2), (&b, 3)]);
        assert_eq!(turns.take(), Some(1));
        assert_eq!(start_all(&mut turns), [2, 3]);
    }

    #[test]
    fn a_full_namespace_waits_until_one_of_its_attempts_ends_and_an_idle_one_is_forgotten() {
        let a = "a".into();
        let mut turns = turns(1, &[(&a, 1), (&a, 2)]);
        assert_eq!(start_all(&mut turns), [1]);
        turns.ended(&a, 0);
        assert_eq!(start_all(&mut turns), [2]);
        turns.ended(&a, 0);
        assert!(turns.namespaces.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn four_slow_namespaces_leave_room_for_a_fifth_and_for_as_many_more_as_there_are_slots() {
        let mut turns = Turns::new(64, 64);
        let slow: Vec<Arc<str>> = (0..4).map(|n| format!("slow{n}").into()).collect();
        for lane in 0..400 {
            turns.enter(&slow[lane % 4], lane as LaneNumber);
        }
        assert_eq!(start_all(&mut turns).len(), 48, "three quarters: each holds its fair share");
        let quick: Arc<str> = "quick".into();
        (0..40).for_each(|lane| turns.enter(&quick, 1000 + lane));
        let started = start_all(&mut turns);
        assert_eq!(started, (1000..1010).collect::<Vec<_>>(), "its fair share, of the reserve");
        turns.ended(&slow[0], 0);
        assert!(start_all(&mut turns).is_empty(), "the slow one holds more than its fair share still");
        turns.ended(&quick, 0);
        assert_eq!(start_all(&mut turns), [1010], "a slot of the reserve comes back to whom it serves");
        for n in 0..6 {
            turns.enter(&format!("other{n}").into(), 2000 + n);
        }
        assert_eq!(start_all(&mut turns), (2000..2006).collect::<Vec<_>>(), "one that holds nothing finds room");
    }

    #[test]
    fn bytes_are_shared_as_slots_are_and_a_large_event_does_not_wait_for_ever_behind_small_ones() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut turns = turns(100, &[(&a, 1), (&a, 2), (&a, 3), (&b, 4)]);
        assert_eq!((turns.take(), turns.admit(1, 8)), (Some(1), true));
        turns.started(8);
        assert_eq!((turns.take(), turns.admit(4, 8)), (Some(4), true));
        turns.started(8);
        assert_eq!((turns.take(), turns.admit(2, 9)), (Some(2), false), "more than a quarter of 64");
        assert_eq!(turns.take(), None, "its namespace waits, though the third lane has a smaller one");
        turns.ended(&b, 8);
        assert_eq!((turns.take(), turns.admit(2, 9)), (Some(2), false));
        turns.ended(&a, 8);
        assert_eq!((turns.take(), turns.admit(2, 9)), (Some(2), true));
        turns.started(9);
        assert_eq!(turns.bytes_in_flight(), 9);
    }
}
