//! The queue at the limits of time and size: ages of days, expiry, waits for a token, large events.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testkit::{Behaviour, Operator, endpoints::Reply};
use tokio::time::{Instant, sleep};

use crate::world::{CLIENT, PATIENCE, World, path};

const WEEK: u32 = 7 * 24 * 3600;

/// A world with the Secret, and a Subscriber `shop` whose spec `change` may alter.
async fn shop(name: &str, change: impl FnOnce(&mut Value)) -> World {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", change).await;
    world
}

/// Applies `count` Notifications for `shop` with these additional fields in the spec.
async fn notifications(world: &World, prefix: &str, count: usize, more: &Value) {
    let one = |n: usize| {
        let mut spec = json!({"subscriberRef": {"name": "shop"}, "event": {"source": "/s", "type": "t"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let metadata = json!({"name": format!("{prefix}-{n}")});
        json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": metadata, "spec": spec})
    };
    let items: Vec<_> = (0..count).map(one).collect();
    world.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).await;
}

async fn patch(world: &World, kind: &str, name: &str, subresource: &[&str], patch: &Value) {
    let patch = patch.to_string();
    let args = [&["patch", kind, name, "--type=merge", "-p", &patch], subresource].concat();
    world.kubectl(&args).await.ok().unwrap();
}

/// Writes a status as if the Notification had been tried once and its lifetime had started `days` ago.
async fn age(world: &World, name: &str, days: i64) {
    let start = (Timestamp::now() - SignedDuration::from_hours(24 * days)).to_string();
    let status = json!({"status": {"phase": "Pending", "attempts": 1, "replayTime": start}});
    patch(world, "ntf", name, &["--subresource=status"], &status).await;
}

#[tokio::test]
async fn a_start_expires_no_notification_before_its_subscriber_is_known() {
    let world = shop("old", |spec| spec["delivery"] = json!({"expireAfterSeconds": WEEK})).await;
    world.tokens.answer_always(Behaviour::hang());
    notifications(&world, "old", 12, &json!({})).await;
    for n in 0..12 {
        age(&world, &format!("old-{n}"), 2).await;
    }
    age(&world, "old-0", 8).await;
    let _operator = world.operator().await;
    // The operator writes expiries: the Notification older than a week, and the Notification with its own lifetime.
    notifications(&world, "brief", 1, &json!({"expireAfterSeconds": 1})).await;
    for name in ["old-0", "brief-0"] {
        assert_eq!(world.until_phase(name, "Failed").await["status"]["reason"], "Expired");
    }
    for n in 1..12 {
        let status = &world.get("ntf", &format!("old-{n}")).await["status"];
        assert_eq!(status["phase"], "Pending", "{status:#}");
    }
    world.tokens.behave();
    let annotate = ["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"];
    world.kubectl(&annotate).await.ok().unwrap();
    world.until_delivered(11).await;
}

#[tokio::test]
async fn a_subscriber_that_is_deleted_and_recreated_expires_no_notification() {
    let week = |spec: &mut Value| spec["delivery"] = json!({"expireAfterSeconds": WEEK});
    let world = shop("again", week).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(503));
    let _operator = world.operator().await;
    notifications(&world, "old", 1, &json!({})).await;
    age(&world, "old-0", 2).await;
    world.kubectl(&["delete", "subr", "shop"]).await.ok().unwrap();
    // The status of the orphan shows that the operator has seen the deletion.
    notifications(&world, "orphan", 1, &json!({})).await;
    world.until("ntf", "orphan-0", |n| n["status"]["reason"] == "SubscriberNotFound").await;
    assert_eq!(world.get("ntf", "old-0").await["status"]["phase"], "Pending");
    world.receiver.behave(&path("shop"));
    world.subscriber("shop", week).await;
    world.until_delivered(2).await;
}

#[tokio::test]
async fn a_notification_that_expired_while_its_subscriber_was_suspended_is_never_sent() {
    let world = shop("expired", |spec| spec["suspend"] = true.into()).await;
    notifications(&world, "n", 300, &json!({"expireAfterSeconds": 1})).await;
    sleep(Duration::from_secs(2)).await; // they expire while no operator runs
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let all = world.list("ntf").await;
        if all.iter().all(|n| n["status"]["reason"] == "Expired") {
            break;
        }
        assert!(Instant::now() < end, "not all have expired");
        sleep(Duration::from_millis(200)).await;
    }
    assert!(world.posts(&path("shop")).is_empty());
}

/// The token service responds after `wait` with a valid token.
fn token_after(world: &World, wait: Duration) -> Behaviour {
    let token = world.tokens.tokens().issue(CLIENT.0, &[], None);
    let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).to_string();
    Behaviour::reply(Reply::status(200).header("content-type", "application/json").body(answer)).after(wait)
}

/// A world whose Notification `n-0` has an attempt in flight that waits for the token response `answer`.
async fn awaiting_token(name: &str, answer: impl FnOnce(&World) -> Behaviour) -> (World, Operator) {
    let world = shop(name, |spec| spec["tokenService"]["timeoutSeconds"] = 60.into()).await;
    world.tokens.set_expires_in(Some(Duration::from_secs(2)));
    let operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    sleep(Duration::from_secs(3)).await; // the token expires
    world.tokens.answer_next(1, &answer(&world));
    let before = world.tokens.requests().len();
    notifications(&world, "n", 1, &json!({})).await;
    until_requested(&world, before + 1).await;
    (world, operator)
}

async fn until_requested(world: &World, requests: usize) {
    let end = Instant::now() + PATIENCE;
    while world.tokens.requests().len() < requests {
        assert!(Instant::now() < end, "no token request");
        sleep(Duration::from_millis(20)).await;
    }
}

