//! Namespaces take turns, and so do the lanes of each; all of them share slots and bytes.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use crate::numbers::LaneNumber;

/// What all attempts under way share: slots, or bytes.
#[derive(Debug)]
pub(crate) struct Pool {
    capacity: usize,
    used: usize,
}

/// Whether a namespace may take more from a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Admitted,
    /// When one of its own attempts ends.
    AfterItsOwn,
    /// When any attempt ends.
    AfterAny,
}

impl Pool {
    fn new(capacity: usize) -> Self {
        Self { capacity, used: 0 }
    }

    /// One lane holds at most this much, an eighth.
    fn share_of_lane(&self) -> usize {
        (self.capacity / 8).max(1)
    }

    /// May a namespace that holds `held` take `weight` more, where `active` namespaces have work?
    ///
    /// A namespace holds at most a quarter. The last free quarter is a reserve: a namespace takes from it only up to its
    /// fair share, and one that holds nothing always may. So a namespace that has had no work until now finds room, however
    /// slow the webhooks of all others are.
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

/// Whose turn it is, and what the attempts of each namespace hold.
///
/// A lane is entered when it may have something to start; whether it really has is looked at when its turn comes.
#[derive(Debug)]
pub(crate) struct Turns {
    namespaces: HashMap<Arc<str>, NamespaceTurns>,
    /// Namespaces with a lane in their round that may have room for an attempt.
    order: VecDeque<Arc<str>>,
    /// Namespaces that lost their turn because the others leave too little; they come first when that changes.
    held: VecDeque<Arc<str>>,
    slots: Pool,
    bytes: Pool,
}

#[derive(Debug, Default)]
struct NamespaceTurns {
    slots: usize,
    bytes: usize,
    round: VecDeque<LaneNumber>,
    /// It stands in `order` or in `held`.
    in_order: bool,
}

impl Turns {
    /// At most `slots` attempts at once, of events of `bytes` together.
    pub(crate) fn new(slots: usize, bytes: usize) -> Self {
        let (namespaces, order, held) = Default::default();
        Self { namespaces, order, held, slots: Pool::new(slots), bytes: Pool::new(bytes) }
    }

    /// How many attempts are under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.used
    }

    /// The bytes of the events under way, as far as they are charged.
    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.bytes.used
    }

    /// The most slots of one lane.
    pub(crate) fn slots_of_lane(&self) -> usize {
        self.slots.share_of_lane()
    }

    /// The most bytes of one lane. An event that is larger is charged this much: it goes alone.
    pub(crate) fn bytes_of_lane(&self) -> usize {
        self.bytes.share_of_lane()
    }

    /// The lane waits for its turn. It must not wait already.
    pub(crate) fn enter(&mut self, name: &Arc<str>, lane: LaneNumber) {
        self.namespaces.entry(name.clone()).or_default().round.push_back(lane);
        self.enqueue(name);
    }

    /// The lane whose turn it is; it leaves the round. The turn remains its namespace's until [`Self::started`].
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

    /// Whether the lane just taken may start an event of this size now. If not, it stands first in its namespace's round
    /// again, and its namespace waits: what is large does not wait for ever behind what is small.
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

    /// The lane just taken starts an attempt at an event of this size: the next namespace has the turn.
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

    /// An attempt of this namespace, at an event of this size, is no longer under way.
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

    /// Lanes or shares changed: namespaces that were held have their turn first.
    pub(crate) fn look_again(&mut self) {
        while let Some(name) = self.held.pop_back() {
            self.order.push_front(name);
        }
    }

    /// The first namespace has no room now.
    fn hold(&mut self) {
        self.held.extend(self.order.pop_front());
    }

    /// The first namespace leaves the order.
    fn leave(&mut self) -> Option<Arc<str>> {
        let name = self.order.pop_front()?;
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.in_order = false;
        }
        Some(name)
    }

    /// The namespace stands last in order, if it has a lane in its round and does not stand there; an idle one is
    /// forgotten, which makes the shares of the others larger.
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
