//! The headers that a user adds to requests, and the headers that are refused (S7).

use std::time::Duration;

use serde_json::{Value, json};
use testkit::endpoints::Received;
use tidings_api::{RESERVED_HEADER_PREFIXES, RESERVED_HEADERS};
use tokio::time::{Instant, sleep};

use crate::{
    api::refusals::{refusal, subscriber},
    world::{CLIENT, PATIENCE, World, condition, path},
};

fn secret(value: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "stringData": {"api-key": value}})
}

fn with_header(header: Value) -> Value {
    subscriber(|spec| spec["webhook"]["headers"] = json!([header]))
}

#[tokio::test]
async fn every_request_carries_the_headers_and_a_rotated_value_takes_effect_without_a_restart() {
    let world = World::new("headers").await;
    world.secret(CLIENT.1).await;
    world.apply(&secret(&"first".into())).await;
    let _operator = world.operator().await;
    world
        .subscriber("shop", |spec| {
            spec["webhook"]["headers"] = json!([
                {"name": "X-Tenant", "value": "acme, inc"},
                {"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "api-key"}}},
            ]);
        })
        .await;
    world.notification("a", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("a", "Delivered").await;
    let sent = |received: &Received| {
        (received.header("x-tenant").unwrap().to_owned(), received.header("x-api-key").unwrap().to_owned())
    };
    let requests = world.receiver.requests_for(&path("shop"));
    assert_eq!(requests.len(), 2, "the validation request and the event");
    assert!(requests.iter().all(|request| sent(request) == ("acme, inc".to_owned(), "first".to_owned())));

    world.apply(&secret(&"second".into())).await;
    let mut number = 0;
    while sent(world.posts(&path("shop")).last().unwrap()).1 != "second" {
        number += 1;
        assert!(number < 50, "the new value is not sent");
        let name = format!("b-{number}");
        world.notification(&name, "shop", json!({"source": "/s", "type": "t"})).await;
        world.until_phase(&name, "Delivered").await;
    }
}

#[tokio::test]
async fn a_header_value_that_a_secret_lacks_is_reported_and_heals() {
    let world = World::new("header-secrets").await;
    world.secret(CLIENT.1).await;
    let _operator = world.operator().await;
    world
        .subscriber("shop", |spec| {
            spec["webhook"]["headers"] =
                json!([{"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "api-key"}}}]);
        })
        .await;
    let missing = world.until_reason("shop", "SecretNotFound").await;
    assert!(condition(&missing, "Ready")["message"].as_str().unwrap().contains("Secret hook"));
    let other =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "stringData": {"other": "x"}});
    let binary =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "data": {"api-key": "/wA="}});
    let cases = [
        (other, "key api-key: there is no such key"),
        (secret(&"".into()), "the value is empty"),
        (secret(&"key\n".into()), "the value ends with a line break"),
        (secret(&"a\r\nInjected: 1".into()), "characters other than printable ASCII"),
        (binary, "characters other than printable ASCII"),
    ];
    for (secret, expected) in cases {
        world.apply(&secret).await;
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(expected));
        let invalid = world.until("subscriber", "shop", says).await;
        assert_eq!(condition(&invalid, "Ready")["reason"], "InvalidSecret");
        assert!(condition(&invalid, "TokenAvailable").is_null(), "the credentials are not affected");
    }
    world.apply(&secret(&"key".into())).await;
    world.until_reason("shop", "Operational").await;
    world.kubectl(&["delete", "secret", "hook"]).await.ok().unwrap();
    world.until_reason("shop", "SecretNotFound").await;
}

#[tokio::test]
async fn s07_the_api_server_refuses_every_header_that_tidings_or_http_owns() {
    let world = World::new("reserved").await;
    let names = RESERVED_HEADERS.iter().map(ToString::to_string);
    let names = names.chain(RESERVED_HEADER_PREFIXES.iter().map(|prefix| format!("{prefix}X")));
    for name in names.flat_map(|name| [name.to_uppercase(), name]) {
        let refusal = refusal(world.plane, &world.namespace, &with_header(json!({"name": name, "value": "a"}))).await;
        assert!(refusal.contains("spec.webhook.headers[0].name") && refusal.contains("owns"), "{name}: {refusal}");
    }
}

