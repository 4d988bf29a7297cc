//! From `kubectl apply` to the webhook and back into the status, with crashes, shutdowns and restarts on the way.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use testkit::{Behaviour, ControlPlane, Operator};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{install_crds, render_chart},
    world::{CLIENT, PATIENCE, World, binary, condition, operator_kubeconfig, path},
};

/// A world with the Secret and a Subscriber `shop`.
async fn shop(name: &str) -> World {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world
}

#[tokio::test]
async fn a_notification_applied_with_kubectl_reaches_the_webhook_and_its_status_reports_it() {
    let world = shop("delivery").await;
    let _operator = world.operator().await;
    let event = json!({"id": "order-1", "source": "/shop", "type": "order.paid", "trace": "abc", "data": {"n": 1}});
    world.notification("order-1", "shop", event).await;

    let delivered = world.until_phase("order-1", "Delivered").await;
    let status = &delivered["status"];
    assert_eq!(status["reason"], "Acknowledged");
    assert_eq!((&status["attempts"], &status["eventID"]), (&json!(1), &json!("order-1")));
    assert_eq!(status["lastAttempt"]["statusCode"], 204);
    assert_eq!(status["observedGeneration"], 1);
    assert!(status["completionTime"].is_string() && status["nextAttemptTime"].is_null());
    assert_eq!(condition(&delivered, "Ready")["status"], "True");
    assert_eq!(condition(&delivered, "Delivered")["status"], "True");

    let received = world.posts(&path("shop"));
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].header("content-type"), Some("application/cloudevents+json"));
    assert!(received[0].header("authorization").unwrap().starts_with("Bearer "));
    let body = received[0].json().unwrap();
    assert_eq!((&body["trace"], &body["data"]), (&json!("abc"), &json!({"n": 1})));
    assert_eq!(body["time"], delivered["metadata"]["creationTimestamp"]);

    let subscriber = world.until_reason("shop", "Operational").await;
    assert_eq!(condition(&subscriber, "Ready")["status"], "True");
    assert_eq!(condition(&subscriber, "TokenAvailable")["reason"], "TokenIssued");
    assert_eq!(world.tokens.requests().len(), 1);
    assert_eq!(world.tokens.requests()[0].scope(), Some("events.write"));
    let table = world.kubectl(&["get", "subscribers,notifications"]).await.ok().unwrap();
    assert!(table.contains("Operational") && table.contains("Acknowledged") && table.contains("204"), "{table}");
}

#[tokio::test]
async fn the_api_server_records_the_writer_of_a_status_and_not_of_each_field() {
    let world = shop("managed-fields").await;
    let _operator = world.operator().await;
    world.notification("order-1", "shop", json!({"source": "/shop", "type": "order.paid"})).await;
    world.until_phase("order-1", "Delivered").await;
    let path = "jsonpath={.metadata.managedFields[?(@.subresource=='status')].fieldsV1}";
    let fields = world.kubectl(&["get", "notification", "order-1", "--show-managed-fields", "-o", path]).await;
    assert_eq!(fields.ok().unwrap(), r#"{"f:status":{}}"#);
}

#[tokio::test]
async fn a_delivery_costs_one_write_and_a_restart_none() {
    let world = shop("writes").await;
    let mut operator = world.operator().await;
    world.notifications("n", "shop", 20).await;
    world.until_delivered(20).await;
    assert_eq!(status_writes(&world, 20).await, 20);
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("last", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_delivered(21).await;
    assert_eq!(status_writes(&world, 21).await, 21, "only the write for the last Notification");
    let writes_to_notifications: Vec<_> = world
        .plane
        .audit()
        .await
        .unwrap()
        .into_iter()
        .filter(|event| event.is_write() && event.namespace == world.namespace && event.user.contains("serviceaccount"))
        .filter(|event| event.resource == "notifications" && event.subresource != "status")
        .collect();
    assert!(writes_to_notifications.is_empty(), "{writes_to_notifications:?}");
}

/// The number of writes to `notifications/status` in the API server's audit log, once it is at least `expected`.
async fn status_writes(world: &World, expected: usize) -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        let audit = world.plane.audit().await.unwrap();
        let writes =
            audit.iter().filter(|event| event.is_write_to("notifications", "status", &world.namespace)).count();
        if writes >= expected || Instant::now() > end {
            return writes;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn fifty_pending_at_a_kill_are_all_delivered_each_with_its_one_id() {
    let world = shop("kill").await;
    let mut operator = world.operator().await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(204).after(Duration::from_millis(300)));
    world.notifications("n", "shop", 50).await;
    world.receiver.wait_for(&path("shop"), 20, PATIENCE).await.unwrap();
    operator.kill().await.unwrap();
    let finished = world.list("notifications").await.iter().filter(|n| n["status"]["phase"] == "Delivered").count();
    assert!(finished < 50, "no Notification was left for the second operator");
    world.receiver.behave(&path("shop"));
    operator.restart().await.unwrap();
    world.until_delivered(50).await;

    let mut posts: HashMap<String, usize> = HashMap::new();
    for request in world.posts(&path("shop")) {
        *posts.entry(request.event_id().unwrap()).or_default() += 1;
    }
    for n in 0..50 {
        assert!(posts.remove(&format!("n-{n}")).is_some_and(|times| times <= 2), "n-{n}");
    }
    assert!(posts.is_empty(), "unknown ids: {posts:?}");
    let repeated = world.posts(&path("shop")).len() - 50;
    assert!(repeated <= 16, "{repeated} repeats, more than the limit of attempts in flight");
}

#[tokio::test]
async fn late_objects_start_the_delivery_of_waiting_notifications() {
    let world = World::new("late").await;
    let _operator = world.operator().await;
    world.notification("early", "shop", json!({"source": "/s", "type": "t"})).await;
    world.subscriber("shop", |spec| spec["webhook"]["tls"]["caRef"]["name"] = "late-ca".into()).await;
    let waiting = world.until_reason("shop", "ConfigMapNotFound").await;
    assert_eq!(condition(&waiting, "Reconciling")["status"], "True");
    let ca = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late-ca"},
        "data": {"ca.crt": world.authority.ca_pem()}});
    world.apply(&ca).await;
    let waiting = world.until_reason("shop", "SecretNotFound").await;
    assert_eq!(condition(&waiting, "TokenAvailable")["reason"], "SecretNotFound");
    let notification = world.get("notification", "early").await;
    assert_eq!((&notification["status"]["phase"], &notification["status"]["attempts"]), (&json!("Pending"), &json!(0)));
    world.secret(CLIENT.1).await;
    let start = Instant::now();
    world.until_phase("early", "Delivered").await;
    assert!(start.elapsed() < Duration::from_secs(5), "the Secret started the delivery, not a later reconcile");
}

