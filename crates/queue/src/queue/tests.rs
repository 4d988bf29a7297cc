//! The rules of the queue, one by one.

use std::time::{Duration, Instant};

use super::{
    harness::{Did, Harness, Toy, entry, key, spec, today},
    *,
};
use crate::{Health, Limits};

mod expiries;
mod explanation;
mod groups;
mod news;
mod pulls;
mod readings;
mod rejections;

const SECOND: Duration = Duration::from_secs(1);

fn lane(name: &str) -> SubscriberKey {
    key("a", name)
}

fn limits(max_in_flight: usize) -> Limits {
    Limits { max_in_flight, rate_per_minute: None }
}

/// A queue with an open lane for each name.
fn open(in_flight: usize, lanes: &[(&str, usize)], now: Instant) -> Harness {
    let mut queue = Harness::new(in_flight, 1000, now);
    lanes.iter().for_each(|(name, max_in_flight)| queue.open(&lane(name), limits(*max_in_flight)));
    queue
}

fn add(queue: &mut Harness, id: u32, name: &str, now: Instant) {
    queue.add(id, lane(name), None, None, 0, now);
}

fn start_all(queue: &mut Harness, now: Instant) -> Vec<u32> {
    std::iter::from_fn(|| queue.next(now)).collect()
}

#[test]
fn lanes_take_turns_so_a_long_queue_delays_no_other() {
    let now = Instant::now();
    let mut queue = open(64, &[("busy", 8), ("quiet", 8)], now);
    (0..100).for_each(|id| add(&mut queue, id, "busy", now));
    add(&mut queue, 100, "quiet", now);
    assert_eq!(start_all(&mut queue, now)[..3], [0, 100, 1]);
}

#[test]
fn a_lane_holds_an_eighth_of_all_slots_and_a_namespace_a_quarter_whatever_their_limits() {
    let now = Instant::now();
    let mut queue = open(16, &[("a", 100), ("b", 100), ("c", 100)], now);
    let other = key("other", "a");
    queue.open(&other, limits(1));
    for id in 0..10 {
        for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
            add(&mut queue, 10 * n as u32 + id, name, now);
        }
        queue.add(100 + id, other.clone(), None, None, 0, now);
    }
    assert_eq!(start_all(&mut queue, now), [0, 100, 10, 20, 1]);
    queue.end(&0);
    assert_eq!(start_all(&mut queue, now), [11], "the slot goes to the lane whose turn it is");
    queue.end(&100);
    assert_eq!(start_all(&mut queue, now), [101]);
    assert_eq!(queue.in_flight(), 5);
}

#[test]
fn all_lanes_together_do_not_exceed_the_cap() {
    let now = Instant::now();
    let mut queue = Harness::new(3, 1000, now);
    for id in 0..5 {
        let lane = key(&id.to_string(), "a");
        queue.open(&lane, limits(4));
        queue.add(id, lane, None, None, 0, now);
    }
    assert_eq!(start_all(&mut queue, now), [0, 1, 2]);
    queue.end(&1);
    assert_eq!(start_all(&mut queue, now), [3]);
}

#[test]
fn a_closed_lane_starts_nothing_and_loses_nothing() {
    let now = Instant::now();
    let mut queue = open(64, &[], now);
    add(&mut queue, 1, "a", now);
    queue.add(2, lane("a"), Some(now + SECOND), None, 0, now);
    assert!(start_all(&mut queue, now + SECOND).is_empty());
    queue.open(&lane("a"), limits(4));
    assert_eq!(start_all(&mut queue, now + SECOND), [1, 2]);
    queue.close(&lane("a"), Gate::Suspended);
    queue.put_back(&2, now + SECOND);
    assert!(start_all(&mut queue, now + SECOND).is_empty());
    queue.open(&lane("a"), limits(4));
    assert_eq!(start_all(&mut queue, now + SECOND), [2]);
}