#[tokio::test]
async fn s07_the_api_server_refuses_a_header_that_is_none() {
    let world = World::new("odd-headers").await;
    let from = json!({"secretKeyRef": {"name": "hook", "key": "api-key"}});
    let cases = [
        (json!({"name": "X Tenant", "value": "a"}), "must be a valid HTTP header name"),
        (json!({"name": "X-Tenant:", "value": "a"}), "must be a valid HTTP header name"),
        (json!({"name": "X-Ä", "value": "a"}), "must be a valid HTTP header name"),
        (json!({"name": "X-Tenant", "value": "a\r\nX-Other: b"}), "must be printable ASCII"),
        (json!({"name": "X-Tenant", "value": "a\u{0}"}), "must be printable ASCII"),
        (json!({"name": "X-Tenant", "value": " a"}), "must be printable ASCII"),
        (json!({"name": "X-Tenant", "value": ""}), "at least 1 chars"),
        (json!({"name": "X-Tenant"}), "exactly one of value and valueFrom"),
        (json!({"name": "X-Tenant", "value": "a", "valueFrom": from}), "exactly one of value and valueFrom"),
    ];
    for (header, message) in cases {
        let refusal = refusal(world.plane, &world.namespace, &with_header(header)).await;
        assert!(refusal.contains("spec.webhook.headers[0]") && refusal.contains(message), "{message}: {refusal}");
    }
    let twice = subscriber(|spec| {
        spec["webhook"]["headers"] = json!([{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}])
    });
    let refusal = refusal(world.plane, &world.namespace, &twice).await;
    assert!(refusal.contains("each header once"), "{refusal}");
}

#[tokio::test]
async fn field_16_a_token_endpoint_behind_a_gateway_gets_the_headers_of_the_spec() {
    let world = World::new("gateway").await;
    world.secret(CLIENT.1).await;
    world.tokens.require_header("x-api-key", "first");
    let _operator = world.operator().await;
    let quick = |spec: &mut Value| spec["abuseProtection"] = json!({"policy": "Disabled"});
    world.subscriber("shop", quick).await;
    world.until_reason("shop", "TokenRejected").await;

    let with_key = |spec: &mut Value| {
        quick(spec);
        spec["tokenService"]["headers"] = json!([
            {"name": "X-Tenant", "value": "acme, inc"},
            {"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "api-key"}}},
        ]);
    };
    world.subscriber("shop", with_key).await;
    let missing = world.until_reason("shop", "SecretNotFound").await;
    assert!(condition(&missing, "Ready")["message"].as_str().unwrap().contains("Secret hook"));
    for (value, fault) in [("key\n", "ends with a line break"), (&*"k".repeat(8193), "longer than 8 KiB")] {
        world.apply(&secret(&value.into())).await;
        let parts = ["Secret hook, key api-key, for tokenService.headers[X-Api-Key]", fault];
        let says = |s: &Value| {
            let message = condition(s, "Ready")["message"].as_str().unwrap_or_default().to_owned();
            parts.iter().all(|part| message.contains(part))
        };
        let invalid = world.until("subscriber", "shop", says).await;
        assert_eq!(condition(&invalid, "Ready")["reason"], "InvalidSecret");
    }
    world.apply(&secret(&"first".into())).await;
    world.notification("a", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("a", "Delivered").await;
    let request = world.tokens.requests().pop().unwrap();
    assert_eq!(
        (&request.headers["x-tenant"], &request.headers["x-api-key"]),
        (&"acme, inc".parse().unwrap(), &"first".parse().unwrap())
    );
    let post = &world.posts(&path("shop"))[0];
    assert!(post.header("x-tenant").is_none() && post.header("x-api-key").is_none(), "the key went to the webhook");

    // The gateway gets a new key: a change of the Secret takes effect without a restart.
    world.tokens.require_header("x-api-key", "second");
    let before = world.tokens.requests().len();
    world.apply(&secret(&"second".into())).await;
    let end = Instant::now() + PATIENCE;
    while !world.tokens.requests()[before..].iter().any(|request| request.answered == Some(200)) {
        assert!(Instant::now() < end, "the new key is not sent");
        sleep(Duration::from_millis(50)).await;
    }
    world.until_reason("shop", "Operational").await;
}
