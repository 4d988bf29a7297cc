//! What the queue works with: entries as their source shows them, and what becomes of each.
//!
//! A Notification is an entry with one event, and the watch shows all of them. So no source of Kubernetes uses [`Action::Pull`],
//! [`Done::Pulled`], [`Want`], [`Seen::Supply`], entries with several events, or [`Content::Returned`]. They are for batches and for
//! message brokers; the in-memory source of the engine's tests uses them.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{Gate, Health, SubscriberKey, Term};

/// The types of a source of events.
pub trait Work {
    /// Names an entry for good. It is small: the queue holds one for each unfinished entry.
    type Id: Copy + Eq + Hash;
    /// What the source needs beside the id to find an entry. As small.
    type Name: Clone;
    /// An entry that was loaded, or those of its events that a flight is for.
    type Item;
    /// Where the events of a Subscriber go.
    type Route: Clone;
    /// What came of one event.
    type Answer;
}

/// One entry as its source shows it: a Notification with its events.
pub struct Entry<W: Work> {
    /// Its id.
    pub id: W::Id,
    /// How the source finds it.
    pub name: W::Name,
    /// Its Subscriber.
    pub of: SubscriberKey,
    /// Grows with each change: what is shown at a lower version is old.
    pub version: u64,
    /// How many events it has, at least one.
    pub events: u16,
    /// Which of several events are finished when the entry becomes known: these are not sent.
    pub finished: Vec<u16>,
    /// The attempts that are recorded.
    pub attempts: u32,
    /// When its life began: its creation, or its replay.
    pub began: SystemTime,
    /// The age at which it expires by itself.
    pub lifetime: Option<Duration>,
    /// When its next attempt is due (None: now).
    pub next: Option<SystemTime>,
    /// The size of its largest event.
    pub bytes: usize,
    /// The gate that it names already.
    pub explained: Option<Gate>,
    /// It is being deleted: nothing of it is sent any more.
    pub cancelled: bool,
    /// It was pulled: it is given back when it cannot be sent.
    pub pulled: bool,
    /// The entry itself, which the queue keeps if there is room.
    pub item: Option<Box<W::Item>>,
}

/// Names a source that entries can be pulled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u32);

/// One of the sets of entries that are listed and watched together, by its place in what [`crate::Queue::new`] was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeId(pub usize);

/// What a source shows.
pub enum Seen<W: Work> {
    /// An unfinished entry, new or changed.
    Present(Entry<W>),
    /// The entry is finished, or deleted, as of this version.
    Absent {
        /// Its id.
        id: W::Id,
        /// The version that says so.
        version: u64,
    },
    /// A listing begins.
    ListBegins(ScopeId),
    /// The listing is complete: what it did not show is gone.
    ListEnds(ScopeId),
    /// The listing, or the watch that follows it, broke off.
    Failed(ScopeId),
    /// The source does not let this process list: nothing is to be waited for.
    Refused(ScopeId),
    /// There are, or are no more, entries to pull for a Subscriber.
    Supply {
        /// Where.
        source: SourceId,
        /// Whose.
        of: SubscriberKey,
        /// Whether there are any.
        any: bool,
    },
}

/// Which entry an action is for.
pub struct Ticket<W: Work> {
    /// Its id.
    pub id: W::Id,
    /// How the source finds it.
    pub name: W::Name,
    /// Its Subscriber.
    pub of: SubscriberKey,
    /// The attempts that are recorded.
    pub attempts: u32,
    /// When its life began, in whole seconds.
    pub began: SystemTime,
    /// Which of its events.
    pub event: u16,
}

impl<W: Work> Clone for Ticket<W> {
    fn clone(&self) -> Self {
        let Self { id, name, of, attempts, began, event } = self;
        Self { id: *id, name: name.clone(), of: of.clone(), attempts: *attempts, began: *began, event: *event }
    }
}

/// Whether a flight may still send. The queue revokes it when the flight's Subscriber closes, pauses or has another version, and
/// when its entry is finished or deleted.
#[derive(Clone, Debug)]
pub struct Permit(Arc<PermitState>);

#[derive(Debug)]
struct PermitState {
    expires: Option<SystemTime>,
    revoked: AtomicBool,
}

impl Permit {
    pub(crate) fn until(expires: Option<SystemTime>) -> Self {
        Self(Arc::new(PermitState { expires, revoked: AtomicBool::new(false) }))
    }

    pub(crate) fn revoke(&self) {
        self.0.revoked.store(true, Ordering::Release);
    }

    /// Whether the flight may send at `now`.
    pub fn holds(&self, now: SystemTime) -> bool {
        !self.0.revoked.load(Ordering::Acquire) && self.0.expires.is_none_or(|at| now < at)
    }
}

/// One POST of one event.
pub struct Flight<W: Work> {
    /// Which entry, and which event of it.
    pub ticket: Ticket<W>,
    /// What to send.
    pub item: Box<W::Item>,
    /// Where.
    pub route: W::Route,
    /// Whether it may still be sent.
    pub permit: Permit,
    /// The term in which it began.
    pub term: Term,
}

