//! The events of one lane that are due, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    clock::Tick,
    numbers::{FIRST, RecordNumber, Turn},
};

/// The maximum number of events that are considered for a probe of a webhook that rejects all events.
const PROBED: usize = 1024;

/// First in, first out and, for a probe, the event with the oldest attempt. All operations take logarithmic time.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    /// Events that this process has not tried: a flood of new events must take little memory.
    fresh: Fifo,
    tried: BTreeMap<Turn, RecordNumber>,
    by_last_try: BTreeSet<(Tick, Turn)>,
    front: Turn,
    back: Turn,
}

/// Numbers in the order of their turns. A removed number leaves an empty slot until the slot is first, or there are too
/// many.
#[derive(Debug, Default)]
struct Fifo {
    places: VecDeque<(Turn, Option<Slot>)>,
    taken: usize,
}

/// A number plus one, so that an empty slot takes no more memory.
type Slot = std::num::NonZeroU32;

impl Fifo {
    fn insert(&mut self, turn: Turn, no: RecordNumber) {
        let place = (turn, Slot::new(no.wrapping_add(1)));
        self.taken += 1;
        if self.places.back().is_none_or(|(last, _)| *last < turn) {
            self.places.push_back(place);
        } else {
            self.places.push_front(place);
        }
    }

    fn remove(&mut self, turn: Turn) {
        let Ok(at) = self.places.binary_search_by_key(&turn, |(turn, _)| *turn) else { return };
        if self.places[at].1.take().is_some() {
            self.taken -= 1;
        }
        while self.places.front().is_some_and(|(_, place)| place.is_none()) {
            self.places.pop_front();
        }
        if self.places.len() > 2 * self.taken + 64 {
            self.places.retain(|(_, place)| place.is_some());
            self.places.shrink_to(2 * self.taken);
        }
    }

    /// Returns the first number at or after `turn`.
    fn from(&self, turn: Turn) -> Option<(Turn, RecordNumber)> {
        self.iter_from(turn).next()
    }

    fn iter_from(&self, turn: Turn) -> impl DoubleEndedIterator<Item = (Turn, RecordNumber)> {
        let at = self.places.partition_point(|(of, _)| *of < turn);
        self.places.range(at..).filter_map(|(turn, place)| Some((*turn, (*place)?.get() - 1)))
    }
}

impl Default for ReadyQueue {
    fn default() -> Self {
        let (fresh, tried, by_last_try) = (Fifo::default(), BTreeMap::new(), BTreeSet::new());
        Self { fresh, tried, by_last_try, front: FIRST, back: FIRST }
    }
}

impl ReadyQueue {
    /// Adds `no` at the end. `tried` is the time of its last attempt (0: none). [`Self::remove`] needs both.
    pub(crate) fn push_back(&mut self, no: RecordNumber, tried: Tick) -> Turn {
        self.back += 1;
        self.insert(self.back - 1, no, tried)
    }

    /// Adds `no` at the front.
    pub(crate) fn push_front(&mut self, no: RecordNumber, tried: Tick) -> Turn {
        self.front -= 1;
        self.insert(self.front, no, tried)
    }

    /// Whether there are no turns left before or after: the queue must be rebuilt from [`Self::drain`].
    pub(crate) fn is_worn(&self) -> bool {
        self.front == 0 || self.back == Turn::MAX
    }

    /// Empties the queue.
    pub(crate) fn drain(&mut self) -> Vec<RecordNumber> {
        let all = self.all_from(0);
        *self = Self::default();
        all
    }

    pub(crate) fn remove(&mut self, turn: Turn, tried: Tick) {
        if tried == 0 {
            self.fresh.remove(turn);
        } else {
            self.by_last_try.remove(&(tried, turn));
            self.tried.remove(&turn);
        }
    }

    /// Returns the first event.
    pub(crate) fn first(&self) -> Option<RecordNumber> {
        self.from(0).map(|(_, no)| no)
    }

    /// Returns an event without an attempt, or else the event with the oldest attempt; the first one of equals.
    pub(crate) fn longest_untried(&self) -> Option<RecordNumber> {
        let tried = || self.tried.get(&self.by_last_try.first()?.1).copied();
        self.fresh.from(0).map(|(_, no)| no).or_else(tried)
    }

    /// Returns an event to probe with: among the events without an attempt the first one, or the last one if
    /// `is_newest`; then the events with the oldest attempts. An event that `is_preferred` comes before all others.
    /// Considers at most [`PROBED`] events with and without an attempt each.
    pub(crate) fn probe(&self, is_newest: bool, is_preferred: impl Fn(&RecordNumber) -> bool) -> Option<RecordNumber> {
        let fresh = || {
            let all = || self.fresh.iter_from(0).map(|(_, no)| no);
            let (first, last) = ((!is_newest).then(all), is_newest.then(|| all().rev()));
            first.into_iter().flatten().chain(last.into_iter().flatten())
        };
        let tried = || self.by_last_try.iter().filter_map(|(_, turn)| self.tried.get(turn).copied());
        let preferred = fresh().take(PROBED).chain(tried().take(PROBED)).find(is_preferred);
        preferred.or_else(|| fresh().next()).or_else(|| tried().next())
    }

