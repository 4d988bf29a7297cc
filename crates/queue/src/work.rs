//! The types of a source: entries as the source shows them, the actions for them, and the results.
//!
//! A Notification is an entry with one event, and the watch shows all Notifications. The Kubernetes source therefore
//! does not use [`Action::Pull`], [`Done::Pulled`], [`Want`], [`Seen::Supply`], entries with several events, or
//! [`Content::Returned`]. These are for batches and message brokers; the in-memory source of the engine's tests uses
//! them.

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
    /// The unique name of an entry. It must be small: the queue holds one for each unfinished entry.
    type Id: Copy + Eq + Hash;
    /// What the source needs in addition to the id to find an entry. It must be small too.
    type Name: Clone;
    /// A loaded entry, or the events of it that a flight needs.
    type Item;
    /// Where the events of a Subscriber are sent.
    type Route: Clone;
    /// The result of one event.
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
    /// Grows with each change; a lower version is outdated.
    pub version: u64,
    /// The number of events, at least one.
    pub events: u16,
    /// The events that are finished when the entry becomes known; they are not sent.
    pub finished: Vec<u16>,
    /// The number of recorded attempts.
    pub attempts: u32,
    /// When its current life began: at creation or at the last replay.
    pub began: SystemTime,
    /// The age at which its own lifetime ends.
    pub lifetime: Option<Duration>,
    /// When its next attempt is due (None: now).
    pub next: Option<SystemTime>,
    /// The size of its largest event.
    pub bytes: usize,
    /// The kind of its events, such as a hash of the event type: a webhook that rejects events of one kind may accept
    /// events of another kind.
    pub kind: u16,
    /// The gate that its status names.
    pub explained: Option<Gate>,
    /// Whether it is being deleted; no event of it is sent then.
    pub cancelled: bool,
    /// Whether it was pulled; it is returned to its source if it cannot be sent.
    pub pulled: bool,
    /// The entry itself, which the queue keeps if there is memory.
    pub item: Option<Box<W::Item>>,
}

/// Names a source that entries can be pulled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u32);

/// A set of entries that are listed and watched together: an index into the namespaces given to [`crate::Queue::new`].
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
        /// The version that shows this.
        version: u64,
    },
    /// A listing starts.
    ListBegins(ScopeId),
    /// The listing is complete: entries that it did not show are gone.
    ListEnds(ScopeId),
    /// The listing, or the watch after it, failed.
    Failed(ScopeId),
    /// The source refuses to list: the queue does not wait for it.
    Refused(ScopeId),
    /// Whether there are entries to pull for a Subscriber.
    Supply {
        /// The source.
        source: SourceId,
        /// The Subscriber.
        of: SubscriberKey,
        /// Whether there are entries.
        any: bool,
    },
}

/// The entry that an action is for.
pub struct Ticket<W: Work> {
    /// Its id.
    pub id: W::Id,
    /// How the source finds it.
    pub name: W::Name,
    /// Its Subscriber.
    pub of: SubscriberKey,
    /// The number of recorded attempts.
    pub attempts: u32,
    /// When its current life began, in whole seconds.
    pub began: SystemTime,
    /// The number of the event.
    pub event: u16,
}

impl<W: Work> Clone for Ticket<W> {
    fn clone(&self) -> Self {
        let Self { id, name, of, attempts, began, event } = self;
        Self { id: *id, name: name.clone(), of: of.clone(), attempts: *attempts, began: *began, event: *event }
    }
}

/// Permission for a flight to send. The queue revokes it when the flight's Subscriber closes, pauses or has another
/// version, and when its entry is finished or deleted.
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
    /// The entry to send.
    pub item: Box<W::Item>,
    /// Where to send it.
    pub route: W::Route,
    /// Whether it may still be sent.
    pub permit: Permit,
    /// The term in which it began.
    pub term: Term,
}

/// How much a lane can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The number of events.
    pub events: usize,
    /// Their size together, in bytes.
    pub bytes: usize,
}

/// What the owner of the queue must do now.
pub enum Action<W: Work> {
    /// Load the entry, then report [`Done::Loaded`].
    Load(Ticket<W>),
    /// Send the event, then report [`Done::Answered`].
    Send(Flight<W>),
    /// Write to the entry, then report [`Done::Written`].
    Write {
        /// The entry and event.
        ticket: Ticket<W>,
        /// The entry, if it is in memory.
        item: Option<Box<W::Item>>,
        /// What to write.
        content: Content<W::Answer>,
    },
    /// Pull entries, then report [`Done::Pulled`].
    Pull {
        /// The source.
        source: SourceId,
        /// The Subscriber.
        of: SubscriberKey,
        /// The maximum to pull.
        want: Want,
    },
}

