//! What sources show, and which news is old.

use super::*;

/// A queue with one open lane and one entry of version 5.
fn one(now: Instant) -> Harness {
    let mut queue = open(64, &[("a", 8)], now);
    queue.show(entry(1, &lane("a"), 5));
    queue
}

/// The same, its event sent.
fn sent(now: Instant) -> Harness {
    let mut queue = one(now);
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 5)]);
    queue
}

/// The same, answered.
fn answered(now: Instant) -> Harness {
    let mut queue = sent(now);
    queue.answer(1, 0, "?", None, None);
    assert_eq!(queue.acts(now), [Did::Outcome(1, vec![(0, "?")])]);
    queue
}

fn again(version: u64) -> Entry<Toy> {
    entry(1, &lane("a"), version)
}

/// It was replayed.
fn replayed(version: u64) -> Entry<Toy> {
    Entry { began: again(version).began + SECOND, ..again(version) }
}

/// What is written of an attempt that another one follows at once.
fn retry(version: u64, attempts: u32) -> Written<Toy> {
    let (began, next, wait) = (again(0).began, None, Duration::ZERO);
    Written::Retry { version, attempts, began, next, wait }
}

#[test]
fn a_recorded_attempt_that_undid_a_replay_puts_its_beginning_back() {
    let now = Instant::now();
    let mut queue = answered(now);
    queue.show(replayed(6));
    queue.written(1, retry(7, 1));
    assert_eq!(queue.acts(now), [Did::Load(1, 0)]);
    assert_eq!(queue.began(1), again(0).began);
    queue.loaded(1, 0, Loaded::Unread);
    queue.show(replayed(8));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 8)]);
    assert_eq!(queue.began(1), replayed(0).began);
}

#[test]
fn news_older_than_a_finishing_write_is_ignored_until_the_watch_has_passed_it() {
    let now = Instant::now();
    let mut queue = answered(now);
    queue.finished(1, 7);
    queue.show(again(6));
    assert_eq!((queue.acts(now), queue.queue.len(), queue.tombstones()), (vec![], 0, 1));
    queue.gone(1, 7);
    assert_eq!(queue.tombstones(), 0);
    queue.show(again(9));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 9)], "set back to Pending by a replay");
}

#[test]
fn a_replay_seen_before_the_report_of_the_finishing_write_is_not_lost() {
    let now = Instant::now();
    let mut queue = answered(now);
    queue.gone(1, 7);
    queue.show(replayed(9));
    queue.finished(1, 7);
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 9)]);
    for (version, is_left) in [(9, true), (7, true)] {
        let mut queue = answered(now);
        queue.gone(1, 7);
        queue.show(replayed(9));
        if version == 7 {
            queue.gone(1, 11);
        }
        queue.finished(1, version);
        assert_eq!(queue.queue.is_empty(), is_left, "it left once more");
        assert_eq!(queue.acts(now), []);
    }
}

#[test]
fn a_recorded_attempt_drops_the_untried_item_unless_a_replay_followed() {
    let now = Instant::now();
    let mut queue = answered(now);
    queue.show(again(6));
    queue.written(1, retry(7, 1));
    assert_eq!((queue.acts(now), queue.bytes_kept()), (vec![Did::Load(1, 0)], 0));
    queue.loaded(1, 0, Loaded::Item(Box::new(7)));
    queue.acts(now);
    queue.answer(1, 0, "?", None, None);
    queue.acts(now);
    queue.show(replayed(9));
    queue.written(1, retry(8, 1));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 9)], "at once, and untried");
}

#[test]
fn the_item_kept_is_the_newest() {
    let now = Instant::now();
    let mut queue = one(now);
    queue.show(again(6));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 6)], "nothing moved it");
    queue.show(again(7));
    queue.gone(1, 1);
    queue.show(Entry { item: None, ..again(8) });
    queue.not_sent(1, 0, Some(6), NotSent::Held);
    assert_eq!((queue.acts(now + SECOND), queue.bytes_kept()), (vec![Did::Load(1, 0)], 0), "what came back is old");
    queue.not_sent(1, 0, Some(8), NotSent::Held);
    assert_eq!(queue.acts(now + 2 * SECOND), [Did::Send(1, 0, 8)]);
    queue.not_sent(1, 0, Some(8), NotSent::Held);
    assert!(queue.bytes_kept() > 0);
    queue.show(Entry { attempts: 1, ..again(9) });
    assert_eq!(queue.bytes_kept(), 0, "tried by another writer");
    assert_eq!(queue.acts(now + 3 * SECOND), [Did::Load(1, 0)]);
}

