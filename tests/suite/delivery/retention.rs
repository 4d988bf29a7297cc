//! Retention: the operator deletes a finished Notification when its TTL expires, not before, and keeps a Notification
//! without a TTL.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testkit::{
    ApiProxy, Behaviour, Operator, chart,
    control_plane::AuditEvent,
    proxies::{Call, Treatment},
};
use tokio::time::{Instant, sleep};

use crate::world::{CLIENT, PATIENCE, World, path};

/// A world with the Secret and a Subscriber `shop`.
async fn shop(name: &str) -> World {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world
}

async fn operator_with(world: &World, flags: &[&str]) -> Operator {
    let operator = world.start(&[&["--egress-allow-cidr", "127.0.0.0/8"], flags].concat()).await;
    operator.ready(PATIENCE).await.unwrap();
    operator
}

/// A Notification for `shop`.
fn notification(metadata: Value, ttl: Option<u32>) -> Value {
    let mut notification = json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": metadata,
        "spec": {"subscriberRef": {"name": "shop"}, "event": {"source": "/s", "type": "t"}},
    });
    if let Some(ttl) = ttl {
        notification["spec"]["ttlSecondsAfterFinished"] = ttl.into();
    }
    notification
}

async fn with_ttl(world: &World, name: &str, ttl: u32) {
    world.apply(&notification(json!({"name": name}), Some(ttl))).await;
}

/// Creates a Notification with generateName and returns its name.
async fn generated(world: &World, ttl: Option<u32>) -> String {
    let manifest = notification(json!({"generateName": "generated-"}), ttl).to_string();
    let create = ["-n", &world.namespace, "create", "-f", "-", "-o", "name"];
    let output = world.plane.admin().run_with_input(&create, &manifest).await.unwrap().ok().unwrap();
    output.trim().rsplit('/').next().unwrap().to_owned()
}

/// Reads a Notification, if it exists.
async fn find(world: &World, name: &str) -> Option<Value> {
    let text = world.kubectl(&["get", "ntf", name, "--ignore-not-found", "-o", "json"]).await.ok().unwrap();
    (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())
}