#[test]
fn only_lanes_where_something_happened_are_reported_as_changed() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 4), ("b", 4)], now);
    start_all(&mut queue, now);
    assert_eq!(queue.touched(), [lane("a"), lane("b")].into());
    add(&mut queue, 1, "a", now);
    start_all(&mut queue, now);
    assert_eq!(queue.touched(), [lane("a")].into());
    start_all(&mut queue, now + SECOND);
    assert!(queue.touched().is_empty());
    queue.report(&1, Health::Failure, now);
    queue.end(&1);
    start_all(&mut queue, now);
    assert_eq!(queue.touched(), [lane("a")].into());
    queue.close(&lane("b"), Gate::Suspended);
    start_all(&mut queue, now);
    assert_eq!(queue.touched(), [lane("b")].into());
}

#[test]
fn what_changed_is_reported_once_and_not_before_the_first_listing() {
    use crate::LaneState::*;
    let now = Instant::now();
    let mut queue = Harness::unlisted(vec![None], now);
    queue.open(&lane("a"), Limits { max_in_flight: 4, rate_per_minute: Some(1) });
    queue.show(entry(1, &lane("a"), 1));
    let changed = |queue: &mut Harness, now| -> Vec<_> {
        queue.acts(now);
        let changed = queue.changed(now);
        changed.into_iter().map(|(_, LaneSnapshot { pending, state, .. })| (pending, state)).collect()
    };
    assert_eq!(changed(&mut queue, now), [], "it is not known yet how many there are");
    queue.list(vec![entry(1, &lane("a"), 1), entry(2, &lane("a"), 2), entry(3, &lane("a"), 3)]);
    assert_eq!(changed(&mut queue, now), [(3, RateLimited)]);
    assert_eq!(changed(&mut queue, now), []);
    assert_eq!(changed(&mut queue, now + 60 * SECOND), [], "the next one started: the rate holds the third");
    queue.pause(&lane("a"), now + 90 * SECOND);
    assert_eq!(changed(&mut queue, now + 60 * SECOND), [(3, Paused)]);
    assert_eq!(changed(&mut queue, now + 90 * SECOND), [(3, RateLimited)], "time alone ended the pause");
    queue.close(&lane("a"), Gate::Suspended);
    assert_eq!(changed(&mut queue, now + 90 * SECOND), [(3, Idle)]);
    queue.close(&lane("a"), Gate::EndpointGone);
    assert_eq!(changed(&mut queue, now + 90 * SECOND), [(3, EndpointGone)]);
}

#[test]
fn what_is_held_at_the_last_moment_or_has_expired_when_its_turn_comes_counts_for_no_rate() {
    let now = Instant::now();
    let mut queue = open(64, &[], now);
    queue.open(&lane("a"), Limits { max_in_flight: 4, rate_per_minute: Some(1) });
    queue.show(entry(1, &lane("a"), 1));
    let ends = |queue: &mut Harness, id| {
        let lifetime = Some(Duration::from_secs(5));
        queue.show(Entry { began: today() - Duration::from_secs(5), lifetime, ..entry(id, &lane("a"), 1) });
    };
    ends(&mut queue, 2);
    queue.show(entry(3, &lane("a"), 1));
    assert_eq!(queue.acts(now)[0], Did::Send(1, 0, 1));
    queue.not_sent(1, 0, None, NotSent::Held);
    assert_eq!(queue.acts(now), [Did::Send(3, 0, 1)], "neither counted");
    queue.not_sent(3, 0, None, NotSent::Held);
    assert_eq!(queue.acts(now), []);
    assert_eq!(queue.acts(now + SECOND), [Did::Load(1, 0)]);
}

#[test]
fn nothing_starts_before_its_time() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 4)], now);
    queue.add(1, lane("a"), Some(now + SECOND), None, 0, now);
    assert_eq!(queue.next(now), None);
    assert_eq!(queue.wake_at(), Some(now + SECOND));
    assert_eq!(queue.next(now + SECOND), Some(1));
    queue.retry(&1, now + 5 * SECOND);
    assert_eq!(queue.next(now + 4 * SECOND), None);
    assert_eq!(queue.next(now + 5 * SECOND), Some(1));
    assert_eq!(queue.next(now + 5 * SECOND), None);
    assert_eq!(queue.wake_at(), None);
}

