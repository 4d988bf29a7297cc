//! How records, lanes and places are numbered.

/// The number of a record, for as long as it lives.
pub(crate) type RecordNumber = u32;

/// The number of a lane, for as long as it is known.
pub(crate) type LaneNumber = u32;

/// A place in a line. Those that were put back stand before [`FIRST`].
pub(crate) type Turn = u32;

/// The place of the first one that lines up.
pub(crate) const FIRST: Turn = 1 << 31;
