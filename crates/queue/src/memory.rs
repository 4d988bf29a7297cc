//! Keeps untried entries in memory, within a limit of bytes.

use std::{collections::HashMap, sync::Arc};

use crate::SubscriberKey;
use crate::numbers::RecordNumber;

/// The approximate bytes of an entry's small texts: id, names, versions.
const NAMES: usize = 256;

/// The entries in memory, by number.
#[derive(Debug)]
pub(crate) struct Kept<I> {
    /// The entries with their bytes.
    items: HashMap<RecordNumber, (Box<I>, usize)>,
    memory: EventMemory,
}

impl<I> Kept<I> {
    /// Keeps at most `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self { items: HashMap::new(), memory: EventMemory::new(budget) }
    }

    /// Keeps an entry of a Subscriber with an event of `bytes`, if there is room.
    pub(crate) fn keep(&mut self, no: RecordNumber, of: &SubscriberKey, item: Box<I>, bytes: usize) {
        let bytes = size_of::<I>() + NAMES + bytes;
        if self.memory.keep(of, bytes) {
            self.items.insert(no, (item, bytes));
        }
    }

    pub(crate) fn take(&mut self, no: RecordNumber, of: &SubscriberKey) -> Option<Box<I>> {
        let (item, bytes) = self.items.remove(&no)?;
        self.memory.release(of, bytes);
        Some(item)
    }

    /// Returns the bytes in memory.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.memory.used()
    }
}

/// A limit of bytes. When memory is tight, one Subscriber may use at most an eighth and one namespace a quarter.
#[derive(Debug)]
struct EventMemory {
    budget: usize,
    used: usize,
    namespaces: HashMap<Arc<str>, usize>,
    lanes: HashMap<SubscriberKey, usize>,
}

impl EventMemory {
    /// Keeps at most `budget` bytes.
    fn new(budget: usize) -> Self {
        Self { budget, used: 0, namespaces: HashMap::new(), lanes: HashMap::new() }
    }

    /// Reserves `bytes` for a Subscriber, if they fit.
    fn keep(&mut self, lane: &SubscriberKey, bytes: usize) -> bool {
        let after = self.used + bytes;
        let is_tight = after > self.budget - self.budget / 4;
        let of_lane = self.lanes.get(lane).copied().unwrap_or_default() + bytes;
        let of_namespace = self.namespaces.get(&lane.namespace).copied().unwrap_or_default() + bytes;
        if after > self.budget || (is_tight && (of_lane > self.budget / 8 || of_namespace > self.budget / 4)) {
            return false;
        }
        self.used = after;
        self.lanes.insert(lane.clone(), of_lane);
        self.namespaces.insert(lane.namespace.clone(), of_namespace);
        true
    }

    /// Releases `bytes` of a Subscriber.
    fn release(&mut self, lane: &SubscriberKey, bytes: usize) {
        self.used -= bytes;
        if let Some(kept) = self.lanes.get_mut(lane) {
            *kept -= bytes;
            if *kept == 0 {
                self.lanes.remove(lane);
            }
        }
        if let Some(kept) = self.namespaces.get_mut(&lane.namespace) {
            *kept -= bytes;
            if *kept == 0 {
                self.namespaces.remove(&lane.namespace);
            }
        }
    }

    /// Returns the bytes in memory.
    #[cfg(test)]
    fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(namespace: &str, name: &str) -> SubscriberKey {
        SubscriberKey { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn one_subscriber_may_use_what_is_free_but_not_the_last_quarter() {
        let mut memory = EventMemory::new(80);
        assert!(memory.keep(&lane("a", "s"), 60), "nothing is tight yet");
        assert!(!memory.keep(&lane("a", "s"), 1));
        assert!(!memory.keep(&lane("a", "t"), 1), "its namespace has more than a quarter");
        assert!(memory.keep(&lane("b", "s"), 10));
        assert!(!memory.keep(&lane("b", "s"), 1), "an eighth");
        assert!(memory.keep(&lane("b", "t"), 10));
        assert!(!memory.keep(&lane("c", "s"), 1), "all is used");
        memory.release(&lane("a", "s"), 60);
        memory.release(&lane("b", "s"), 10);
        memory.release(&lane("b", "t"), 10);
        assert!(memory.used() == 0 && memory.lanes.is_empty() && memory.namespaces.is_empty());
    }
}
