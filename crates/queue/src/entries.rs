//! The unfinished entries in compact form: there may be a million of them.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

use crate::{
    clock::{Seconds, Tick},
    gate::Explained,
    numbers::{LaneNumber, RecordNumber, Turn},
    work::Work,
};

/// The number of records in one block of memory: a buffer that doubles could take twice the memory that it needs.
const CHUNK: usize = 512;

/// One event. An entry with several events has a record for each; the first record is the entry's own, and only its
/// fields describe the entry as a whole.
pub(crate) struct Record<W: Work> {
    pub(crate) id: W::Id,
    pub(crate) name: W::Name,
    /// The newest version seen or written.
    pub(crate) version: u64,
    /// When its last attempt began (0: no attempt by this process).
    pub(crate) tried: Tick,
    /// When it is due (waiting), or since when it is due (queued).
    pub(crate) at: Tick,
    /// Its turn in the ready queue of its lane.
    pub(crate) turn: Turn,
    pub(crate) lane: LaneNumber,
    /// When its life began.
    pub(crate) began: Seconds,
    /// When it expires by its own lifetime.
    pub(crate) expires: Seconds,
    /// The recorded time of its next attempt (0: not recorded).
    pub(crate) next: Seconds,
    /// The number of recorded attempts.
    pub(crate) attempts: u32,
    /// The size of its event.
    pub(crate) bytes: u32,
    /// The number of the newest listing when it was last seen.
    pub(crate) listing: u32,
    /// The number of the event within its entry.
    pub(crate) event: u16,
    pub(crate) kind: u16,
    pub(crate) place: EventPlace,
    pub(crate) explained: Explained,
    /// Whether it is in the indexes by expiry.
    pub(crate) filed: bool,
    pub(crate) pulled: bool,
}

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventPlace {
    /// Aside: the entry is being deleted, or its expiry is being written.
    Aside,
    /// It waits for its time.
    Waiting,
    /// Due, in the ready queue of its lane.
    Queued,
    /// It is loaded, sent, or its outcome is being written.
    InFlight,
    /// One of several events, and no other attempt follows.
    Finished,
}

/// All records by number, and entries by id.
pub(crate) struct Entries<W: Work> {
    chunks: Vec<Vec<Option<Record<W>>>>,
    free: Vec<RecordNumber>,
    /// Only the numbers: the ids are in the records.
    by_id: HashTable<RecordNumber>,
    hasher: RandomState,
}