#[test]
fn what_is_removed_never_starts_and_what_is_in_flight_is_never_started_twice() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 4)], now);
    add(&mut queue, 1, "a", now);
    queue.add(2, lane("a"), Some(now + SECOND), None, 0, now);
    queue.remove(&1, now);
    queue.remove(&2, now);
    assert!(start_all(&mut queue, now + SECOND).is_empty());
    add(&mut queue, 3, "a", now);
    assert_eq!(queue.next(now), Some(3));
    add(&mut queue, 3, "a", now);
    queue.gone(3, 100);
    assert_eq!(queue.next(now), None);
    assert!(queue.is_in_flight(&3));
    queue.end(&3);
    assert_eq!(queue.in_flight(), 0);
    assert!(queue.no(3).is_none() && queue.next(now + 60 * SECOND).is_none());
}

#[test]
fn a_report_that_comes_twice_or_for_what_is_not_known_does_no_harm() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 4)], now);
    (1..=2).for_each(|id| queue.show(entry(id, &lane("a"), 1)));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 1), Did::Send(2, 0, 1)]);
    queue.answer(1, 0, "ok", None, None);
    assert_eq!(queue.acts(now), [Did::Outcome(1, vec![(0, "ok")])]);
    for _ in 0..2 {
        queue.finished(1, 5);
        queue.answer(1, 0, "ok", None, None);
        queue.not_sent(1, 0, Some(1), NotSent::NoToken);
        queue.loaded(1, 0, Loaded::Unread);
        queue.written(1, Written::Gone);
        assert_eq!(queue.acts(now), []);
        assert_eq!((queue.in_flight(), queue.pending(&lane("a"))), (1, 1));
    }
}

#[test]
fn one_that_is_due_and_shown_again_keeps_its_place_and_starts_once() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 4)], now);
    add(&mut queue, 1, "a", now);
    add(&mut queue, 2, "a", now);
    add(&mut queue, 1, "a", now);
    assert_eq!(start_all(&mut queue, now), [1, 2]);
}

#[test]
fn one_that_is_shown_again_with_another_time_is_moved() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 4)], now);
    add(&mut queue, 1, "a", now);
    queue.add(1, lane("a"), Some(now + SECOND), None, 0, now);
    assert_eq!(queue.next(now), None);
    add(&mut queue, 2, "a", now);
    assert_eq!(queue.ids_of(&lane("a")), [2, 1]);
    assert_eq!(start_all(&mut queue, now + SECOND), [2, 1]);
}

#[test]
fn one_that_is_put_back_gives_its_place_in_the_rate_back() {
    let now = Instant::now();
    let mut queue = open(64, &[], now);
    queue.open(&lane("a"), Limits { max_in_flight: 4, rate_per_minute: Some(1) });
    add(&mut queue, 1, "a", now);
    add(&mut queue, 2, "a", now);
    assert_eq!(start_all(&mut queue, now), [1]);
    assert!(queue.is_rate_limited(&lane("a"), now));
    assert_eq!(queue.wake_at(), Some(now + 60 * SECOND));
    queue.put_back(&1, now + SECOND);
    assert_eq!(start_all(&mut queue, now + SECOND), [1]);
    queue.end(&1);
    queue.close(&lane("a"), Gate::Suspended);
    queue.open(&lane("a"), Limits { max_in_flight: 4, rate_per_minute: Some(1) });
    assert_eq!(queue.next(now + 60 * SECOND), None, "61 s after the first start that counts");
    assert_eq!(queue.next(now + 61 * SECOND), Some(2));
}

#[test]
fn a_lane_that_is_done_is_forgotten_once_its_pause_is_over() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 4)], now);
    add(&mut queue, 1, "a", now);
    assert_eq!(queue.next(now), Some(1));
    queue.pause(&lane("a"), now + SECOND);
    queue.close(&lane("a"), Gate::SubscriberNotFound);
    queue.end(&1);
    assert_eq!(queue.next(now), None);
    assert_eq!(queue.paused_until(&lane("a"), now), Some(now + SECOND));
    assert_eq!(queue.wake_at(), Some(now + SECOND));
    assert_eq!(queue.next(now + SECOND), None);
    assert_eq!(queue.lanes(), 0);
    assert!(queue.is_bare() && queue.wake_at().is_none());
}

