//! How deliveries go, in a Subscriber's status, its columns and its Events, and what saying so costs.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Behaviour, endpoints::Reply};
use tokio::time::{Instant, sleep};

use crate::{
    delivery::gates::{event, shop},
    world::{CLIENT, PATIENCE, World, condition, path},
};

/// Waits until the Subscriber's Healthy condition has this reason.
async fn until_health(world: &World, reason: &str) -> Value {
    world.until("subscriber", "shop", |s| condition(s, "Healthy")["reason"] == reason).await
}

/// The reasons of the Subscriber's Events, with their types.
async fn events(world: &World) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of =
        |event: &Value| event["involvedObject"]["kind"] == "Subscriber" && event["involvedObject"]["name"] == "shop";
    let all = world.list("events").await;
    all.iter().filter(|event| of(event)).map(|event| (text(&event["reason"]), text(&event["type"]))).collect()
}

/// Waits until there is such an Event.
async fn until_event(world: &World, reason: &str, type_: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let events = events(world).await;
        if events.contains(&(reason.to_owned(), type_.to_owned())) {
            return;
        }
        assert!(Instant::now() < end, "no Event {reason}: {events:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_status_counts_pending_notifications_and_shows_the_last_success_and_failure() {
    let world = shop("numbers", json!({"backoff": {"initialSeconds": 1, "maxSeconds": 1}})).await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(500));
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.notification("n", "shop", event()).await;
    let delivered = world.until("subscriber", "shop", |s| s["status"]["lastSuccessTime"].is_string()).await;
    let status = &delivered["status"];
    assert_eq!(status["pending"], 0);
    assert_eq!(
        (&status["lastFailure"]["statusCode"], &status["lastFailure"]["reason"]),
        (&json!(500), &json!("ServerError"))
    );
    assert_eq!(condition(&delivered, "Healthy")["status"], "True");
    let table = world.kubectl(&["get", "subr", "shop"]).await.ok().unwrap();
    let mut lines = table.lines();
    let titles: Vec<_> = lines.next().unwrap().split("  ").map(str::trim).filter(|title| !title.is_empty()).collect();
    assert_eq!(titles, ["NAME", "READY", "REASON", "HOST", "PENDING", "LAST SUCCESS", "AGE"]);
    let cells: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(cells[..5], ["shop", "True", "Operational", "127.0.0.1", "0"], "{table}");
    assert_eq!(cells.len(), 7, "{table}");
}

#[tokio::test]
async fn an_open_circuit_is_reported_with_its_cause_and_so_is_its_end() {
    let world = shop("ill", json!({"backoff": {"initialSeconds": 1, "maxSeconds": 3600}})).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(502));
    let _operator = world.operator().await;
    world.notifications("n", "shop", 6).await;
    let open = until_health(&world, "CircuitOpen").await;
    assert_eq!(condition(&open, "Healthy")["status"], "False");
    let message = condition(&open, "Healthy")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("five consecutive failures (last: ServerError 502)"), "{message}");
    assert_eq!(condition(&open, "Ready")["reason"], "Operational", "the Subscriber itself is all right");
    assert!(condition(&open, "Reconciling").is_null());
    until_event(&world, "CircuitOpen", "Warning").await;
    world.receiver.behave(&path("shop"));
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    let well = world.until("subscriber", "shop", |s| condition(s, "Healthy")["status"] == "True").await;
    until_event(&world, condition(&well, "Healthy")["reason"].as_str().unwrap(), "Normal").await;
}

#[tokio::test]
async fn a_pause_a_rate_limit_and_a_webhook_that_is_gone_each_have_their_reason() {
    let world = shop("words", json!({"rateLimitPerMinute": 1})).await;
    let _operator = world.operator().await;
    world.notifications("n", "shop", 3).await;
    let limited = until_health(&world, "RateLimited").await;
    assert!(limited["status"]["pending"].as_u64().unwrap() >= 2, "{limited}");
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(Reply::status(429).header("retry-after", "600")));
    world.subscriber("shop", |_| ()).await;
    let paused = until_health(&world, "Paused").await;
    let until = paused["status"]["pausedUntilTime"].as_str().unwrap();
    assert!(condition(&paused, "Healthy")["message"].as_str().unwrap().contains(until));
    world.receiver.answer_always(&path("shop"), Behaviour::status(410));
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    world.notification("late", "shop", event()).await;
    let gone = until_health(&world, "EndpointGone").await;
    assert_eq!(condition(&gone, "Ready")["reason"], "EndpointGone");
    until_event(&world, "EndpointGone", "Warning").await;
}

#[tokio::test]
async fn transitions_of_a_subscriber_are_events_and_describe_shows_them() {
    let world = World::new("events").await;
    let _operator = world.operator().await;
    world.subscriber("shop", |_| ()).await;
    until_event(&world, "SecretNotFound", "Warning").await;
    world.secret(CLIENT.1).await;
    until_event(&world, "Operational", "Normal").await;
    until_event(&world, "NotSupported", "Normal").await;
    let described = world.kubectl(&["describe", "subr", "shop"]).await.ok().unwrap();
    assert!(described.contains("Secret acme-oauth does not exist in this namespace"), "{described}");
    let events = events(&world).await;
    assert_eq!(events.len(), 3, "{events:?}");
}

#[tokio::test]
async fn a_subscriber_under_load_costs_few_writes_and_none_at_a_restart() {
    let world = shop("budget", json!({})).await;
    let mut operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    let begun = Instant::now();
    world.create("n", "shop", 500).await;
    world.until_delivered(500).await;
    world.until("subscriber", "shop", |s| s["status"]["lastSuccessTime"].is_string()).await;
    let minutes = begun.elapsed().as_secs() / 60;
    let writes = async || {
        let audit = world.plane.audit().await.unwrap();
        audit.iter().filter(|event| event.is_write_to("subscribers", "status", &world.namespace)).count() as u64
    };
    // One when it was looked at first, one of the numbers, and one more for each minute.
    let before = writes().await;
    assert!((2..=3 + minutes).contains(&before), "{before} writes in {minutes} minutes");
    // What the last minute held back is still to be written; a restart adds nothing of its own.
    let subscriber = world.get("subscriber", "shop").await;
    let is_stale = subscriber["status"]["pending"] != 0 || condition(&subscriber, "Healthy")["reason"] != "Idle";
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    sleep(Duration::from_secs(5)).await; // longer than numbers are news before they are written
    assert!(writes().await <= before + u64::from(is_stale), "a restart writes nothing of its own");
}

#[tokio::test]
async fn a_status_that_another_writer_overwrote_is_corrected() {
    let world = shop("tampered", json!({})).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    let lie = json!([
        {"op": "replace", "path": "/status/conditions/0/reason", "value": "Tampered"},
        {"op": "replace", "path": "/status/pending", "value": 99},
    ]);
    let patch = ["patch", "subr", "shop", "--subresource=status", "--type=json", "-p", &lie.to_string()];
    world.kubectl(&patch).await.ok().unwrap();
    assert_eq!(condition(&world.get("subscriber", "shop").await, "Ready")["reason"], "Tampered");
    let right = world.until_reason("shop", "Operational").await;
    assert_eq!(right["status"]["pending"], 0);
}
