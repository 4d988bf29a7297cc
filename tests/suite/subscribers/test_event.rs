//! Test events on request, as a gate for pipelines.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Behaviour, endpoints::Reply};

use crate::world::{CLIENT, PATIENCE, World, condition, path};

/// Requests a test of `shop`, waits until it is handled, and returns the condition Tested.
pub async fn test(world: &World, value: &str) -> Value {
    let annotate = ["annotate", "subr", "shop", &format!("tidings.dev/test-requested-at={value}"), "--overwrite"];
    world.kubectl(&annotate).await.ok().unwrap();
    let handled = |s: &Value| s["status"]["lastHandledTest"] == value;
    condition(&world.until("subscriber", "shop", handled).await, "Tested")
}

/// Status, reason and message of a Tested condition.
fn summary(tested: &Value) -> (&str, &str, &str) {
    let text = |field: &str| tested[field].as_str().unwrap();
    (text("status"), text("reason"), text("message"))
}

#[tokio::test]
async fn a_test_reports_the_step_that_failed_and_passes_once_all_steps_do() {
    let world = World::new("self-test").await;
    let _operator = world.operator().await;
    let required = |spec: &mut Value| spec["abuseProtection"] = json!({"policy": "Required"});
    world.subscriber("shop", required).await;
    let tested = test(&world, "1").await;
    let (status, reason, message) = summary(&tested);
    assert_eq!((status, reason), ("False", "SecretTestFailed"));
    assert!(message.contains("step 1 of 4, Secret: SecretNotFound: Secret acme-oauth"), "{message}");

    world.secret("wrong").await;
    let tested = test(&world, "2").await;
    assert_eq!(summary(&tested).1, "TokenTestFailed");
    assert!(summary(&tested).2.contains("step 2 of 4, token: TokenRejected"), "{tested}");

    world.secret(CLIENT.1).await;
    let tested = test(&world, "3").await;
    assert_eq!(summary(&tested).1, "HandshakeTestFailed");
    assert!(summary(&tested).2.contains("step 3 of 4, handshake: HandshakeRefused"), "{tested}");

    world.receiver.answer_options(&path("shop"), Behaviour::reply(Reply::status(200).allow_origin("*")));
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(500));
    let tested = test(&world, "4").await;
    assert_eq!(summary(&tested).1, "DeliveryTestFailed");
    assert!(summary(&tested).2.contains("step 4 of 4, delivery: ServerError: the webhook answered 500"), "{tested}");

    let tested = test(&world, "5").await;
    assert_eq!((summary(&tested).0, summary(&tested).1), ("True", "TestPassed"));
    world.kubectl(&["wait", "--for=condition=Tested", "subr/shop", "--timeout=5s"]).await.ok().unwrap();
    let event = world.posts(&path("shop")).last().unwrap().json().unwrap();
    assert_eq!(event["type"], "dev.tidings.test");
    assert!(event["id"].as_str().unwrap().ends_with("-5"));
    assert_eq!(event["source"], format!("/apis/tidings.dev/v1alpha1/namespaces/{}/subscribers/shop", world.namespace));
}

#[tokio::test]
async fn a_test_that_was_handled_is_not_run_again_not_even_after_a_restart() {
    let world = World::new("self-test-once").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let mut operator = world.operator().await;
    let tested = test(&world, "1").await;
    assert_eq!(summary(&tested).1, "TestPassed");
    operator.kill().await.unwrap();
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    // A reconcile because of a restart, a Secret or another annotation does not repeat a handled test.
    world.secret("other").await;
    world.until("subscriber", "shop", |s| condition(s, "TokenAvailable")["status"] == "False").await;
    world.secret(CLIENT.1).await;
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=9"]).await.ok().unwrap();
    world.until("subscriber", "shop", |s| s["status"]["lastHandledRequest"] == "9").await;
    world.until_reason("shop", "Operational").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
    let after = condition(&world.get("subscriber", "shop").await, "Tested");
    assert_eq!(after["lastTransitionTime"], tested["lastTransitionTime"]);
}

#[tokio::test]
async fn a_suspended_subscriber_can_be_tested_and_still_holds_its_notifications() {
    let world = World::new("self-test-held").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let _operator = world.operator().await;
    assert_eq!(summary(&test(&world, "1").await).1, "TestPassed");
    world.until("notification", "n", |n| n["status"]["reason"] == "Suspended").await;
    let types: Vec<_> = world.posts(&path("shop")).iter().map(|r| r.json().unwrap()["type"].clone()).collect();
    assert_eq!(types, ["dev.tidings.test"]);
    world.until_reason("shop", "Suspended").await;
}