#[test]
fn lanes_are_not_kept_for_ever() {
    let now = Instant::now();
    let mut queue = open(64, &[], now);
    for n in 0..3000 {
        let of = lane(&n.to_string());
        queue.show(entry(1, &of, 2 * n + 1));
        queue.acts(now);
        queue.gone(1, 2 * n + 2);
    }
    queue.acts(now);
    assert_eq!(queue.lanes(), 0);
}

#[test]
fn a_probe_is_the_one_tried_longest_ago_and_a_failure_from_before_does_not_put_the_next_one_off() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    (0..7).for_each(|id| add(&mut queue, id, "a", now));
    assert_eq!(start_all(&mut queue, now).len(), 7);
    for id in 0..5 {
        queue.report(&id, Health::Failure, now);
        queue.retry(&id, now + SECOND);
    }
    assert_eq!(queue.gate(&lane("a"), now), Some(Gate::CircuitOpen));
    add(&mut queue, 7, "a", now + 2 * SECOND);
    assert_eq!(queue.next(now + 29 * SECOND), None);
    assert_eq!(queue.wake_at(), Some(now + 30 * SECOND));
    let probed = now + 30 * SECOND;
    assert_eq!(start_all(&mut queue, probed), [7], "never tried");
    queue.report(&5, Health::Failure, probed);
    queue.retry(&5, probed + SECOND);
    queue.report(&7, Health::Failure, probed);
    queue.retry(&7, probed + SECOND);
    assert_eq!(queue.next(probed + 59 * SECOND), None);
    assert_eq!(start_all(&mut queue, probed + 60 * SECOND), [0], "tried longest ago, first in line");
    queue.put_back(&0, probed + 60 * SECOND);
    assert_eq!(start_all(&mut queue, probed + 60 * SECOND), [0]);
    queue.report(&0, Health::Answered, probed + 60 * SECOND);
    assert!(!queue.is_open_circuit(&lane("a")));
    assert_eq!(start_all(&mut queue, probed + 60 * SECOND), [1, 2, 3, 4, 5, 7]);
}

#[test]
fn a_reset_ends_the_pause_and_closes_the_circuit() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    (0..6).for_each(|id| add(&mut queue, id, "a", now));
    assert_eq!(start_all(&mut queue, now).len(), 6);
    (0..5).for_each(|id| queue.report(&id, Health::Failure, now));
    queue.pause(&lane("a"), now + SECOND);
    queue.put_back(&5, now);
    assert_eq!((queue.next(now), queue.wake_at()), (None, Some(now + SECOND)));
    queue.reset(&lane("a"));
    assert_eq!((queue.next(now), queue.gate(&lane("a"), now)), (Some(5), None));
}

/// A lane that is opened by this version of its Subscriber's spec.
fn open_version(queue: &mut Harness, generation: i64, lifetime: Duration) {
    let (of, version) = (lane("a"), spec(generation));
    let longest_wait = Duration::from_secs(3600);
    queue.apply(Update::Open { of, version, route: generation as u32, limits: limits(8), lifetime, longest_wait });
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn what_is_closed_paused_or_of_another_version_may_not_be_sent_any_more() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    queue.show(entry(1, &lane("a"), 1));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 1)]);
    open_version(&mut queue, 1, DAY);
    assert!(queue.may_send(1, 0, now), "the same version");
    let refused = |queue: &mut Harness, at, why| {
        assert!(!queue.may_send(1, 0, at), "{why}");
        queue.not_sent(1, 0, Some(1), NotSent::Held);
        assert_eq!(queue.acts(at), []);
        open_version(queue, 2, DAY);
        queue.reset(&lane("a"));
        assert_eq!(queue.acts(at + SECOND), [Did::Send(1, 0, 1)]);
    };
    open_version(&mut queue, 2, DAY);
    refused(&mut queue, now, "another version");
    queue.close(&lane("a"), Gate::Suspended);
    refused(&mut queue, now + SECOND, "closed");
    queue.pause(&lane("a"), now + 60 * SECOND);
    refused(&mut queue, now + 2 * SECOND, "paused");
    queue.gone(1, 9);
    assert!(!queue.may_send(1, 0, now + 3 * SECOND), "finished or deleted");
}

