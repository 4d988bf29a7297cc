//! The status of a Notification after each kind of response.

use serde_json::json;
use testkit::{Behaviour, endpoints::Reply};

use crate::world::{CLIENT, World, condition, path};

#[tokio::test]
async fn each_answer_leads_to_its_phase_reason_and_message() {
    let world = World::new("outcomes").await;
    world.secret(CLIENT.1).await;
    let cases = [
        ("accepted", 202, "Delivered", "Accepted", "accepted"),
        ("created", 201, "Delivered", "Acknowledged", "acknowledged"),
        ("moved", 308, "Pending", "Retrying", "set webhook.url"),
        ("elsewhere", 405, "Pending", "Retrying", "check the path in webhook.url"),
        ("malformed", 400, "Failed", "Rejected", "rejects this event"),
        ("foreign", 415, "Failed", "Rejected", "application/cloudevents+json"),
        ("broken", 500, "Pending", "Retrying", "answered 500"),
        ("forbidden", 403, "Pending", "Retrying", "answered 403"),
    ];
    for (name, status, ..) in cases {
        world.subscriber(name, |_| ()).await;
        let reply = Reply::status(status).header("location", "/accepted");
        world.receiver.answer_always(&path(name), Behaviour::reply(reply));
        world.notification(name, name, json!({"source": "/s", "type": "t"})).await;
    }
    let _operator = world.operator().await;
    for (name, code, phase, reason, message) in cases {
        let notification = world.until("notification", name, |n| n["status"]["attempts"] == 1).await;
        let status = &notification["status"];
        assert_eq!((&status["phase"], &status["reason"]), (&json!(phase), &json!(reason)), "{name}");
        assert_eq!(status["lastAttempt"]["statusCode"], code, "{name}");
        assert!(status["message"].as_str().unwrap().contains(message), "{name}: {status}");
        assert_eq!(status["completionTime"].is_string(), phase != "Pending", "{name}");
        let stalled = condition(&notification, "Stalled")["status"] == "True";
        assert_eq!(stalled, phase == "Failed", "{name}");
    }
}

#[tokio::test]
async fn an_event_that_only_the_operator_can_check_fails_with_its_attribute_and_is_not_sent() {
    let world = World::new("invalid").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    world.notification("n", "shop", json!({"source": "not a uri", "type": "t"})).await;
    let failed = world.until_phase("n", "Failed").await;
    assert_eq!(failed["status"]["reason"], "InvalidEvent");
    let message = failed["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("event.source: must be a URI-reference") && message.contains("the event was not sent"),
        "{message}"
    );
    assert!(world.posts(&path("shop")).is_empty());
}