    /// Returns the events that were put back, in order: never more than were in flight at a time.
    pub(crate) fn put_back(&self) -> impl Iterator<Item = RecordNumber> {
        let fresh = self.fresh.iter_from(0).take_while(|(turn, _)| *turn < FIRST);
        let tried = self.tried.range(..FIRST).map(|(turn, no)| (*turn, *no));
        let mut all: Vec<_> = fresh.chain(tried).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, no)| no)
    }

    /// Returns the first event at or after `turn`, and its turn.
    pub(crate) fn from(&self, turn: Turn) -> Option<(Turn, RecordNumber)> {
        let tried = self.tried.range(turn..).next().map(|(turn, no)| (*turn, *no));
        self.fresh.from(turn).into_iter().chain(tried).min()
    }

    pub(crate) fn len(&self) -> usize {
        self.fresh.taken + self.tried.len()
    }

    fn insert(&mut self, turn: Turn, no: RecordNumber, tried: Tick) -> Turn {
        if tried == 0 {
            self.fresh.insert(turn, no);
        } else {
            self.tried.insert(turn, no);
            self.by_last_try.insert((tried, turn));
        }
        turn
    }

    fn all_from(&self, turn: Turn) -> Vec<RecordNumber> {
        let tried = self.tried.range(turn..).map(|(turn, no)| (*turn, *no));
        let mut all: Vec<_> = self.fresh.iter_from(turn).chain(tried).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, no)| no).collect()
    }

    /// Returns all events, in order.
    #[cfg(test)]
    pub(crate) fn numbers(&self) -> Vec<RecordNumber> {
        self.all_from(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_first_in_first_out_but_what_is_put_back_stands_first() {
        let mut ready_queue = ReadyQueue::default();
        ready_queue.push_back(1, 0);
        let removed = ready_queue.push_back(2, 7);
        ready_queue.push_back(3, 7);
        ready_queue.push_front(4, 7);
        ready_queue.push_front(5, 0);
        ready_queue.remove(removed, 7);
        assert_eq!(ready_queue.numbers(), [5, 4, 1, 3]);
        assert_eq!(ready_queue.first(), Some(5));
        assert_eq!(ready_queue.put_back().collect::<Vec<_>>(), [5, 4]);
        assert_eq!(ready_queue.from(FIRST), Some((FIRST, 1)));
        assert_eq!(ready_queue.len(), 4);
    }

    #[test]
    fn a_probe_takes_the_never_tried_first_then_the_one_tried_longest_ago_then_the_one_that_stands_first() {
        let mut ready_queue = ReadyQueue::default();
        let all = [('a', 9), ('b', 8), ('c', 8), ('d', 0), ('e', 0)];
        let mut turns: Vec<_> =
            (0..).zip(all).map(|(no, (name, tried))| (name, ready_queue.push_back(no, tried), tried)).collect();
        let mut probes = Vec::new();
        while let Some(no) = ready_queue.longest_untried() {
            let (name, turn, tried) =
                turns.remove(turns.iter().position(|(name, ..)| *name == all[no as usize].0).unwrap());
            ready_queue.remove(turn, tried);
            probes.push(name);
        }
        assert_eq!(probes, ['d', 'e', 'b', 'c', 'a']);
    }

    #[test]
    fn a_probe_of_a_rejecting_webhook_takes_the_oldest_or_the_newest_and_prefers_what_it_is_asked_to() {
        let mut ready_queue = ReadyQueue::default();
        for no in 0..3000 {
            ready_queue.push_back(no, 0);
        }
        ready_queue.push_back(3000, 7);
        ready_queue.push_back(3001, 5);
        assert_eq!(ready_queue.probe(false, |_| true), Some(0));
        assert_eq!(ready_queue.probe(true, |_| true), Some(2999));
        assert_eq!(ready_queue.probe(false, |no| *no >= 1000), Some(1000));
        assert_eq!(ready_queue.probe(true, |no| *no < 2500), Some(2499));
        assert_eq!(ready_queue.probe(false, |no| *no == 1500), Some(0), "too far to look for");
        assert_eq!(ready_queue.probe(true, |no| *no >= 3000), Some(3001), "the oldest attempt first");
        let mut tried = ReadyQueue::default();
        tried.push_back(1, 7);
        tried.push_back(2, 5);
        assert_eq!(tried.probe(true, |_| false), Some(2));
        assert_eq!(ReadyQueue::default().probe(false, |_| true), None);
    }

    #[test]
    fn a_line_without_places_is_formed_again_in_the_same_order() {
        for front in [1, FIRST] {
            let mut ready_queue = ReadyQueue { front, back: Turn::MAX - 2, ..ReadyQueue::default() };
            ready_queue.push_back(1, 3);
            ready_queue.push_back(2, 0);
            ready_queue.push_front(3, 0);
            assert!(ready_queue.is_worn());
            assert_eq!(ready_queue.drain(), [3, 1, 2]);
            assert!(ready_queue.len() == 0 && !ready_queue.is_worn() && ready_queue.longest_untried().is_none());
            assert_eq!(ready_queue.push_back(4, 0), FIRST);
        }
    }

    #[test]
    fn those_that_left_a_line_take_no_room_for_long_and_the_order_stays() {
        let mut ready_queue = ReadyQueue::default();
        let turns: Vec<_> = (0..1000).map(|no| ready_queue.push_back(no, 0)).collect();
        // All but the first and each hundredth.
        (1..1000).filter(|no| no % 100 != 0).for_each(|no| ready_queue.remove(turns[no], 0));
        assert_eq!(ready_queue.numbers(), [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
        assert!(ready_queue.fresh.places.len() <= 2 * 10 + 65, "{}", ready_queue.fresh.places.len());
        ready_queue.push_front(1000, 0);
        ready_queue.push_back(1001, 0);
        assert_eq!((ready_queue.first(), ready_queue.len()), (Some(1000), 12));
        ready_queue.remove(turns[0], 0);
        assert_eq!(ready_queue.from(turns[0]), Some((turns[100], 100)));
    }
}
