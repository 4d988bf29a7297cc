//! Entries with several events: each flies by itself, what came of them is written together.

use super::*;

/// A queue with one open lane and an entry of several events.
fn group(events: u16, now: Instant) -> Harness {
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    queue.show(of(events, 1));
    queue
}

fn of(events: u16, version: u64) -> Entry<Toy> {
    Entry { began: today(), events, ..entry(1, &lane("a"), version) }
}

/// All events that are to be loaded are, and are sent.
fn sent(queue: &mut Harness, now: Instant) -> Vec<u16> {
    let loads = queue.acts(now);
    let mut events = Vec::new();
    for load in loads {
        let Did::Load(1, event) = load else { panic!("{load:?}") };
        queue.loaded(1, event, Loaded::Item(Box::new(0)));
        assert_eq!(queue.acts(now), [Did::Send(1, event, 0)]);
        events.push(event);
    }
    events
}

fn retry(version: u64, attempts: u32) -> Written<Toy> {
    Written::Retry { version, attempts, began: today(), next: None, wait: Duration::ZERO }
}

#[test]
fn what_came_of_all_events_is_written_once_and_ends_the_entry() {
    let now = Instant::now();
    let mut queue = group(3, now);
    assert_eq!(sent(&mut queue, now), [0, 1, 2]);
    assert_eq!((queue.in_flight(), queue.pending(&lane("a"))), (3, 3));
    queue.answer(1, 1, "b", None, None);
    queue.answer(1, 0, "a", None, None);
    assert_eq!(queue.acts(now + 59 * SECOND), []);
    queue.answer(1, 2, "c", None, None);
    assert_eq!(queue.acts(now + 59 * SECOND), [Did::Outcome(1, vec![(0, "a"), (1, "b"), (2, "c")])]);
    assert_eq!(queue.acts(now + DAY), []);
    queue.finished(1, 5);
    queue.acts(now + DAY);
    assert!(queue.is_bare() && queue.in_flight() == 0 && queue.tombstones() == 1);
}

#[test]
fn an_event_that_is_finished_when_its_entry_becomes_known_is_not_sent_before_a_replay() {
    let now = Instant::now();
    let mut queue = group(3, now);
    queue.gone(1, 2);
    queue.show(Entry { finished: vec![0, 2], ..of(3, 3) });
    assert_eq!((sent(&mut queue, now), queue.pending(&lane("a"))), (vec![1], 1));
    queue.answer(1, 1, "b", None, None);
    assert_eq!(queue.acts(now), [Did::Outcome(1, vec![(1, "b")])], "that was the last one");
    queue.finished(1, 4);
    queue.show(Entry { began: today() + SECOND, ..of(3, 5) });
    assert_eq!(sent(&mut queue, now), [0, 1, 2]);
}

#[test]
fn progress_is_written_after_a_minute_and_at_the_drain_and_a_retry_of_one_event_without_a_write() {
    let now = Instant::now();
    let mut queue = group(3, now);
    assert_eq!(sent(&mut queue, now).len(), 3);
    queue.answer(1, 0, "a", None, None);
    queue.answer(1, 1, "again", Some(5 * SECOND), None);
    assert_eq!(queue.acts(now), []);
    assert_eq!(sent(&mut queue, now + 5 * SECOND), [1]);
    assert_eq!(queue.queue.wake_at(), Some(now + 60 * SECOND));
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Outcome(1, vec![(0, "a"), (1, "again")])]);
    queue.answer(1, 1, "b", None, None);
    assert_eq!(queue.acts(now + 60 * SECOND), [], "one write at a time");
    queue.written(1, retry(2, 1));
    assert_eq!(queue.acts(now + 60 * SECOND), []);
    queue.queue.drain();
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Outcome(1, vec![(1, "b")])]);
    queue.not_sent(1, 2, None, NotSent::Held);
    assert_eq!(queue.acts(now + 60 * SECOND), []);
    queue.written(1, retry(3, 2));
    assert_eq!((queue.acts(now + DAY), queue.in_flight()), (vec![], 0));
}

#[test]
fn an_event_that_is_finished_is_not_sent_again_whatever_else_happens_to_its_entry() {
    let now = Instant::now();
    let mut queue = group(2, now);
    assert_eq!(sent(&mut queue, now), [0, 1]);
    queue.answer(1, 0, "a", None, None);
    queue.answer(1, 1, "again", Some(5 * SECOND), None);
    queue.show(Entry { next: Some(today() + SECOND), ..of(2, 3) });
    assert_eq!(sent(&mut queue, now + 5 * SECOND), [1]);
    queue.show(Entry { attempts: 1, ..of(2, 4) });
    queue.not_sent(1, 1, None, NotSent::EgressDenied);
    open_version(&mut queue, 1, DAY);
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Outcome(1, vec![(0, "a"), (1, "again")]), Did::Load(1, 1),]);
}

#[test]
fn a_replay_begins_all_events_again_and_answers_from_before_it_count_nothing() {
    let now = Instant::now();
    let mut queue = group(3, now);
    assert_eq!(sent(&mut queue, now), [0, 1, 2]);
    queue.answer(1, 0, "old", None, None);
    queue.answer(1, 1, "old", Some(DAY), None);
    queue.show(Entry { began: today() + SECOND, ..of(3, 5) });
    assert_eq!(sent(&mut queue, now), [0, 1]);
    queue.answer(1, 2, "old", None, None);
    assert_eq!(sent(&mut queue, now), [2]);
    (0..3).for_each(|event| queue.answer(1, event, "new", None, None));
    assert_eq!(queue.acts(now), [Did::Outcome(1, vec![(0, "new"), (1, "new"), (2, "new")])]);
    queue.show(Entry { began: today() + 2 * SECOND, ..of(3, 7) });
    queue.finished(1, 6);
    assert_eq!(sent(&mut queue, now), [0, 1, 2], "it was replayed before the report of the write");
}

