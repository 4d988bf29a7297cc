//! One lane's Notifications that are due, in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// A place in a queue. Those that were put back first have negative ones.
pub(super) type Turn = i64;

/// First in, first out; and, for a probe, the one that was tried longest ago. All in logarithmic time.
#[derive(Debug)]
pub(super) struct Queue<Id> {
    /// Never tried since this process knows them.
    fresh: BTreeMap<Turn, Id>,
    tried: BTreeMap<Turn, Id>,
    by_last_try: BTreeSet<(Instant, Turn)>,
    front: Turn,
    back: Turn,
}

impl<Id> Default for Queue<Id> {
    fn default() -> Self {
        let (fresh, tried, by_last_try) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { fresh, tried, by_last_try, front: 0, back: 0 }
    }
}

impl<Id: Clone> Queue<Id> {
    /// Lets `id` stand last; `tried` is when it was last tried. Both say later which one to [`Self::remove`].
    pub(super) fn push_back(&mut self, id: Id, tried: Option<Instant>) -> Turn {
        self.back += 1;
        self.insert(self.back - 1, id, tried)
    }

    /// Lets `id` stand first.
    pub(super) fn push_front(&mut self, id: Id, tried: Option<Instant>) -> Turn {
        self.front -= 1;
        self.insert(self.front, id, tried)
    }

    pub(super) fn remove(&mut self, turn: Turn, tried: Option<Instant>) {
        match tried {
            None => drop(self.fresh.remove(&turn)),
            Some(tried) => {
                self.by_last_try.remove(&(tried, turn));
                self.tried.remove(&turn);
            }
        }
    }

    /// The one that stands first.
    pub(super) fn first(&self) -> Option<&Id> {
        self.from(Turn::MIN).map(|(_, id)| id)
    }

    /// The one that was never tried, else the one that was tried longest ago; of equals the first.
    pub(super) fn longest_untried(&self) -> Option<&Id> {
        let tried = || self.tried.get(&self.by_last_try.first()?.1);
        self.fresh.first_key_value().map(|(_, id)| id).or_else(tried)
    }

    /// The first one that stands at `turn` or behind it.
    pub(super) fn from(&self, turn: Turn) -> Option<(Turn, &Id)> {
        let firsts = [&self.fresh, &self.tried].map(|part| part.range(turn..).next());
        firsts.into_iter().flatten().min_by_key(|(turn, _)| **turn).map(|(turn, id)| (*turn, id))
    }

    /// Those that were put back, in no order. Never more than were under way at once.
    pub(super) fn put_back(&self) -> impl Iterator<Item = &Id> {
        [&self.fresh, &self.tried].into_iter().flat_map(|part| part.range(..0).map(|(_, id)| id))
    }

    /// All of them, in order.
    pub(super) fn ids(&self) -> Vec<Id> {
        let mut ids: Vec<_> = self.fresh.iter().chain(&self.tried).collect();
        ids.sort_unstable_by_key(|(turn, _)| **turn);
        ids.into_iter().map(|(_, id)| id.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.tried.len()
    }

    fn insert(&mut self, turn: Turn, id: Id, tried: Option<Instant>) -> Turn {
        match tried {
            None => drop(self.fresh.insert(turn, id)),
            Some(tried) => {
                self.by_last_try.insert((tried, turn));
                self.tried.insert(turn, id);
            }
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_first_in_first_out_but_what_is_put_back_stands_first() {
        let (mut queue, now) = (Queue::default(), Some(Instant::now()));
        queue.push_back('a', None);
        let removed = queue.push_back('b', now);
        queue.push_back('c', now);
        queue.push_front('d', now);
        queue.push_front('e', None);
        queue.remove(removed, now);
        assert_eq!(queue.ids(), ['e', 'd', 'a', 'c']);
        assert_eq!(queue.first(), Some(&'e'));
        assert_eq!(queue.put_back().collect::<Vec<_>>(), [&'e', &'d']);
        assert_eq!(queue.from(0), Some((0, &'a')));
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn a_probe_takes_the_never_tried_first_then_the_one_tried_longest_ago_then_the_one_that_stands_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let earlier = now - Duration::from_secs(1);
        let ids = [('a', Some(now)), ('b', Some(earlier)), ('c', Some(earlier)), ('d', None), ('e', None)];
        let mut turns: Vec<_> = ids.map(|(id, tried)| (id, queue.push_back(id, tried), tried)).into();
        let mut probes = Vec::new();
        while let Some(&probe) = queue.longest_untried() {
            let (_, turn, tried) = turns.remove(turns.iter().position(|(id, ..)| *id == probe).unwrap());
            queue.remove(turn, tried);
            probes.push(probe);
        }
        assert_eq!(probes, ['d', 'e', 'b', 'c', 'a']);
    }
}
