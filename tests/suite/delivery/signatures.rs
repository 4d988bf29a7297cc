//! Signed requests (Standard Webhooks), numbered as in `docs/conformance.md`. Programs that others wrote verify the
//! signatures: the library of Standard Webhooks (v1) and OpenSSL (v1a).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use testkit::{Behaviour, endpoints::Received, folder::Folder};
use tidings_api::AttemptReason;
use tidings_delivery::{
    event::Encoding,
    webhook::{Signer, SigningKey, Verdict, request_validation},
};

use crate::{
    delivery::conformance::{Exchange, PATH, STRUCTURED, event},
    subscribers::test_event,
    world::{CLIENT, World, condition, path},
};

const KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn signer(current: &str, previous: Option<&str>) -> Option<Signer> {
    let key = |text: &str| SigningKey::parse(text.as_bytes()).ok().unwrap();
    Some(Signer::new(key(current), previous.map(key)))
}

/// An exchange whose target signs with these keys.
async fn signing(encoding: Encoding, current: &str, previous: Option<&str>) -> Exchange {
    let mut exchange = Exchange::new(encoding).await;
    exchange.target.signer = signer(current, previous);
    exchange
}

/// Delivers an event and returns the request.
async fn sent(encoding: Encoding, current: &str, previous: Option<&str>, more: Value) -> Received {
    let exchange = signing(encoding, current, previous).await;
    assert_eq!(exchange.deliver(&event(more)).await.verdict, Verdict::Delivered);
    exchange.received().remove(0)
}

/// Whether a receiver with this key accepts the request.
fn accepts(key: &str, received: &Received) -> bool {
    Webhook::new(key).unwrap().verify(&received.body, &received.headers).is_ok()
}

fn is_signed(received: &Received) -> bool {
    ["webhook-id", "webhook-timestamp", "webhook-signature"].iter().any(|name| received.headers.contains_key(*name))
}

fn timestamp(received: &Received) -> u64 {
    received.header("webhook-timestamp").unwrap().parse().unwrap()
}

#[tokio::test]
async fn signature_01_the_id_is_that_of_the_event_in_every_request() {
    for encoding in [STRUCTURED, Encoding::Binary] {
        let exchange = signing(encoding, KEY, None).await;
        let paid = event(json!({"id": "order-1042-paid", "data": {}}));
        exchange.receiver.answer_next(PATH, 1, &Behaviour::status(500));
        assert_eq!(exchange.deliver(&paid).await.verdict, Verdict::Retry);
        assert_eq!(exchange.deliver(&paid).await.verdict, Verdict::Delivered);
        for received in exchange.received() {
            assert_eq!(received.header("webhook-id"), Some("order-1042-paid"));
            assert_eq!(received.event_id().as_deref(), Some("order-1042-paid"));
        }
    }
    // Without an id of its own, an event has the uid of its Notification.
    let received = sent(STRUCTURED, KEY, None, json!({"id": null})).await;
    assert_eq!(received.header("webhook-id"), Some("uid-1"));
}

#[tokio::test]
async fn signature_02_an_id_is_sent_percent_encoded_and_without_dots() {
    let long = "€".repeat(1024);
    for (id, value) in [
        ("urn:order.1042/é \"x\" 100%", "urn:order%2E1042/%C3%A9%20%22x%22%20100%25"),
        // Another id must not be signed with the same content.
        ("urn:order%2E1042", "urn:order%252E1042"),
        (" 1700000000. ", "%201700000000%2E%20"),
        (&*long, &*"%E2%82%AC".repeat(1024)),
    ] {
        for encoding in [STRUCTURED, Encoding::Binary] {
            let received = sent(encoding, KEY, None, json!({"id": id, "data": 1})).await;
            assert_eq!(received.header("webhook-id"), Some(value));
            assert_eq!(received.event_id().as_deref(), Some(id));
            assert!(accepts(KEY, &received), "{id}");
        }
    }
}