/// The content of a write to an entry.
#[derive(Debug, PartialEq, Eq)]
pub enum Content<A> {
    /// The results of its events, with their numbers.
    Outcome(Vec<(u16, A)>),
    /// The entry expired.
    Expired,
    /// The entry waits behind this gate.
    Waiting(Gate),
    /// Nothing: the entry is returned to its source.
    Returned,
}

/// The result of an action.
pub enum Done<W: Work> {
    /// Of [`Action::Load`].
    Loaded {
        /// The entry and event.
        ticket: Ticket<W>,
        /// The result of the load.
        loaded: Loaded<W>,
    },
    /// Of [`Action::Send`].
    Answered {
        /// The entry and event.
        ticket: Ticket<W>,
        /// The result of the flight.
        answered: Answered<W>,
    },
    /// Of [`Action::Write`].
    Written {
        /// The entry and event.
        ticket: Ticket<W>,
        /// The result of the write.
        written: Written<W>,
    },
    /// Of [`Action::Pull`].
    Pulled {
        /// The source.
        source: SourceId,
        /// The Subscriber.
        of: SubscriberKey,
        /// The entries.
        entries: Vec<Entry<W>>,
        /// Whether there are more.
        more: bool,
    },
}

/// The result of a load.
pub enum Loaded<W: Work> {
    /// The entry, unchanged.
    Item(Box<W::Item>),
    /// Another writer changed the entry: continue from its present state.
    Superseded(Current<W>),
    /// The entry is gone, or another entry has its name.
    Gone,
    /// The entry could not be read.
    Unread,
}

/// An entry as another writer left it.
pub struct Current<W: Work> {
    /// The entry, without its item.
    pub entry: Entry<W>,
    /// It is finished.
    pub finished: bool,
}

/// The result of a flight.
pub enum Answered<W: Work> {
    /// No request was sent and no attempt was spent.
    NotSent {
        /// The entry, unless its event was dropped.
        item: Option<Box<W::Item>>,
        /// The reason.
        why: NotSent,
    },
    /// The attempt ended.
    Sent {
        /// The entry; its event is no longer needed.
        item: Box<W::Item>,
        /// The result of the event.
        answer: W::Answer,
        /// When to retry the event, for an entry with several events. An entry with one event waits for the time that
        /// its source writes.
        again: Option<Duration>,
        /// What the response means for the webhook.
        signal: Option<Signal>,
    },
}

/// Why no request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The Subscriber has no token to send.
    NoToken,
    /// The egress policy denies the webhook's address.
    EgressDenied,
    /// The permit was revoked, the term ended, or the process is stopping.
    Held,
}

/// What a rejection means for its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionMeaning {
    /// It ends the event.
    Final,
    /// The webhook rejects all events: the event is held.
    Held,
    /// The event was sent by another version of the Subscriber's spec than the present one. The changed Subscriber may
    /// send an event that the webhook accepts.
    Outdated,
}

/// What a response means for a webhook as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The health of the webhook.
    Health(Health),
    /// The webhook requested a pause of this length.
    Pause(Duration),
    /// The health of the webhook, which also requested a pause of this length.
    HealthAndPause(Health, Duration),
    /// The webhook answered 410.
    Gone,
}

/// The result of a write.
pub enum Written<W: Work> {
    /// The attempt is recorded, and another attempt follows.
    Retry {
        /// The version of the write.
        version: u64,
        /// The number of recorded attempts.
        attempts: u32,
        /// When the life began to which the write belongs.
        began: SystemTime,
        /// The recorded time of the next attempt.
        next: Option<SystemTime>,
        /// The wait until the next attempt.
        wait: Duration,
    },
    /// The entry is finished.
    Finished {
        /// The version of the write.
        version: u64,
        /// Whether another writer finished the entry before, so that the source shows no further change.
        out_of_sight: bool,
    },
    /// Another writer changed the entry: continue from its present state.
    Superseded(Current<W>),
    /// The entry is gone, or another entry has its name.
    Gone,
    /// The entry could not be read.
    Unread,
    /// Nothing follows. The result of [`Content::Waiting`] and [`Content::Returned`].
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
