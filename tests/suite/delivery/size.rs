//! Notifications that are nearly as large as the API server can store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{ApiProxy, Behaviour, proxies::Treatment};

use crate::world::{CLIENT, PATIENCE, World, condition, path};

/// The longest request that etcd accepts by default, in bytes.
const LIMIT: usize = 1_572_864;

/// A world with the Secret and a Subscriber `shop` with two deliveries at a time, and enough attempts soon after one
/// another.
async fn shop(name: &str) -> World {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world
        .subscriber("shop", |spec| spec["delivery"] = json!({"maxInFlight": 2, "backoff": {"initialSeconds": 1}}))
        .await;
    world
}

/// Creates a Notification for `shop` with this many characters of data. Returns whether the API server accepts it.
async fn create(world: &World, name: &str, data: usize) -> bool {
    let manifest = json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
        "metadata": {"name": name, "namespace": world.namespace},
        "spec": {
            "subscriberRef": {"name": "shop"},
            "event": {"id": name, "source": "/shop", "type": "order.paid", "data": "x".repeat(data)},
        },
    });
    world.plane.admin().run_with_input(&["create", "-f", "-"], &manifest.to_string()).await.unwrap().success
}

/// The ids of the events that arrived, in order of the ids.
fn arrived(world: &World) -> Vec<String> {
    let mut ids: Vec<_> = world.posts(&path("shop")).iter().map(|request| request.event_id().unwrap()).collect();
    ids.sort();
    ids
}