#[tokio::test]
async fn signature_03_v1_is_verified_by_the_library_of_standard_webhooks() {
    for (encoding, more) in [
        (STRUCTURED, json!({"subject": "ä", "data": {"text": "€ \n"}})),
        (Encoding::Structured("application/json"), json!({})),
        (Encoding::Binary, json!({"data": {"n": 1.0}})),
        (Encoding::Binary, json!({"datacontenttype": "text/plain", "data": "say \"hi\"\n"})),
        (Encoding::Binary, json!({})),
    ] {
        let received = sent(encoding, KEY, None, more).await;
        assert!(received.header("webhook-signature").unwrap().starts_with("v1,"));
        assert!(accepts(KEY, &received), "{received:?}");
        assert!(!accepts(OTHER_KEY, &received));
        let altered = |name: &'static str, value: &str| {
            let mut altered = received.clone();
            altered.headers.insert(name, value.parse().unwrap());
            altered
        };
        assert!(!accepts(KEY, &altered("webhook-id", "2")));
        assert!(!accepts(KEY, &altered("webhook-timestamp", &(timestamp(&received) + 1).to_string())));
        let body = [&received.body[..], b" "].concat().into();
        assert!(!accepts(KEY, &Received { body, ..received }));
    }
}

/// Runs a program with this input and returns its output, and whether it succeeded.
fn run(program: &str, args: &[&str]) -> (Vec<u8>, bool) {
    let command = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = command.unwrap_or_else(|error| panic!("{program}: {error}"));
    (output.stdout, output.status.success())
}

/// Creates a key pair with OpenSSL, and returns the files of the private and of the public key.
fn key_pair(folder: &Path) -> (PathBuf, PathBuf) {
    let (private, public) = (folder.join("private.pem"), folder.join("public.pem"));
    let generate = ["genpkey", "-algorithm", "ed25519", "-out", private.to_str().unwrap()];
    assert!(run("openssl", &generate).1, "{generate:?}");
    let publish = ["pkey", "-in", private.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()];
    assert!(run("openssl", &publish).1, "{publish:?}");
    (private, public)
}

/// The key of a file in the text form of Standard Webhooks: the last 32 bytes of its DER form.
fn in_text(prefix: &str, file: &Path, more: &[&str]) -> String {
    let (der, _) = run("openssl", &[&["pkey", "-in", file.to_str().unwrap(), "-outform", "DER"], more].concat());
    format!("{prefix}{}", BASE64_STANDARD.encode(&der[der.len() - 32..]))
}

/// Whether OpenSSL accepts the signature `v1a` of the request with this public key.
fn openssl_accepts(folder: &Path, public: &Path, received: &Received) -> bool {
    let signatures = received.header("webhook-signature").unwrap().split(' ');
    let signature = signatures.filter_map(|signature| signature.strip_prefix("v1a,")).next().unwrap();
    let head = format!("{}.{}.", received.header("webhook-id").unwrap(), received.header("webhook-timestamp").unwrap());
    let (content, signed) = (folder.join("content"), folder.join("signature"));
    fs::write(&content, [head.as_bytes(), &received.body].concat()).unwrap();
    fs::write(&signed, BASE64_STANDARD.decode(signature).unwrap()).unwrap();
    let [public, content, signed] = [public, &content, &signed].map(|file| file.to_str().unwrap());
    run("openssl", &["pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", content, "-sigfile", signed]).1
}

