//! What a Subscriber's conditions say, and how each heals without a restart.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Behaviour, control_plane::AuditEvent};
use tokio::time::{Instant, sleep};

use crate::world::{CLIENT, PATIENCE, World, condition};

#[tokio::test]
async fn a_wrong_client_secret_is_rejected_and_the_notification_waits_untouched() {
    let world = World::new("rejected").await;
    let _operator = world.operator().await;
    world.secret("wrong").await;
    world.subscriber("shop", |_| ()).await;
    world.notifications("n", "shop", 20).await;
    let rejected = world.until_reason("shop", "TokenRejected").await;
    assert_eq!(condition(&rejected, "Ready")["status"], "False");
    assert_eq!(condition(&rejected, "Stalled")["status"], "True");
    assert!(condition(&rejected, "Reconciling").is_null());
    assert_eq!(condition(&rejected, "TokenAvailable")["reason"], "TokenRejected");
    let message = condition(&rejected, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("invalid_client: check the client ID and client secret")
            && message.contains("set tokenService.clientAuthentication to Post"),
        "{message}"
    );
    for notification in world.list("notifications").await {
        let status = &notification["status"];
        assert_eq!((&status["phase"], &status["attempts"]), (&json!("Pending"), &json!(0)));
    }
    assert_eq!(world.tokens.requests().len(), 1, "whatever the backlog");
    assert!(world.receiver.requests().is_empty());

    world.secret(CLIENT.1).await;
    world.until_delivered(20).await;
    let healed = world.until_reason("shop", "Operational").await;
    assert!(condition(&healed, "Stalled").is_null());
}

#[tokio::test]
async fn a_token_service_in_trouble_spends_no_attempts_and_heals() {
    let world = World::new("unavailable").await;
    let _operator = world.operator().await;
    world.secret(CLIENT.1).await;
    world.tokens.answer_always(Behaviour::status(503));
    world.subscriber("shop", |_| ()).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let unavailable = world.until_reason("shop", "TokenUnavailable").await;
    assert_eq!(condition(&unavailable, "Reconciling")["status"], "True");
    assert!(condition(&unavailable, "Ready")["message"].as_str().unwrap().contains("503"));
    world.tokens.behave();
    let delivered = world.until_phase("n", "Delivered").await;
    assert_eq!(delivered["status"]["attempts"], 1);
    assert!(world.tokens.requests().len() <= 4);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_reported_with_its_key_and_the_cause() {
    let world = World::new("secrets").await;
    let _operator = world.operator().await;
    world.subscriber("shop", |_| ()).await;
    let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-oauth"}, "stringData": data});
    let cases = [
        (json!({"client_id": "acme"}), "key client_secret: there is no such key"),
        (json!({"client_secret": ""}), "key client_secret: the value is empty"),
        (json!({"client_secret": "s3cr3t-for-the-test\n"}), "key client_secret: the value ends with a line break"),
        (json!({"client_secret": "sécret"}), "key client_secret: the value has characters other than printable ASCII"),
    ];
    for (data, expected) in cases {
        world.apply(&secret(data)).await;
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(expected));
        let invalid = world.until("subscriber", "shop", says).await;
        assert_eq!(condition(&invalid, "Ready")["reason"], "InvalidSecret");
        assert_eq!(condition(&invalid, "Stalled")["status"], "True");
    }
    let binary = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-oauth"}, "data": {"client_secret": "/wA="},
    });
    world.apply(&binary).await;
    let says =
        |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains("the value is not text"));
    world.until("subscriber", "shop", says).await;
    world.secret(CLIENT.1).await;
    world.until_reason("shop", "Operational").await;
    world.kubectl(&["delete", "secret", "acme-oauth"]).await.ok().unwrap();
    world.until_reason("shop", "SecretNotFound").await;
}

#[tokio::test]
async fn a_bundle_that_cannot_be_used_is_distinguished_from_a_certificate_that_is_not_trusted() {
    let world = World::new("bundles").await;
    let _operator = world.operator().await;
    world.secret(CLIENT.1).await;
    let bundle =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bundle"}, "data": data});
    world.apply(&bundle(json!({"other": "x"}))).await;
    world.subscriber("shop", |spec| spec["webhook"]["tls"]["caRef"]["name"] = "bundle".into()).await;
    let invalid = world.until_reason("shop", "InvalidTrustBundle").await;
    assert!(condition(&invalid, "Ready")["message"].as_str().unwrap().contains("has no key ca.crt"));
    for content in ["not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        world.apply(&bundle(json!({"ca.crt": content}))).await;
        let says =
            |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains("webhook.tls.caRef"));
        world.until("subscriber", "shop", says).await;
    }
    let stranger = testkit::Authority::new();
    world.apply(&bundle(json!({"ca.crt": stranger.ca_pem()}))).await;
    world.until_reason("shop", "Operational").await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let failed = world.until("notification", "n", |n| n["status"]["attempts"] == 1).await;
    assert_eq!(failed["status"]["lastAttempt"]["reason"], "TLSFailed");
    world.apply(&bundle(json!({"ca.crt": world.authority.ca_pem()}))).await;
    world.until_phase("n", "Delivered").await;
}

