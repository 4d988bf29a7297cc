//! The label `tidings.dev/replay`: each value sends a Notification again once, also across restarts and crashes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{ApiProxy, Behaviour, Part, proxies::Treatment};
use tokio::time::sleep;

use crate::world::{CLIENT, PATIENCE, World, condition, path};

/// A world with the Secret and a Subscriber `shop`.
async fn shop(name: &str) -> World {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world
}

fn event(id: &str) -> Value {
    json!({"id": id, "source": "/shop", "type": "order.paid"})
}

/// The manifest of a Notification for `shop` with the label.
fn labelled(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
        "metadata": {"name": name, "labels": {"tidings.dev/replay": value}},
        "spec": {"subscriberRef": {"name": "shop"}, "event": event(name)},
    })
}

async fn label(world: &World, name: &str, value: &str) {
    let label = format!("tidings.dev/replay={value}");
    world.kubectl(&["label", "ntf", name, &label, "--overwrite"]).await.ok().unwrap();
}

/// Waits until the value is handled and the replay is Delivered.
async fn until_replayed(world: &World, name: &str, value: &str) -> Value {
    let replayed = |n: &Value| n["status"]["lastHandledReplay"] == value && n["status"]["phase"] == "Delivered";
    world.until("notification", name, replayed).await
}

/// The event ids that arrived at `shop`, in order.
fn arrived(world: &World) -> Vec<String> {
    world.posts(&path("shop")).iter().map(|request| request.event_id().unwrap()).collect()
}

/// Delivers another Notification. When it is Delivered, the operator has handled all earlier changes.
async fn send_marker(world: &World, name: &str) {
    world.notification(name, "shop", event(name)).await;
    world.until_phase(name, "Delivered").await;
}

/// The number of writes to `notifications/status` that the API server accepted.
async fn status_writes(world: &World) -> usize {
    let audit = world.plane.audit().await.unwrap();
    let ours = audit.iter().filter(|event| event.is_write_to("notifications", "status", &world.namespace));
    ours.filter(|event| event.code == 200).count()
}

#[tokio::test]
async fn a_delivered_notification_is_sent_again_with_the_same_id_and_a_handled_value_sends_nothing() {
    let world = shop("replay").await;
    let mut operator = world.operator().await;
    world.notification("n", "shop", event("n")).await;
    let first = world.until_phase("n", "Delivered").await;
    assert!(first["status"]["replayTime"].is_null());
    world.apply(&labelled("n", "1")).await;
    let second = until_replayed(&world, "n", "1").await;
    let status = &second["status"];
    assert_eq!((&status["attempts"], &status["eventID"]), (&json!(1), &json!("n")));
    assert!(status["replayTime"].is_string() && status["completionTime"].is_string());
    assert_eq!(condition(&second, "Ready")["status"], "True");
    assert!(condition(&second, "Reconciling").is_null());
    assert_eq!(arrived(&world), ["n", "n"]);

    world.apply(&labelled("n", "1")).await;
    label(&world, "n", "1").await;
    send_marker(&world, "marker-1").await;
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    send_marker(&world, "marker-2").await;
    assert_eq!(
        world.get("notification", "n").await["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
    assert_eq!(arrived(&world), ["n", "n", "marker-1", "marker-2"]);
    assert_eq!(status_writes(&world).await, 5, "one write for each delivery and one for the replay");

    label(&world, "n", "2").await;
    until_replayed(&world, "n", "2").await;
    assert_eq!(arrived(&world).len(), 5);
}

#[tokio::test]
async fn a_failed_notification_is_sent_again_and_is_pending_until_then() {
    let world = shop("replay-failed").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(422));
    let _operator = world.operator().await;
    world.notification("n", "shop", event("n")).await;
    let failed = world.until_phase("n", "Failed").await;
    assert_eq!(condition(&failed, "Stalled")["status"], "True");
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("shop", "Suspended").await;
    label(&world, "n", "again").await;
    let pending = world.until_phase("n", "Pending").await;
    let status = &pending["status"];
    assert_eq!((&status["attempts"], &status["eventID"]), (&json!(0), &json!("n")));
    assert!(status["lastAttempt"].is_null() && status["completionTime"].is_null());
    assert!(status["message"].as_str().unwrap().contains("tidings.dev/replay=again"), "{status}");
    assert_eq!(condition(&pending, "Reconciling")["status"], "True");
    assert!(condition(&pending, "Stalled").is_null());
    world.subscriber("shop", |_| ()).await;
    let delivered = until_replayed(&world, "n", "again").await;
    assert_eq!(delivered["status"]["attempts"], 1);
    assert_eq!(arrived(&world), ["n", "n"]);
}

#[tokio::test]
async fn a_replay_requested_while_no_operator_runs_is_sent_at_the_next_start() {
    let world = shop("replay-away").await;
    let mut operator = world.operator().await;
    world.notification("n", "shop", event("n")).await;
    world.until_phase("n", "Delivered").await;
    operator.kill().await.unwrap();
    label(&world, "n", "1").await;
    operator.restart().await.unwrap();
    until_replayed(&world, "n", "1").await;
    assert_eq!(arrived(&world), ["n", "n"]);
}

#[tokio::test]
async fn an_operator_killed_between_a_replays_write_and_its_post_neither_loses_nor_doubles_the_replay() {
    let world = shop("replay-kill").await;
    let mut operator = world.operator().await;
    world.notification("n", "shop", event("n")).await;
    world.until_phase("n", "Delivered").await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("shop", "Suspended").await;
    label(&world, "n", "1").await;
    world.until("notification", "n", |n| n["status"]["lastHandledReplay"] == "1").await;
    operator.kill().await.unwrap();
    assert_eq!(world.get("notification", "n").await["status"]["phase"], "Pending");
    world.subscriber("shop", |_| ()).await;
    operator.restart().await.unwrap();
    until_replayed(&world, "n", "1").await;
    send_marker(&world, "marker").await;
    assert_eq!(arrived(&world), ["n", "n", "marker"]);
}

#[tokio::test]
async fn a_replay_requested_during_an_attempt_causes_one_more_attempt() {
    let world = shop("replay-flight").await;
    let _operator = world.operator().await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(204).after(Duration::from_secs(1)));
    world.notification("n", "shop", event("n")).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    label(&world, "n", "1").await;
    // The operator writes the replay, the outcome of the attempt undoes the write, and the operator writes it again.
    world.receiver.wait_for(&path("shop"), 2, PATIENCE).await.unwrap();
    until_replayed(&world, "n", "1").await;
    send_marker(&world, "marker").await;
    assert_eq!(arrived(&world), ["n", "n", "marker"]);
}

