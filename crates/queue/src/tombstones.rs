//! Entries that are finished or gone and that the source may still show as unfinished.

use std::{collections::HashMap, hash::Hash, sync::Arc};

/// After a finishing write, the id stays until the source has shown that write; the id of an entry that was found to be
/// gone stays until the source has shown that. Older versions are ignored, so an outdated entry never causes a second
/// POST.
#[derive(Debug)]
pub(crate) struct Tombstones<Id>(HashMap<Id, Tombstone>);

#[derive(Debug)]
struct Tombstone {
    namespace: Arc<str>,
    version: u64,
    listing: u32,
}

impl<Id: Eq + Hash> Tombstones<Id> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Records that the write of `version` finished the entry (`u64::MAX`: the entry is gone).
    pub(crate) fn insert(&mut self, id: Id, namespace: Arc<str>, version: u64, listing: u32) {
        self.0.insert(id, Tombstone { namespace, version, listing });
    }

    /// Whether an entry that a source shows with `version`, during this listing, is outdated.
    pub(crate) fn holds_back(&mut self, id: &Id, version: u64, listing: u32) -> bool {
        let Some(tombstone) = self.0.get_mut(id) else { return false };
        if version <= tombstone.version {
            tombstone.listing = listing;
            return true;
        }
        self.0.remove(id);
        false
    }

    /// Records that the source shows the entry as finished or deleted with `version`.
    pub(crate) fn seen_absent(&mut self, id: &Id, version: u64) {
        if self.0.get(id).is_some_and(|tombstone| version >= tombstone.version || tombstone.version == u64::MAX) {
            self.0.remove(id);
        }
    }

    /// Records that the listing `begun` of a namespace (None: of all) is complete.
    pub(crate) fn end_listing(&mut self, begun: u32, namespace: Option<&str>) {
        let is_listed = |of: &str| namespace.is_none_or(|namespace| namespace == of);
        self.0.retain(|_, tombstone| tombstone.listing >= begun || !is_listed(&tombstone.namespace));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_gone_is_held_back_at_any_version_until_its_absence_is_shown() {
        let mut tombstones = Tombstones::new();
        tombstones.insert(1, "a".into(), u64::MAX, 1);
        assert!(tombstones.holds_back(&1, 5, 1) && tombstones.holds_back(&1, 9, 1));
        tombstones.seen_absent(&1, 9);
        assert_eq!(tombstones.len(), 0);
    }

    fn of(namespace: &str) -> Tombstones<u32> {
        let mut tombstones = Tombstones::new();
        tombstones.insert(1, namespace.into(), 7, 1);
        tombstones
    }

    #[test]
    fn what_is_older_than_the_finishing_write_is_held_back_until_that_write_is_seen_or_a_newer_one() {
        let mut tombstones = of("a");
        assert!(!tombstones.holds_back(&2, 5, 1), "another entry");
        assert!(tombstones.holds_back(&1, 6, 1) && tombstones.holds_back(&1, 7, 1));
        tombstones.seen_absent(&1, 6);
        assert!(tombstones.holds_back(&1, 6, 1), "an older departure");
        assert!(!tombstones.holds_back(&1, 8, 1), "a replay");
        assert_eq!(tombstones.len(), 0);
        let mut tombstones = of("a");
        tombstones.seen_absent(&1, 7);
        assert_eq!(tombstones.len(), 0);
    }

    #[test]
    fn a_listing_that_does_not_show_it_any_more_ends_it_in_the_namespace_that_was_listed() {
        let mut tombstones = of("a");
        tombstones.end_listing(2, Some("b"));
        assert!(tombstones.holds_back(&1, 5, 2), "shown by the listing 2");
        tombstones.end_listing(2, Some("a"));
        assert_eq!(tombstones.len(), 1);
        tombstones.end_listing(3, Some("a"));
        assert_eq!(tombstones.len(), 0);
        let mut tombstones = of("a");
        tombstones.end_listing(2, None);
        assert_eq!(tombstones.len(), 0);
    }
}
