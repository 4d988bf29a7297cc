//! The engine with no API server at all: entries from memory, sent over HTTPS to a real webhook.

mod batches;
mod memory;
mod pulls;
mod world;

use std::time::{Duration, SystemTime};

use testkit::{Behaviour, endpoints::Reply};
use tidings_api::AttemptReason::{self, Acknowledged, Gone, ServerError, Throttled};
use tidings_queue::{LaneState, Update};
use tokio::sync::oneshot;

use self::{
    memory::{Memory, Wrote},
    world::{WAIT, World, named},
};
use crate::{
    contract::{Report, Route},
    ownership::Leadership,
};

/// The write that finishes an entry with one event.
fn finished(reason: AttemptReason) -> Wrote {
    Wrote::Outcome(vec![(0, reason)], None)
}

/// The reasons that were written, of entries with one event.
fn reasons(writes: &[Wrote]) -> Vec<AttemptReason> {
    writes
        .iter()
        .flat_map(|wrote| if let Wrote::Outcome(answers, _) = wrote { answers.as_slice() } else { &[] })
        .map(|(_, reason)| *reason)
        .collect()
}

#[tokio::test]
async fn an_event_is_delivered_once_and_its_outcome_is_written_once() {
    let world = World::new().await;
    let shop = world.open("shop");
    let id = world.memory.add(&shop, &["e1"]);
    assert_eq!(world.memory.written(id, 1).await, [finished(Acknowledged)]);
    world.settle("other").await;
    assert_eq!((world.arrived(&shop), world.memory.writes(id).len()), (vec!["e1".into()], 1));
    assert!(world.memory.loads().is_empty(), "what the source showed a moment ago is not read again");
}

#[tokio::test]
async fn an_event_that_failed_is_sent_again_after_its_backoff_with_the_same_id() {
    let world = World::new().await;
    world.webhook.receiver.answer_next("/shop", 1, &Behaviour::status(503));
    let shop = world.open("shop");
    let id = world.memory.add(&shop, &["e1"]);
    let writes = world.memory.written(id, 2).await;
    let [Wrote::Outcome(first, Some(wait)), last] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((&first[..], last), (&[(0, ServerError)][..], &finished(Acknowledged)));
    assert!(*wait >= WAIT.mul_f64(0.8) && *wait <= WAIT.mul_f64(1.2), "{wait:?}");
    assert_eq!(world.arrived(&shop), ["e1", "e1"]);
    let requests = world.webhook.receiver.requests_for("/shop");
    assert!(requests[1].arrived - requests[0].arrived >= *wait);
}

#[tokio::test]
async fn an_attempt_that_was_the_last_one_by_the_route_finishes_the_entry() {
    let world = World::new().await;
    world.webhook.receiver.answer_always("/shop", Behaviour::status(503));
    let shop = world.open_with("shop", |route| route.max_attempts = Some(2));
    let id = world.memory.add(&shop, &["e1"]);
    world.memory.written(id, 2).await;
    world.settle("other").await;
    assert_eq!(reasons(&world.memory.writes(id)), [ServerError, ServerError]);
    assert_eq!(world.memory.writes(id)[1], finished(ServerError));
}

#[tokio::test]
async fn what_expires_by_its_own_lifetime_or_by_the_subscribers_is_written_without_a_post() {
    let world = World::new().await;
    let (second, long_ago) = (Duration::from_secs(1), SystemTime::now() - Duration::from_secs(100));
    let shop = world.open_with("shop", |route| route.expire_after = 50 * second);
    let by_its_own = world.memory.add_with(&shop, &["own"], |entry| {
        (entry.began, entry.lifetime) = (long_ago, Some(10 * second));
    });
    let by_the_subscribers = world.memory.add_with(&shop, &["tried"], |entry| {
        (entry.began, entry.attempts) = (long_ago, 1);
    });
    let untried = world.memory.add_with(&shop, &["untried"], |entry| entry.began = long_ago);
    for id in [by_its_own, by_the_subscribers] {
        assert_eq!(world.memory.written(id, 1).await, [Wrote::Expired]);
    }
    assert_eq!(world.memory.written(untried, 1).await, [finished(Acknowledged)], "the operator may have been away");
    world.settle("other").await;
    assert_eq!(world.arrived(&shop), ["untried"]);
}

#[tokio::test]
async fn at_shutdown_nothing_starts_and_what_is_in_flight_ends_and_is_written() {
    let mut world = World::new().await;
    world.webhook.hold(true);
    let shop = world.open_with("shop", |route| route.limits.max_in_flight = 1);
    let [first, second] = ["e1", "e2"].map(|event| world.memory.add(&shop, &[event]));
    world.webhook.asked(1).await;
    world.memory.hold_writes(&shop, true);
    world.stop();
    let late = world.memory.add(&named("late"), &["e3"]);
    world.webhook.hold(false);
    world.memory.write_begun(first).await;
    assert!(!world.has_ended(), "its outcome is not written yet");
    world.memory.hold_writes(&shop, false);
    world.ended().await;
    assert_eq!(world.memory.writes(first), [finished(Acknowledged)]);
    assert!(world.memory.writes(second).is_empty() && world.memory.writes(late).is_empty());
    assert_eq!(world.arrived(&shop), ["e1"]);
    let after = World::after(&world.memory).await;
    after.open("shop");
    assert_eq!(after.memory.written(second, 1).await, [finished(Acknowledged)], "the next operator sends it");
}