#[tokio::test]
async fn a_webhook_that_is_down_is_retried_until_it_is_up() {
    let mut world = shop("down").await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.receiver.stop();
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let retrying = world.until("notification", "n", |n| n["status"]["attempts"] == 1).await;
    let status = &retrying["status"];
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Pending"), &json!("Retrying")));
    assert_eq!(status["lastAttempt"]["reason"], "ConnectionFailed");
    assert!(status["nextAttemptTime"].is_string() && status["completionTime"].is_null());
    assert_eq!(condition(&retrying, "Reconciling")["status"], "True");
    world.receiver.resume().await.unwrap();
    let delivered = world.until_phase("n", "Delivered").await;
    assert!(delivered["status"]["attempts"].as_u64().unwrap() >= 2);
    assert!(condition(&delivered, "Reconciling").is_null());
}

#[tokio::test]
async fn kubectl_wait_returns_for_a_delivered_and_for_a_failed_notification() {
    let world = shop("wait").await;
    world.subscriber("picky", |_| ()).await;
    world.receiver.answer_always(&path("picky"), Behaviour::status(422));
    let _operator = world.operator().await;
    for (name, subscriber) in [("good", "shop"), ("bad", "picky")] {
        world.notification(name, subscriber, json!({"source": "/s", "type": "t"})).await;
        let wait = ["wait", "--for=jsonpath={.status.completionTime}", "--timeout=30s", &format!("ntf/{name}")];
        world.kubectl(&wait).await.ok().unwrap();
    }
    let phase = async |name| world.get("notification", name).await["status"]["phase"].clone();
    assert_eq!((phase("good").await, phase("bad").await), (json!("Delivered"), json!("Failed")));
    let wait = ["wait", "--for=condition=Delivered", "--timeout=30s", "ntf/good"];
    world.kubectl(&wait).await.ok().unwrap();
}

#[tokio::test]
async fn after_sigterm_attempts_in_flight_finish_and_their_outcomes_are_written() {
    let world = shop("sigterm").await;
    let operator = world.operator().await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(204).after(Duration::from_secs(1)));
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    assert_eq!(operator.terminate().await.unwrap(), 0, "{}", operator.logs());
    assert_eq!(world.get("notification", "n").await["status"]["phase"], "Delivered");
    assert_eq!(world.posts(&path("shop")).len(), 1);
}

#[tokio::test]
async fn a_suspended_subscriber_holds_its_notifications_and_a_deleted_one_is_cancelled() {
    let world = shop("suspend").await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    let _operator = world.operator().await;
    let suspended = world.until_reason("shop", "Suspended").await;
    assert_eq!(condition(&suspended, "Ready")["status"], "True");
    for name in ["held", "cancelled"] {
        world.notification(name, "shop", json!({"id": name, "source": "/s", "type": "t"})).await;
    }
    world.kubectl(&["delete", "ntf", "cancelled"]).await.ok().unwrap();
    assert_eq!(world.get("notification", "held").await["status"]["attempts"], 0);
    world.subscriber("shop", |_| ()).await;
    world.until_phase("held", "Delivered").await;
    let ids: Vec<_> = world.posts(&path("shop")).iter().map(|r| r.event_id().unwrap()).collect();
    assert_eq!(ids, ["held"]);
}