#[tokio::test]
async fn a_notification_created_with_the_label_is_sent_once() {
    let world = shop("replay-created").await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    let names: Vec<_> = (0..20).map(|n| format!("n-{n}")).collect();
    let items: Vec<_> = names.iter().map(|name| labelled(name, "1")).collect();
    world.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).await;
    for name in &names {
        until_replayed(&world, name, "1").await;
    }
    send_marker(&world, "marker").await;
    let mut ids = arrived(&world);
    ids.sort();
    let mut expected = [names, vec!["marker".into()]].concat();
    expected.sort();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn a_notification_labelled_while_it_waits_for_its_first_attempt_is_sent_once() {
    let world = shop("replay-waiting").await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Suspended").await;
    world.notification("n", "shop", event("n")).await;
    label(&world, "n", "1").await;
    world.until("notification", "n", |n| n["status"]["lastHandledReplay"] == "1").await;
    world.subscriber("shop", |_| ()).await;
    until_replayed(&world, "n", "1").await;
    send_marker(&world, "marker").await;
    assert_eq!(arrived(&world), ["n", "marker"]);
}

#[tokio::test]
async fn fifty_replays_requested_at_once_are_all_sent_though_the_operator_restarts() {
    let world = shop("replay-many").await;
    let mut operator = world.operator().await;
    world.notifications("n", "shop", 50).await;
    world.until_delivered(50).await;
    world.kubectl(&["label", "ntf", "--all", "tidings.dev/replay=1"]).await.ok().unwrap();
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    for n in 0..50 {
        until_replayed(&world, &format!("n-{n}"), "1").await;
    }
    send_marker(&world, "marker").await;
    let ids = arrived(&world);
    for n in 0..50 {
        let times = ids.iter().filter(|id| **id == format!("n-{n}")).count();
        assert!((2..=3).contains(&times), "n-{n} was sent {times} times");
    }
    assert!(ids.len() - 101 <= 16, "{} repeats, more than the limit of attempts in flight", ids.len() - 101);
}

#[tokio::test]
async fn replays_survive_an_api_server_outage_and_constant_writes_by_others() {
    // This test kills the API server, so it needs its own control plane.
    let world = World::alone("replay-outage").await;
    let plane = world.plane;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    world.notifications("n", "shop", 20).await;
    world.until_delivered(20).await;
    world.kubectl(&["label", "ntf", "--all", "tidings.dev/replay=1"]).await.ok().unwrap();
    plane.signal(Part::ApiServer, "KILL").await.unwrap();
    sleep(Duration::from_secs(2)).await; // replays and outcomes are in flight while no API server accepts them
    plane.restart_api_server().await.unwrap();
    let annotate = async {
        for round in 0.. {
            let _ =
                world.kubectl(&["annotate", "ntf", "--all", "--overwrite", &format!("example.com/n={round}")]).await;
        }
    };
    let all_replayed = async {
        for n in 0..20 {
            until_replayed(&world, &format!("n-{n}"), "1").await;
        }
    };
    tokio::select! {
        () = annotate => {}
        () = all_replayed => {}
    }
    send_marker(&world, "marker").await;
    let ids = arrived(&world);
    for n in 0..20 {
        assert_eq!(ids.iter().filter(|id| **id == format!("n-{n}")).count(), 2, "n-{n}");
    }
}

