//! Crashes, outages and other writers: nothing is lost, nothing is sent after a recorded Delivered, repeats are
//! explained.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde_json::json;
use testkit::{Behaviour, Part};
use tokio::time::sleep;

use crate::world::{CLIENT, PATIENCE, World, path};

#[tokio::test]
async fn a_hanging_endpoint_with_two_thousand_delays_no_healthy_neighbor() {
    let world = World::new("isolation").await;
    world.secret(CLIENT.1).await;
    for name in ["dead", "healthy"] {
        world.subscriber(name, |_| ()).await;
    }
    world.receiver.answer_always(&path("dead"), Behaviour::hang());
    world.create("d", "dead", 2000).await;
    world.create("h", "healthy", 200).await;
    let _operator = world.operator().await;
    world.until_delivered(200).await;
    let tried = world.list("notifications").await.iter().filter(|n| n["status"]["attempts"] != 0).count();
    assert_eq!(tried, 200, "all of the healthy ones ended before the first hanging attempt timed out");
    assert_eq!(world.posts(&path("dead")).len(), 16, "the dead one holds its share");
}

#[tokio::test]
async fn an_api_server_that_stops_and_dies_in_the_middle_of_five_hundred_loses_and_repeats_none() {
    let world = World::alone("outage").await;
    let plane = world.plane;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(204).after(Duration::from_millis(50)));
    world.create("n", "shop", 500).await;
    let _operator = world.operator().await;
    world.receiver.wait_for(&path("shop"), 100, PATIENCE).await.unwrap();
    plane.signal(Part::ApiServer, "STOP").await.unwrap();
    sleep(Duration::from_secs(3)).await; // time for outcomes to come in that cannot be written
    plane.signal(Part::ApiServer, "CONT").await.unwrap();
    world.receiver.wait_for(&path("shop"), 250, PATIENCE).await.unwrap();
    plane.restart(Part::ApiServer).await.unwrap();
    world.until_delivered(500).await;
    let ids: Vec<_> = world.posts(&path("shop")).iter().map(|r| r.event_id().unwrap()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 500);
    assert_eq!(ids.len(), 500, "a POST was repeated although its process lived");
}

#[tokio::test]
async fn ten_kills_during_a_thousand_lose_none_and_repeat_only_unwritten_outcomes() {
    let world = World::new("kills").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(204).after(Duration::from_millis(20)));
    world.create("n", "shop", 1000).await;
    let mut operator = world.operator().await;
    let mut unwritten = 0;
    let mut delivered_before: HashMap<String, usize> = HashMap::new();
    for kill in 1..=10 {
        world.receiver.wait_for(&path("shop"), kill * 60, PATIENCE).await.unwrap();
        operator.kill().await.unwrap();
        sleep(Duration::from_millis(200)).await; // what the killed process had sent to the API server is done by then
        let posts = posts(&world);
        for notification in world.list("notifications").await {
            let id = notification["metadata"]["name"].as_str().unwrap();
            if notification["status"]["phase"] == "Delivered" {
                // Recorded: from now on not one POST more.
                delivered_before.entry(id.into()).or_insert(posts[id]);
            } else {
                unwritten += usize::from(posts.contains_key(id));
            }
        }
        operator.restart().await.unwrap();
        operator.ready(PATIENCE).await.unwrap();
    }
    world.until_delivered(1000).await;
    let posts = posts(&world);
    assert_eq!(posts.len(), 1000, "each was sent");
    for (id, before) in delivered_before {
        assert_eq!(posts[&id], before, "{id} was sent after it was recorded as Delivered");
    }
    let repeats = posts.values().sum::<usize>() - 1000;
    assert!(repeats <= unwritten, "{repeats} repeats, but only {unwritten} outcomes were not written at a kill");
}

fn posts(world: &World) -> HashMap<String, usize> {
    let mut posts = HashMap::new();
    for request in world.posts(&path("shop")) {
        *posts.entry(request.event_id().unwrap()).or_default() += 1;
    }
    posts
}

