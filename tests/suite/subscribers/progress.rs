//! What a Subscriber says while an endpoint takes long.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use testkit::{Behaviour, control_plane::AuditEvent, endpoints::Reply};
use tokio::time::{Instant, sleep};

use crate::world::{CLIENT, PATIENCE, World, condition};

/// Waits until the status names this step, and checks the conditions that tools follow.
async fn until_step(world: &World, subscriber: &str, step: &str) -> Value {
    let names = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|message| message.starts_with(step));
    let waits = world.until("subscriber", subscriber, names).await;
    assert_eq!(condition(&waits, "Ready")["status"], "False");
    assert_eq!(condition(&waits, "Reconciling")["status"], "True");
    assert!(condition(&waits, "Stalled").is_null());
    assert_eq!(waits["status"]["observedGeneration"], waits["metadata"]["generation"]);
    waits
}

/// When the API server stored each status of the Subscriber.
async fn written(world: &World, subscriber: &str) -> Vec<SystemTime> {
    let audit = world.plane.audit().await.unwrap();
    let is_write = |event: &&AuditEvent| {
        event.is_write_to("subscribers", "status", &world.namespace) && event.name == subscriber && event.code == 200
    };
    audit.iter().filter(is_write).map(|event| event.at.into()).collect()
}

/// How long after `event` the operator wrote the status that follows it.
async fn said_after(world: &World, subscriber: &str, event: SystemTime) -> Duration {
    let written = written(world, subscriber).await;
    let wait = written.iter().filter_map(|at| at.duration_since(event).ok()).min();
    wait.unwrap_or_else(|| panic!("no status was written after the request: {written:?}"))
}

#[tokio::test]
async fn a_subscriber_says_within_two_seconds_which_step_it_is_at_while_an_endpoint_hangs() {
    let world = World::new("progress").await;
    world.secret(CLIENT.1).await;
    let operator = world.operator().await;
    world.subscriber("shop", |_| ()).await;
    world.until_reason("shop", "Operational").await;
    let quick = written(&world, "shop").await.len();
    assert!(quick <= 2, "{quick} writes of a quick reconcile");

    // A new spec, of which the token service says nothing at first, and then the webhook.
    world.tokens.answer_always_at("/slow", Behaviour::reply(token()).after(Duration::from_secs(6)));
    world.receiver.answer_options("/shop", Behaviour::hang());
    let asked = world.options("/shop").len();
    let slow = |spec: &mut Value| {
        spec["tokenService"]["url"] = world.tokens.url_of("/slow").into();
        spec["webhook"]["timeoutSeconds"] = 8.into();
    };
    world.subscriber("shop", slow).await;
    let waits = until_step(&world, "shop", "step 2 of 4, token: ").await;
    assert!(condition(&waits, "Ready")["message"].as_str().unwrap().contains("tokenService.url"));
    let requested = world.tokens.requests().iter().find(|request| request.path == "/slow").unwrap().arrived_at;
    let wait = said_after(&world, "shop", requested).await;
    assert!(wait < Duration::from_secs(2), "{wait:?} after the token request");
    until_step(&world, "shop", "step 3 of 4, handshake: ").await;
    let requested = world.options("/shop")[asked].arrived_at;
    let wait = said_after(&world, "shop", requested).await;
    assert!(wait < Duration::from_secs(2), "{wait:?} after the validation request");
    let ready = world.until_reason("shop", "Operational").await;
    assert!(condition(&ready, "Reconciling").is_null());
    let all = written(&world, "shop").await.len();
    assert!(all <= quick + 4, "{all} writes: {}", operator.logs());

    // A reconcile that changes nothing leaves the lane open, and Ready as it is.
    world.tokens.answer_always_at("/slow", Behaviour::hang());
    let asked = world.options("/shop").len();
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    world.receiver.wait_for_options("/shop", asked + 1, PATIENCE).await.unwrap();
    let handled = |s: &Value| s["status"]["lastHandledRequest"] == "1";
    let end = Instant::now() + PATIENCE;
    loop {
        let subscriber = world.get("subscriber", "shop").await;
        assert_eq!(condition(&subscriber, "Ready")["reason"], "Operational");
        if handled(&subscriber) {
            break;
        }
        assert!(Instant::now() < end, "the reconcile has not ended");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_secret_that_was_corrected_is_said_to_be_tried_and_a_repeated_request_keeps_its_error() {
    let world = World::new("corrected").await;
    world.secret("wrong").await;
    let _operator = world.operator().await;
    world.subscriber("shop", |spec| spec["tokenService"]["timeoutSeconds"] = 5.into()).await;
    world.until_reason("shop", "TokenRejected").await;
    world.tokens.answer_always(Behaviour::hang());
    world.secret(CLIENT.1).await;
    until_step(&world, "shop", "step 2 of 4, token: ").await;
    world.until_reason("shop", "TokenUnavailable").await;
    // The next requests hang as well.
    let (asked, before) = (world.tokens.requests().len(), written(&world, "shop").await.len());
    let end = Instant::now() + PATIENCE;
    while world.tokens.requests().len() < asked + 2 {
        assert!(Instant::now() < end, "the operator has not tried again");
        sleep(Duration::from_millis(50)).await;
    }
    let subscriber = world.get("subscriber", "shop").await;
    assert_eq!(condition(&subscriber, "Ready")["reason"], "TokenUnavailable");
    assert_eq!(written(&world, "shop").await.len(), before);
}

/// A token response.
fn token() -> Reply {
    Reply::status(200).header("content-type", "application/json").body(r#"{"access_token":"t","expires_in":3600}"#)
}