#[tokio::test]
async fn a_bundle_may_be_in_a_secret_and_no_config_map_of_that_name_is_used() {
    let world = World::new("secret-bundles").await;
    let _operator = world.operator().await;
    world.secret(CLIENT.1).await;
    world
        .subscriber("shop", |spec| {
            spec["webhook"]["tls"]["caRef"] = json!({"kind": "Secret", "name": "test-ca", "key": "ca"})
        })
        .await;
    // There is a ConfigMap of that name.
    world.until_reason("shop", "SecretNotFound").await;
    let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "test-ca"}, "stringData": data});
    world.apply(&secret(json!({"other": "x"}))).await;
    let invalid = world.until_reason("shop", "InvalidTrustBundle").await;
    assert!(condition(&invalid, "Ready")["message"].as_str().unwrap().contains("Secret test-ca has no key ca"));
    world.apply(&secret(json!({"ca": world.authority.ca_pem()}))).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("n", "Delivered").await;
}

#[tokio::test]
async fn an_address_that_the_egress_policy_denies_is_never_dialled_and_the_flag_is_named() {
    let world = World::new("egress").await;
    let operator = world.start(&[]).await;
    operator.ready(PATIENCE).await.unwrap();
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let denied = world.until_reason("shop", "EgressDenied").await;
    let message = condition(&denied, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("--egress-allow-cidr") && !message.contains("127.0.0"), "{message}");
    assert_eq!(condition(&denied, "Stalled")["status"], "True");
    assert_eq!(world.get("notification", "n").await["status"]["attempts"], 0);
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty());
}

#[tokio::test]
async fn basic_and_post_authentication_audience_and_parameters_reach_the_token_service() {
    let world = World::new("clients").await;
    let _operator = world.operator().await;
    world.secret(CLIENT.1).await;
    world.subscriber("basic", |_| ()).await;
    world.until_reason("basic", "Operational").await;
    world
        .subscriber("post", |spec| {
            spec["tokenService"]["clientAuthentication"] = "Post".into();
            spec["tokenService"]["audience"] = "https://hooks.example.com".into();
            spec["tokenService"]["parameters"] = json!({"resource": "urn:acme:hooks"});
        })
        .await;
    world.until_reason("post", "Operational").await;
    let requests = world.tokens.requests();
    let methods: Vec<_> = requests.iter().map(|request| request.authentication).collect();
    use testkit::endpoints::AuthMethod::{Basic, Post};
    assert_eq!(methods, [Some(Basic), Some(Post)]);
    assert_eq!(requests[1].audience(), Some("https://hooks.example.com"));
    let resources: Vec<_> = requests.iter().map(|request| request.fields.get("resource")).collect();
    assert_eq!(resources, [None, Some("urn:acme:hooks")]);
    world.subscriber("narrow", |spec| spec["tokenService"]["scopes"] = json!(["events.delete"])).await;
    let rejected = world.until_reason("narrow", "TokenRejected").await;
    assert!(condition(&rejected, "Ready")["message"].as_str().unwrap().contains("check tokenService.scopes"));
}

#[tokio::test]
async fn a_reconcile_reads_each_object_once_however_often_the_subscriber_names_it() {
    let world = World::new("once").await;
    world.secret(CLIENT.1).await;
    // The bundle is named for the webhook and for the token service.
    world.subscriber("shop", |_| ()).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    // Another reconcile may be under way: once it has read everything, the numbers are equal.
    let end = Instant::now() + PATIENCE;
    loop {
        let audit = world.plane.audit().await.unwrap();
        let reads = |resource: &str| {
            let is_read = |event: &&AuditEvent| {
                event.verb == "get" && event.resource == resource && event.namespace == world.namespace
            };
            audit.iter().filter(is_read).filter(|event| event.user.ends_with(":tidings")).count()
        };
        assert!(reads("secrets") > 0);
        if reads("configmaps") == reads("secrets") {
            break;
        }
        assert!(Instant::now() < end, "{} and {} reads", reads("configmaps"), reads("secrets"));
        sleep(Duration::from_millis(100)).await;
    }
}