/// Waits until a Notification is deleted. Returns its last version that was read, and the time at which it was gone.
async fn until_gone(world: &World, name: &str) -> (Option<Value>, Timestamp) {
    let end = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        match find(world, name).await {
            None => return (last, Timestamp::now()),
            seen => last = seen,
        }
        assert!(Instant::now() < end, "{name} still exists after {PATIENCE:?}: {last:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn completed(notification: &Value) -> Timestamp {
    notification["status"]["completionTime"].as_str().unwrap().parse().unwrap()
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

#[tokio::test]
async fn a_finished_notification_is_deleted_when_its_ttl_expires_and_kept_without_a_ttl() {
    let world = shop("ttl").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(422));
    let operator = world.operator().await;
    with_ttl(&world, "failed", 2).await;
    let failed = world.until_phase("failed", "Failed").await;
    with_ttl(&world, "delivered", 2).await;
    world.apply(&notification(json!({"name": "kept"}), None)).await;
    let kept = world.until_phase("kept", "Delivered").await;
    let delivered = world.until_phase("delivered", "Delivered").await;
    for notification in [failed, delivered] {
        let (_, gone) = until_gone(&world, notification["metadata"]["name"].as_str().unwrap()).await;
        assert!(gone >= completed(&notification) + seconds(2), "gone at {gone}: {notification:#}");
        assert!(gone < completed(&notification) + seconds(10), "gone at {gone}: {notification:#}");
    }
    let still = find(&world, "kept").await.unwrap();
    assert_eq!(still["metadata"]["resourceVersion"], kept["metadata"]["resourceVersion"]);
    let metrics = operator.metrics().await.unwrap();
    assert!(metrics.contains("tidings_notifications_finished_stored 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_ttl_of_zero_deletes_immediately() {
    let world = shop("ttl-0").await;
    let _operator = world.operator().await;
    with_ttl(&world, "n", 0).await;
    until_gone(&world, "n").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
}

#[tokio::test]
async fn after_a_restart_overdue_notifications_are_deleted_and_the_others_at_their_time() {
    let world = shop("ttl-restart").await;
    let mut operator = world.operator().await;
    for (name, ttl) in [("overdue", 2), ("later", 8)] {
        with_ttl(&world, name, ttl).await;
    }
    let overdue = world.until_phase("overdue", "Delivered").await;
    let later = world.until_phase("later", "Delivered").await;
    operator.kill().await.unwrap();
    let wait = (completed(&overdue) + seconds(2)).duration_since(Timestamp::now());
    sleep(Duration::try_from(wait).unwrap_or_default()).await; // the deletion becomes due while no operator runs
    assert!(find(&world, "overdue").await.is_some());
    operator.restart().await.unwrap();
    let (_, gone) = until_gone(&world, "overdue").await;
    assert!(gone < completed(&later) + seconds(8), "deleted right after the start: {gone}");
    assert!(find(&world, "later").await.is_some());
    let (_, gone) = until_gone(&world, "later").await;
    assert!(gone >= completed(&later) + seconds(8), "gone at {gone}: {later:#}");
}

#[tokio::test]
async fn generated_notifications_use_the_ttl_of_the_flag_unless_they_have_their_own() {
    let world = shop("generated").await;
    let mut operator = operator_with(&world, &["--generated-ttl", "0"]).await;
    let (by_flag, own) = (generated(&world, None).await, generated(&world, Some(3600)).await);
    world.apply(&notification(json!({"name": "named"}), None)).await;
    world.until_delivered(3).await;
    with_ttl(&world, "marker", 0).await;
    until_gone(&world, "marker").await;
    assert!(find(&world, &by_flag).await.is_some(), "0 keeps the Notification");

    operator.kill().await.unwrap();
    operator = operator_with(&world, &["--generated-ttl", "1"]).await;
    until_gone(&world, &by_flag).await;
    let reported = generated(&world, None).await;
    until_gone(&world, &reported).await;
    for kept in [&own, "named"] {
        assert!(find(&world, kept).await.is_some(), "{kept}");
    }
    let metrics = operator.metrics().await.unwrap();
    assert!(metrics.contains("tidings_notifications_finished_stored 2\n"), "{metrics}");
}

#[tokio::test]
async fn a_notification_that_is_replayed_is_not_deleted_and_its_ttl_starts_again() {
    let world = shop("ttl-replay").await;
    let _operator = world.operator().await;
    with_ttl(&world, "n", 3).await;
    world.until_phase("n", "Delivered").await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    let pending = world.until_phase("n", "Pending").await;
    let replayed: Timestamp = pending["status"]["replayTime"].as_str().unwrap().parse().unwrap();
    let wait = (replayed + seconds(4)).duration_since(Timestamp::now());
    sleep(Duration::try_from(wait).unwrap_or_default()).await; // past its first deadline
    assert_eq!(find(&world, "n").await.unwrap()["status"]["phase"], "Pending");
    world.subscriber("shop", |_| ()).await;
    let delivered = world.until_phase("n", "Delivered").await;
    let (_, gone) = until_gone(&world, "n").await;
    assert!(gone >= completed(&delivered) + seconds(3), "gone at {gone}: {delivered:#}");
}

#[tokio::test]
async fn a_replay_requested_during_the_last_attempt_precedes_the_deletion() {
    let world = shop("ttl-label").await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(204).after(Duration::from_secs(3)));
    with_ttl(&world, "n", 0).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    until_gone(&world, "n").await;
    assert_eq!(world.posts(&path("shop")).len(), 2);
}

#[tokio::test]
async fn the_count_of_finished_notifications_survives_a_restart_and_a_replay_reduces_it() {
    let world = shop("stored").await;
    let mut operator = world.operator().await;
    world.notifications("n", "shop", 5).await;
    world.until_delivered(5).await;
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    until_stored(&operator, 5).await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("shop", "Suspended").await;
    world.kubectl(&["label", "ntf", "n-0", "tidings.dev/replay=1"]).await.ok().unwrap();
    until_stored(&operator, 4).await;
    world.subscriber("shop", |_| ()).await;
    until_stored(&operator, 5).await;
}

/// Applies a policy that refuses the deletion of Notifications in the namespace of `world`, and waits until the policy is
/// in force.
async fn refuse_deletes(world: &World) {
    let name = format!("{}-deletes", world.namespace);
    let policy = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name}, "spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["tidings.dev"], "apiVersions": ["*"],
                "operations": ["DELETE"], "resources": ["notifications"]}]},
            "validations": [{"expression": format!("oldObject.metadata.namespace != '{}'", world.namespace)}]}},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}},
    ]});
    world.plane.admin().apply(&policy.to_string(), &["--server-side"]).await.unwrap();
    world.notification("probe", "none", json!({"source": "/s", "type": "t"})).await;
    let end = Instant::now() + PATIENCE;
    while world.kubectl(&["delete", "ntf", "probe", "--dry-run=server"]).await.success {
        assert!(Instant::now() < end, "the policy is not in force");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn failing_deletions_in_one_namespace_delay_no_other() {
    let (refused, other) = (shop("ttl-refused").await, World::new("ttl-other").await);
    refuse_deletes(&refused).await;
    chart::install(refused.plane, &refused.namespace, &[&refused.namespace, &other.namespace]).await.unwrap();
    other.secret(CLIENT.1).await;
    other.subscriber("shop", |_| ()).await;
    let operator = operator_with(&refused, &["--watch-namespace", &other.namespace]).await;
    let items: Vec<_> = (0..100).map(|n| notification(json!({"name": format!("n-{n}")}), Some(0))).collect();
    refused.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).await;
    refused.until_delivered(100).await;
    for name in ["first", "second"] {
        with_ttl(&other, name, 0).await;
        until_gone(&other, name).await;
    }
    assert!(operator.logs().contains("cannot delete the Notification yet"), "the policy refused nothing");
    let metrics = operator.metrics().await.unwrap();
    let has = |sample: &str| metrics.contains(&format!("tidings_api_writes_total{{{sample}\n"));
    assert!(!has("kind=\"NotificationDeletion\",result=\"error\"} 0"), "{metrics}");
    assert!(has("kind=\"Notification\",result=\"error\"} 0"), "a deletion is no write of a status: {metrics}");
    refused.until_delivered(100).await;
}