const TOKEN_TAKES: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_pause_that_comes_while_an_attempt_waits_for_its_token_is_obeyed() {
    let (world, _operator) = awaiting_token("token-pause", |world| token_after(world, TOKEN_TAKES)).await;
    let until = Timestamp::from_second(Timestamp::now().as_second() + 10).unwrap();
    let status = json!({"status": {"pausedUntilTime": until.to_string()}});
    patch(&world, "subr", "shop", &["--subresource=status"], &status).await;
    world.until_phase("n-0", "Delivered").await;
    let posts = world.posts(&path("shop"));
    assert_eq!(posts.len(), 1);
    assert!(posts[0].arrived_at >= std::time::SystemTime::from(until), "a POST inside the pause");
}

#[tokio::test]
async fn a_spec_that_changes_while_an_attempt_waits_for_its_token_applies_to_that_attempt() {
    let (world, _operator) = awaiting_token("token-spec", |world| token_after(world, TOKEN_TAKES)).await;
    let spec = json!({"spec": {"webhook": {"url": world.receiver.url("/moved")}}});
    patch(&world, "subr", "shop", &[], &spec).await;
    world.until_phase("n-0", "Delivered").await;
    assert_eq!((world.posts(&path("shop")).len(), world.posts("/moved").len()), (0, 1));
}

#[tokio::test]
async fn a_notification_deleted_or_finished_while_its_attempt_waits_for_a_token_is_not_sent() {
    let (world, _operator) = awaiting_token("token-gone", |world| token_after(world, TOKEN_TAKES)).await;
    notifications(&world, "m", 1, &json!({})).await;
    world.kubectl(&["delete", "ntf", "n-0"]).await.ok().unwrap();
    let status = json!({"status": {"phase": "Failed"}});
    patch(&world, "ntf", "m-0", &["--subresource=status"], &status).await;
    notifications(&world, "after", 1, &json!({})).await;
    world.until_phase("after-0", "Delivered").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
}

#[tokio::test]
async fn a_token_that_is_renewed_after_401_does_not_outrun_a_suspension() {
    let world = shop("token-401", |spec| spec["webhook"]["timeoutSeconds"] = 30.into()).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(401));
    let before = world.tokens.requests().len();
    world.tokens.answer_next(1, &token_after(&world, TOKEN_TAKES));
    notifications(&world, "n", 1, &json!({})).await;
    until_requested(&world, before + 1).await;
    patch(&world, "subr", "shop", &[], &json!({"spec": {"suspend": true}})).await;
    world.until("ntf", "n-0", |n| n["status"]["reason"] == "Suspended").await;
    assert_eq!(world.posts(&path("shop")).len(), 1, "only the request that was answered with 401");
    patch(&world, "subr", "shop", &[], &json!({"spec": {"suspend": false}})).await;
    world.until_phase("n-0", "Delivered").await;
}

#[tokio::test]
async fn an_operator_that_stops_does_not_wait_for_a_token() {
    let (world, operator) = awaiting_token("token-end", |_| Behaviour::hang()).await;
    let start = Instant::now();
    assert_eq!(operator.terminate().await.unwrap(), 0);
    assert!(start.elapsed() < PATIENCE, "less than the 60 s timeout of the token request");
    assert_eq!(world.get("ntf", "n-0").await["status"]["attempts"], 0);
}

#[tokio::test]
async fn s18_the_bytes_of_one_subscriber_in_flight_are_bounded_and_a_large_event_goes_alone() {
    let world = shop("bytes", |spec| {
        spec["delivery"] = json!({"maxInFlight": 128});
        spec["webhook"]["timeoutSeconds"] = 20.into();
    })
    .await;
    world.subscriber("other", |_| ()).await;
    world.receiver.answer_always(&path("shop"), Behaviour::hang());
    // Half of the memory is for events in flight, and an eighth of that half for one Subscriber: one mebibyte.
    let operator = world.start(&["--egress-allow-cidr", "127.0.0.0/8", "--event-memory", "16"]).await;
    operator.ready(PATIENCE).await.unwrap();
    world.until_reason("shop", "Operational").await;
    let event = |bytes: usize| json!({"event": {"source": "/s", "type": "t", "data": "x".repeat(bytes)}});
    notifications(&world, "n", 8, &event(300 << 10)).await;
    world.receiver.wait_for(&path("shop"), 3, PATIENCE).await.unwrap();
    for n in 0..5 {
        let name = format!("other-{n}");
        world.notification(&name, "other", json!({"source": "/s", "type": "t"})).await;
        world.until_phase(&name, "Delivered").await;
    }
    assert_eq!(world.posts(&path("shop")).len(), 3, "a fourth event would exceed one mebibyte");
    world.receiver.behave(&path("shop"));
    notifications(&world, "large", 3, &event(1200 << 10)).await;
    for n in 0..3 {
        world.until_phase(&format!("large-{n}"), "Delivered").await;
    }
}

#[tokio::test]
async fn a_backlog_of_large_events_is_listed_in_pages_and_delivered() {
    let world = shop("large", |_| ()).await;
    for n in 0..24 {
        let large = json!({"event": {"id": n.to_string(), "source": "/s", "type": "t", "data": "x".repeat(900 << 10)}});
        notifications(&world, &format!("large{n}"), 1, &large).await;
    }
    notifications(&world, "small", 200, &json!({})).await;
    let _operator = world.operator().await;
    world.until_delivered(224).await;
    assert_eq!(world.posts(&path("shop")).len(), 224);
}