#[test]
fn a_webhook_that_is_gone_stays_so_until_a_reset_or_another_version() {
    let now = Instant::now();
    for ends in ["reset", "another version", "a missing Subscriber"] {
        let mut queue = Harness::new(64, 1000, now);
        open_version(&mut queue, 1, DAY);
        (1..=2).for_each(|id| queue.show(entry(id, &lane("a"), 1)));
        assert_eq!(queue.acts(now).len(), 2);
        queue.answer(1, 0, "410", None, Some(Signal::Gone));
        assert!(!queue.may_send(2, 0, now));
        queue.not_sent(2, 0, Some(1), NotSent::Held);
        assert_eq!(queue.gate(&lane("a"), now), Some(Gate::EndpointGone));
        open_version(&mut queue, 1, DAY);
        assert_eq!(queue.gate(&lane("a"), now), Some(Gate::EndpointGone), "a reconcile that did not know of it");
        match ends {
            "reset" => queue.reset(&lane("a")),
            "another version" => open_version(&mut queue, 2, DAY),
            _ => queue.close(&lane("a"), Gate::SubscriberNotFound),
        }
        open_version(&mut queue, 1, DAY);
        assert_eq!(queue.gate(&lane("a"), now), None, "{ends}");
        assert_eq!(queue.acts(now + SECOND).last(), Some(&Did::Send(2, 0, 1)));
    }
}

#[test]
fn an_answer_to_another_version_says_nothing_of_the_webhook() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    (1..=6).for_each(|id| queue.show(entry(id, &lane("a"), 1)));
    assert_eq!(queue.acts(now).len(), 6);
    open_version(&mut queue, 2, DAY);
    for id in 1..=5 {
        let signals = [Signal::Health(Health::Failure), Signal::Gone, Signal::Pause(DAY)];
        queue.answer(id, 0, "503", None, Some(signals[id as usize % 3]));
    }
    queue.not_sent(6, 0, None, NotSent::NoToken);
    assert_eq!(queue.gate(&lane("a"), now), None);
}

#[test]
fn an_answer_that_comes_after_its_subscriber_was_deleted_says_nothing() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    queue.show(entry(1, &lane("a"), 1));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 1)]);
    queue.close(&lane("a"), Gate::SubscriberNotFound);
    queue.answer(1, 0, "410", None, Some(Signal::Gone));
    assert_eq!(queue.gate(&lane("a"), now), Some(Gate::SubscriberNotFound));
    queue.acts(now);
    queue.finished(1, 2);
    queue.acts(now);
    assert_eq!(queue.lanes(), 0, "nor does it keep the lane for ever");
}

#[test]
fn where_a_token_or_a_permitted_way_lacks_the_lane_closes_until_its_subscriber_was_reconciled() {
    let now = Instant::now();
    for (why, again) in [(NotSent::NoToken, now), (NotSent::EgressDenied, now + 30 * SECOND)] {
        let mut queue = Harness::new(64, 1000, now);
        open_version(&mut queue, 1, DAY);
        queue.show(entry(1, &lane("a"), 1));
        assert_eq!(queue.acts(now), [Did::Send(1, 0, 1)]);
        queue.not_sent(1, 0, Some(1), why);
        assert_eq!(queue.gate(&lane("a"), now), Some(Gate::SubscriberNotReady), "{why:?}");
        assert_eq!(queue.acts(now), []);
        open_version(&mut queue, 1, DAY);
        if again > now {
            assert_eq!(queue.acts(again - SECOND), []);
        }
        assert_eq!(queue.acts(again), [Did::Send(1, 0, 1)], "{why:?}");
    }
}

