//! Client certificates (mTLS), for the webhook and for the token service apart, and their rotation.

use serde_json::{Value, json};
use testkit::{Authority, Client, Receiver, TokenService};

use crate::{
    subscribers::test_event::test,
    world::{CLIENT, World, condition, path, tls_secret},
};

/// A world whose receiver and token service demand certificates of two different authorities.
pub async fn guarded(name: &str) -> (World, [Authority; 2]) {
    let mut world = World::new(name).await;
    let clients = [Authority::new(), Authority::new()];
    let server = world.authority.server_identity(&[]);
    world.tokens = TokenService::start_with(server.server_config_for_clients_of(&clients[1])).await.unwrap();
    world.tokens.register(Client::new(CLIENT.0, CLIENT.1).scopes(["events.write"]));
    let tls = server.server_config_for_clients_of(&clients[0]);
    world.receiver = Receiver::start_with(tls, world.tokens.tokens()).await.unwrap();
    world.secret(CLIENT.1).await;
    (world, clients)
}

/// Applies the Subscriber `shop`, with client certificates of these authorities for its webhook and its token service.
pub async fn with_both_certificates(world: &World, [webhook, tokens]: [&Authority; 2]) {
    world.apply(&tls_secret("hook-mtls", &webhook.client_identity("tidings"))).await;
    world.apply(&tls_secret("token-mtls", &tokens.client_identity("tidings"))).await;
    world
        .subscriber("shop", |spec| {
            spec["webhook"]["tls"]["clientCertificateSecretRef"] = json!({"name": "hook-mtls"});
            spec["tokenService"]["tls"]["clientCertificateSecretRef"] = json!({"name": "token-mtls"});
        })
        .await;
}

#[tokio::test]
async fn webhook_and_token_service_each_get_their_own_certificate_and_a_rotated_one_needs_no_restart() {
    let (world, [of_webhook, of_tokens]) = guarded("mtls").await;
    let _operator = world.operator().await;
    with_both_certificates(&world, [&of_webhook, &of_tokens]).await;
    world.notification("a", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("a", "Delivered").await;

    // A certificate of the wrong authority is refused, and the right one heals it: both without a restart.
    world.apply(&tls_secret("hook-mtls", &of_tokens.client_identity("tidings"))).await;
    let mut tests = 0;
    let mut tested = json!(null);
    while !tested["message"].as_str().is_some_and(|message| message.contains("TLSFailed")) {
        tests += 1;
        assert!(tests < 50, "the new certificate is not shown: {tested}");
        tested = test(&world, &tests.to_string()).await;
    }
    let taken = world.posts(&path("shop")).len();
    world.notification("b", "shop", json!({"source": "/s", "type": "t"})).await;
    let failed = world.until("notification", "b", |n| n["status"]["attempts"] == 1).await;
    assert_eq!(failed["status"]["lastAttempt"]["reason"], "TLSFailed");
    world.apply(&tls_secret("hook-mtls", &of_webhook.client_identity("tidings"))).await;
    world.until_phase("b", "Delivered").await;
    assert_eq!(world.posts(&path("shop")).len(), taken + 1);
}

#[tokio::test]
async fn without_a_client_certificate_the_token_service_is_unavailable_and_an_unusable_one_is_named() {
    let (world, [_, of_tokens]) = guarded("mtls-faults").await;
    let _operator = world.operator().await;
    let (good, other) = (of_tokens.client_identity("tidings"), of_tokens.client_identity("other"));
    world.subscriber("shop", |spec| spec["abuseProtection"] = json!({"policy": "Disabled"})).await;
    let unavailable = world.until_reason("shop", "TokenUnavailable").await;
    assert!(condition(&unavailable, "TokenAvailable")["message"].as_str().unwrap().contains("TLS"));

    let with_secret = |spec: &mut Value| {
        spec["abuseProtection"] = json!({"policy": "Disabled"});
        spec["tokenService"]["tls"]["clientCertificateSecretRef"] = json!({"name": "token-mtls"});
    };
    world.subscriber("shop", with_secret).await;
    world.until_reason("shop", "SecretNotFound").await;
    let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token-mtls"}, "stringData": data});
    let cases = [
        (json!({"tls.key": good.key_pem}), "key tls.crt: there is no such key"),
        (json!({"tls.crt": good.certificate_pem, "tls.key": "none"}), "no PEM private key in tls.key"),
        (json!({"tls.crt": "none", "tls.key": good.key_pem}), "no PEM certificate in tls.crt"),
        (
            json!({"tls.crt": good.certificate_pem, "tls.key": other.key_pem}),
            "does not belong to the first certificate",
        ),
    ];
    for (data, expected) in cases {
        world.kubectl(&["delete", "secret", "token-mtls", "--ignore-not-found"]).await.ok().unwrap();
        world.apply(&secret(data)).await;
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(expected));
        let invalid = world.until("subscriber", "shop", says).await;
        assert_eq!(condition(&invalid, "Ready")["reason"], "InvalidSecret");
        assert_eq!(condition(&invalid, "Stalled")["status"], "True");
    }
    world.apply(&secret(json!({"tls.crt": good.certificate_pem, "tls.key": good.key_pem}))).await;
    world.until_reason("shop", "Operational").await;
}
