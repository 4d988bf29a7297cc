//! Namespaces take turns, and so do the lanes of each.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

/// A lane, by a number that is never used again.
pub(super) type LaneNo = u64;

/// Whose turn it is, and how many attempts of each namespace are under way.
///
/// A lane is entered when it may have something to start; whether it really has is looked at when its turn comes.
#[derive(Debug)]
pub(super) struct Turns {
    namespaces: HashMap<Arc<str>, Namespace>,
    /// Namespaces with a lane in their round and room for an attempt.
    order: VecDeque<Arc<str>>,
    /// How many attempts of one namespace may be under way at once.
    room: usize,
}

#[derive(Debug, Default)]
struct Namespace {
    in_flight: usize,
    round: VecDeque<LaneNo>,
    in_order: bool,
}

impl Turns {
    /// At most `room` attempts of each namespace at once.
    pub(super) fn new(room: usize) -> Self {
        Self { namespaces: HashMap::new(), order: VecDeque::new(), room }
    }

    /// The lane waits for its turn. It must not wait already.
    pub(super) fn enter(&mut self, name: &Arc<str>, lane: LaneNo) {
        self.namespaces.entry(name.clone()).or_default().round.push_back(lane);
        self.line_up(name);
    }

    /// The lane whose turn it is; it leaves the round. The turn remains its namespace's until [`Self::started`].
    pub(super) fn take(&mut self) -> Option<LaneNo> {
        loop {
            let namespace = self.namespaces.get_mut(self.order.front()?);
            if let Some(lane) = namespace.and_then(|namespace| namespace.round.pop_front()) {
                return Some(lane);
            }
            if let Some(name) = self.leave() {
                self.line_up(&name);
            }
        }
    }

    /// The lane just taken starts an attempt: the next namespace has the turn.
    pub(super) fn started(&mut self) {
        if let Some(name) = self.leave() {
            self.namespaces.entry(name.clone()).or_default().in_flight += 1;
            self.line_up(&name);
        }
    }

    /// An attempt of this namespace is no longer under way.
    pub(super) fn ended(&mut self, name: &Arc<str>) {
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.in_flight = namespace.in_flight.saturating_sub(1);
        }
        self.line_up(name);
    }

    /// The first namespace leaves the order.
    fn leave(&mut self) -> Option<Arc<str>> {
        let name = self.order.pop_front()?;
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.in_order = false;
        }
        Some(name)
    }

    /// The namespace stands last in order, if it may and does not stand there; an idle one is forgotten.
    fn line_up(&mut self, name: &Arc<str>) {
        let Entry::Occupied(mut entry) = self.namespaces.entry(name.clone()) else { return };
        let namespace = entry.get_mut();
        if namespace.in_order {
            return;
        }
        if !namespace.round.is_empty() && namespace.in_flight < self.room {
            namespace.in_order = true;
            self.order.push_back(name.clone());
        } else if namespace.round.is_empty() && namespace.in_flight == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(room: usize, lanes: &[(&Arc<str>, LaneNo)]) -> Turns {
        let mut turns = Turns::new(room);
        lanes.iter().for_each(|(name, lane)| turns.enter(name, *lane));
        turns
    }

    fn start_all(turns: &mut Turns) -> Vec<LaneNo> {
        std::iter::from_fn(|| turns.take().inspect(|_| turns.started())).collect()
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
        turns.ended(&a);
        assert_eq!(start_all(&mut turns), [2]);
        turns.ended(&a);
        assert!(turns.namespaces.is_empty() && turns.order.is_empty());
    }
}