#[tokio::test]
async fn the_outcome_of_an_attempt_that_paused_the_subscriber_is_written_after_the_pause() {
    for is_dropped in [false, true] {
        let mut world = World::new().await;
        let asks = Reply::status(429).header("retry-after", "60");
        world.webhook.receiver.answer_next("/shop", 1, &Behaviour::reply(asks));
        let shop = world.open("shop");
        let id = world.memory.add(&shop, &["e1"]);
        let (of, wait, stored) = world.report(paused).await;
        assert!(of == shop && wait >= Duration::from_secs(60), "{of} {wait:?}");
        world.settle("other").await;
        assert!(!world.memory.has_write_begun(id), "the pause is not stored yet");
        if is_dropped {
            drop(stored);
        } else {
            stored.send(()).unwrap();
        }
        let writes = world.memory.written(id, 1).await;
        assert_eq!(writes, [Wrote::Outcome(vec![(0, Throttled)], Some(wait))], "it waits as long as the pause");
    }
}

fn paused(report: Report) -> Option<(tidings_queue::SubscriberKey, Duration, oneshot::Sender<()>)> {
    match report {
        Report::Paused { of, wait, stored, .. } => Some((of, wait, stored)),
        _ => None,
    }
}

#[tokio::test]
async fn a_410_closes_the_lane_for_its_version_until_a_reset() {
    let mut world = World::new().await;
    world.webhook.receiver.answer_next("/shop", 1, &Behaviour::status(410));
    let shop = world.open("shop");
    let first = world.memory.add(&shop, &["e1"]);
    let stored = world
        .report(|report| match report {
            Report::Gone { of, version, stored } => (of == named("shop") && version.generation == 1).then_some(stored),
            _ => None,
        })
        .await;
    stored.send(()).unwrap();
    assert_eq!(reasons(&world.memory.written(first, 1).await), [Gone]);
    // A reconcile that began before the 410 ends after it.
    world.open("shop");
    world.settle("other").await;
    let second = world.memory.add(&shop, &["e2"]);
    world.lane(&shop, |lane| lane.pending == 2 && lane.state == LaneState::EndpointGone).await;
    assert_eq!(world.arrived(&shop), ["e1"]);
    world.update(Update::Reset { of: shop.clone() });
    world.open("shop");
    for (id, count) in [(first, 2), (second, 1)] {
        assert_eq!(world.memory.written(id, count).await.last(), Some(&finished(Acknowledged)));
    }
}

#[tokio::test]
async fn a_410_of_one_version_does_not_hold_the_next_one() {
    let mut world = World::new().await;
    world.webhook.receiver.answer_next("/shop", 1, &Behaviour::status(410));
    let shop = world.open("shop");
    let id = world.memory.add(&shop, &["e1"]);
    world.report(|report| matches!(report, Report::Gone { .. }).then_some(())).await;
    world.open_with("shop", |route| route.version.generation = 2);
    assert_eq!(world.memory.written(id, 2).await[1], finished(Acknowledged));
}

#[tokio::test]
async fn a_write_that_hangs_for_one_subscriber_holds_no_other() {
    let world = World::new().await;
    let [slow, quick] = ["slow", "quick"].map(|name| world.open(name));
    world.memory.hold_writes(&slow, true);
    let hung = world.memory.add(&slow, &["e1"]);
    world.memory.write_begun(hung).await;
    let others: Vec<_> = ["a", "b", "c"].map(|event| world.memory.add(&quick, &[event])).into();
    for id in others {
        assert_eq!(world.memory.written(id, 1).await, [finished(Acknowledged)]);
    }
    assert!(world.memory.writes(hung).is_empty());
    world.memory.hold_writes(&slow, false);
    assert_eq!(world.memory.written(hung, 1).await, [finished(Acknowledged)]);
}

#[tokio::test]
async fn what_is_finished_is_not_sent_again_by_old_news_and_is_by_a_replay() {
    let world = World::new().await;
    world.memory.lag(true);
    let shop = world.open_with("shop", |route| route.limits.max_in_flight = 1);
    let id = world.memory.add(&shop, &["e1"]);
    let old = world.memory.get(id);
    world.memory.written(id, 1).await;
    world.memory.show_again(&old);
    // In the same lane, which sends one after the other.
    let next = world.memory.add(&shop, &["e2"]);
    world.memory.written(next, 1).await;
    assert_eq!(world.arrived(&shop), ["e1", "e2"]);
    world.memory.lag(false);
    world.memory.replay(id);
    assert_eq!(world.memory.written(id, 2).await, [finished(Acknowledged), finished(Acknowledged)]);
    assert_eq!(world.arrived(&shop), ["e1", "e2", "e1"]);
}

#[tokio::test]
async fn while_the_term_is_contested_nothing_is_sent_that_was_not_loaded_just_before() {
    let memory = Memory::default();
    let shop = named("shop");
    let [first, second] = ["e1", "e2"].map(|event| memory.add(&shop, &[event]));
    let world = World::led(Leadership::contested(), memory.clone()).await;
    // The operator before delivered it after the list.
    memory.finish_unseen(first);
    world.settle("other").await;
    world.open("shop");
    assert_eq!(memory.written(second, 1).await, [finished(Acknowledged)]);
    world.settle("another").await;
    assert_eq!(world.arrived(&shop), ["e2"]);
    assert_eq!(memory.loads().iter().filter(|id| [first, second].contains(id)).count(), 2);
    assert!(memory.writes(first).is_empty());
}
