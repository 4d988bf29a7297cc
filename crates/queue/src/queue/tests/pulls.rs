//! Entries that are pulled.

use super::*;

const SOURCE: SourceId = SourceId(7);

/// A queue with one open lane of four slots, for which a source has entries.
fn supplied(now: Instant) -> Harness {
    let mut queue = open(64, &[("a", 4)], now);
    supply(&mut queue, SOURCE, true);
    queue
}

fn supply(queue: &mut Harness, source: SourceId, any: bool) {
    queue.observe(Seen::Supply { source, of: lane("a"), any });
}

fn pulled(queue: &mut Harness, source: SourceId, ids: impl IntoIterator<Item = u32>, more: bool) {
    let entries = ids.into_iter().map(|id| Entry { pulled: true, ..entry(id, &lane("a"), 1) }).collect();
    queue.finish(Done::Pulled { source, of: lane("a"), entries, more });
}

#[test]
fn one_pull_at_a_time_for_as_many_as_there_are_free_slots() {
    let now = Instant::now();
    let mut queue = supplied(now);
    assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 4)]);
    supply(&mut queue, SOURCE, true);
    assert_eq!(queue.acts(now), [], "it is open");
    pulled(&mut queue, SOURCE, 1..=2, true);
    assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 2), Did::Send(1, 0, 1), Did::Send(2, 0, 1)]);
    pulled(&mut queue, SOURCE, 3..=4, true);
    assert_eq!(queue.acts(now), [Did::Send(3, 0, 1), Did::Send(4, 0, 1)]);
    queue.answer(1, 0, "ok", None, None);
    queue.acts(now);
    queue.written(1, Written::Finished { version: 1, out_of_sight: true });
    assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 1)]);
    pulled(&mut queue, SOURCE, [], false);
    queue.answer(2, 0, "ok", None, None);
    queue.acts(now);
    queue.written(2, Written::Finished { version: 1, out_of_sight: true });
    assert_eq!(queue.acts(now), [], "there are no more");
}

#[test]
fn two_sources_share_the_free_slots() {
    let now = Instant::now();
    let mut queue = supplied(now);
    assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 4)]);
    supply(&mut queue, SourceId(8), true);
    assert_eq!(queue.acts(now), []);
    pulled(&mut queue, SOURCE, [1], false);
    assert_eq!(queue.acts(now), [Did::Pull(SourceId(8), 3), Did::Send(1, 0, 1)]);
}

#[test]
fn news_that_comes_while_a_pull_is_open_is_not_lost() {
    let now = Instant::now();
    let mut queue = supplied(now);
    queue.acts(now);
    supply(&mut queue, SOURCE, true);
    pulled(&mut queue, SOURCE, [], false);
    assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 4)]);
    supply(&mut queue, SOURCE, false);
    pulled(&mut queue, SOURCE, [], false);
    assert_eq!(queue.acts(now), []);
}

#[test]
fn nothing_is_pulled_while_a_gate_is_closed_and_it_is_when_it_opens() {
    let now = Instant::now();
    let mut queue = supplied(now);
    queue.pause(&lane("a"), now + 60 * SECOND);
    assert_eq!((queue.acts(now), queue.queue.wake_at()), (vec![], Some(now + 60 * SECOND)));
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Pull(SOURCE, 4)]);
    pulled(&mut queue, SOURCE, [], true);
    queue.close(&lane("a"), Gate::Suspended);
    assert_eq!(queue.acts(now + 60 * SECOND), []);
    queue.open(&lane("a"), limits(2));
    queue.apply(Update::Owned(None));
    assert_eq!(queue.acts(now + 60 * SECOND), []);
    queue.apply(Update::Owned(Some(Term { epoch: 2, contested: false })));
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Pull(SOURCE, 2)]);
}

#[test]
fn what_a_source_has_for_a_subscriber_that_comes_later_is_pulled_then() {
    let now = Instant::now();
    let mut queue = open(64, &[], now);
    supply(&mut queue, SOURCE, true);
    assert_eq!((queue.acts(now), queue.queue.wake_at()), (vec![], None));
    queue.open(&lane("a"), limits(4));
    assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 4)]);
    pulled(&mut queue, SOURCE, [], true);
    queue.close(&lane("a"), Gate::SubscriberNotFound);
    queue.acts(now);
    queue.open(&lane("a"), limits(4));
    assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 4)]);
    pulled(&mut queue, SOURCE, [], false);
    queue.close(&lane("a"), Gate::SubscriberNotFound);
    queue.acts(now);
    assert_eq!(queue.lanes(), 0);
}

#[test]
fn an_open_circuit_pulls_its_probe_alone() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    (1..=5).for_each(|id| queue.show(entry(id, &lane("a"), 1)));
    assert_eq!(queue.acts(now).len(), 5);
    for id in 1..=5 {
        queue.answer(id, 0, "503", None, Some(Signal::Health(Health::Failure)));
        queue.acts(now);
        queue.finished(id, 2);
    }
    supply(&mut queue, SOURCE, true);
    assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 1)]);
    pulled(&mut queue, SOURCE, [9], true);
    assert_eq!(queue.acts(now), []);
    assert_eq!(queue.acts(now + 30 * SECOND), [Did::Send(9, 0, 1)]);
}

#[test]
fn what_was_pulled_and_is_not_in_flight_is_given_back_when_the_lane_closes_pauses_or_the_queue_drains() {
    let now = Instant::now();
    for why in ["close", "pause", "drain"] {
        let mut queue = open(64, &[], now);
        queue.open(&lane("a"), Limits { max_in_flight: 4, rate_per_minute: Some(1) });
        supply(&mut queue, SOURCE, true);
        queue.show(entry(9, &lane("a"), 1));
        assert_eq!(queue.acts(now), [Did::Pull(SOURCE, 3), Did::Send(9, 0, 1)]);
        pulled(&mut queue, SOURCE, 1..=3, true);
        assert_eq!(queue.acts(now + 60 * SECOND), [Did::Send(1, 0, 1)]);
        match why {
            "close" => queue.close(&lane("a"), Gate::Suspended),
            "pause" => queue.pause(&lane("a"), now + DAY),
            _ => queue.queue.drain(),
        }
        let mut returned = queue.acts(now + 60 * SECOND);
        returned.sort_by_key(|did| format!("{did:?}"));
        assert_eq!(returned, [Did::Returned(2), Did::Returned(3)], "{why}");
        queue.not_sent(1, 0, Some(1), NotSent::Held);
        assert_eq!(queue.acts(now + 60 * SECOND), [Did::Returned(1)], "{why}");
        assert_eq!(queue.queue.len(), 1);
    }
}

#[test]
fn what_is_pulled_for_a_lane_that_closed_meanwhile_is_given_back_at_once() {
    let now = Instant::now();
    for drains in [false, true] {
        let mut queue = supplied(now);
        queue.acts(now);
        if drains {
            queue.queue.drain()
        } else {
            queue.close(&lane("a"), Gate::Suspended)
        };
        pulled(&mut queue, SOURCE, [1], true);
        assert_eq!(queue.acts(now), [Did::Returned(1)]);
        assert!(queue.queue.is_empty() && queue.bytes_kept() == 0);
    }
}

#[test]
fn a_listing_says_nothing_of_what_was_pulled() {
    let now = Instant::now();
    let mut queue = supplied(now);
    queue.acts(now);
    pulled(&mut queue, SOURCE, 1..=1, false);
    queue.list(vec![]);
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 1)]);
}
