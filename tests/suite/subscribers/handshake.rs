//! The question for the webhook's consent: rows 17 to 25 of `docs/conformance.md`.

use http::Method;
use serde_json::{Value, json};
use testkit::{
    Behaviour,
    endpoints::{Received, Reply},
};
use tidings_delivery::webhook::{ValidationResponse, request_validation};

use crate::{
    delivery::conformance::{Exchange, PATH, STRUCTURED},
    world::{CLIENT, PATIENCE, World, condition, path},
};

/// The origin that deliveries of `Exchange` name.
const ORIGIN: &str = "events.example.com";
/// The operator's own, unless a flag says otherwise.
const DEFAULT_ORIGIN: &str = "tidings.dev";

/// What the webhook says when it answers OPTIONS so, and what it was asked.
async fn asked(reply: Reply, rate: Option<u32>) -> (ValidationResponse, Received) {
    let exchange = Exchange::new(STRUCTURED).await;
    exchange.receiver.answer_options(PATH, Behaviour::reply(reply));
    let consent = request_validation(&exchange.target, rate).await.unwrap();
    let mut requests = exchange.receiver.requests_for(PATH);
    assert_eq!(requests.len(), 1);
    (consent, requests.remove(0))
}

fn granting(origin: &str) -> Behaviour {
    Behaviour::reply(Reply::status(200).allow_origin(origin))
}

/// A world with an operator, and a Subscriber `shop` that asks under this policy; the webhook answers so.
async fn shop(name: &str, abuse_protection: Value, answer: Behaviour) -> (World, testkit::Operator) {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.receiver.answer_options(&path("shop"), answer);
    world.subscriber("shop", |spec| spec["abuseProtection"] = abuse_protection).await;
    let operator = world.operator().await;
    (world, operator)
}

fn event() -> Value {
    json!({"source": "/s", "type": "t"})
}

#[tokio::test]
async fn webhook_17_options_on_the_exact_url_at_registration_and_again_when_url_or_origin_changes() {
    let world = World::new("handshake").await;
    world.secret(CLIENT.1).await;
    world.receiver.answer_options("/a", granting("*"));
    world.receiver.answer_options("/b", granting("*"));
    let url = |of: &str| world.receiver.url(of);
    world.subscriber("shop", |spec| spec["webhook"]["url"] = url("/a?tenant=1&x=%20y").into()).await;
    let mut operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    let first = world.receiver.requests_for("/a");
    assert_eq!(
        (first.len(), &first[0].method, first[0].query.as_deref()),
        (1, &Method::OPTIONS, Some("tenant=1&x=%20y"))
    );
    assert!(first[0].body.is_empty());

    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("n", "shop", event()).await;
    world.until_phase("n", "Delivered").await;
    assert_eq!(world.options("/a").len(), 1, "the answer is read back at a restart");

    world.subscriber("shop", |spec| spec["webhook"]["url"] = url("/b").into()).await;
    world.receiver.wait_for_options("/b", 1, PATIENCE).await.unwrap();
    drop(operator);
    let renamed = world.start(&["--egress-allow-cidr", "127.0.0.0/8", "--origin", "other.example.com"]).await;
    renamed.ready(PATIENCE).await.unwrap();
    let asked = world.receiver.wait_for_options("/b", 2, PATIENCE).await.unwrap();
    assert_eq!(asked[1].header("webhook-request-origin"), Some("other.example.com"));
}

#[tokio::test]
async fn webhook_18_the_question_names_our_origin_and_deliveries_name_the_same() {
    let (_, question) = asked(Reply::status(204), None).await;
    assert_eq!(question.header("webhook-request-origin"), Some(ORIGIN));
    assert_eq!(question.header("authorization"), None, "a token is not for the asking");
    let (world, _operator) = shop("origin", json!({}), granting(DEFAULT_ORIGIN)).await;
    world.notification("n", "shop", event()).await;
    world.until_phase("n", "Delivered").await;
    let origins: Vec<_> = world
        .receiver
        .requests_for(&path("shop"))
        .iter()
        .map(|r| r.header("webhook-request-origin").map(str::to_owned))
        .collect();
    assert_eq!(origins, [Some(DEFAULT_ORIGIN.to_owned()), Some(DEFAULT_ORIGIN.to_owned())]);
}

#[tokio::test]
async fn webhook_19_the_requested_rate_is_sent_where_it_is_configured() {
    assert_eq!(asked(Reply::status(204), Some(600)).await.1.header("webhook-request-rate"), Some("600"));
    assert_eq!(asked(Reply::status(204), None).await.1.header("webhook-request-rate"), None);
}

#[tokio::test]
async fn webhook_20_consent_is_read_from_the_header_never_from_the_status() {
    for status in [200, 204, 302, 400, 404, 405, 429, 500, 503] {
        let (consent, _) = asked(Reply::status(status).allow_origin("*"), None).await;
        assert_eq!(consent, ValidationResponse::Granted(None), "{status}");
    }
    for status in [200, 201, 204, 302, 404, 405, 501] {
        let allow = Reply::status(status).header("allow", "POST").header("access-control-allow-origin", "*");
        assert_eq!(asked(allow, None).await.0, ValidationResponse::Silent, "{status}");
    }
}