#[tokio::test]
async fn an_outcome_is_kept_while_the_api_server_is_down_and_the_event_is_not_sent_again() {
    // This test kills the API server, so it needs its own control plane.
    let world = World::alone("away").await;
    let plane = world.plane;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    world.receiver.answer_always(&path("shop"), Behaviour::status(204).after(Duration::from_secs(1)));
    world.notifications("n", "shop", 10).await;
    world.receiver.wait_for(&path("shop"), 10, PATIENCE).await.unwrap();
    plane.signal(testkit::Part::ApiServer, "KILL").await.unwrap();
    sleep(Duration::from_secs(2)).await; // the responses arrive while no outcome can be written
    plane.restart_api_server().await.unwrap();
    world.until_delivered(10).await;
    assert_eq!(world.posts(&path("shop")).len(), 10, "no POST is repeated");
}

#[tokio::test]
async fn without_its_crds_the_operator_names_the_remedy_and_with_them_serves_the_whole_cluster() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start().await.unwrap()));
    plane.kubectl(&["create", "namespace", "tidings"]).await.unwrap().ok().unwrap();
    let chart = render_chart("tidings", &["--set", "crds.install=false"]).unwrap();
    plane.admin().apply(&chart, &["-n", "tidings"]).await.unwrap();
    let kubeconfig = operator_kubeconfig(plane, "tidings").await;
    let start =
        async || Operator::start(binary(), &kubeconfig, &["--egress-allow-cidr", "127.0.0.0/8"], &[]).await.unwrap();

    let failure = start().await.ready(PATIENCE).await.unwrap_err().to_string();
    assert!(failure.contains("exited with code 1") && failure.contains("apply the crds/ of this version"), "{failure}");
    assert!(!failure.contains("Status {"), "no debug output: {failure}");

    install_crds(plane).await;
    let operator = start().await;
    operator.ready(PATIENCE).await.unwrap();
    for name in ["first", "second"] {
        let world = World::on(plane, name).await;
        world.secret(CLIENT.1).await;
        world.subscriber("shop", |_| ()).await;
        world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
        world.until_phase("n", "Delivered").await;
    }
    let metrics = operator.metrics().await.unwrap();
    assert!(metrics.contains("tidings_notifications_finished_total{phase=\"Delivered\"} 2"), "{metrics}");
}

#[tokio::test]
async fn s19_the_operator_raises_its_limit_of_open_files_to_what_the_system_allows() {
    let world = World::new("files").await;
    let script = "ulimit -Sn 256 && exec \"$0\" \"$@\"";
    let args = ["-c", script, binary().to_str().unwrap(), "run", "--watch-namespace", &world.namespace];
    let ports = ["--admin-addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0"];
    let kubeconfig = operator_kubeconfig(world.plane, &world.namespace).await;
    let mut operator = std::process::Command::new("bash")
        .args([&args[..], &ports].concat())
        .env("KUBECONFIG", kubeconfig)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    let raised = loop {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", operator.id())).unwrap_or_default();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default().to_owned();
        let columns: Vec<_> = line.split_whitespace().collect();
        if columns.len() > 4 && columns[3] == columns[4] {
            break true;
        }
        if Instant::now() > end {
            break false;
        }
        sleep(Duration::from_millis(50)).await;
    };
    operator.kill().unwrap();
    operator.wait().unwrap();
    assert!(raised, "the soft limit stayed below the hard limit");
}

#[tokio::test]
async fn logs_status_and_metrics_contain_no_secret_no_token_and_no_response() {
    let world = World::new("canary").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let body = testkit::endpoints::Reply::status(500).body("canary-in-the-answer");
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(body));
    let operator = world.start(&["--egress-allow-cidr", "127.0.0.0/8", "--log-level", "trace"]).await;
    operator.ready(PATIENCE).await.unwrap();
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("n", "Delivered").await;
    let token = world.posts(&path("shop"))[0].token().unwrap().to_owned();
    let status: Vec<Value> = [world.list("notifications").await, world.list("subscribers").await].concat();
    let shown = [operator.logs(), operator.metrics().await.unwrap(), format!("{status:?}")];
    assert!(shown[0].contains("TRACE"), "the log is at trace level");
    for text in shown {
        for canary in [CLIENT.1, &token, "canary-in-the-answer"] {
            let line = text.lines().find(|line| line.contains(canary));
            assert!(line.is_none(), "{canary} in: {line:?}");
        }
    }
}
