//! When entries expire.

use super::*;

/// When an entry expires, in seconds since it began: when its expiry is to be written.
fn ends(own: Option<u64>, tried: bool, gate: Option<Gate>) -> Option<u64> {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    if let Some(gate) = gate {
        let lifetime = (gate != Gate::SubscriberNotFound).then_some(DAY);
        queue.apply(Update::Closed { of: lane("a"), version: Some(spec(1)), gate, lifetime });
    }
    let (lifetime, attempts) = (own.map(Duration::from_secs), u32::from(tried));
    queue.show(Entry { began: today(), lifetime, attempts, ..entry(1, &lane("a"), 1) });
    expired_at(&mut queue, now)
}

/// When the first expiry is written, in seconds from now; what is sent instead is put back.
fn expired_at(queue: &mut Harness, begin: Instant) -> Option<u64> {
    let mut now = begin;
    while now < begin + 100 * DAY {
        let did = queue.acts(now);
        for did in &did {
            match *did {
                Did::Expired(_) => return Some((now - begin).as_secs()),
                Did::Load(id, _) | Did::Send(id, ..) => queue.hold(id, now + 10 * DAY),
                _ => {}
            }
        }
        if !did.is_empty() {
            continue;
        }
        let wake = queue.queue.wake_at()?;
        assert!(wake > now, "it spins");
        now = wake;
    }
    None
}

#[test]
fn its_own_time_always_counts_and_the_subscribers_only_for_what_was_tried_or_cannot_be_sent() {
    let day = DAY.as_secs();
    assert_eq!(ends(None, false, None), None);
    assert_eq!(ends(None, true, None), Some(day));
    assert_eq!(ends(Some(60), false, None), Some(60));
    assert_eq!(ends(Some(60), true, Some(Gate::CircuitOpen)), Some(60));
    assert_eq!(ends(Some(u64::from(u32::MAX)), true, None), Some(day));
    for gate in [Gate::EndpointGone, Gate::SubscriberNotFound] {
        assert_eq!(ends(None, false, Some(gate)), Some(day), "{gate:?}");
    }
    for gate in [Gate::Suspended, Gate::SubscriberNotReady, Gate::Paused, Gate::CircuitOpen] {
        assert_eq!(ends(None, false, Some(gate)), None, "{gate:?}");
    }
}

#[test]
fn a_subscriber_that_is_not_known_yet_ends_nothing_and_one_that_is_missing_nothing_for_an_hour() {
    let began = today() - 7 * DAY;
    let now = Instant::now();
    let mut queue = Harness::unlisted(vec![None], now);
    queue.show(Entry { began, attempts: 1, ..entry(1, &lane("a"), 1) });
    assert_eq!(queue.gate(&lane("a"), now), Some(Gate::SubscriberNotReady));
    assert_eq!(expired_at(&mut queue, now), None);
    queue.apply(Update::Listed(None));
    assert_eq!(queue.gate(&lane("a"), now), Some(Gate::SubscriberNotFound));
    assert_eq!(expired_at(&mut queue, now + 5 * SECOND), Some(3600), "it was explained meanwhile");
}

#[test]
fn a_subscriber_that_is_deleted_and_created_again_costs_nothing() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    queue.show(Entry { began: today() - 7 * DAY, ..entry(1, &lane("a"), 1) });
    queue.close(&lane("a"), Gate::SubscriberNotFound);
    assert_eq!(queue.acts(now + 3599 * SECOND), []);
    open_version(&mut queue, 1, DAY);
    assert_eq!(
        queue.acts(now + 3600 * SECOND),
        [Did::Send(1, 0, 1)],
        "never tried: the Subscriber's time does not count"
    );
}