#[tokio::test]
async fn a_replay_that_cannot_be_written_is_retried_without_listing_again() {
    let world = shop("replay-refused").await;
    let proxy = ApiProxy::start(world.plane).await.unwrap();
    let _operator = world.operator_through(&proxy).await;
    for name in ["stuck", "fine"] {
        world.notification(name, "shop", event(name)).await;
        world.until_phase(name, "Delivered").await;
    }
    let (refused, lists) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (refusals, listed) = (refused.clone(), lists.clone());
    proxy.treat(move |call| {
        if call.is_list_of("notifications") && call.query.contains("labelSelector") {
            listed.fetch_add(1, Ordering::Relaxed);
        }
        // More often than the operator tries before it postpones a replay.
        let writes = call.is_status_write_to("notifications") && call.path.contains("/stuck/");
        if writes && refusals.fetch_add(1, Ordering::Relaxed) < 12 { Treatment::Answer(500) } else { Treatment::Pass }
    });
    label(&world, "stuck", "1").await;
    label(&world, "fine", "1").await;
    until_replayed(&world, "fine", "1").await;
    until_replayed(&world, "stuck", "1").await;
    world.until_phase("stuck", "Delivered").await;
    assert!(refused.load(Ordering::Relaxed) > 12, "{refused:?}");
    assert_eq!(lists.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_replay_that_must_wait_names_its_gate_again() {
    let world = World::new("replay-waits").await;
    let _operator = world.operator().await;
    world.notification("n", "missing", json!({"source": "/s", "type": "t"})).await;
    world.until("ntf", "n", |n| n["status"]["reason"] == "SubscriberNotFound").await;
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    world.until("ntf", "n", |n| n["status"]["lastHandledReplay"] == "1").await;
    world.until("ntf", "n", |n| n["status"]["reason"] == "SubscriberNotFound").await;
}

#[tokio::test]
async fn field_23_a_replay_label_that_git_puts_back_sends_nothing() {
    let world = shop("replay-git").await;
    let mut operator = world.operator().await;
    world.notification("n", "shop", event("n")).await;
    world.until_phase("n", "Delivered").await;
    world.apply(&labelled("n", "1")).await;
    until_replayed(&world, "n", "1").await;
    label(&world, "n", "2").await;
    let replayed = until_replayed(&world, "n", "2").await;
    assert_eq!(replayed["status"]["handledReplays"], json!(["1", "2"]));

    // Git restores its label, a user removes the label, and Git sets it again.
    world.apply(&labelled("n", "1")).await;
    send_marker(&world, "marker-1").await;
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay-"]).await.ok().unwrap();
    world.apply(&labelled("n", "1")).await;
    send_marker(&world, "marker-2").await;
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    send_marker(&world, "marker-3").await;
    assert_eq!(world.get("notification", "n").await["status"], replayed["status"]);
    assert_eq!(arrived(&world), ["n", "n", "n", "marker-1", "marker-2", "marker-3"]);

    // While another replay waits, a handled value changes nothing either.
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("shop", "Suspended").await;
    label(&world, "n", "3").await;
    world.until("notification", "n", |n| n["status"]["lastHandledReplay"] == "3").await;
    world.apply(&labelled("n", "1")).await;
    world.subscriber("shop", |_| ()).await;
    until_replayed(&world, "n", "3").await;
    send_marker(&world, "marker-4").await;
    assert_eq!(arrived(&world)[6..], ["n", "marker-4"]);
}

#[tokio::test]
async fn field_23_ten_handled_values_are_remembered_and_those_of_an_earlier_version_count() {
    let world = shop("replay-ten").await;
    world.notification("n", "shop", event("n")).await;
    // As an earlier version of the operator left it.
    let status =
        json!({"status": {"phase": "Delivered", "reason": "Acknowledged", "attempts": 1, "lastHandledReplay": "0"}});
    let patch = ["patch", "ntf", "n", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    world.kubectl(&patch).await.ok().unwrap();
    let _operator = world.operator().await;
    for value in 1..=10 {
        label(&world, "n", &value.to_string()).await;
        until_replayed(&world, "n", &value.to_string()).await;
    }
    let expected: Vec<_> = (1..=10).map(|value: u32| value.to_string()).collect();
    assert_eq!(world.get("notification", "n").await["status"]["handledReplays"], json!(expected));
    label(&world, "n", "1").await;
    send_marker(&world, "marker").await;
    assert_eq!(arrived(&world).iter().filter(|id| *id == "n").count(), 10);
    // The eleventh value from the end is forgotten: it is new.
    label(&world, "n", "0").await;
    until_replayed(&world, "n", "0").await;
    assert_eq!(arrived(&world).iter().filter(|id| *id == "n").count(), 11);
}