#[tokio::test]
async fn a_failed_outcome_does_not_undo_another_writers_delivered() {
    let world = World::new("writers").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(500).after(Duration::from_secs(2)));
    let operator = world.operator().await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    let status = json!({"status": {"phase": "Delivered", "reason": "Acknowledged", "attempts": 7,
        "completionTime": "2026-11-24T00:00:00Z"}});
    let patch = ["patch", "ntf", "n", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    world.kubectl(&patch).await.ok().unwrap();
    let written = world.get("notification", "n").await;
    let conflict = "tidings_api_writes_total{kind=\"Notification\",result=\"conflict\"} 1";
    while !operator.metrics().await.unwrap().contains(conflict) {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.get("notification", "n").await["status"], written["status"]);
    assert_eq!(world.posts(&path("shop")).len(), 1);
}

#[tokio::test]
async fn a_delivered_outcome_replaces_another_writers_failed() {
    let world = World::new("sticky").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(204).after(Duration::from_secs(2)));
    let _operator = world.operator().await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    let status = json!({"status": {"phase": "Failed", "reason": "Expired"}});
    let patch = ["patch", "ntf", "n", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    world.kubectl(&patch).await.ok().unwrap();
    world.until_phase("n", "Delivered").await;
}

#[tokio::test]
async fn other_writers_labels_change_nothing_and_a_recreated_object_is_a_new_one() {
    let world = World::new("labels").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(204).after(Duration::from_secs(1)));
    let _operator = world.operator().await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let first = world.get("notification", "n").await["metadata"]["uid"].clone();
    for value in 0..10 {
        world.kubectl(&["label", "ntf", "n", &format!("touched=v{value}"), "--overwrite"]).await.ok().unwrap();
    }
    world.until_phase("n", "Delivered").await;
    for value in 10..15 {
        world.kubectl(&["label", "ntf", "n", &format!("touched=v{value}"), "--overwrite"]).await.ok().unwrap();
    }
    world.kubectl(&["delete", "ntf", "n"]).await.ok().unwrap();
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let second = world.until_phase("n", "Delivered").await["metadata"]["uid"].clone();
    let ids: Vec<_> = world.posts(&path("shop")).iter().map(|r| json!(r.event_id())).collect();
    assert_eq!(ids, [first, second]);
}

#[tokio::test]
async fn an_outcome_is_never_written_to_another_object_of_the_same_name() {
    let world = World::new("names").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(204).after(Duration::from_secs(2)));
    world.receiver.answer_always(&path("shop"), Behaviour::status(422));
    let _operator = world.operator().await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    world.kubectl(&["delete", "ntf", "n"]).await.ok().unwrap();
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("shop", "Suspended").await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    sleep(Duration::from_secs(3)).await; // the first one's 204 comes in
    assert_eq!(world.get("notification", "n").await["status"]["phase"], "Pending");
    world.subscriber("shop", |_| ()).await;
    world.until_phase("n", "Failed").await;
}

#[tokio::test]
async fn a_notification_that_is_being_deleted_is_not_sent() {
    let world = World::new("finalizer").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    let _operator = world.operator().await;
    world
        .apply(&json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
        "metadata": {"name": "n", "finalizers": ["example.com/keeps"]},
        "spec": {"subscriberRef": {"name": "shop"}, "event": {"source": "/s", "type": "t"}}}))
        .await;
    world.kubectl(&["delete", "ntf", "n", "--wait=false"]).await.ok().unwrap();
    world.subscriber("shop", |_| ()).await;
    world.until_reason("shop", "Operational").await;
    world.notification("other", "shop", json!({"id": "other", "source": "/s", "type": "t"})).await;
    world.until_phase("other", "Delivered").await;
    let ids: Vec<_> = world.posts(&path("shop")).iter().map(|r| r.event_id().unwrap()).collect();
    assert_eq!(ids, ["other"]);
    let free = ["patch", "ntf", "n", "--type=merge", "-p", "{\"metadata\":{\"finalizers\":null}}"];
    world.kubectl(&free).await.ok().unwrap();
}

