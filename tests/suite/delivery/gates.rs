//! Gates: what holds a Subscriber's Notifications, how the status names each gate, and how each gate opens again.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use testkit::{Behaviour, endpoints::Reply};
use tokio::time::{Instant, sleep};

use crate::world::{CLIENT, PATIENCE, World, condition, path};

/// A world with the Secret, and a Subscriber `shop` with this `delivery`.
pub async fn shop(name: &str, delivery: Value) -> World {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |spec| spec["delivery"] = delivery).await;
    world
}

/// A minimal event.
pub fn event() -> Value {
    json!({"source": "/s", "type": "t"})
}

/// Parses a time of the API.
fn instant(time: &Value) -> SystemTime {
    httpdate_of(time.as_str().unwrap())
}

fn httpdate_of(rfc3339: &str) -> SystemTime {
    let timestamp: k8s_openapi::jiff::Timestamp = rfc3339.parse().unwrap();
    timestamp.into()
}

#[tokio::test]
async fn webhook_12_retry_after_silences_the_whole_subscriber_over_a_restart() {
    let world = shop("pause", json!({})).await;
    let mut operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(Reply::status(429).header("retry-after", "8")));
    world.notification("first", "shop", event()).await;
    let paused = world.until("notification", "first", |n| n["status"]["attempts"] == 1).await;
    assert_eq!((&paused["status"]["phase"], &paused["status"]["reason"]), (&json!("Pending"), &json!("Paused")));
    assert_eq!(paused["status"]["deferredAttempts"], 1);
    let until = instant(&world.get("subscriber", "shop").await["status"]["pausedUntilTime"]);
    world.notification("second", "shop", event()).await;
    operator.kill().await.unwrap();
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.until_delivered(2).await;
    let posts = world.posts(&path("shop"));
    assert_eq!(posts.len(), 3);
    assert!(posts[1..].iter().all(|post| post.arrived_at >= until), "a POST inside the pause");
}

#[tokio::test]
async fn a_requested_reconcile_ends_a_pause_once() {
    let world = shop("request", json!({})).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(Reply::status(503).header("retry-after", "3600")));
    world.notification("n", "shop", event()).await;
    world.until("notification", "n", |n| n["status"]["reason"] == "Paused").await;
    world.until("subscriber", "shop", |s| s["status"]["pausedUntilTime"].is_string()).await;
    world.notification("other", "shop", event()).await;
    let annotate = ["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1", "--overwrite"];
    world.kubectl(&annotate).await.ok().unwrap();
    world.until_phase("other", "Delivered").await;
    let subscriber = world.get("subscriber", "shop").await;
    assert_eq!(subscriber["status"]["lastHandledRequest"], "1");
    assert!(subscriber["status"]["pausedUntilTime"].is_null());
}

#[tokio::test]
async fn webhook_10_a_410_stops_all_sending_until_the_spec_changes_restarts_included() {
    let world = shop("gone", json!({"expireAfterSeconds": 3600})).await;
    let mut operator = world.operator().await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(410));
    world.notification("first", "shop", event()).await;
    let gone = world.until_reason("shop", "EndpointGone").await;
    assert_eq!(condition(&gone, "Stalled")["status"], "True");
    let held = world.until("notification", "first", |n| n["status"]["attempts"] == 1).await;
    assert_eq!((&held["status"]["phase"], &held["status"]["reason"]), (&json!("Pending"), &json!("EndpointGone")));
    world.notification("second", "shop", event()).await;
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.until("notification", "second", |n| n["status"]["reason"] == "EndpointGone").await;
    assert_eq!(world.posts(&path("shop")).len(), 1, "no event was sent to a webhook that is gone");
    world.receiver.behave(&path("shop"));
    world.subscriber("shop", |spec| spec["webhook"]["timeoutSeconds"] = 14.into()).await;
    world.until_phase("second", "Delivered").await;
    world.until_reason("shop", "Operational").await;
}

#[tokio::test]
async fn a_notification_behind_a_gate_names_that_gate() {
    let world = World::new("explanations").await;
    world.secret("wrong").await;
    world.subscriber("refused", |_| ()).await;
    world.subscriber("held", |spec| spec["suspend"] = true.into()).await;
    for (name, subscriber) in [("a", "missing"), ("b", "refused"), ("c", "held")] {
        world.notification(name, subscriber, event()).await;
    }
    let mut operator = world.operator().await;
    for (name, reason) in [("a", "SubscriberNotFound"), ("b", "SubscriberNotReady"), ("c", "Suspended")] {
        let explained = world.until("notification", name, |n| n["status"]["reason"] == reason).await;
        let status = &explained["status"];
        assert_eq!((&status["phase"], &status["attempts"]), (&json!("Pending"), &json!(0)), "{name}");
        assert!(!status["message"].as_str().unwrap().is_empty());
    }
    let versions = async || {
        let all = world.list("notifications").await;
        all.iter().map(|n| n["metadata"]["resourceVersion"].clone()).collect::<Vec<_>>()
    };
    let before = versions().await;
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    sleep(Duration::from_secs(8)).await; // longer than the five seconds after which a Notification names its gate
    assert_eq!(versions().await, before, "already written: a restart writes nothing");
}

