//! A map of values that others own.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

/// The map is not cleaned up before it has this many entries.
const SMALL: usize = 16;

/// Finds values while others own them.
///
/// Entries whose value is gone are removed whenever the map has doubled, so the cost of an insertion does not depend on
/// the size, and at most half of the entries are dead.
#[derive(Debug)]
pub(crate) struct WeakMap<K, V> {
    entries: HashMap<K, Weak<V>>,
    sweep_at: usize,
}

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), sweep_at: SMALL }
    }
}

impl<K: Eq + Hash, V> WeakMap<K, V> {
    /// Returns the value of `key`, if it still exists.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).and_then(Weak::upgrade)
    }

    /// Sets the value of `key`.
    pub(crate) fn insert(&mut self, key: K, value: &Arc<V>) {
        if self.entries.len() >= self.sweep_at {
            self.entries.retain(|_, value| value.strong_count() > 0);
            self.sweep_at = (2 * self.entries.len()).max(SMALL);
        }
        self.entries.insert(key, Arc::downgrade(value));
    }

    /// Returns the number of values that still exist.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.entries.values().filter(|value| value.strong_count() > 0).count()
    }

    /// Returns the number of entries, including dead ones.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_while_it_is_held_and_dead_entries_stay_in_the_minority() {
        let mut map = WeakMap::default();
        let held: Vec<_> = (0..100).map(|n| (n, Arc::new(n))).collect();
        for (n, value) in &held {
            map.insert(*n, value);
        }
        for n in 100..10_000 {
            map.insert(n, &Arc::new(n));
            assert!(map.get(&n).is_none(), "it is not held");
            assert!(map.entries() <= 2 * (held.len() + 1), "{} entries", map.entries());
        }
        assert!(held.iter().all(|(n, value)| map.get(n).is_some_and(|found| Arc::ptr_eq(&found, value))));
        assert_eq!(map.held(), held.len());
    }
}