#[tokio::test]
async fn a_namespace_that_cannot_be_listed_delays_no_deletion_in_another() {
    let (first, last) = (shop("listed-a").await, shop("listed-b").await);
    chart::install(first.plane, &first.namespace, &[&first.namespace, &last.namespace]).await.unwrap();
    let proxy = ApiProxy::start(first.plane).await.unwrap();
    let operator = first.start_through(&proxy, &["--watch-namespace", &last.namespace]).await;
    for world in [&first, &last] {
        with_ttl(world, "n", 3).await;
        world.until_phase("n", "Delivered").await;
    }
    operator.kill().await.unwrap();
    let broken = format!("/namespaces/{}/", first.namespace);
    let lists_finished = |call: &Call| call.is_list_of("notifications") && call.query.contains("status.phase%3D");
    proxy.treat(move |call| {
        let fails = lists_finished(call) && call.path.contains(&broken);
        if fails { Treatment::Answer(500) } else { Treatment::Pass }
    });
    let operator = first.start_through(&proxy, &["--watch-namespace", &last.namespace]).await;
    until_gone(&last, "n").await;
    assert!(find(&first, "n").await.is_some(), "its namespace could not be listed");
    proxy.pass();
    until_gone(&first, "n").await;
    until_stored(&operator, 0).await;
}

#[tokio::test]
async fn the_operator_deletes_notifications_that_it_finished_without_reading_them() {
    let world = shop("ttl-reads").await;
    let _operator = world.operator().await;
    for n in 0..5 {
        with_ttl(&world, &format!("n-{n}"), 0).await;
        until_gone(&world, &format!("n-{n}")).await;
    }
    let is_ours = |event: &AuditEvent| event.namespace == world.namespace && event.user.contains("serviceaccount");
    let end = Instant::now() + PATIENCE;
    loop {
        let audit = world.plane.audit().await.unwrap();
        let of_ours = audit.iter().filter(|event| is_ours(event) && event.resource == "notifications");
        let verbs: Vec<_> = of_ours.map(|event| event.verb.as_str()).collect();
        if verbs.iter().filter(|verb| **verb == "delete").count() == 5 {
            assert!(!verbs.contains(&"get"), "{verbs:?}");
            return;
        }
        assert!(Instant::now() < end, "{verbs:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the operator reports this many stored finished Notifications.
async fn until_stored(operator: &Operator, count: usize) {
    let end = Instant::now() + PATIENCE;
    loop {
        let metrics = operator.metrics().await.unwrap();
        if metrics.contains(&format!("tidings_notifications_finished_stored {count}\n")) {
            return;
        }
        assert!(Instant::now() < end, "expected {count} stored: {metrics}");
        sleep(Duration::from_millis(50)).await;
    }
}
