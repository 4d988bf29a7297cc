//! What metrics read of the lanes.

use super::*;
use crate::{Circuit, LaneReading};

fn reading(queue: &mut Harness, name: &str, now: Instant) -> LaneReading {
    let now = queue.now(now);
    queue.queue.readings(now).into_iter().find(|reading| reading.of == lane(name)).unwrap()
}

/// Shows an entry whose life began at `began` seconds after that of the others.
fn show(queue: &mut Harness, id: u32, name: &str, began: u64) {
    let version = queue.version();
    let entry = entry(id, &lane(name), version);
    queue.show(Entry { began: entry.began + Duration::from_secs(began), ..entry });
}

#[test]
fn the_oldest_event_of_a_lane_is_found_whether_it_waits_or_is_in_flight() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 1), ("b", 1)], now);
    assert_eq!(reading(&mut queue, "a", now).oldest, None);
    for (id, began) in [(1, 10), (2, 30), (3, 20)] {
        show(&mut queue, id, "a", began);
    }
    let began = |seconds| entry(1, &lane("a"), 1).began + Duration::from_secs(seconds);
    let eldest = began(10);
    let seen = reading(&mut queue, "a", now);
    assert_eq!((seen.pending, seen.in_flight, seen.oldest), (3, 0, Some(eldest)));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 1)]);
    let seen = reading(&mut queue, "a", now);
    assert_eq!((seen.pending, seen.in_flight, seen.oldest), (3, 1, Some(eldest)));
    queue.end(&1);
    let seen = reading(&mut queue, "a", now);
    assert_eq!((seen.pending, seen.oldest), (2, Some(began(20))));
    assert_eq!(reading(&mut queue, "b", now).pending, 0);
}

#[test]
fn each_gate_pause_and_state_of_the_circuit_is_read() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    let read = |queue: &mut Harness, at: Instant| {
        let LaneReading { gate, circuit, is_paused, .. } = reading(queue, "a", at);
        (gate, circuit, is_paused)
    };
    assert_eq!(read(&mut queue, now), (None, None, false));
    queue.close(&lane("a"), Gate::Suspended);
    assert_eq!(read(&mut queue, now), (Some(Gate::Suspended), None, false));
    queue.open(&lane("a"), limits(8));
    queue.pause(&lane("a"), now + SECOND);
    assert_eq!(read(&mut queue, now), (Some(Gate::Paused), None, true));
    assert_eq!(read(&mut queue, now + SECOND), (None, None, false), "a pause ends without another input");
    let now = now + SECOND;
    (0..6).for_each(|id| add(&mut queue, id, "a", now));
    let first = start_all(&mut queue, now);
    for id in first.iter().take(5) {
        queue.report(id, Health::Failure, now);
        queue.retry(id, now);
    }
    queue.end(&5);
    assert_eq!(read(&mut queue, now), (Some(Gate::CircuitOpen), Some(Circuit::Open), false));
    let probe = now + Duration::from_secs(30);
    assert_eq!(start_all(&mut queue, probe).len(), 1);
    assert_eq!(read(&mut queue, probe), (Some(Gate::CircuitOpen), Some(Circuit::HalfOpen), false));
}

#[test]
fn a_webhook_that_rejects_all_events_is_in_that_state_also_during_a_probe() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    add(&mut queue, 1, "a", now);
    queue.apply(Update::RejectsAll { of: lane("a") });
    assert_eq!(reading(&mut queue, "a", now).circuit, Some(Circuit::RejectsAll));
    assert_eq!(start_all(&mut queue, now), [1]);
    assert_eq!(reading(&mut queue, "a", now).circuit, Some(Circuit::RejectsAll));
}

#[test]
fn an_event_without_a_subscriber_is_read_and_without_a_term_all_lanes_are_held() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    add(&mut queue, 1, "missing", now);
    let seen = reading(&mut queue, "missing", now);
    assert_eq!((seen.is_known, seen.pending, seen.gate), (false, 1, Some(Gate::SubscriberNotFound)));
    assert!(reading(&mut queue, "a", now).is_known);
    queue.apply(Update::Owned(None));
    for name in ["missing", "a"] {
        assert_eq!(reading(&mut queue, name, now).gate, Some(Gate::NotOwned));
    }
}