#[tokio::test]
async fn a_status_that_the_api_server_refuses_is_kept_and_causes_no_storm() {
    let world = World::new("refused").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(400));
    let policy = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": world.namespace}, "spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["tidings.dev"], "apiVersions": ["*"],
                "operations": ["UPDATE"], "resources": ["notifications/status", "subscribers/status"]}]},
            "validations": [{"expression": format!("object.metadata.namespace != '{}'", world.namespace)}]}},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": world.namespace}, "spec": {"policyName": world.namespace, "validationActions": ["Deny"]}},
    ]});
    world.plane.admin().apply(&policy.to_string(), &["--server-side"]).await.unwrap();
    sleep(Duration::from_secs(3)).await; // until the policy is in force
    let operator = world.operator().await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    while !operator.logs().contains("could not be written yet") {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.posts(&path("shop")).len(), 1, "the outcome is in hand, nothing is sent again");
    // The policy has no reason, so the API server answers 422, as for a status that another writer changed.
    let metrics = operator.metrics().await.unwrap();
    // The status of a Subscriber is repeated at longer intervals.
    for (kind, least) in [("Notification", 2.0), ("Subscriber", 1.0)] {
        let count = |result: &str| {
            let sample = format!("tidings_api_writes_total{{kind=\"{kind}\",result=\"{result}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&sample)).unwrap().parse::<f64>().unwrap()
        };
        assert!(count("error") >= least, "{metrics}");
        assert_eq!((count("conflict"), count("recorded")), (0.0, 0.0), "{kind}: no other writer");
    }
    let name = world.namespace.as_str();
    world.plane.kubectl(&["delete", "validatingadmissionpolicybinding", name]).await.unwrap().ok().unwrap();
    world.plane.kubectl(&["delete", "validatingadmissionpolicy", name]).await.unwrap().ok().unwrap();
    world.until_phase("n", "Failed").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
}

#[tokio::test]
async fn odd_values_that_others_wrote_into_a_status_stop_no_delivery() {
    let world = World::new("odd").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    for name in ["odd", "phase", "fine"] {
        world.notification(name, "shop", json!({"id": name, "source": "/s", "type": "t"})).await;
    }
    let status = async |kind: &str, name: &str, status: serde_json::Value| {
        let patch = json!({"status": status}).to_string();
        let args = ["patch", kind, name, "--subresource=status", "--type=merge", "-p", &patch];
        world.kubectl(&args).await.ok().unwrap();
    };
    let time = "2026-10-01T10:02:00+99:99";
    status(
        "ntf",
        "odd",
        json!({"nextAttemptTime": time, "replayTime": time,
        "lastAttempt": {"time": time, "reason": "FromTheFuture", "durationMilliseconds": 1}}),
    )
    .await;
    status("ntf", "phase", json!({"phase": "Parked", "nextAttemptTime": "2999-01-01T00:00:00Z"})).await;
    status(
        "subr",
        "shop",
        json!({"pausedUntilTime": time, "conditions": [{"type": "Ready", "status": "True",
        "reason": "Operational", "message": "", "lastTransitionTime": time}]}),
    )
    .await;
    let _operator = world.operator().await;
    world.subscriber("shop", |_| ()).await;
    for name in ["odd", "fine"] {
        world.until_phase(name, "Delivered").await;
    }
    assert_eq!(world.get("notification", "phase").await["status"]["attempts"], 0, "a far time is waited for");
}

#[tokio::test]
async fn an_event_with_any_time_that_the_schema_accepts_can_be_finished() {
    let world = World::new("times").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    let times = [
        "2026-10-01T10:02:00z",
        "2026-10-01t10:02:00Z",
        "2026-10-01T10:02:00x5Z",
        "2026-10-01T10:02:00+99:99",
        "2026-10-01T10:02:00.123456789Z",
        "2026-10-01T10:02:00-23:59",
        "2026-02-31T10:02:00Z",
        "0000-01-01T00:00:00Z",
    ];
    let mut accepted = 0;
    for (n, time) in times.iter().enumerate() {
        let name = format!("n-{n}");
        let manifest = json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": name},
            "spec": {"subscriberRef": {"name": "shop"}, "event": {"source": "/s", "type": "t", "time": time}}});
        let args = ["apply", "-f", "-", "-n", &world.namespace];
        let output = world.plane.admin().run_with_input(&args, &manifest.to_string()).await.unwrap();
        if output.success {
            accepted += 1;
            let finished = |n: &serde_json::Value| n["status"]["completionTime"].is_string();
            world.until("notification", &name, finished).await;
            world.kubectl(&["label", "ntf", &name, "touched=yes"]).await.ok().unwrap();
        } else {
            assert!(output.stderr.contains("must be an RFC 3339 time"), "{time}: {}", output.stderr);
        }
    }
    assert!(accepted >= 2, "{accepted} accepted");
}
