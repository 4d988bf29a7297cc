//! What a value of a Secret may be: of a bounded length (S17), and of no type that belongs to the cluster itself (S20).

use serde_json::{Value, json};
use tidings_api::DENIED_SECRET_TYPES;

use crate::world::{CLIENT, World, condition};

fn header(name: &str, secret: &str, key: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

/// Waits until a Subscriber is not ready for this reason, and checks that its message has each of these parts.
async fn refused(world: &World, subscriber: &str, reason: &str, parts: &[&str]) {
    let object = world.until_reason(subscriber, reason).await;
    let message = condition(&object, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(parts.iter().all(|part| message.contains(part)), "{subscriber}: {message}");
    assert_eq!(condition(&object, "Stalled")["status"], "True", "{subscriber}");
}

#[tokio::test]
async fn s17_headers_of_a_megabyte_from_a_secret_are_refused_for_every_subscriber() {
    let world = World::new("weights").await;
    world.secret(CLIENT.1).await;
    let big = json!({"k": "A".repeat(1_000_000)});
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "big"}, "stringData": big})).await;
    let _operator = world.operator().await;
    for number in 0..16 {
        world
            .subscriber(&format!("heavy-{number}"), |spec| {
                let headers: Vec<_> = (0..32).map(|n| header(&format!("X-{n}"), "big", "k")).collect();
                spec["webhook"]["headers"] = headers.into();
            })
            .await;
    }
    for number in 0..16 {
        let parts = ["Secret big, key k, for webhook.headers[X-0]", "longer than 8 KiB"];
        refused(&world, &format!("heavy-{number}"), "InvalidSecret", &parts).await;
    }
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
}

#[tokio::test]
async fn s17_each_value_of_a_secret_has_a_limit_that_the_message_names() {
    let world = World::new("limits").await;
    world.secret(CLIENT.1).await;
    let data = json!({
        "client_id": "i".repeat(1025), "client_secret": "s".repeat((16 << 10) + 1), "good": "g",
        "tls.crt": "c".repeat(64 << 10), "tls.key": "k",
        "a": "a".repeat(8192), "b": "b".repeat(8192), "c": "c".repeat(8192), "d": "d".repeat(8192),
    });
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "long"}, "stringData": data})).await;
    let _operator = world.operator().await;
    let credentials = |spec: &mut Value, id: &str, secret: &str| {
        spec["tokenService"]["credentialsSecretRef"] =
            json!({"name": "long", "clientIDKey": id, "clientSecretKey": secret});
    };
    world.subscriber("id", |spec| credentials(spec, "client_id", "good")).await;
    refused(&world, "id", "InvalidSecret", &["Secret long, key client_id", "longer than 1 KiB"]).await;
    world.subscriber("secret", |spec| credentials(spec, "good", "client_secret")).await;
    refused(&world, "secret", "InvalidSecret", &["Secret long, key client_secret", "longer than 16 KiB"]).await;
    for endpoint in ["webhook", "tokenService"] {
        let name = format!("certificate-{}", endpoint.to_lowercase());
        world
            .subscriber(&name, |spec| spec[endpoint]["tls"]["clientCertificateSecretRef"] = json!({"name": "long"}))
            .await;
        refused(&world, &name, "InvalidSecret", &["Secret long, key tls.crt", "longer than 64 KiB"]).await;
    }
    // Each header is short enough, all together are not.
    world
        .subscriber("headers", |spec| {
            spec["webhook"]["headers"] =
                ["a", "b", "c", "d"].map(|key| header(&format!("X-{key}"), "long", key)).into();
        })
        .await;
    let parts = ["Secret long, key d, for webhook.headers[X-d]", "longer than 32 KiB"];
    refused(&world, "headers", "InvalidSecret", &parts).await;
    world
        .subscriber("fits", |spec| {
            spec["webhook"]["headers"] = ["a", "b", "c"].map(|key| header(&format!("X-{key}"), "long", key)).into();
        })
        .await;
    world.until_reason("fits", "Operational").await;
}

#[tokio::test]
async fn s20_a_secret_of_the_cluster_itself_is_never_sent_and_may_hold_a_bundle() {
    let world = World::new("types").await;
    world.secret(CLIENT.1).await;
    let _operator = world.operator().await;
    for (number, type_) in DENIED_SECRET_TYPES.iter().enumerate() {
        let secret = format!("of-the-cluster-{number}");
        let annotations = json!({
            "kubernetes.io/service-account.name": "default",
            "tidings.dev/allowed-hosts": "127.0.0.1",
        });
        let data = json!({
            "client_id": CLIENT.0, "client_secret": CLIENT.1, "token": "t", "ca.crt": world.authority.ca_pem(),
        });
        world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Secret", "type": type_, "stringData": data,
                "metadata": {"name": secret, "annotations": annotations},
            }))
            .await;
        let parts = [&*format!("Secret {secret} is of type {type_}"), "type Opaque"];
        let name = format!("header-{number}");
        world.subscriber(&name, |spec| spec["webhook"]["headers"] = json!([header("X-A", &secret, "token")])).await;
        refused(&world, &name, "SecretTypeDenied", &parts).await;
        let name = format!("credentials-{number}");
        world
            .subscriber(&name, |spec| {
                spec["tokenService"]["credentialsSecretRef"]["name"] = secret.clone().into();
            })
            .await;
        refused(&world, &name, "SecretTypeDenied", &parts).await;
    }
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
    world
        .subscriber("bundle", |spec| {
            spec["webhook"]["tls"]["caRef"] = json!({"kind": "Secret", "name": "of-the-cluster-0"});
        })
        .await;
    world.until_reason("bundle", "Operational").await;
}