#[test]
fn outcomes_that_were_not_recorded_are_found_again_by_sending_and_those_recorded_before_are_not() {
    let now = Instant::now();
    let mut queue = group(3, now);
    assert_eq!(sent(&mut queue, now).len(), 3);
    queue.answer(1, 0, "a", None, None);
    queue.acts(now + 60 * SECOND);
    queue.written(1, retry(2, 1));
    (1..3).for_each(|event| queue.answer(1, event, "b", None, None));
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Outcome(1, vec![(1, "b"), (2, "b")])]);
    queue.written(1, Written::Superseded(Current { entry: Entry { attempts: 1, ..of(3, 4) }, finished: false }));
    assert_eq!(queue.acts(now + 64 * SECOND), []);
    assert_eq!(sent(&mut queue, now + 65 * SECOND), [1, 2]);
}

#[test]
fn what_came_of_events_is_written_before_their_entry_expires() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    queue.show(Entry { lifetime: Some(30 * SECOND), ..of(2, 1) });
    assert_eq!(sent(&mut queue, now).len(), 2);
    queue.answer(1, 0, "a", None, None);
    queue.answer(1, 1, "again", Some(5 * SECOND), None);
    assert_eq!(queue.acts(now + 30 * SECOND), [Did::Outcome(1, vec![(0, "a"), (1, "again")])]);
    queue.written(1, retry(2, 1));
    assert_eq!(queue.acts(now + 30 * SECOND), [Did::Expired(1)]);
}

#[test]
fn an_entry_that_lives_on_after_all_sends_its_unfinished_events() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    queue.show(Entry { lifetime: Some(60 * SECOND), ..of(2, 1) });
    assert_eq!(sent(&mut queue, now).len(), 2);
    queue.answer(1, 0, "a", None, None);
    queue.answer(1, 1, "again", Some(DAY), None);
    queue.acts(now + 60 * SECOND);
    queue.written(1, retry(2, 1));
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Expired(1)]);
    queue.written(1, Written::Unread);
    assert_eq!(queue.acts(now + 65 * SECOND), [Did::Expired(1)]);
    let replayed = Entry { began: today() + 64 * SECOND, lifetime: Some(60 * SECOND), ..of(2, 3) };
    queue.written(1, Written::Superseded(Current { entry: replayed, finished: false }));
    assert_eq!(sent(&mut queue, now + 70 * SECOND), [0, 1], "replayed");
}

#[test]
fn when_an_entry_turns_out_to_be_gone_its_other_events_may_not_be_sent_any_more() {
    let now = Instant::now();
    let mut queue = group(2, now);
    assert_eq!(queue.acts(now), [Did::Load(1, 0), Did::Load(1, 1)]);
    queue.loaded(1, 1, Loaded::Item(Box::new(0)));
    assert_eq!(queue.acts(now), [Did::Send(1, 1, 0)]);
    queue.loaded(1, 0, Loaded::Gone);
    assert!(!queue.may_send(1, 1, now));
    queue.not_sent(1, 1, None, NotSent::Held);
    queue.acts(now);
    assert!(queue.is_bare() && queue.in_flight() == 0);
}

#[test]
fn an_entry_that_is_gone_does_not_fly_again_before_its_last_flight_has_ended() {
    let now = Instant::now();
    let mut queue = group(2, now);
    assert_eq!(queue.acts(now), [Did::Load(1, 0), Did::Load(1, 1)]);
    let deleted = Entry { cancelled: true, ..of(2, 3) };
    queue.loaded(1, 0, Loaded::Superseded(Current { entry: deleted, finished: false }));
    queue.show(of(2, 1));
    assert_eq!(queue.acts(now), [], "old news");
    queue.loaded(1, 1, Loaded::Gone);
    assert!(queue.queue.is_empty());
}

#[test]
fn an_entry_that_left_and_came_back_unmoved_sends_what_is_left_of_it() {
    let now = Instant::now();
    for (left, back) in [(2, 3), (1, 1)] {
        let mut queue = Harness::new(8, 1000, now);
        open_version(&mut queue, 1, DAY);
        queue.show(of(2, 1));
        assert_eq!(sent(&mut queue, now), [0], "one at a time");
        queue.gone(1, left);
        queue.show(of(2, back));
        queue.answer(1, 0, "a", None, None);
        assert_eq!(queue.acts(now), [Did::Outcome(1, vec![(0, "a")]), Did::Load(1, 1)], "back at {back}");
    }
}

#[test]
fn the_item_of_an_entry_with_several_events_is_not_kept() {
    let now = Instant::now();
    let mut queue = group(2, now);
    assert_eq!(queue.bytes_kept(), 0);
    assert_eq!(sent(&mut queue, now), [0, 1]);
    (0..2).for_each(|event| queue.not_sent(1, event, Some(1), NotSent::Held));
    assert_eq!(queue.bytes_kept(), 0);
    assert_eq!(queue.acts(now + SECOND), [Did::Load(1, 0), Did::Load(1, 1)]);
}