/// How much a lane has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Events.
    pub events: usize,
    /// Their size together, in bytes.
    pub bytes: usize,
}

/// What the owner of the queue is to do now.
pub enum Action<W: Work> {
    /// Load the entry, then report [`Done::Loaded`].
    Load(Ticket<W>),
    /// Send the event, then report [`Done::Answered`].
    Send(Flight<W>),
    /// Write to the entry, then report [`Done::Written`].
    Write {
        /// Which entry.
        ticket: Ticket<W>,
        /// The entry, if it is in memory.
        item: Option<Box<W::Item>>,
        /// What to write.
        content: Content<W::Answer>,
    },
    /// Pull entries, then report [`Done::Pulled`].
    Pull {
        /// From where.
        source: SourceId,
        /// Whose.
        of: SubscriberKey,
        /// At most this much.
        want: Want,
    },
}

/// What is written to an entry.
#[derive(Debug, PartialEq, Eq)]
pub enum Content<A> {
    /// What came of its events, by their numbers.
    Outcome(Vec<(u16, A)>),
    /// It expired.
    Expired,
    /// It waits behind this gate.
    Waiting(Gate),
    /// Nothing: it is given back to its source.
    Returned,
}

/// What came of an action.
pub enum Done<W: Work> {
    /// Of [`Action::Load`].
    Loaded {
        /// Which entry.
        ticket: Ticket<W>,
        /// What was found.
        loaded: Loaded<W>,
    },
    /// Of [`Action::Send`].
    Answered {
        /// Which entry.
        ticket: Ticket<W>,
        /// What came of it.
        answered: Answered<W>,
    },
    /// Of [`Action::Write`].
    Written {
        /// Which entry.
        ticket: Ticket<W>,
        /// What became of the write.
        written: Written<W>,
    },
    /// Of [`Action::Pull`].
    Pulled {
        /// From where.
        source: SourceId,
        /// Whose.
        of: SubscriberKey,
        /// The entries.
        entries: Vec<Entry<W>>,
        /// Whether there are more.
        more: bool,
    },
}

/// What a load found.
pub enum Loaded<W: Work> {
    /// The entry, as it was known.
    Item(Box<W::Item>),
    /// Another writer changed it: go on from there.
    Superseded(Current<W>),
    /// It is gone, or another one has its name.
    Gone,
    /// It could not be read.
    Unread,
}

/// An entry as another writer left it.
pub struct Current<W: Work> {
    /// The entry, without its item.
    pub entry: Entry<W>,
    /// It is finished.
    pub finished: bool,
}

/// What came of a flight.
pub enum Answered<W: Work> {
    /// Nothing was sent and no attempt was spent.
    NotSent {
        /// The entry, unless its event was dropped.
        item: Option<Box<W::Item>>,
        /// Why.
        why: NotSent,
    },
    /// The attempt ended.
    Sent {
        /// The entry; its event is not needed any more.
        item: Box<W::Item>,
        /// What came of the event.
        answer: W::Answer,
        /// When the event is tried again, if that is for the queue to decide: an entry with one event waits for what its source
        /// writes.
        again: Option<Duration>,
        /// What the answer says of the webhook.
        signal: Option<Signal>,
    },
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The Subscriber has no token to send.
    NoToken,
    /// The egress policy denies the webhook's address.
    EgressDenied,
    /// The permit was revoked, the term ended, or the process stops.
    Held,
}

/// What an answer says of a webhook as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// How the webhook is.
    Health(Health),
    /// The webhook asked for a pause of this length.
    Pause(Duration),
    /// The webhook is gone.
    Gone,
}

/// What became of a write.
pub enum Written<W: Work> {
    /// An attempt is recorded, and another one follows.
    Retry {
        /// The version of the write.
        version: u64,
        /// The attempts recorded.
        attempts: u32,
        /// When the life began that it is about.
        began: SystemTime,
        /// When the next attempt is due, as it is recorded.
        next: Option<SystemTime>,
        /// The same as a wait from now.
        wait: Duration,
    },
    /// The entry is finished.
    Finished {
        /// The version of the write.
        version: u64,
        /// It was finished before, by another writer, so the source has nothing more to show of it.
        out_of_sight: bool,
    },
    /// Another writer changed it: go on from there.
    Superseded(Current<W>),
    /// It is gone, or another one has its name.
    Gone,
    /// It could not be read.
    Unread,
    /// Nothing follows: of [`Content::Waiting`] and [`Content::Returned`].
    Noted,
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_permit_ends_when_it_is_revoked_and_when_the_notification_expires() {
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        let permit = Permit::until(Some(at(10)));
        assert!(permit.holds(at(9)) && !permit.holds(at(10)));
        let permit = Permit::until(None);
        assert!(permit.holds(at(10)));
        permit.revoke();
        assert!(!permit.holds(at(10)));
    }
}
