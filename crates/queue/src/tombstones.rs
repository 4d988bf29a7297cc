//! Entries that are finished or gone and that the source may still show as unfinished.

use std::{collections::HashMap, hash::Hash, sync::Arc};

/// After a finishing write, the id stays until the source has shown that write, and older versions are outdated. The id
/// of an entry that was found to be gone stays until the source has shown its absence, and what the source shows
/// meanwhile must be loaded before it is sent. An outdated entry therefore never causes a second POST, and an entry
/// that was wrongly found to be gone is not lost.
#[derive(Debug)]
pub(crate) struct Tombstones<Id>(HashMap<Id, Tombstone>);

#[derive(Debug)]
struct Tombstone {
    namespace: Arc<str>,
    version: u64,
    listing: u32,
    is_gone: bool,
}

/// What to make of an entry that a source shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The entry is as shown.
    Current,
    /// This process finished a newer version of the entry.
    Outdated,
    /// The entry was gone before: its item may be outdated.
    Unconfirmed,
}

impl<Id: Eq + Hash> Tombstones<Id> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Records that the write of `version` finished the entry.
    pub(crate) fn finished(&mut self, id: Id, namespace: Arc<str>, version: u64, listing: u32) {
        self.0.insert(id, Tombstone { namespace, version, listing, is_gone: false });
    }

    /// Records that the entry, known with `version`, was found to be gone.
    pub(crate) fn gone(&mut self, id: Id, namespace: Arc<str>, version: u64, listing: u32) {
        self.0.insert(id, Tombstone { namespace, version, listing, is_gone: true });
    }

    /// Judges an entry that a source shows with `version` during this listing.
    pub(crate) fn judge(&mut self, id: &Id, version: u64, listing: u32) -> Shown {
        let Some(tombstone) = self.0.get_mut(id) else { return Shown::Current };
        if tombstone.is_gone {
            return Shown::Unconfirmed;
        }
        if version <= tombstone.version {
            tombstone.listing = listing;
            return Shown::Outdated;
        }
        self.0.remove(id);
        Shown::Current
    }

    /// Records that the source shows the entry as finished or deleted with `version`.
    pub(crate) fn seen_absent(&mut self, id: &Id, version: u64) {
        if self.0.get(id).is_some_and(|tombstone| version >= tombstone.version) {
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
    fn an_entry_that_was_gone_is_unconfirmed_at_any_version_until_it_is_absent_or_listed() {
        let mut tombstones = Tombstones::new();
        tombstones.gone(1, "a".into(), 7, 1);
        assert_eq!([5, 7, 9].map(|version| tombstones.judge(&1, version, 2)), [Shown::Unconfirmed; 3]);
        tombstones.seen_absent(&1, 6);
        assert_eq!(tombstones.judge(&1, 9, 2), Shown::Unconfirmed, "an older departure");
        tombstones.seen_absent(&1, 8);
        assert_eq!(tombstones.len(), 0);
        tombstones.gone(1, "a".into(), 7, 1);
        tombstones.end_listing(1, None);
        assert_eq!(tombstones.judge(&1, 7, 2), Shown::Unconfirmed, "this listing may have begun before");
        tombstones.end_listing(2, None);
        assert_eq!(tombstones.judge(&1, 7, 2), Shown::Current, "a listing that began later shows it: it exists");
    }

    fn of(namespace: &str) -> Tombstones<u32> {
        let mut tombstones = Tombstones::new();
        tombstones.finished(1, namespace.into(), 7, 1);
        tombstones
    }

    #[test]
    fn what_is_older_than_the_finishing_write_is_held_back_until_that_write_is_seen_or_a_newer_one() {
        let mut tombstones = of("a");
        assert_eq!(tombstones.judge(&2, 5, 1), Shown::Current, "another entry");
        assert_eq!([6, 7].map(|version| tombstones.judge(&1, version, 1)), [Shown::Outdated; 2]);
        tombstones.seen_absent(&1, 6);
        assert_eq!(tombstones.judge(&1, 6, 1), Shown::Outdated, "an older departure");
        assert_eq!(tombstones.judge(&1, 8, 1), Shown::Current, "a replay");
        assert_eq!(tombstones.len(), 0);
        let mut tombstones = of("a");
        tombstones.seen_absent(&1, 7);
        assert_eq!(tombstones.len(), 0);
    }

    #[test]
    fn a_listing_that_does_not_show_it_any_more_ends_it_in_the_namespace_that_was_listed() {
        let mut tombstones = of("a");
        tombstones.end_listing(2, Some("b"));
        assert_eq!(tombstones.judge(&1, 5, 2), Shown::Outdated, "shown by the listing 2");
        tombstones.end_listing(2, Some("a"));
        assert_eq!(tombstones.len(), 1);
        tombstones.end_listing(3, Some("a"));
        assert_eq!(tombstones.len(), 0);
        let mut tombstones = of("a");
        tombstones.end_listing(2, None);
        assert_eq!(tombstones.len(), 0);
    }
}
