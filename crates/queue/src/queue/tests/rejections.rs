//! A webhook that rejects all events.

use super::*;

/// Shows `id`, an event of this kind.
fn show(queue: &mut Harness, id: u32, kind: u16) {
    let version = queue.version();
    queue.show(Entry { kind, ..entry(id, &lane("a"), version) });
}

/// Sends all that may start, and returns the ids.
fn sent(queue: &mut Harness, now: Instant) -> Vec<u32> {
    let sent = |did| match did {
        Did::Send(id, ..) => Some(id),
        _ => None,
    };
    queue.acts(now).into_iter().filter_map(sent).collect()
}

/// The webhook rejects an event. Returns whether that ends it; otherwise it is retried after five seconds.
fn reject(queue: &mut Harness, id: u32, now: Instant) -> bool {
    reject_all(queue, [id], now).contains(&id)
}

/// The webhook rejects these events, before any outcome is written. Returns the events that this ends.
fn reject_all(queue: &mut Harness, ids: impl IntoIterator<Item = u32> + Clone, now: Instant) -> Vec<u32> {
    let mut ended = Vec::new();
    for id in ids.clone() {
        ended.extend(Some(id).filter(|id| queue.is_final_rejection(*id)));
        queue.answer(id, 0, "400", None, Some(Signal::Health(Health::Rejected)));
    }
    queue.acts(now);
    for id in ids {
        let version = queue.version();
        if ended.contains(&id) {
            queue.finished(id, version);
        } else {
            let (began, wait) = (queue.began(id), 5 * SECOND);
            queue.written(id, Written::Retry { version, attempts: 1, began, next: None, wait });
        }
    }
    ended
}

/// A queue whose lane `a` has rejected five of `events` for good, all of which are in flight.
fn rejecting(events: impl IntoIterator<Item = (u32, u16)>, now: Instant) -> Harness {
    let mut queue = open(64, &[("a", 8)], now);
    events.into_iter().for_each(|(id, kind)| show(&mut queue, id, kind));
    let first = sent(&mut queue, now);
    assert_eq!(first, (0..8).collect::<Vec<_>>());
    assert_eq!(reject_all(&mut queue, first, now), [0, 1, 2, 3, 4], "the others were in flight, and are held");
    assert_eq!(queue.gate(&lane("a"), now), Some(Gate::RejectsAll));
    queue
}

/// Rejects the probes that start until `count` have, and returns their ids.
fn probes(queue: &mut Harness, count: usize) -> Vec<u32> {
    let mut probes = Vec::new();
    while probes.len() < count {
        let now = queue.queue.wake_at().unwrap();
        for id in sent(queue, now) {
            assert!(!reject(queue, id, now), "{id} ended");
            probes.push(id);
        }
    }
    probes
}

#[test]
fn five_rejections_hold_all_other_events_until_one_is_accepted() {
    let now = Instant::now();
    let mut queue = rejecting((0..20).map(|id| (id, 1)), now);
    assert_eq!(sent(&mut queue, now + 4 * SECOND), [0; 0]);
    let later = now + 5 * SECOND;
    let [probe] = sent(&mut queue, later)[..] else { panic!("one probe") };
    queue.answer(probe, 0, "204", None, Some(Signal::Health(Health::Success)));
    assert_eq!(queue.gate(&lane("a"), later), None);
    assert_eq!(sent(&mut queue, later).len(), 7, "with the probe, whose outcome is being written, as many as may");
}

#[test]
fn probes_take_the_oldest_and_the_newest_event_in_turn() {
    let now = Instant::now();
    let mut queue = rejecting((0..20).map(|id| (id, 1)), now);
    assert_eq!(probes(&mut queue, 6), [8, 19, 9, 18, 10, 17]);
}

#[test]
fn probes_prefer_a_kind_of_event_that_was_not_rejected() {
    let now = Instant::now();
    // One producer's events before and after another's.
    let mut queue = rejecting((0..40).map(|id| (id, u16::from(id == 25 || id == 31))), now);
    assert_eq!(probes(&mut queue, 3), [25, 39, 8], "after 25, both kinds were rejected");
}

#[test]
fn a_changed_spec_causes_a_probe_and_a_rejection_of_the_former_spec_ends_nothing() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    (0..8).for_each(|id| show(&mut queue, id, 1));
    assert_eq!(sent(&mut queue, now).len(), 8);
    open_version(&mut queue, 2, DAY);
    assert!((0..8).all(|id| !reject(&mut queue, id, now)), "they were sent by the former spec");
    assert_eq!(queue.gate(&lane("a"), now), None, "and say nothing of this one");

    let mut queue = rejecting((0..20).map(|id| (id, 1)), now);
    queue.reset(&lane("a"));
    open_version(&mut queue, 2, DAY);
    let [probe] = sent(&mut queue, now)[..] else { panic!("one probe, at once") };
    assert!(!reject(&mut queue, probe, now));
    assert_eq!(queue.gate(&lane("a"), now), Some(Gate::RejectsAll));
}

#[test]
fn the_state_of_the_status_holds_from_the_first_event_and_another_subscriber_does_not_inherit_it() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    queue.apply(Update::RejectsAll { of: lane("a") });
    (0..8).for_each(|id| show(&mut queue, id, 1));
    assert_eq!(sent(&mut queue, now), [0], "a probe");
    assert!(!reject(&mut queue, 0, now));
    assert_eq!(queue.gate(&lane("a"), now), Some(Gate::RejectsAll));

    queue.apply(Update::Closed { of: lane("a"), version: None, gate: Gate::SubscriberNotFound, lifetime: None });
    open_version(&mut queue, 1, DAY);
    assert_eq!(queue.gate(&lane("a"), now), None);
}
