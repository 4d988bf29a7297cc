//! A new client secret that the token service does not accept yet, as in the first seconds of a secret of Entra ID.
//! `docs/field.md` lists the tests.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Behaviour, Client, Operator};
use tokio::time::{Instant, sleep};

use crate::{
    delivery::gates::event,
    world::{CLIENT, PATIENCE, World, condition, path},
};

const NOT_YET: &str = "does not accept the new client credentials yet: invalid_client";

/// A world with a Subscriber `shop` that has delivered the event `n-0`, and the token that it used. The Subscriber's
/// backoff is a second.
async fn shop(name: &str, flags: &[&str]) -> (World, Operator, String) {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.kubectl(&["annotate", "secret", "acme-oauth", &consent(&world)]).await.ok().unwrap();
    world.subscriber("shop", |spec| spec["delivery"] = json!({"backoff": {"initialSeconds": 1}})).await;
    let operator = world.start(&[&["--egress-allow-cidr", "127.0.0.0/8"], flags].concat()).await;
    operator.ready(PATIENCE).await.unwrap();
    let token = deliver(&world, "n-0").await;
    (world, operator, token)
}

/// The annotation by which the Secret allows both endpoints.
fn consent(world: &World) -> String {
    format!("tidings.dev/allowed-hosts={},{}", world.receiver.address(), world.tokens.address())
}

/// Delivers a Notification with this name, and returns the token of its last POST.
async fn deliver(world: &World, name: &str) -> String {
    world.notification(name, "shop", event()).await;
    world.until_phase(name, "Delivered").await;
    last_token(world)
}

fn last_token(world: &World) -> String {
    world.posts(&path("shop")).last().unwrap().token().unwrap().to_owned()
}

/// From now on, the token service accepts this secret alone.
fn accept(world: &World, client_secret: &str) {
    world.tokens.register(Client::new(CLIENT.0, client_secret).scopes(["events.write"]));
}

/// When the token service has rejected the client.
fn refusals(world: &World) -> Vec<std::time::Instant> {
    let requests = world.tokens.requests();
    requests.iter().filter(|request| request.error == Some("invalid_client")).map(|request| request.arrived).collect()
}

