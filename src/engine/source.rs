//! The interface to a source of events, such as the Kubernetes API: the engine loads entries from it and writes
//! outcomes to it.

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

/// The route of a Subscriber's events, shared by all attempts.
pub type SharedRoute = Arc<contract::Route>;

/// A source of entries. The engine loads an entry before it sends an event of it (unless the queue keeps the entry in
/// memory), and writes the outcome.
pub trait Source:
    Work<Id: Send, Name: Display + Send, Item: Payload, Route = SharedRoute, Answer = Answer> + Send + Sync + 'static
{
    /// Reads an entry.
    fn load(&self, of: &Ticket<Self>) -> impl Future<Output = Loaded<Self>> + Send
    where
        Self: Sized;

    /// Writes to an entry. `item` is the entry, if it is in memory. Returns when the store has accepted or refused the
    /// write, however long that takes.
    fn write(
        &self,
        of: Ticket<Self>,
        item: Option<Box<Self::Item>>,
        content: Content<Answer>,
    ) -> impl Future<Output = Written<Self>> + Send
    where
        Self: Sized;

    /// Pulls at most `want` entries for a Subscriber, and returns whether there are more.
    fn pull(
        &self,
        from: SourceId,
        of: &SubscriberKey,
        want: Want,
    ) -> impl Future<Output = (Vec<Entry<Self>>, bool)> + Send
    where
        Self: Sized;
}

/// The part of an entry in memory that an attempt needs.
pub trait Payload: Send + 'static {
    /// Checks one event of the entry.
    fn event(&self, number: u16) -> Result<CheckedEvent, Unsendable>;

    /// Returns the id that the event is sent with, even if the event cannot be sent.
    fn event_id(&self, number: u16) -> String;

    /// Returns the size of the events in memory, in bytes.
    fn size(&self) -> usize;

    /// Drops the events.
    fn drop_events(&mut self);

    /// Returns the uid of the object that has the events.
    fn uid(&self) -> &str;

    /// Returns how many attempts failed, without attempts that a pause deferred.
    fn failures(&self) -> u32;
}

/// Why an event cannot be sent, however often it is tried.
#[derive(Debug, thiserror::Error)]
pub enum Unsendable {
    /// The event breaks a rule of CloudEvents.
    #[error("{0}; the event was not sent: create a corrected Notification")]
    Invalid(#[from] InvalidEvent),
    /// The source could not record the outcome: the text says why.
    #[error("{0}")]
    TooLarge(String),
}

/// The result of one attempt to deliver one event.
#[derive(Debug)]
pub struct Answer {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The id that the event was, or would have been, sent with.
    pub event_id: String,
    /// The id of the trace that the attempt belongs to, if there is one.
    pub trace_id: Option<String>,
    /// When the attempt began.
    pub began: Instant,
    /// How long the attempt took.
    pub duration: Duration,
    /// How long to wait before the next attempt, if there is one.
    pub next_wait: Duration,
    /// The maximum number of attempts, without deferred attempts.
    pub max_attempts: Option<u32>,
    /// Resolves when the effect of this result on the Subscriber is stored, or when its sender is dropped. The outcome
    /// is written after that.
    pub stored: Option<oneshot::Receiver<()>>,
}