impl<W: Work> Entries<W> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), by_id: HashTable::new(), hasher: RandomState::new() }
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Returns a hash that is the same for equal values.
    pub(crate) fn hash(&self, of: &impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    pub(crate) fn find(&self, id: &W::Id) -> Option<RecordNumber> {
        let is_it = |no: &RecordNumber| self.get(*no).is_some_and(|record| record.id == *id);
        self.by_id.find(self.hasher.hash_one(id), is_it).copied()
    }

    pub(crate) fn get(&self, no: RecordNumber) -> Option<&Record<W>> {
        self.chunks.get(no as usize / CHUNK)?.get(no as usize % CHUNK)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, no: RecordNumber) -> Option<&mut Record<W>> {
        self.chunks.get_mut(no as usize / CHUNK)?.get_mut(no as usize % CHUNK)?.as_mut()
    }

    /// Adds the record of an unknown entry.
    pub(crate) fn insert(&mut self, record: Record<W>) -> RecordNumber {
        let hash = self.hasher.hash_one(record.id);
        let no = self.insert_part(record);
        let Self { chunks, by_id, hasher, .. } = self;
        let hash_of = |no: &RecordNumber| {
            chunks[*no as usize / CHUNK][*no as usize % CHUNK].as_ref().map_or(0, |r| hasher.hash_one(r.id))
        };
        by_id.insert_unique(hash, no, hash_of);
        no
    }

    /// Adds the record of another event of an entry.
    pub(crate) fn insert_part(&mut self, record: Record<W>) -> RecordNumber {
        if let Some(no) = self.free.pop() {
            self.chunks[no as usize / CHUNK][no as usize % CHUNK] = Some(record);
            return no;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(Some(record));
        RecordNumber::try_from(last * CHUNK + self.chunks[last].len() - 1).unwrap_or(RecordNumber::MAX)
    }

    pub(crate) fn remove(&mut self, no: RecordNumber) -> Option<Record<W>> {
        let record = self.chunks.get_mut(no as usize / CHUNK)?.get_mut(no as usize % CHUNK)?.take()?;
        if let Ok(found) = self.by_id.find_entry(self.hasher.hash_one(record.id), |other| *other == no) {
            found.remove();
        }
        self.free.push(no);
        if self.free.len() == self.chunks.iter().map(Vec::len).sum::<usize>() {
            // Frees the memory after a flood.
            (self.chunks, self.free) = (Vec::new(), Vec::new());
            self.by_id.shrink_to(0, |_| 0);
        }
        Some(record)
    }

    /// Returns all records.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RecordNumber, &Record<W>)> {
        let numbered = self.chunks.iter().flatten().zip(0..);
        numbered.filter_map(|(record, no)| Some((no, record.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As small as an entry of Kubernetes: a UUID, and a name in a box with its length.
    struct Small;

    impl Work for Small {
        type Id = [u8; 16];
        type Name = [u8; 24];
        type Item = ();
        type Route = ();
        type Answer = ();
    }

    fn record(id: u8, event: u16) -> Record<Small> {
        Record {
            id: [id; 16],
            name: [0; 24],
            version: 1,
            tried: 0,
            at: 0,
            turn: 0,
            lane: 0,
            began: 0,
            expires: 0,
            next: 0,
            attempts: 0,
            bytes: 0,
            kind: 0,
            listing: 0,
            event,
            place: EventPlace::Aside,
            explained: Explained::default(),
            filed: false,
            pulled: false,
        }
    }

    #[test]
    fn a_record_is_small() {
        assert!(size_of::<Record<Small>>() <= 104, "{} bytes", size_of::<Record<Small>>());
        assert_eq!(size_of::<Option<Record<Small>>>(), size_of::<Record<Small>>(), "an empty place costs no more");
    }

    #[test]
    fn each_entry_is_found_by_its_id_and_its_number_is_given_away_again() {
        let mut entries = Entries::<Small>::new();
        let numbers: Vec<_> = (0..200).map(|id| entries.insert(record(id, 0))).collect();
        let part = entries.insert_part(record(7, 1));
        assert_eq!((entries.len(), entries.iter().count()), (200, 201));
        for id in 0..200 {
            assert_eq!(entries.find(&[id; 16]), Some(numbers[usize::from(id)]));
        }
        assert_eq!(entries.remove(part).map(|record| record.event), Some(1));
        assert_eq!(entries.find(&[7; 16]), Some(numbers[7]), "the entry itself is still there");
        assert!(entries.remove(numbers[7]).is_some() && entries.remove(numbers[7]).is_none());
        assert_eq!((entries.find(&[7; 16]), entries.len()), (None, 199));
        assert_eq!(entries.insert(record(201, 0)), numbers[7]);
        assert_eq!(entries.find(&[201; 16]), Some(numbers[7]));
    }

    #[test]
    fn a_flood_that_has_passed_leaves_nothing() {
        let mut entries = Entries::<Small>::new();
        let numbers: Vec<_> = (0..=255).flat_map(|id| [entries.insert(record(id, 0)); 1]).collect();
        let parts: Vec<_> = (0..2000).map(|_| entries.insert_part(record(0, 1))).collect();
        numbers.into_iter().chain(parts).for_each(|no| assert!(entries.remove(no).is_some()));
        assert!(entries.chunks.is_empty() && entries.free.is_empty() && entries.by_id.capacity() == 0);
        assert_eq!(entries.insert(record(1, 0)), 0);
    }
}
