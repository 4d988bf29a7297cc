//! Entries with many events: each is sent by itself, and what came of them is written together.

use std::sync::Mutex;

use tidings_api::AttemptReason::Rejected;

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