#[tokio::test]
async fn a_thousand_behind_an_open_circuit_cost_only_explanations_and_probes() {
    let world = shop("circuit", json!({"backoff": {"initialSeconds": 2, "maxSeconds": 3600}})).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(500));
    world.create("n", "shop", 1000).await;
    let mut operator = world.operator().await;
    let start = Instant::now();
    world.receiver.wait_for(&path("shop"), 5, PATIENCE).await.unwrap();
    sleep(Duration::from_secs(60).saturating_sub(start.elapsed())).await;
    let arrivals: Vec<_> = world.posts(&path("shop")).iter().map(|post| post.arrived).collect();
    let probes = arrivals.iter().filter(|arrived| **arrived > arrivals[0] + Duration::from_secs(20)).count();
    let (posts, before) = (arrivals.len(), arrivals.len() - probes);
    // When the fifth failure opens the circuit, four attempts may have released their slots, and sixteen be in flight.
    assert!((16..=20).contains(&before), "{before} POSTs before the circuit opened");
    // One probe follows after 30 s, the next after 60 s.
    assert!((1..=2).contains(&probes), "{probes} probes");
    let all = world.list("notifications").await;
    let explained = all.iter().filter(|n| n["status"]["reason"] == "CircuitOpen").count();
    let attempts: u64 = all.iter().map(|n| n["status"]["attempts"].as_u64().unwrap()).sum();
    assert_eq!(attempts, posts as u64);
    assert!((100..=300).contains(&explained), "{explained} name their gate, at most five per second");
    for (name, writes) in writes(&world).await {
        let notification = all.iter().find(|n| n["metadata"]["name"] == name.as_str()).unwrap();
        let attempts = notification["status"]["attempts"].as_u64().unwrap();
        assert!(writes <= attempts + 1, "{name}: {writes} writes for {attempts} attempts and one explanation");
    }

    operator.kill().await.unwrap();
    let (posts_before, writes_before) = (sent(&world), writes(&world).await.values().sum::<u64>());
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    sleep(Duration::from_secs(4)).await; // explanations start after five seconds
    let (posts, writes) = (sent(&world) - posts_before, writes(&world).await.values().sum::<u64>() - writes_before);
    assert_eq!(writes, posts, "a restart writes nothing: each write records an attempt");
    world.receiver.behave(&path("shop"));
    let annotate = ["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"];
    world.kubectl(&annotate).await.ok().unwrap();
    world.until_delivered(1000).await;
}

fn sent(world: &World) -> u64 {
    world.posts(&path("shop")).len() as u64
}

/// The number of status writes for each Notification.
async fn writes(world: &World) -> HashMap<String, u64> {
    let mut writes = HashMap::new();
    for event in world.plane.audit().await.unwrap() {
        if event.is_write_to("notifications", "status", &world.namespace) {
            *writes.entry(event.name).or_default() += 1;
        }
    }
    writes
}

#[tokio::test]
async fn the_latest_end_of_a_pause_wins_over_an_earlier_one() {
    let world = shop("pauses", json!({})).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    let slow = |reply: Reply| Behaviour::reply(reply).after(Duration::from_secs(1));
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(Reply::status(429).header("retry-after", "12")));
    world.receiver.answer_next(&path("shop"), 3, &slow(Reply::status(429).header("retry-after", "1")));
    world.create("n", "shop", 4).await;
    world.until_delivered(4).await;
    let posts = world.posts(&path("shop"));
    assert_eq!(posts.len(), 8);
    let long = posts.iter().find(|post| post.answered == Some(429)).unwrap().arrived;
    assert!(posts[4..].iter().all(|post| post.arrived >= long + Duration::from_secs(12)), "a POST inside the pause");
}

/// The write of a former leader may reach the API server when another operator already leads.
#[tokio::test]
async fn a_pause_that_a_former_leader_wrote_late_is_obeyed() {
    let world = shop("late-pause", json!({})).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    let until = SystemTime::now() + Duration::from_secs(10);
    let seconds = until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let time = jiff::Timestamp::from_second(seconds.try_into().unwrap()).unwrap();
    let patch = json!({"status": {"pausedUntilTime": time.to_string()}}).to_string();
    let args = ["patch", "subr", "shop", "--subresource=status", "--type=merge", "-p", &patch];
    world.kubectl(&args).await.ok().unwrap();
    sleep(Duration::from_secs(2)).await; // until the watch reports it
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("n", "Delivered").await;
    let post = &world.posts(&path("shop"))[0];
    assert!(post.arrived_at >= SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), "a POST inside the pause");
}