/// The notes of the Kubernetes Events about a Notification.
async fn notes(world: &World, name: &str) -> Vec<String> {
    let mut events = world.list("events").await;
    events.retain(|event| event["involvedObject"]["name"] == name && event["involvedObject"]["kind"] == "Notification");
    assert!(events.iter().all(|event| event["reason"] == "TooLarge" && event["type"] == "Warning"), "{events:?}");
    events.iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

async fn until_noted(world: &World, name: &str) -> String {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(note) = notes(world, name).await.pop() {
            return note;
        }
        assert!(tokio::time::Instant::now() < end, "there is no Event about {name}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the status writes that were refused because of the size are counted.
async fn counts_refusals(operator: &testkit::Operator) -> bool {
    !operator
        .metrics()
        .await
        .unwrap()
        .contains("tidings_api_writes_total{kind=\"Notification\",result=\"too_large\"} 0\n")
}

#[tokio::test]
async fn field_24_an_event_that_leaves_no_room_for_its_status_fails_unsent_and_delays_no_other() {
    let world = shop("size").await;
    // With room for the whole status, for a short one, and for one without conditions.
    let large = [("large-0", 1_569_000, true), ("large-1", 1_571_300, true), ("large-2", 1_571_900, false)];
    for (name, data, _) in large {
        assert!(create(&world, name, data).await, "{name}");
    }
    // The largest Notification that the API server accepts has no room even for the shortest status.
    let mut data = LIMIT - 400;
    while !create(&world, "largest", data).await {
        data -= 10;
    }
    world.notifications("small", "shop", 10).await;
    // The largest event that leaves room.
    assert!(create(&world, "fits", LIMIT - (16 << 10) - 1000).await);
    let mut operator = world.operator().await;
    world.until_delivered(11).await;
    for (name, _, has_conditions) in large {
        let failed = world.until_phase(name, "Failed").await;
        let status = &failed["status"];
        assert_eq!((&status["reason"], &status["attempts"]), (&json!("TooLarge"), &json!(0)), "{status}");
        assert!(status["completionTime"].is_string() && status["lastAttempt"].is_null(), "{status}");
        assert_eq!(condition(&failed, "Stalled")["reason"], "TooLarge", "{status}");
        assert_eq!(condition(&failed, "Delivered")["status"] == "False", has_conditions, "{status}");
    }
    let message = world.get("ntf", "large-0").await["status"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("leaves no room for its status") && message.contains("less data"), "{message}");
    let note = until_noted(&world, "largest").await;
    assert!(note.contains("too large") && note.contains("Failed after 0 attempts"), "{note}");
    assert_eq!(world.get("ntf", "largest").await["status"]["phase"], "Pending");
    assert!(counts_refusals(&operator).await);
    let logs = operator.logs();
    let unstored: Vec<_> = logs.lines().filter(|line| line.contains("the outcome cannot be stored")).collect();
    let names = |line: &&str| line.contains(&world.namespace) && line.contains("largest");
    assert!(!unstored.is_empty() && unstored.iter().all(names), "{unstored:?}");

    let mut expected: Vec<_> = (0..10).map(|n| format!("small-{n}")).collect();
    expected.insert(0, "fits".into());
    assert_eq!(arrived(&world), expected);
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("marker", "shop", json!({"id": "marker", "source": "/s", "type": "t"})).await;
    world.until_phase("marker", "Delivered").await;
    expected.insert(1, "marker".into());
    assert_eq!(arrived(&world), expected);
}

/// Fills the room that a Notification of this size leaves with an annotation, except for `rest` bytes.
async fn fill(world: &World, name: &str, size: usize, rest: usize) {
    let patch = json!({"metadata": {"annotations": {"example.com/fill": "x".repeat(LIMIT - size - rest)}}});
    let args = ["patch", "ntf", name, "-n", &world.namespace, "--type=merge", "--patch-file=/dev/stdin"];
    world.plane.admin().run_with_input(&args, &patch.to_string()).await.unwrap().ok().unwrap();
}

#[tokio::test]
async fn field_24_a_status_that_outgrew_its_room_during_the_attempt_is_shortened() {
    let world = shop("size-grows").await;
    let answers = [("delivered", 204), ("retried", 500)];
    world.receiver.answer_by(&path("shop"), move |request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let code =
            answers.iter().find(|(id, _)| body.contains(&format!("\"id\":\"{id}\""))).map_or(204, |(_, code)| *code);
        Behaviour::status(code).after(Duration::from_secs(8))
    });
    let mut sizes = Vec::new();
    for (name, _) in answers {
        assert!(create(&world, name, LIMIT - (18 << 10)).await);
        sizes.push(world.get("ntf", name).await.to_string().len());
    }
    let operator = world.operator().await;
    world.receiver.wait_for(&path("shop"), 2, PATIENCE).await.unwrap();
    for ((name, _), size) in answers.into_iter().zip(sizes) {
        fill(&world, name, size, 500).await;
    }
    let delivered = world.until_phase("delivered", "Delivered").await;
    // An outcome after which another attempt would follow ends the attempts: that attempt could not be recorded.
    let failed = world.until_phase("retried", "Failed").await;
    assert_eq!((&failed["status"]["reason"], &failed["status"]["attempts"]), (&json!("TooLarge"), &json!(1)));
    for object in [delivered, failed] {
        assert!(
            object["status"]["lastAttempt"].is_null() && object["status"]["completionTime"].is_string(),
            "{}",
            object["status"]
        );
    }
    assert!(counts_refusals(&operator).await);
    assert_eq!(arrived(&world), ["delivered", "retried"]);
}

#[tokio::test]
async fn field_24_an_outcome_that_cannot_be_stored_in_any_form_frees_its_slot_and_is_not_sent_again() {
    let world = shop("size-never").await;
    world.subscriber("shop", |spec| spec["delivery"] = json!({"maxInFlight": 1})).await;
    let proxy = ApiProxy::start(world.plane).await.unwrap();
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    proxy.treat(move |call| {
        let refused = call.is_status_write_to("notifications") && call.path.contains("/stuck/");
        if refused {
            counted.fetch_add(1, Ordering::Relaxed);
            return Treatment::Answer(413);
        }
        Treatment::Pass
    });
    let _operator = world.operator_through(&proxy).await;
    world.notification("stuck", "shop", json!({"id": "stuck", "source": "/s", "type": "t"})).await;
    let note = until_noted(&world, "stuck").await;
    assert!(note.contains("Delivered after 1 attempts"), "{note}");
    world.notifications("small", "shop", 3).await;
    world.until_delivered(3).await;
    // A change by another client shows the Notification to the operator again.
    world.kubectl(&["annotate", "ntf", "stuck", "example.com/n=1"]).await.ok().unwrap();
    world.notifications("later", "shop", 3).await;
    world.until_delivered(6).await;
    assert_eq!(arrived(&world).iter().filter(|id| *id == "stuck").count(), 1);
    assert_eq!(writes.load(Ordering::Relaxed), 4, "one write for each length of the status");
    let status: Value = world.get("ntf", "stuck").await["status"].clone();
    assert_eq!(status["phase"], "Pending");
}

#[tokio::test]
async fn a_replay_that_does_not_fit_is_logged_and_tried_again_after_the_next_change() {
    let world = shop("size-replay").await;
    let proxy = ApiProxy::start(world.plane).await.unwrap();
    let operator = world.operator_through(&proxy).await;
    let event = |id: &str| json!({"id": id, "source": "/s", "type": "t"});
    world.notification("n", "shop", event("n")).await;
    world.until_phase("n", "Delivered").await;
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    proxy.treat(move |call| {
        let refused = call.is_status_write_to("notifications") && call.path.ends_with("/n/status");
        if refused {
            counted.fetch_add(1, Ordering::Relaxed);
            return Treatment::Answer(413);
        }
        Treatment::Pass
    });
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    let end = tokio::time::Instant::now() + PATIENCE;
    while !operator.logs().contains("cannot replay the Notification: the object is too large") {
        assert!(tokio::time::Instant::now() < end, "{}", operator.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for marker in ["marker-0", "marker-1"] {
        world.notification(marker, "shop", event(marker)).await;
        world.until_phase(marker, "Delivered").await;
    }
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    assert!(counts_refusals(&operator).await);
    proxy.pass();
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=2", "--overwrite"]).await.ok().unwrap();
    let replayed = |n: &Value| n["status"]["lastHandledReplay"] == "2" && n["status"]["phase"] == "Delivered";
    world.until("ntf", "n", replayed).await;
    assert_eq!(arrived(&world), ["marker-0", "marker-1", "n", "n"]);
}