#[tokio::test]
async fn signature_04_v1a_is_verified_by_openssl() {
    let folder = Folder::new("signature").unwrap();
    let folder = folder.path();
    let (private, public) = key_pair(folder);
    let seed = in_text("whsk_", &private, &[]);
    let half = |text: &str, prefix: &str| BASE64_STANDARD.decode(text.strip_prefix(prefix).unwrap()).unwrap();
    let both = [half(&seed, "whsk_"), half(&in_text("whpk_", &public, &["-pubin"]), "whpk_")].concat();
    let with_public = format!("whsk_{}", BASE64_STANDARD.encode(both));
    for (encoding, more) in [
        (STRUCTURED, json!({"data": {"text": "€"}})),
        (Encoding::Binary, json!({"datacontenttype": "image/png", "data_base64": "/wD+"})),
    ] {
        for key in [&seed, &with_public] {
            let received = sent(encoding, key, None, more.clone()).await;
            assert!(received.header("webhook-signature").unwrap().starts_with("v1a,"));
            assert!(openssl_accepts(folder, &public, &received), "{received:?}");
            let body = [&received.body[..], b" "].concat().into();
            assert!(!openssl_accepts(folder, &public, &Received { body, ..received }));
        }
    }
}

#[tokio::test]
async fn signature_05_while_a_key_is_replaced_a_receiver_with_either_key_accepts() {
    let received = sent(STRUCTURED, OTHER_KEY, Some(KEY), json!({})).await;
    assert!(accepts(KEY, &received) && accepts(OTHER_KEY, &received));
    assert_eq!(received.header("webhook-signature").unwrap().split(' ').count(), 2);
    // From one scheme to the other.
    let folder = Folder::new("replaced-key").unwrap();
    let (private, public) = key_pair(folder.path());
    let received = sent(STRUCTURED, &in_text("whsk_", &private, &[]), Some(KEY), json!({})).await;
    assert!(accepts(KEY, &received) && openssl_accepts(folder.path(), &public, &received));
}

#[tokio::test]
async fn signature_06_each_request_has_its_own_time_and_signature() {
    let exchange = signing(STRUCTURED, KEY, None).await;
    // The webhook takes its time to refuse the token.
    exchange.receiver.answer_next(PATH, 1, &Behaviour::status(401).after(Duration::from_millis(1100)));
    assert_eq!(exchange.deliver(&event(json!({}))).await.verdict, Verdict::Delivered);
    let received = exchange.received();
    assert_eq!(received.iter().map(|r| r.answered.unwrap()).collect::<Vec<_>>(), [401, 204]);
    assert!(timestamp(&received[1]) > timestamp(&received[0]));
    assert_ne!(received[0].header("webhook-signature"), received[1].header("webhook-signature"));
    for request in &received {
        let arrived = request.arrived_at.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(arrived.abs_diff(timestamp(request)) <= 1, "a time in seconds: {request:?}");
        assert!(accepts(KEY, request));
    }
}

#[tokio::test]
async fn signature_07_the_validation_request_and_requests_without_a_key_are_not_signed() {
    let exchange = signing(STRUCTURED, KEY, None).await;
    request_validation(&exchange.target, None).await.unwrap();
    assert!(!is_signed(&exchange.received()[0]));
    let unsigned = Exchange::new(STRUCTURED).await;
    assert_eq!(unsigned.deliver(&event(json!({}))).await.reason, AttemptReason::Acknowledged);
    assert!(!is_signed(&unsigned.received()[0]));
}

