//! Decides which event is sent next. Pure: the caller passes in the time and random numbers; the crate does not wait,
//! read a clock or do I/O.
//!
//! [`Queue`] receives input from sources, Subscribers and finished actions, and returns the actions to take now.
//! `queue.rs` decides what an input means for an entry. `schedule.rs` moves the entry's events and keeps lanes, turns
//! and expiries consistent.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | entry | the unit that a source shows and writes; in Kubernetes a Notification ([`Entry`]) |
//! | event | the content of one POST; an entry has one or more events, a Notification has one |
//! | lane | the events of one Subscriber, with the state that decides when the next event may start |
//! | ready queue | the events of one lane that are due, in order; events that are not due yet wait next to it |
//! | flight | an event from its start until its outcome is written: it is loaded and sent, and then its outcome is written ([`Flight`] is the POST) |
//! | action, done | what the owner of the queue must do ([`Action`]) and the result ([`Done`]); each action has one result |
//! | gate | the reason why no event of a Subscriber is sent ([`Gate`]) |
//! | term | a period in which this process may act for Subscribers ([`Term`]); without a term no event starts |
//!
//! # Modules
//!
//! | module | content |
//! |---|---|
//! | `queue` | [`Queue`]: decides what each input means and which action is next |
//! | `schedule` | knows where each event is; moves events and entries |
//! | `work` | the types of a source, and the inputs and outputs for one entry |
//! | `update` | the inputs from Subscribers and the Lease, and the snapshots of lanes |
//! | `names` | [`SubscriberKey`] and [`SpecVersion`] |
//! | `numbers` | the numbers of records, lanes and places in a ready queue |
//! | `clock` | the time of one call, and the compact forms of both clocks |
//! | `entries` | the compact records, one for each event |
//! | `batch` | the outcomes of an entry with several events, until they are written together |
//! | `flights` | the events in flight |
//! | `memory` | untried entries that are kept in memory, within a budget of bytes |
//! | `lane` | one lane: its gate, its limits, its events |
//! | `lanes` | all lanes, by number and by name, and when to check each again |
//! | `ready_queue` | the events of one lane that are due |
//! | `gate` | the gates, and the set of gates that an entry has named |
//! | `breaker` | the circuit breaker of one lane |
//! | `rate` | the rate limit of one lane |
//! | `turns` | the turns of namespaces and lanes, and the shares of slots and bytes |
//! | `backoff` | [`Backoff`]: the wait after a failed attempt |
//! | `expiry` | when entries expire, and which one is next |
//! | `explain` | decides which entries name the gate that holds them, and when |
//! | `scopes` | the namespaces that are listed and watched, and the state of each list |
//! | `tombstones` | entries that are finished or gone and that a late watch event may still show |
//! | `snapshots` | the last reported state of each lane |
//! | `readings` | what the lanes hold at one time, for metrics |

#![cfg_attr(not(test), warn(unreachable_pub))]
// Tests choose the starting time.
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
mod readings;
mod ready_queue;
mod schedule;
mod scopes;
mod snapshots;
mod tombstones;
mod turns;
mod update;
mod work;

pub use backoff::Backoff;
pub use breaker::{Health, LONGEST_WAIT_REJECTING};
pub use clock::Now;
pub use gate::Gate;
pub use names::{SpecVersion, SubscriberKey};
pub use queue::{Bounds, Queue};
pub use readings::{Circuit, LaneReading};
pub use update::{LaneSnapshot, LaneState, Limits, Term, Update};
pub use work::{
    Action, Answered, Content, Current, Done, Entry, Flight, Loaded, NotSent, Permit, RejectionMeaning, ScopeId, Seen,
    Signal, SourceId, Ticket, Want, Work, Written,
};