#[test]
fn a_write_whose_echo_came_before_its_report_leaves_no_tombstone() {
    let now = Instant::now();
    let mut queue = answered(now);
    queue.gone(1, 7);
    queue.finished(1, 7);
    queue.acts(now);
    assert!(queue.tombstones() == 0 && queue.is_bare());
}

#[test]
fn what_was_written_over_a_final_status_leaves_no_tombstone() {
    let now = Instant::now();
    let mut queue = answered(now);
    queue.gone(1, 7);
    queue.written(1, Written::Finished { version: 8, out_of_sight: true });
    queue.acts(now);
    assert!(queue.tombstones() == 0 && queue.is_bare());
}

#[test]
fn a_listing_drops_what_it_does_not_show() {
    let now = Instant::now();
    let namespaces = vec![Some("a".into()), Some("b".into()), Some("c".into())];
    let mut queue = Harness::unlisted(namespaces, now);
    queue.open(&lane("a"), limits(1));
    (1..=4).for_each(|id| queue.show(entry(id, &lane("a"), 5)));
    queue.show(Entry { next: Some(today() + SECOND), ..entry(5, &lane("a"), 5) });
    queue.show(entry(6, &key("b", "a"), 5));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 5)]);
    queue.observe(Seen::ListBegins(ScopeId(0)));
    queue.show(entry(2, &lane("a"), 5));
    queue.show(entry(3, &lane("a"), 6));
    queue.observe(Seen::ListEnds(ScopeId(0)));
    assert_eq!(queue.queue.len(), 4, "1, 2, 3 and 6");
    queue.observe(Seen::ListBegins(ScopeId(2)));
    queue.observe(Seen::ListEnds(ScopeId(2)));
    assert_eq!(queue.queue.len(), 4);
    queue.not_sent(1, 0, None, NotSent::Held);
    assert_eq!(queue.queue.len(), 3, "it was in flight");
    assert_eq!(queue.acts(now + SECOND), [Did::Send(2, 0, 5)]);
}

#[test]
fn a_listing_that_still_shows_a_finished_one_as_pending_keeps_its_tombstone() {
    let now = Instant::now();
    let mut queue = answered(now);
    queue.finished(1, 7);
    queue.list(vec![again(5)]);
    queue.show(again(6));
    assert_eq!((queue.queue.len(), queue.tombstones()), (0, 1));
    queue.list(vec![]);
    assert_eq!(queue.tombstones(), 0);
}

#[test]
fn an_old_departure_does_not_end_what_is_known_to_be_newer_and_a_return_ends_it() {
    let now = Instant::now();
    let mut queue = answered(now);
    queue.written(1, Written::Superseded(Current { entry: again(9), finished: false }));
    queue.gone(1, 7);
    assert_eq!(queue.queue.len(), 1, "this process read a newer one");
    assert_eq!(queue.acts(now + 5 * SECOND), [Did::Load(1, 0)]);
    queue.gone(1, 7);
    queue.show(again(9));
    queue.not_sent(1, 0, None, NotSent::Held);
    assert_eq!(queue.queue.len(), 1, "it is back");
    assert_eq!(queue.acts(now + 6 * SECOND), [Did::Load(1, 0)]);
}

#[test]
fn items_are_kept_within_the_budget() {
    let now = Instant::now();
    let mut queue = open(64, &[], now);
    let size = (1 << 20) * 2 / 3;
    for id in 1..=2 {
        queue.show(Entry { bytes: size, ..entry(id, &lane("a"), 1) });
    }
    let length = queue.bytes_kept();
    assert!((size..size + 1000).contains(&length));
    queue.open(&lane("a"), limits(8));
    assert_eq!(queue.acts(now), [Did::Send(1, 0, 1)], "as large as all that a lane may have");
    assert_eq!(queue.bytes_kept(), 0);
    queue.not_sent(1, 0, Some(1), NotSent::Held);
    assert_eq!(queue.bytes_kept(), length);
    assert_eq!(queue.acts(now), [Did::Load(2, 0)]);
    queue.gone(1, 3);
    assert_eq!(queue.bytes_kept(), 0);
}