async fn until_refused(world: &World, times: usize) {
    let end = Instant::now() + PATIENCE;
    while refusals(world).len() < times {
        assert!(Instant::now() < end, "{} refusals", refusals(world).len());
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the condition TokenAvailable has this reason.
async fn until_token(world: &World, reason: &str) -> Value {
    world.until("subscriber", "shop", |s| condition(s, "TokenAvailable")["reason"] == reason).await
}

fn message(subscriber: &Value, type_: &str) -> String {
    condition(subscriber, type_)["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn field_12_the_living_token_serves_on_until_the_token_service_accepts_the_new_secret() {
    let (world, operator, old) = shop("rotation", &[]).await;
    world.secret("next").await;
    let waiting = until_token(&world, "TokenUnavailable").await;
    assert!(message(&waiting, "TokenAvailable").contains(NOT_YET), "{}", message(&waiting, "TokenAvailable"));
    assert_eq!(condition(&waiting, "Ready")["reason"], "Operational");
    assert!(condition(&waiting, "Stalled").is_null() && condition(&waiting, "Reconciling").is_null());
    assert_eq!(deliver(&world, "n-1").await, old);

    // A test is about the new secret.
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/test-requested-at=1"]).await.ok().unwrap();
    let tested = world.until("subscriber", "shop", |s| s["status"]["lastHandledTest"] == "1").await;
    assert_eq!(condition(&tested, "Tested")["reason"], "TokenTestFailed");

    // The operator asks again although there is nothing to send.
    until_refused(&world, 2).await;
    let refused = refusals(&world);
    let wait = (refused[1] - refused[0]).as_secs_f64();
    assert!((3.5..15.0).contains(&wait), "asked again after {wait} s");
    assert_eq!(deliver(&world, "n-2").await, old);
    accept(&world, "next");
    let issued = until_token(&world, "TokenIssued").await;
    assert_eq!(condition(&issued, "Ready")["reason"], "Operational");
    assert_ne!(deliver(&world, "n-3").await, old);
    assert!(refusals(&world).len() <= 5, "{} refusals", refusals(&world).len());
    let events = world.kubectl(&["get", "events", "-o", "json"]).await.ok().unwrap();
    assert!(!events.contains("TokenRejected") && !events.contains("Stalled"), "{events}");
    assert!(!operator.logs().contains("TokenRejected"), "{}", operator.logs());
}

#[tokio::test]
async fn field_12_another_leader_asks_again_for_a_secret_that_is_not_accepted_yet() {
    let (world, mut operator, old) = shop("rotation-leader", &[]).await;
    operator.kill().await.unwrap();
    world.secret("next").await;
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("n-1", "shop", event()).await;
    let waiting = until_token(&world, "TokenUnavailable").await;
    assert!(message(&waiting, "TokenAvailable").contains(NOT_YET), "{}", message(&waiting, "TokenAvailable"));
    assert_eq!(condition(&waiting, "Ready")["status"], "True");
    assert!(condition(&waiting, "Stalled").is_null());
    until_refused(&world, 2).await;
    assert_eq!(world.get("notification", "n-1").await["status"]["attempts"], 0, "no attempt is spent");
    accept(&world, "next");
    world.until_phase("n-1", "Delivered").await;
    assert_ne!(last_token(&world), old);

    // A secret that was never accepted is rejected at once, and stays rejected after a restart.
    world.secret("wrong").await;
    world.subscriber("other", |spec| drop(spec["tokenService"].as_object_mut().unwrap().remove("scopes"))).await;
    world.until_reason("other", "TokenRejected").await;
    let asked = || world.tokens.requests().iter().filter(|request| request.scope().is_none()).count();
    assert_eq!(asked(), 1);
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("n-2", "other", event()).await;
    world.until("notification", "n-2", |n| n["status"]["reason"] == "SubscriberNotReady").await;
    let end = Instant::now() + PATIENCE;
    while asked() < 2 {
        assert!(Instant::now() < end, "the new process has not tried the credentials");
        sleep(Duration::from_millis(50)).await;
    }
    // The pass ends with a requested reconcile, and has still asked once.
    world.kubectl(&["annotate", "subr", "other", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    let handled = world.until("subscriber", "other", |s| s["status"]["lastHandledRequest"] == "1").await;
    assert_eq!(condition(&handled, "Stalled")["reason"], "TokenRejected");
    assert!(asked() <= 3, "{} requests", asked());
}

#[tokio::test]
async fn field_12_a_token_that_the_webhook_refuses_or_whose_secret_is_gone_serves_no_longer() {
    let (world, _operator, old) = shop("rotation-ends", &[]).await;
    world.secret("next").await;
    until_token(&world, "TokenUnavailable").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(401));
    world.notification("n-1", "shop", event()).await;
    world.until("notification", "n-1", |n| n["status"]["lastAttempt"]["statusCode"] == 401).await;
    let refused = world.posts(&path("shop")).len();
    assert_eq!(last_token(&world), old);
    accept(&world, "next");
    world.until_phase("n-1", "Delivered").await;
    assert_eq!(world.posts(&path("shop")).len(), refused + 1, "the refused token was used again");
    let second = last_token(&world);
    assert_ne!(second, old);

    // The token of a Secret that is deleted does not serve, also if a Secret with the same name follows.
    world.secret("third").await;
    until_token(&world, "TokenUnavailable").await;
    assert_eq!(deliver(&world, "n-2").await, second);
    let sent = world.posts(&path("shop")).len();
    world.kubectl(&["delete", "secret", "acme-oauth"]).await.ok().unwrap();
    world.until_reason("shop", "SecretNotFound").await;
    world.notification("n-3", "shop", event()).await;
    world.until("notification", "n-3", |n| n["status"]["reason"] == "SubscriberNotReady").await;
    let before = refusals(&world).len();
    world.secret("third").await;
    until_refused(&world, before + 2).await;
    let waiting = world.until_reason("shop", "TokenUnavailable").await;
    assert!(message(&waiting, "Ready").contains(NOT_YET) && condition(&waiting, "Stalled").is_null());
    assert_eq!(world.posts(&path("shop")).len(), sent, "the token of the deleted Secret was used");
    accept(&world, "third");
    world.until_phase("n-3", "Delivered").await;
    assert!(![old, second].contains(&last_token(&world)));
}

#[tokio::test]
async fn field_12_a_token_whose_secret_withdraws_its_consent_serves_no_longer() {
    let (world, _operator, old) = shop("rotation-consent", &["--require-secret-consent"]).await;
    world.secret("next").await;
    until_token(&world, "TokenUnavailable").await;
    assert_eq!(deliver(&world, "n-1").await, old);
    let sent = world.posts(&path("shop")).len();
    let elsewhere = "tidings.dev/allowed-hosts=hooks.example.com";
    world.kubectl(&["annotate", "secret", "acme-oauth", elsewhere, "--overwrite"]).await.ok().unwrap();
    world.until_reason("shop", "SecretNotPermitted").await;
    world.notification("n-2", "shop", event()).await;
    world.until("notification", "n-2", |n| n["status"]["reason"] == "SubscriberNotReady").await;
    assert_eq!(world.posts(&path("shop")).len(), sent);
    world.kubectl(&["annotate", "secret", "acme-oauth", &consent(&world), "--overwrite"]).await.ok().unwrap();
    world.until_phase("n-2", "Delivered").await;
}