#[tokio::test]
async fn webhook_21_the_allowed_origin_is_ours_exactly_or_the_asterisk() {
    for origin in [ORIGIN, "*"] {
        assert_eq!(
            asked(Reply::status(200).allow_origin(origin), None).await.0,
            ValidationResponse::Granted(None),
            "{origin}"
        );
    }
    for origin in [
        "example.com",
        "events.example.com.evil.example",
        "xevents.example.com",
        "*.example.com",
        "https://events.example.com",
    ] {
        assert_eq!(
            asked(Reply::status(200).allow_origin(origin), None).await.0,
            ValidationResponse::Refused,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn webhook_22_the_granted_rate_bounds_what_is_sent() {
    let answer = Behaviour::reply(Reply::status(200).allow_origin("*").allow_rate("60"));
    let (world, _operator) = shop("rate", json!({"requestRatePerMinute": 6000}), answer).await;
    world.until_reason("shop", "Operational").await;
    world.notifications("n", "shop", 4).await;
    world.until_delivered(4).await;
    let posts = world.posts(&path("shop"));
    let closest = posts.windows(2).map(|two| two[1].arrived - two[0].arrived).min().unwrap();
    assert!(closest.as_millis() > 900, "{closest:?} between two of 60 a minute");
    let status = &world.get("subscriber", "shop").await["status"];
    assert_eq!(status["webhook"]["allowedRatePerMinute"], 60);
    assert_eq!(world.options(&path("shop"))[0].header("webhook-request-rate"), Some("6000"));
}

#[tokio::test]
async fn webhook_23_without_the_consent_that_is_required_nothing_is_delivered() {
    let (world, _operator) = shop("required", json!({"policy": "Required"}), Behaviour::status(204)).await;
    world.notification("n", "shop", event()).await;
    let refused = world.until_reason("shop", "HandshakeRefused").await;
    assert_eq!(condition(&refused, "Stalled")["status"], "True");
    assert_eq!(condition(&refused, "Validated")["reason"], "HandshakeRefused");
    let message = condition(&refused, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("WebHook-Allowed-Origin: tidings.dev") && message.contains("Required"), "{message}");
    world.until("notification", "n", |n| n["status"]["reason"] == "SubscriberNotReady").await;
    assert!(world.posts(&path("shop")).is_empty());

    world.receiver.answer_options(&path("shop"), granting(DEFAULT_ORIGIN));
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    world.until_phase("n", "Delivered").await;
    let healed = world.until_reason("shop", "Operational").await;
    assert_eq!(condition(&healed, "Validated")["reason"], "OriginAllowed");
    assert!(healed["status"]["webhook"]["validationTime"].is_string());
}

#[tokio::test]
async fn webhook_24_under_optional_silence_is_reported_and_delivery_continues_but_a_refusal_counts() {
    let (world, _operator) = shop("optional", json!({}), Behaviour::status(405)).await;
    world.notification("n", "shop", event()).await;
    world.until_phase("n", "Delivered").await;
    let silent = world.get("subscriber", "shop").await;
    assert_eq!(condition(&silent, "Ready")["reason"], "Operational");
    assert_eq!(
        (&condition(&silent, "Validated")["status"], &condition(&silent, "Validated")["reason"]),
        (&json!("False"), &json!("NotSupported"))
    );
    assert!(condition(&silent, "Reconciling").is_null() && condition(&silent, "Stalled").is_null());

    world.receiver.answer_options(&path("other"), granting("another.example.com"));
    world.subscriber("other", |_| ()).await;
    world.notification("m", "other", event()).await;
    let refused = world.until_reason("other", "HandshakeRefused").await;
    assert!(condition(&refused, "Ready")["message"].as_str().unwrap().contains("other origins"));
    world.until("notification", "m", |n| n["status"]["reason"] == "SubscriberNotReady").await;
    assert!(world.posts(&path("other")).is_empty());
}

#[tokio::test]
async fn webhook_25_no_later_response_is_requested() {
    assert_eq!(asked(Reply::status(204), Some(60)).await.1.header("webhook-request-callback"), None);
}

#[tokio::test]
async fn a_failing_validation_is_retried_and_no_event_is_sent_before_if_policy_is_required() {
    let (world, _operator) = shop("pending", json!({"policy": "Required"}), Behaviour::status(503)).await;
    world.notification("n", "shop", event()).await;
    let pending = world.until_reason("shop", "HandshakePending").await;
    assert_eq!(condition(&pending, "Reconciling")["status"], "True");
    let message = condition(&pending, "Validated")["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("503") && message.contains("no events are sent until the webhook allows the origin"),
        "{message}"
    );
    assert!(world.posts(&path("shop")).is_empty());
    world.receiver.answer_options(&path("shop"), granting("*"));
    world.until_phase("n", "Delivered").await;
}

#[tokio::test]
async fn retry_after_in_the_validation_response_pauses_the_whole_subscriber() {
    let answer = Behaviour::reply(Reply::status(503).header("retry-after", "600"));
    let (world, _operator) = shop("silence", json!({}), answer).await;
    world.notification("n", "shop", event()).await;
    let paused = world.until("subscriber", "shop", |s| s["status"]["pausedUntilTime"].is_string()).await;
    assert_eq!(condition(&paused, "Ready")["reason"], "Operational");
    assert_eq!(condition(&paused, "Validated")["reason"], "HandshakePending");
    world.until("notification", "n", |n| n["status"]["reason"] == "Paused").await;
    assert!(world.posts(&path("shop")).is_empty());
    assert_eq!(world.options(&path("shop")).len(), 1);
}

#[tokio::test]
async fn a_disabled_policy_sends_no_validation_request() {
    let (world, _operator) = shop("disabled", json!({"policy": "Disabled"}), granting("another.example.com")).await;
    world.notification("n", "shop", event()).await;
    world.until_phase("n", "Delivered").await;
    assert!(world.options(&path("shop")).is_empty());
    let subscriber = world.get("subscriber", "shop").await;
    assert_eq!(
        (&condition(&subscriber, "Validated")["status"], &condition(&subscriber, "Validated")["reason"]),
        (&json!("True"), &json!("NotRequired"))
    );
}