#[tokio::test]
async fn a_test_answered_with_429_or_410_affects_the_whole_subscriber_and_no_test_is_sent_during_a_pause() {
    let world = World::new("self-test-pause").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(Reply::status(429).header("retry-after", "600")));
    assert!(summary(&test(&world, "1").await).2.contains("Throttled"));
    world.until("subscriber", "shop", |s| s["status"]["pausedUntilTime"].is_string()).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until("notification", "n", |n| n["status"]["reason"] == "Paused").await;
    let tested = test(&world, "2").await;
    assert!(summary(&tested).2.contains("step 4 of 4, delivery: Paused"), "{tested}");
    assert_eq!(world.posts(&path("shop")).len(), 1);

    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(410));
    world
        .kubectl(&[
            "annotate",
            "subr",
            "shop",
            "tidings.dev/reconcile-requested-at=1",
            "tidings.dev/test-requested-at=3",
            "--overwrite",
        ])
        .await
        .ok()
        .unwrap();
    world.until_reason("shop", "EndpointGone").await;
}

#[tokio::test]
async fn a_test_in_flight_when_the_operator_stops_is_not_run_again() {
    let world = World::new("self-test-end").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let mut operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(204).after(Duration::from_secs(2)));
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/test-requested-at=1"]).await.ok().unwrap();
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    assert_eq!(operator.terminate().await.unwrap(), 0);
    let subscriber = world.get("subscriber", "shop").await;
    assert_eq!(subscriber["status"]["lastHandledTest"], "1");
    assert_eq!(summary(&condition(&subscriber, "Tested")).1, "TestPassed");
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("n", "Delivered").await;
    assert_eq!(world.posts(&path("shop")).len(), 2);
}

#[tokio::test]
async fn a_test_that_is_not_sent_when_the_operator_stops_is_sent_after_the_restart() {
    let world = World::new("self-test-left").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let mut operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    // The test validates the webhook again and gets no response.
    let asked = world.options(&path("shop")).len();
    world.receiver.answer_next_options(&path("shop"), 1, &Behaviour::hang());
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/test-requested-at=1"]).await.ok().unwrap();
    world.receiver.wait_for_options(&path("shop"), asked + 1, PATIENCE).await.unwrap();
    assert_eq!(operator.terminate().await.unwrap(), 0);
    assert!(world.posts(&path("shop")).is_empty());
    assert!(world.get("subscriber", "shop").await["status"]["lastHandledTest"].is_null());
    operator.restart().await.unwrap();
    world.until("subscriber", "shop", |s| condition(s, "Tested")["reason"] == "TestPassed").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
}

#[tokio::test]
async fn no_test_is_sent_during_a_pause_that_its_own_validation_request_caused() {
    let world = World::new("self-test-silence").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    let silence = Behaviour::reply(Reply::status(503).header("retry-after", "600"));
    world.receiver.answer_options(&path("shop"), silence);
    let tested = test(&world, "1").await;
    assert!(summary(&tested).2.contains("step 4 of 4, delivery: Paused"), "{tested}");
    assert!(world.posts(&path("shop")).is_empty());
    world.until("subscriber", "shop", |s| s["status"]["pausedUntilTime"].is_string()).await;
}

#[tokio::test]
async fn field_23_a_test_value_that_git_puts_back_sends_no_test_event_and_a_request_only_reconciles() {
    let world = World::new("self-test-git").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    test(&world, "1").await;
    test(&world, "2").await;
    let annotate = async |annotation: &str| {
        world.kubectl(&["annotate", "subr", "shop", annotation, "--overwrite"]).await.ok().unwrap();
    };
    annotate("tidings.dev/test-requested-at=1").await;
    for value in ["1", "2", "1"] {
        annotate(&format!("tidings.dev/reconcile-requested-at={value}")).await;
        world.until("subscriber", "shop", |s| s["status"]["lastHandledRequest"] == value).await;
    }
    world.until_reason("shop", "Operational").await;
    let subscriber = world.get("subscriber", "shop").await;
    assert_eq!(
        (&subscriber["status"]["lastHandledTest"], &subscriber["status"]["handledTests"]),
        (&json!("2"), &json!(["1", "2"]))
    );
    assert_eq!(world.posts(&path("shop")).len(), 2);
}
