//! What the tests of the rules begin with: a record with nothing against it.

use jiff::{SignedDuration, Timestamp};

use super::check;
use crate::findings::{Cause, Violation};
use crate::record::{Change, Pause, Post, Record, State};

const START: i64 = 1_800_000_000;

/// The instant this many seconds after the start.
pub(super) fn at(seconds: f64) -> Timestamp {
    Timestamp::from_second(START).unwrap() + SignedDuration::from_secs_f64(seconds)
}

pub(super) fn post(id: &str, arrived: f64, answered: impl Into<Option<u16>>) -> Post {
    let (subscriber, _) = id.split_once('-').unwrap();
    let (path, id) = (subscriber.into(), id.into());
    Post { id, subscriber: subscriber.into(), path, arrived: at(arrived), answered: answered.into() }
}

pub(super) fn state(phase: &str) -> State {
    State { phase: phase.into(), reason: "Why".into(), ..State::default() }
}

pub(super) fn change(seconds: f64, state: State) -> Change {
    Change { at: at(seconds), state: Some(state) }
}

/// What the status says of a pause, seen at `since`.
pub(super) fn pause(since: f64, until: Option<f64>) -> Pause {
    Pause { since: at(since), until: until.map(at), ..Pause::default() }
}

/// `shop-1` was accepted at 0, sent at 1 with success, and recorded as Delivered at 2.
pub(super) fn good() -> Record {
    let mut record = Record { in_flight: 1, ended: at(300.0), ..Record::default() };
    record.accepted.insert("shop-1".into(), at(0.0));
    record.posts.push(post("shop-1", 1.0, 204));
    let changes = vec![change(0.0, state("Pending")), change(2.0, state("Delivered"))];
    record.changes.insert("shop-1".into(), changes);
    record.listed.insert("shop-1".into(), state("Delivered"));
    record
}

pub(super) fn violations(change: impl FnOnce(&mut Record)) -> Vec<Violation> {
    let mut record = good();
    change(&mut record);
    check(&record).violations
}

/// The cause of the second of two POSTs, the first at 1.
pub(super) fn cause(again: f64, change: impl FnOnce(&mut Record)) -> Option<Cause> {
    let mut record = good();
    record.posts.push(post("shop-1", again, 204));
    change(&mut record);
    let findings = check(&record);
    let unexplained = findings.violations.iter().any(|v| matches!(v, Violation::Unexplained { .. }));
    assert_eq!(findings.repeats.len(), usize::from(!unexplained), "{findings:?}");
    findings.repeats.keys().next().copied()
}

pub(super) fn replayed() -> State {
    State { handled: Some("1".into()), replayed: Some(at(10.0)), ..state("Pending") }
}

pub(super) fn id() -> String {
    "shop-1".into()
}

pub(super) fn states(record: &mut Record) -> &mut Vec<Change> {
    record.changes.get_mut("shop-1").unwrap()
}