#[test]
fn without_a_term_nothing_starts_and_what_was_contested_is_loaded_before_it_is_sent() {
    let now = Instant::now();
    let owned = |epoch, contested| Update::Owned(Some(Term { epoch, contested }));
    let mut queue = Harness::unlisted(vec![None], now);
    queue.open(&lane("a"), limits(8));
    queue.apply(owned(2, true));
    (1..=2).for_each(|id| queue.show(entry(id, &lane("a"), 1)));
    assert_eq!(queue.acts(now), [Did::Load(1, 0), Did::Load(2, 0)]);
    queue.apply(owned(2, false));
    queue.show(entry(3, &lane("a"), 1));
    assert_eq!(queue.acts(now), [Did::Load(3, 0)], "what is listed first may be old");
    queue.list(vec![entry(4, &lane("a"), 1)]);
    assert_eq!(queue.acts(now), [Did::Load(4, 0)], "the watch has not shown what came meanwhile");
    let later = now + 60 * SECOND;
    queue.apply(Update::Owned(None));
    queue.show(entry(5, &lane("a"), 1));
    assert_eq!((queue.acts(later), queue.queue.wake_at()), (vec![], None));
    assert_eq!(queue.queue.gate(&lane("a")), Some(Gate::NotOwned));
    queue.apply(owned(3, false));
    assert_eq!(queue.acts(later), [Did::Send(5, 0, 1)]);
    queue.apply(owned(4, true));
    queue.show(entry(6, &lane("a"), 1));
    assert_eq!(queue.acts(later), [Did::Load(6, 0)]);
    queue.loaded(6, 0, Loaded::Item(Box::new(9)));
    assert_eq!(queue.acts(later), [Did::Send(6, 0, 9)]);
}

#[test]
fn once_drained_only_outcomes_are_written() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    (1..=2).for_each(|id| queue.show(entry(id, &lane("a"), 1)));
    queue.show(Entry { item: None, ..entry(3, &lane("a"), 1) });
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 1), Did::Send(2, 0, 1), Did::Load(3, 0)]);
    queue.queue.drain();
    assert!(!queue.may_send(2, 0, now));
    queue.show(entry(4, &lane("a"), 1));
    queue.show(Entry { lifetime: Some(Duration::ZERO), began: today(), ..entry(5, &lane("a"), 1) });
    queue.not_sent(2, 0, Some(1), NotSent::Held);
    queue.loaded(3, 0, Loaded::Item(Box::new(1)));
    queue.answer(1, 0, "ok", None, None);
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Outcome(1, vec![(0, "ok")])]);
    queue.finished(1, 7);
    assert_eq!((queue.acts(now + DAY), queue.in_flight(), queue.queue.wake_at()), (vec![], 0, None));
}

#[test]
fn what_was_loaded_before_the_drain_is_not_sent_after_it() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    queue.show(Entry { item: None, ..entry(1, &lane("a"), 1) });
    assert_eq!(queue.acts(now), [Did::Load(1, 0)]);
    queue.loaded(1, 0, Loaded::Item(Box::new(1)));
    queue.queue.drain();
    assert_eq!((queue.acts(now), queue.in_flight()), (vec![], 0));
}

/// What is said of a Subscriber that was deleted and created again, and is not reconciled yet.
fn created_again(queue: &mut Harness) {
    let of = lane("a");
    queue.apply(Update::Reset { of: of.clone() });
    let (gate, lifetime) = (Gate::SubscriberNotReady, Some(1000 * SECOND));
    queue.apply(Update::Closed { of, version: None, gate, lifetime });
}

fn reconciled(queue: &mut Harness) {
    let version = SpecVersion::new("another uid", 1);
    let (lifetime, longest_wait) = (1000 * SECOND, 1000 * SECOND);
    queue.apply(Update::Open { of: lane("a"), version, route: 0, limits: limits(8), lifetime, longest_wait });
}

#[test]
fn a_pause_for_a_subscriber_that_was_deleted_does_not_hold_the_one_created_in_its_place() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    queue.show(entry(1, &lane("a"), 5));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 5)]);
    created_again(&mut queue);
    queue.answer(1, 0, "429", None, Some(Signal::Pause(3600 * SECOND)));
    reconciled(&mut queue);
    assert_eq!(queue.gate(&lane("a"), now), None);
}

#[test]
fn waits_that_a_recreated_subscriber_does_not_allow_are_shortened() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    reconciled(&mut queue);
    let of = lane("a");
    queue.apply(Update::Closed { of, version: None, gate: Gate::SubscriberNotFound, lifetime: None });
    // It keeps the lane.
    queue.show(entry(2, &lane("a"), 6));
    queue.show(Entry { next: Some(today() + 20 * 3600 * SECOND), attempts: 1, ..entry(1, &lane("a"), 5) });
    created_again(&mut queue);
    reconciled(&mut queue);
    queue.acts(now);
    assert_eq!(queue.acts(now + 1001 * SECOND), [Did::Load(1, 0)]);
}
