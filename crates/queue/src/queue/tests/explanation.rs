//! Entries that wait behind a gate name it.

use super::*;

/// All that is explained until `until`, with the milliseconds since `now`.
fn explain_all(queue: &mut Harness, mut now: Instant, until: Instant) -> Vec<(u32, Gate, u128)> {
    let (mut explained, begin) = (Vec::new(), now);
    while now <= until {
        assert_eq!(queue.next(now), None);
        match queue.explain(now) {
            Some((id, gate)) => explained.push((id, gate, (now - begin).as_millis())),
            None => match queue.explain_at() {
                Some(at) => now = at,
                None => break,
            },
        }
    }
    explained
}

#[test]
fn after_five_seconds_behind_a_gate_each_names_it_once_five_a_second_lanes_in_turns() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    for id in 0..3 {
        queue.add(id, lane("a"), None, None, 0, now);
        queue.add(10 + id, lane("b"), None, None, 0, now);
    }
    queue.close(&lane("b"), Gate::Suspended);
    let explained = explain_all(&mut queue, now, now + 60 * SECOND);
    let (a, b) = (Gate::SubscriberNotFound, Gate::Suspended);
    let expected = [(0, a, 5000), (10, b, 5200), (1, a, 5400), (11, b, 5600), (2, a, 5800), (12, b, 6000)];
    assert_eq!(explained, expected);
    assert_eq!(queue.explain_at(), None);
}

#[test]
fn another_gate_is_named_after_five_seconds_of_its_own_and_a_gate_named_before_is_not_named_again() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    queue.add(1, lane("a"), None, Some(Gate::SubscriberNotFound), 0, now);
    queue.close(&lane("a"), Gate::SubscriberNotFound);
    assert_eq!(explain_all(&mut queue, now, now + 60 * SECOND), []);
    queue.open(&lane("a"), limits(8));
    queue.pause(&lane("a"), now + 100 * SECOND);
    let paused = now + 60 * SECOND;
    assert_eq!(explain_all(&mut queue, paused, paused + 60 * SECOND), [(1, Gate::Paused, 5000)]);
    queue.close(&lane("a"), Gate::SubscriberNotFound);
    assert_eq!(explain_all(&mut queue, now + 70 * SECOND, now + 99 * SECOND), []);
}

#[test]
fn a_gate_that_opens_before_five_seconds_is_not_named() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    queue.add(1, lane("a"), None, None, 0, now);
    queue.close(&lane("a"), Gate::Suspended);
    assert_eq!(explain_all(&mut queue, now, now + 4 * SECOND), []);
    queue.open(&lane("a"), limits(8));
    queue.close(&lane("a"), Gate::Suspended);
    let again = now + 4 * SECOND;
    assert_eq!(explain_all(&mut queue, again, again + 60 * SECOND), [(1, Gate::Suspended, 5000)]);
}

#[test]
fn an_attempt_lets_it_be_named_again_and_one_that_was_put_back_is_not() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    let (first, second) = (now + 10 * SECOND, now + 20 * SECOND);
    for id in [1, 2] {
        queue.add(id, lane("a"), None, Some(Gate::Suspended), 0, now);
    }
    queue.open(&lane("a"), limits(8));
    assert_eq!((queue.next(now), queue.next(now)), (Some(1), Some(2)));
    queue.retry(&1, first);
    queue.put_back(&2, first);
    queue.close(&lane("a"), Gate::Suspended);
    assert_eq!(explain_all(&mut queue, first, second), [(1, Gate::Suspended, 5000)]);
}

#[test]
fn a_replay_lets_it_be_named_again() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    queue.close(&lane("a"), Gate::Suspended);
    queue.show(entry(1, &lane("a"), 1));
    assert_eq!(explain_all(&mut queue, now, now + 60 * SECOND), [(1, Gate::Suspended, 5000)]);
    let again = now + 60 * SECOND;
    queue.at(again);
    let replayed = entry(1, &lane("a"), 2);
    queue.show(Entry { began: replayed.began + SECOND, ..replayed });
    assert_eq!(explain_all(&mut queue, again, again + 60 * SECOND), [(1, Gate::Suspended, 5000)]);
}

#[test]
fn an_entry_with_several_events_names_its_gate_once() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    queue.close(&lane("a"), Gate::Suspended);
    queue.show(Entry { events: 3, ..entry(1, &lane("a"), 1) });
    assert_eq!(explain_all(&mut queue, now, now + 60 * SECOND), [(1, Gate::Suspended, 5000)]);
}
