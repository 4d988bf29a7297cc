//! Which event is sent next. Pure: time and chance are passed in, nothing here waits, reads a clock or does I/O.
//!
//! [`Queue`] takes in what sources, Subscribers and finished actions say, and hands out what to do now. The queue decides, the schedule
//! moves: `queue.rs` says what an input means for an entry; `schedule.rs` moves the entry's events, and keeps lanes, turns and expiries
//! in step.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | entry | what a source shows as one unit and writes as one unit; in Kubernetes a Notification ([`Entry`]) |
//! | event | what is sent by one POST; an entry has one or several, a Notification has one |
//! | lane | the events of one Subscriber, and all that decides when the next one may start |
//! | line | the events of one lane that are due, in order; those that are not due yet wait beside it |
//! | flight | an event from its start until its outcome is written: it is loaded, sent, then its outcome is written ([`Flight`] is the part that is sent) |
//! | action, done | what the owner of the queue is to do ([`Action`]), and what came of it ([`Done`]); each action is answered by one done |
//! | gate | the reason why nothing of a Subscriber is sent ([`Gate`]) |
//! | term | a time in which this process may act for Subscribers ([`Term`]); without a term nothing starts |
//!
//! # Modules
//!
//! | module | what is in it |
//! |---|---|
//! | `queue` | [`Queue`]: what each input means, and which action is next |
//! | `schedule` | where each event is; moves events and entries |
//! | `work` | the types of a source, and what goes in and out of the queue for one entry |
//! | `update` | what the Subscribers' side and the Lease say to the queue, and what the queue says of its lanes |
//! | `names` | [`SubscriberKey`] and [`SpecVersion`] |
//! | `numbers` | the numbers of records, lanes and places in a line |
//! | `clock` | the time of one call, and the two clocks in numbers |
//! | `entries` | the records, one for each event, in little memory |
//! | `batch` | the outcomes of an entry with several events, until they are written together |
//! | `flights` | what is in flight |
//! | `memory` | untried entries that are kept in memory, within a budget of bytes |
//! | `lane` | one lane: its gate, its limits, what it holds |
//! | `lanes` | all lanes, by number and by name, and when to look at each again |
//! | `ready_queue` | one lane's line |
//! | `gate` | the gates, and which of them an entry has named |
//! | `breaker` | the circuit of one lane: open after failures in a row, then probes |
//! | `rate` | how often attempts of one lane may start |
//! | `turns` | the turns of namespaces and of their lanes, and the shares of slots and bytes |
//! | `backoff` | [`Backoff`]: how long a failed attempt waits |
//! | `expiry` | when entries expire, and which one is next |
//! | `explain` | which entries are to name the gate that holds them, and when |
//! | `scopes` | the namespaces that are listed and watched, and how much of each is known |
//! | `tombstones` | entries that this process finished and that a late watch may still show |
//! | `snapshots` | how the lanes stood when that was last reported |

#![cfg_attr(not(test), warn(unreachable_pub))]
// Tests choose where time begins.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod backoff;
mod batch;
mod breaker;
mod clock;
mod entries;
mod expiry;
mod explain;
mod flights;
mod gate;
mod lane;
mod lanes;
mod memory;
mod names;
mod numbers;
mod queue;
mod rate;
mod ready_queue;
mod schedule;
mod scopes;
mod snapshots;
mod tombstones;
mod turns;
mod update;
mod work;

pub use backoff::Backoff;
pub use breaker::Health;
pub use clock::Now;
pub use gate::Gate;
pub use names::{SpecVersion, SubscriberKey};
pub use queue::{Bounds, Queue};
pub use update::{LaneSnapshot, LaneState, Limits, Term, Update};
pub use work::{
    Action, Answered, Content, Current, Done, Entry, Flight, Loaded, NotSent, Permit, ScopeId, Seen, Signal, SourceId,
    Ticket, Want, Work, Written,
};
