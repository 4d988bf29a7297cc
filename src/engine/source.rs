//! Where events come from and outcomes go back to.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use tidings_delivery::{
    event::{CheckedEvent, InvalidEvent},
    webhook::Outcome,
};
use tidings_queue::{Content, Entry, Loaded, SourceId, SubscriberKey, Ticket, Want, Work, Written};
use tokio::sync::oneshot;

use crate::contract;

/// Where the events of a Subscriber go.
pub type SharedRoute = Arc<contract::Route>;

/// A source of entries. The engine loads an entry before it sends it (unless the queue keeps it), and writes what came of it.
pub trait Source:
    Work<Id: Send, Name: Display + Send, Item: Payload, Route = SharedRoute, Answer = Answer> + Send + Sync + 'static
{
    /// Reads an entry.
    fn load(&self, of: &Ticket<Self>) -> impl Future<Output = Loaded<Self>> + Send
    where
        Self: Sized;

    /// Writes to an entry; `item` is the entry, if it is in memory. Returns when the store has the write or refuses it, however
    /// long that takes.
    fn write(
        &self,
        of: Ticket<Self>,
        item: Option<Box<Self::Item>>,
        content: Content<Answer>,
    ) -> impl Future<Output = Written<Self>> + Send
    where
        Self: Sized;

    /// Pulls entries for a Subscriber, at most `want`, and says whether there are more.
    fn pull(
        &self,
        from: SourceId,
        of: &SubscriberKey,
        want: Want,
    ) -> impl Future<Output = (Vec<Entry<Self>>, bool)> + Send
    where
        Self: Sized;
}

/// An entry in memory, as far as an attempt needs it.
pub trait Payload: Send + 'static {
    /// Checks one of its events.
    fn event(&self, number: u16) -> Result<CheckedEvent, InvalidEvent>;

    /// The id that the event goes with, known even when the event cannot be sent.
    fn event_id(&self, number: u16) -> String;

    /// The size of its events in memory, in bytes.
    fn size(&self) -> usize;

    /// Drops its events.
    fn drop_events(&mut self);

    /// How many attempts failed, those that were deferred by a pause aside.
    fn failures(&self) -> u32;
}

/// What came of one event.
#[derive(Debug)]
pub struct Answer {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The id that the event was, or would have been, sent with.
    pub event_id: String,
    /// When the attempt began.
    pub began: Instant,
    /// How long it took.
    pub duration: Duration,
    /// How long to wait before the next attempt, should there be one.
    pub next_wait: Duration,
    /// How many attempts there may be, deferred ones aside.
    pub max_attempts: Option<u32>,
    /// What the answer says of the Subscriber is stored before the outcome is written: this resolves then, or when its sender is
    /// dropped.
    pub stored: Option<oneshot::Receiver<()>>,
}