#[test]
fn what_another_writer_changed_is_tried_again_after_five_seconds_or_when_it_is_due() {
    let now = Instant::now();
    let superseded = |entry, finished| Written::Superseded(Current { entry, finished });
    let mut queue = answered(now);
    queue.written(1, superseded(Entry { attempts: 3, ..again(9) }, false));
    assert_eq!(queue.acts(now + 4 * SECOND), []);
    assert_eq!(queue.acts(now + 5 * SECOND), [Did::Load(1, 0)]);
    queue.loaded(
        1,
        0,
        Loaded::Superseded(Current {
            entry: Entry { next: Some(today() + 60 * SECOND), ..again(10) },
            finished: false,
        }),
    );
    assert_eq!(queue.acts(now + 59 * SECOND), []);
    assert_eq!(queue.acts(now + 60 * SECOND), [Did::Load(1, 0)]);
    queue.loaded(1, 0, Loaded::Superseded(Current { entry: again(11), finished: true }));
    assert_eq!((queue.queue.len(), queue.tombstones()), (0, 1));
    let mut queue = answered(now);
    queue.written(1, superseded(Entry { cancelled: true, ..again(9) }, false));
    assert!(queue.queue.is_empty());
}

#[test]
fn what_is_being_deleted_is_not_sent() {
    let now = Instant::now();
    let mut queue = one(now);
    queue.show(Entry { cancelled: true, ..again(6) });
    queue.show(Entry { cancelled: true, ..entry(2, &lane("a"), 6) });
    assert_eq!((queue.acts(now + DAY), queue.queue.len()), (vec![], 2));
    let mut queue = sent(now);
    queue.show(Entry { cancelled: true, ..again(6) });
    assert!(!queue.may_send(1, 0, now));
    queue.gone(1, 8);
    queue.not_sent(1, 0, None, NotSent::Held);
    assert!(queue.queue.is_empty());
}

#[test]
fn what_was_in_flight_when_its_deletion_began_is_not_sent_again() {
    let now = Instant::now();
    let deleted = || Entry { cancelled: true, ..again(6) };
    let mut queue = sent(now);
    queue.show(deleted());
    queue.not_sent(1, 0, None, NotSent::Held);
    assert_eq!(queue.acts(now + DAY), []);
    queue.show(Entry { version: 7, ..deleted() });
    assert_eq!(queue.acts(now + DAY), []);
    let mut queue = answered(now);
    queue.show(deleted());
    queue.written(1, retry(7, 1));
    assert_eq!(queue.acts(now + DAY), []);
    let mut queue = open(64, &[("a", 8)], now);
    let ended = |version| Entry { began: today() - DAY, lifetime: Some(DAY), ..again(version) };
    queue.show(ended(5));
    assert_eq!(queue.acts(now), [Did::Expired(1)]);
    queue.show(Entry { cancelled: true, ..ended(6) });
    queue.written(1, Written::Unread);
    assert_eq!(queue.acts(now + DAY), []);
}

#[test]
fn no_recorded_time_is_believed_beyond_the_longest_wait() {
    let now = Instant::now();
    let mut queue = open(64, &[], now);
    queue.show(Entry { next: Some(today() + 30 * DAY), ..again(1) });
    queue.acts(now);
    assert_eq!(queue.queue.wake_at(), Some(now + Duration::from_secs(86_400 * 12 / 10)));
    open_version(&mut queue, 1, DAY);
    queue.acts(now);
    assert_eq!(queue.queue.wake_at(), Some(now + 3600 * SECOND));
    queue.show(Entry { next: Some(today() + 20 * DAY), ..again(2) });
    assert_eq!(queue.acts(now + 3599 * SECOND), []);
    assert_eq!(queue.acts(now + 3600 * SECOND), [Did::Send(1, 0, 2)]);
}