fn secret(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// Sends events until the receiver gets one that `is_it` is true of.
async fn until_sent(world: &World, prefix: &str, is_it: impl Fn(&Received) -> bool) {
    for number in 0..50 {
        let name = format!("{prefix}-{number}");
        world.notification(&name, "shop", json!({"source": "/s", "type": "t", "data": {}})).await;
        world.until_phase(&name, "Delivered").await;
        if is_it(world.posts(&path("shop")).last().unwrap()) {
            return;
        }
    }
    panic!("no such request arrived");
}

#[tokio::test]
async fn signature_08_a_changed_key_takes_effect_without_a_restart() {
    let world = World::new("signatures").await;
    world.secret(CLIENT.1).await;
    world.apply(&secret("signing", &json!({"key": KEY}))).await;
    let _operator = world.operator().await;
    let reference = |key: &str| json!({"name": "signing", "key": key});
    world.subscriber("shop", |spec| spec["webhook"]["signature"] = json!({"secretRef": reference("key")})).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t", "data": {}})).await;
    let delivered = world.until_phase("n", "Delivered").await;
    let posts = world.posts(&path("shop"));
    assert!(posts.len() == 1 && accepts(KEY, &posts[0]), "{posts:?}");
    assert_eq!(posts[0].header("webhook-id"), delivered["metadata"]["uid"].as_str());
    assert!(!is_signed(&world.options(&path("shop"))[0]));

    world.apply(&secret("signing", &json!({"key": OTHER_KEY, "previous": KEY}))).await;
    until_sent(&world, "changed", |received| accepts(OTHER_KEY, received) && !accepts(KEY, received)).await;
    let both = json!({"secretRef": reference("key"), "previousSecretRef": reference("previous")});
    world.subscriber("shop", |spec| spec["webhook"]["signature"] = both).await;
    until_sent(&world, "both", |received| accepts(OTHER_KEY, received) && accepts(KEY, received)).await;

    // A test event is signed too.
    assert_eq!(test_event::test(&world, "1").await["reason"], "TestPassed");
    let posts = world.posts(&path("shop"));
    let tested = posts.last().unwrap();
    assert!(tested.json().unwrap()["type"] == "dev.tidings.test" && accepts(KEY, tested));
    assert!(tested.arrived_at <= SystemTime::now());
}

#[tokio::test]
async fn signature_09_a_key_that_cannot_be_used_is_reported_and_nothing_is_sent_unsigned() {
    let world = World::new("bad-keys").await;
    world.secret(CLIENT.1).await;
    let _operator = world.operator().await;
    let reference = |key: &str| json!({"name": "signing", "key": key});
    let both = json!({"secretRef": reference("key"), "previousSecretRef": reference("previous")});
    world.subscriber("shop", |spec| spec["webhook"]["signature"] = both).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let missing = world.until_reason("shop", "SecretNotFound").await;
    assert!(condition(&missing, "Ready")["message"].as_str().unwrap().starts_with("Secret signing does not exist"));
    let with = |key: &str| json!({"key": key, "previous": KEY});
    let short = format!("whsec_{}", BASE64_STANDARD.encode([7; 23]));
    for (data, expected) in [
        (
            json!({"previous": KEY}),
            "key key: there is no such key: add the key, or name another key in webhook.signature.secretRef",
        ),
        (
            json!({"key": KEY}),
            "key previous: there is no such key: add the key, or name another key in webhook.signature.previousSecretRef",
        ),
        (with(""), "key key, for webhook.signature.secretRef: the value is empty"),
        (with(&format!("{KEY}\n")), "the value ends with a line break"),
        (with(&KEY["whsec_".len()..]), "begins neither with whsec_"),
        (with("whsec_not base64"), "the value is not base64"),
        (with(&short), "must have 24 to 64 bytes"),
        (with("whpk_AAAA"), "the value is a public key"),
        (with("whsk_AAAA"), "must be an Ed25519 private key of 32 bytes"),
        (with(&"x".repeat(200)), "the value is longer than a signing key"),
        (
            json!({"key": KEY, "previous": "x"}),
            "key previous, for webhook.signature.previousSecretRef: the value begins neither",
        ),
    ] {
        // A merge of the Secret would keep keys that are not named.
        world.kubectl(&["delete", "secret", "signing", "--ignore-not-found"]).await.ok().unwrap();
        world.apply(&secret("signing", &data)).await;
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(expected));
        let invalid = world.until("subscriber", "shop", says).await;
        assert_eq!(condition(&invalid, "Ready")["reason"], "InvalidSecret");
        assert_eq!(condition(&invalid, "Stalled")["status"], "True");
    }
    assert!(world.posts(&path("shop")).is_empty());
    world.apply(&secret("signing", &with(OTHER_KEY))).await;
    world.until_phase("n", "Delivered").await;
    let posts = world.posts(&path("shop"));
    assert!(accepts(KEY, &posts[0]) && accepts(OTHER_KEY, &posts[0]));
}
