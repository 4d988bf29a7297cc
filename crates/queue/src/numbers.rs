//! The numbers of records, lanes and turns.

/// The number of a record while it exists.
pub(crate) type RecordNumber = u32;

/// The number of a lane while it is known.
pub(crate) type LaneNumber = u32;

/// A turn in a ready queue. Events that were put back have turns before [`FIRST`].
pub(crate) type Turn = u32;

/// The turn of the first event in a ready queue.
pub(crate) const FIRST: Turn = 1 << 31;