#[tokio::test]
async fn a_notification_that_expires_while_its_attempt_waits_for_a_token_is_not_sent() {
    let world = World::new("late-token").await;
    world.secret(CLIENT.1).await;
    world.tokens.set_expires_in(Some(Duration::from_secs(2)));
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    sleep(Duration::from_secs(3)).await; // the token expires
    world.tokens.answer_next(1, &Behaviour::status(503).after(Duration::from_secs(6)));
    world
        .apply(&json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": "n"},
        "spec": {"subscriberRef": {"name": "shop"}, "event": event(), "expireAfterSeconds": 3}}))
        .await;
    let expired = world.until_phase("n", "Failed").await;
    assert_eq!(expired["status"]["reason"], "Expired");
    assert!(world.posts(&path("shop")).is_empty());
}

#[tokio::test]
async fn a_rate_limit_spaces_requests_and_max_in_flight_bounds_concurrent_requests() {
    let world = shop("pace", json!({"rateLimitPerMinute": 600})).await;
    world.subscriber("slow", |spec| spec["delivery"] = json!({"maxInFlight": 2})).await;
    let delay = Duration::from_millis(200);
    world.receiver.answer_always(&path("slow"), Behaviour::status(204).after(delay));
    world.create("a", "shop", 30).await;
    world.create("b", "slow", 12).await;
    let _operator = world.operator().await;
    world.until_delivered(42).await;
    let paced: Vec<_> = world.posts(&path("shop")).iter().map(|r| r.arrived).collect();
    let elapsed = paced[29] - paced[0];
    assert!(elapsed >= Duration::from_millis(2800), "30 requests at 600 per minute in {elapsed:?}");
    let slow: Vec<_> = world.posts(&path("slow")).iter().map(|r| r.arrived).collect();
    for three in slow.windows(3) {
        // The third request cannot start before one of the two others is answered.
        assert!(three[2] - three[0] >= delay - Duration::from_millis(20), "three requests in flight");
    }
}

#[tokio::test]
async fn max_attempts_exhaust_and_expiry_spares_notifications_that_were_never_tried() {
    let quick = json!({"initialSeconds": 1, "maxSeconds": 1});
    let world = shop("limits", json!({"maxAttempts": 2, "backoff": quick})).await;
    world.subscriber("brief", |spec| spec["delivery"] = json!({"expireAfterSeconds": 3, "backoff": quick})).await;
    world
        .subscriber("held", |spec| {
            spec["suspend"] = true.into();
            spec["delivery"] = json!({"expireAfterSeconds": 1});
        })
        .await;
    for name in ["shop", "brief"] {
        world.receiver.answer_always(&path(name), Behaviour::status(500));
    }
    let _operator = world.operator().await;
    for name in ["shop", "brief", "held"] {
        world.notification(name, name, event()).await;
    }
    let mut own = json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": "own"},
        "spec": {"subscriberRef": {"name": "held"}, "event": event(), "expireAfterSeconds": 2}});
    world.apply(&own).await;
    own["metadata"]["name"] = "orphan".into();
    own["spec"]["subscriberRef"]["name"] = "missing".into();
    world.apply(&own).await;

    let exhausted = world.until_phase("shop", "Failed").await;
    assert_eq!((&exhausted["status"]["reason"], &exhausted["status"]["attempts"]), (&json!("Exhausted"), &json!(2)));
    assert_eq!(world.posts(&path("shop")).len(), 2);
    for name in ["brief", "own", "orphan"] {
        let expired = world.until_phase(name, "Failed").await;
        let status = &expired["status"];
        assert_eq!(status["reason"], "Expired", "{name}");
        assert!(status["completionTime"].is_string() && status["nextAttemptTime"].is_null());
        assert_eq!(condition(&expired, "Stalled")["reason"], "Expired");
        let lifetime = if name == "brief" { 3 } else { 2 };
        let created = instant(&expired["metadata"]["creationTimestamp"]);
        assert!(instant(&status["completionTime"]) >= created + Duration::from_secs(lifetime), "{name}: too early");
    }
    assert_eq!(
        world.get("notification", "held").await["status"]["phase"],
        "Pending",
        "never tried: the Subscriber is suspended"
    );
}

#[tokio::test]
async fn a_410_that_arrives_while_the_operator_stops_is_not_forgotten() {
    let world = shop("gone-at-shutdown", json!({})).await;
    let mut operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    let late = Behaviour::status(410).after(Duration::from_secs(2));
    world.receiver.answer_next(&path("shop"), 1, &late);
    world.notification("n", "shop", event()).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    assert_eq!(operator.terminate().await.unwrap(), 0);
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("other", "shop", event()).await;
    world.until("notification", "other", |n| n["status"]["reason"] == "EndpointGone").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
}

#[tokio::test]
async fn no_event_is_sent_under_an_old_spec_while_the_new_spec_is_reconciled() {
    let world = shop("changed", json!({})).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.receiver.answer_options(&path("shop"), Behaviour::hang());
    world.subscriber("shop", |spec| spec["abuseProtection"] = json!({"policy": "Required"})).await;
    world.receiver.wait_for_options(&path("shop"), 2, PATIENCE).await.unwrap();
    world.notification("n", "shop", event()).await;
    world.until_reason("shop", "HandshakePending").await;
    world.until("notification", "n", |n| n["status"]["reason"] == "SubscriberNotReady").await;
    assert!(world.posts(&path("shop")).is_empty());
}