#[test]
fn another_lifetime_or_gate_counts_for_what_was_there_before() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, 10 * DAY);
    queue.pause(&lane("a"), now + 30 * DAY);
    queue.show(Entry { began: today(), attempts: 1, ..entry(1, &lane("a"), 1) });
    queue.show(Entry { began: today(), ..entry(2, &lane("a"), 1) });
    queue.acts(now + 2 * DAY);
    open_version(&mut queue, 2, DAY);
    assert_eq!(queue.acts(now + 2 * DAY), [Did::Expired(1)]);
    queue.apply(Update::Closed {
        of: lane("a"),
        version: Some(spec(2)),
        gate: Gate::EndpointGone,
        lifetime: Some(DAY),
    });
    assert_eq!(queue.acts(now + 2 * DAY), [Did::Expired(2)]);
}

#[test]
fn eight_expiries_are_written_at_once_and_one_that_was_replayed_lives_on() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    let ended = |id| Entry { began: today() - DAY, lifetime: Some(DAY), ..entry(id, &lane("a"), 1) };
    (1..=9).for_each(|id| queue.show(ended(id)));
    assert_eq!(queue.acts(now), (1..=8).map(Did::Expired).collect::<Vec<_>>());
    assert_eq!(queue.queue.wake_at(), Some(now + 60 * SECOND), "the ninth waits for a write");
    let replayed = Entry { began: today(), ..entry(1, &lane("a"), 5) };
    queue.written(1, Written::Superseded(Current { entry: replayed, finished: false }));
    assert_eq!(queue.acts(now), [Did::Expired(9)]);
    (2..=9).for_each(|id| queue.finished(id, 6));
    assert_eq!(queue.acts(now + 4 * SECOND), []);
    assert_eq!(queue.acts(now + 5 * SECOND), [Did::Load(1, 0)]);
    assert_eq!(queue.began(1), today());
}

#[test]
fn an_expiry_that_could_not_be_written_is_tried_again_after_five_seconds_and_nothing_is_sent_meanwhile() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    queue.show(Entry { began: today() - DAY, lifetime: Some(DAY), ..entry(1, &lane("a"), 1) });
    assert_eq!(queue.acts(now), [Did::Expired(1)]);
    queue.written(1, Written::Unread);
    assert_eq!((queue.acts(now + 4 * SECOND), queue.queue.wake_at()), (vec![], Some(now + 5 * SECOND)));
    assert_eq!(queue.acts(now + 5 * SECOND), [Did::Expired(1)]);
    queue.finished(1, 2);
    assert!(queue.is_bare());
}

#[test]
fn a_flight_may_not_be_sent_after_its_entry_has_expired() {
    let now = Instant::now();
    let mut queue = open(64, &[("a", 8)], now);
    queue.show(Entry { began: today(), lifetime: Some(60 * SECOND), ..entry(1, &lane("a"), 1) });
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 1)]);
    assert!(queue.may_send(1, 0, now + 59 * SECOND) && !queue.may_send(1, 0, now + 60 * SECOND));
    assert_eq!(queue.acts(now + 60 * SECOND), [], "what is in flight ends first");
    queue.not_sent(1, 0, Some(1), NotSent::Held);
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Expired(1)]);
}

#[test]
fn what_seemed_to_have_expired_when_its_turn_came_is_sent_when_it_has_not() {
    let now = Instant::now();
    let mut queue = Harness::new(64, 1000, now);
    open_version(&mut queue, 1, DAY);
    let ended = |id, lifetime| Entry { began: today() - 2 * DAY, lifetime, attempts: 1, ..entry(id, &lane("a"), 1) };
    (1..=8).for_each(|id| queue.show(ended(id, Some(DAY))));
    queue.show(ended(9, None));
    assert_eq!(queue.acts(now).len(), 8, "all that may be written at once");
    open_version(&mut queue, 2, 3 * DAY);
    let mut acts = Vec::new();
    for wait in [0, 60] {
        acts.extend(queue.acts(now + wait * SECOND));
    }
    assert_eq!(acts, [Did::Load(9, 0)]);
}
