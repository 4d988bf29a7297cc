//! Entries with many events: each is sent by itself, and what came of them is written together.

use std::{collections::BTreeSet, sync::Mutex};

use tidings_api::AttemptReason::Rejected;
use tidings_queue::{Gate, SpecVersion};

use super::*;

const FIVE: [&str; 5] = ["e0", "e1", "e2", "e3", "e4"];

/// The webhook rejects e1 always, and answers the first POST of e2 with 503.
fn answer_each(world: &World) {
    let failed = Mutex::new(false);
    world.webhook.receiver.answer_by("/shop", move |request| {
        let status = match request.headers["ce-id"].to_str().unwrap() {
            "e1" => 400,
            "e2" if !std::mem::replace(&mut *failed.lock().unwrap(), true) => 503,
            _ => 204,
        };
        Behaviour::status(status)
    });
}

fn sorted(mut arrived: Vec<String>) -> Vec<String> {
    arrived.sort_unstable();
    arrived
}

#[tokio::test]
async fn each_event_is_sent_until_it_is_finished_and_all_outcomes_are_written_at_once() {
    let world = World::new().await;
    answer_each(&world);
    let shop = world.open("shop");
    let id = world.memory.add(&shop, &FIVE);
    let outcomes = [Acknowledged, Rejected, Acknowledged, Acknowledged, Acknowledged];
    let outcomes: Vec<_> = (0..).zip(outcomes).collect();
    assert_eq!(world.memory.written(id, 1).await, [Wrote::Outcome(outcomes, None)]);
    world.settle("other").await;
    assert_eq!(sorted(world.arrived(&shop)), ["e0", "e1", "e2", "e2", "e3", "e4"]);
    assert_eq!(world.memory.writes(id).len(), 1);
}

#[tokio::test]
async fn at_shutdown_what_came_of_some_events_is_written_and_the_others_are_sent_by_the_next_operator() {
    let mut world = World::new().await;
    answer_each(&world);
    let shop = world.open_with("shop", |route| route.backoff.initial = Duration::from_secs(3600));
    let id = world.memory.add(&shop, &FIVE);
    world.attempts(5).await;
    assert!(world.memory.writes(id).is_empty());
    world.stop();
    world.ended().await;
    let outcomes = [Acknowledged, Rejected, ServerError, Acknowledged, Acknowledged];
    let outcomes: Vec<_> = (0..).zip(outcomes).collect();
    let writes = world.memory.writes(id);
    let [Wrote::Outcome(written, Some(_))] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(*written, outcomes);
    let after = World::after(&world.memory).await;
    after.open("shop");
    assert_eq!(after.memory.written(id, 2).await[1], Wrote::Outcome(vec![(2, Acknowledged)], None));
    assert_eq!(after.arrived(&shop), ["e2"]);
}

#[tokio::test]
async fn what_is_written_of_some_events_sends_none_of_them_again() {
    let world = World::new().await;
    answer_each(&world);
    // As many answers as attempts may be under way are written, whatever is left.
    let shop = world.open_with("shop", |route| route.limits.max_in_flight = 2);
    world.memory.hold_written(&shop, true);
    let id = world.memory.add(&shop, &FIVE);
    world.memory.written(id, 1).await;
    world.settle("other").await;
    world.memory.hold_written(&shop, false);
    world.memory.finished(id).await;
    world.settle("another").await;
    assert_eq!(sorted(world.arrived(&shop)), ["e0", "e1", "e2", "e2", "e3", "e4"]);
    let writes = world.memory.writes(id);
    let answers = writes.iter().map(|wrote| if let Wrote::Outcome(answers, _) = wrote { answers.len() } else { 0 });
    assert!(answers.clone().count() > 1 && (5..=6).contains(&answers.sum::<usize>()), "{writes:?}");
}

#[tokio::test]
async fn a_replay_sends_all_events_again_whatever_had_come_of_them() {
    let mut world = World::new().await;
    answer_each(&world);
    let shop = world.open_with("shop", |route| route.backoff.initial = Duration::from_secs(3600));
    let id = world.memory.add(&shop, &FIVE);
    world.attempts(5).await;
    world.memory.replay(id);
    let writes = world.memory.written(id, 1).await;
    let [Wrote::Outcome(answers, None)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(answers.len(), 5);
    world.settle("other").await;
    let arrived: BTreeSet<_> = world.arrived(&shop).into_iter().collect();
    assert_eq!((arrived.len(), world.arrived(&shop).len()), (5, 10));
}

#[tokio::test]
async fn what_came_of_some_events_is_written_before_their_entry_expires() {
    let mut world = World::new().await;
    answer_each(&world);
    let shop = world.open_with("shop", |route| route.backoff.initial = Duration::from_secs(3600));
    let id = world.memory.add(&shop, &FIVE);
    world.attempts(5).await;
    let (version, gate) = (Some(SpecVersion::new("shop", 1)), Gate::EndpointGone);
    world.update(Update::Closed { of: shop, version, gate, lifetime: Some(Duration::ZERO) });
    let writes = world.memory.written(id, 2).await;
    assert!(matches!(&writes[0], Wrote::Outcome(answers, _) if answers.len() == 5), "{writes:?}");
    assert_eq!(writes[1], Wrote::Expired);
}
