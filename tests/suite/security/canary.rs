//! What the other side sends (S6) and what Secrets hold (S10) is shown nowhere: canaries in all of it, through good and
//! bad exchanges, and a search of all that the operator puts out at its most talkative.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};
use testkit::{Behaviour, Client, Operator, endpoints::Reply};

use crate::{
    delivery::{
        keys,
        service_accounts::{ANNOTATION, AUDIENCE, account, by_account, grant},
    },
    security::client_certificates::guarded,
    subscribers::test_event,
    world::{CLIENT, PATIENCE, World, condition, path, tls_secret},
};

const SECRET: &str = "canary-client-secret";
const ROTATED: &str = "canary-rotated-secret";
const WRONG: &str = "canary-wrong-secret";
const HEADER: &str = "canary-header-value";
const PLAIN_HEADER: &str = "canary-plain-header";
const BROKEN_HEADER: &str = "canary-broken-header";
/// Two signing keys; the second one has a valid form and no valid length.
const SIGNING_KEY: &str = "whsec_Y2FuYXJ5LXNpZ25pbmcta2V5LWZvci10aGUtdGVzdA==";
const BROKEN_SIGNING_KEY: &str = "whsec_Y2FuYXJ5LWJyb2tlbi1rZXk=";
const BODY: &str = "canary-response-body";
const ANSWER_HEADER: &str = "canary-answer-header";
const ORIGIN: &str = "canary-origin.example.com";
const DESCRIPTION: &str = "canary-error-description";
const MALFORMED: &str = "canary-malformed-token";

/// What the webhook answers to events, one after the other.
const STATUSES: [u16; 9] = [200, 202, 308, 400, 401, 403, 415, 500, 503];
/// Where an answer has room for a canary.
const ANSWER_HEADERS: [&str; 6] =
    ["content-type", "location", "retry-after", "set-cookie", "www-authenticate", "x-odd"];

/// All that the operator has put out in one run, and all that must not be in it.
struct Run {
    /// What was searched, by where it stands.
    shown: Vec<(&'static str, String)>,
    /// From Secrets and token services.
    secrets: BTreeSet<String>,
    /// What the webhook sends, and where names lead.
    answers: BTreeSet<String>,
}

fn secret(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// Applies the client's credentials as kubectl does by default: an annotation then holds them in clear text.
async fn apply_credentials(world: &World, client_secret: &str) {
    let secret = secret("acme-oauth", &json!({"client_id": CLIENT.0, "client_secret": client_secret}));
    world.plane.admin().apply(&secret.to_string(), &["-n", &world.namespace]).await.unwrap();
}

fn register(world: &World, client_secret: &str) {
    world.tokens.register(Client::new(CLIENT.0, client_secret).scopes(["events.write"]));
}

/// An answer with a canary wherever there is room for one.
fn answer(status: u16) -> Reply {
    ANSWER_HEADERS.iter().fold(Reply::status(status).body(BODY), |reply, name| reply.header(name, ANSWER_HEADER))
}

/// A world with canaries in its Secrets, and a Subscriber `shop` that uses all of them, at endpoints given by name that
/// let no client in without a certificate. Also a line of each private key.
async fn world() -> (World, [String; 2]) {
    let (world, authorities) = guarded("canary").await;
    register(&world, SECRET);
    apply_credentials(&world, SECRET).await;
    let annotated = world.get("secret", "acme-oauth").await["metadata"]["annotations"].to_string();
    assert!(annotated.contains(SECRET));
    world.apply(&secret("hook", &json!({"api-key": HEADER}))).await;
    world.apply(&secret("signing", &json!({"key": SIGNING_KEY}))).await;
    let identities = authorities.map(|authority| authority.client_identity("tidings"));
    for (name, identity) in ["hook-mtls", "token-mtls"].iter().zip(&identities) {
        world.apply(&tls_secret(name, identity)).await;
    }
    world
        .subscriber("shop", |spec| {
            for (part, certificate) in [("webhook", "hook-mtls"), ("tokenService", "token-mtls")] {
                let url = spec[part]["url"].as_str().unwrap().replace("127.0.0.1", "localhost");
                spec[part]["url"] = url.into();
                spec[part]["tls"]["clientCertificateSecretRef"] = json!({"name": certificate});
            }
            spec["webhook"]["headers"] = json!([
                {"name": "X-Plain", "value": PLAIN_HEADER},
                {"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "api-key"}}},
            ]);
            spec["webhook"]["signature"] = json!({"secretRef": {"name": "signing", "key": "key"}});
            spec["delivery"] = json!({"backoff": {"initialSeconds": 3600}});
        })
        .await;
    (world, identities.map(|identity| identity.key_pem.lines().nth(1).unwrap().to_owned()))
}

/// Where the token service takes every assertion.
const SIGNED: &str = "/signed";

/// Applies a private key that signs assertions, and a Subscriber `signer` that uses the key. Returns the key.
async fn signer(world: &World) -> String {
    let token = json!({"access_token": "signed", "token_type": "Bearer"}).to_string();
    world.tokens.answer_always_at(SIGNED, Behaviour::reply(Reply::status(200).body(token)));
    let key = keys::key(keys::P256);
    world.apply(&secret("signer", &json!({"tls.key": key, "kid": "first"}))).await;
    world
        .subscriber("signer", |spec| {
            let service = &mut spec["tokenService"];
            service.as_object_mut().unwrap().remove("credentialsSecretRef");
            service["url"] = world.tokens.url_of(SIGNED).replace("127.0.0.1", "localhost").into();
            service["tls"]["clientCertificateSecretRef"] = json!({"name": "token-mtls"});
            service["clientAuthentication"] = "PrivateKeyJWT".into();
            service["clientID"] = "signer".into();
            service["privateKeyJWT"] =
                json!({"keySecretRef": {"name": "signer", "keyIDKey": "kid"}, "algorithm": "ES256"});
            spec["abuseProtection"] = json!({"policy": "Disabled"});
        })
        .await;
    key
}

/// Where the token service takes every token of a ServiceAccount.
const OF_ACCOUNT: &str = "/of-account";

/// Applies a ServiceAccount, and a Subscriber `robot` that it authenticates.
async fn robot(world: &World) {
    let token = json!({"access_token": "robot", "token_type": "Bearer"}).to_string();
    world.tokens.answer_always_at(OF_ACCOUNT, Behaviour::reply(Reply::status(200).body(token)));
    grant(world, &["robot"]).await;
    let host = format!("localhost:{}", world.tokens.address().port());
    world.apply(&account("robot", &json!({ANNOTATION: format!("{AUDIENCE} {host}")}))).await;
    world
        .subscriber("robot", |spec| {
            by_account(spec, "robot", AUDIENCE);
            spec["tokenService"]["url"] = format!("https://{host}{OF_ACCOUNT}").into();
            spec["tokenService"]["tls"]["clientCertificateSecretRef"] = json!({"name": "token-mtls"});
        })
        .await;
}

/// Tokens of a ServiceAccount that are taken and refused, and a ServiceAccount that is missing.
async fn exchange_account_tokens(world: &World) {
    world.until_reason("robot", "Operational").await;
    let refusal = json!({"error": "invalid_client", "error_description": DESCRIPTION}).to_string();
    world.tokens.answer_always_at(OF_ACCOUNT, Behaviour::reply(answer(401).body(refusal)));
    let patch = json!({"spec": {"tokenService": {"serviceAccountToken": {"expirationSeconds": 900}}}}).to_string();
    world.kubectl(&["patch", "subr", "robot", "--type=merge", "-p", &patch]).await.ok().unwrap();
    let refused = |s: &Value| {
        condition(s, "TokenAvailable")["message"].as_str().is_some_and(|m| m.contains("new client credentials yet"))
    };
    world.until("subscriber", "robot", refused).await;
    world.kubectl(&["delete", "serviceaccount", "robot"]).await.ok().unwrap();
    let patch = json!({"spec": {"tokenService": {"serviceAccountToken": {"expirationSeconds": 901}}}}).to_string();
    world.kubectl(&["patch", "subr", "robot", "--type=merge", "-p", &patch]).await.ok().unwrap();
    world.until_reason("robot", "ServiceAccountNotFound").await;
}

/// Assertions that are taken and refused, and private keys that cannot be used.
async fn exchange_assertions(world: &World, key: &str) {
    world.until_reason("signer", "Operational").await;
    let refusal = json!({"error": "invalid_client", "error_description": DESCRIPTION}).to_string();
    world.tokens.answer_always_at(SIGNED, Behaviour::reply(answer(401).body(refusal)));
    // Another ID of the key causes another assertion.
    world.apply(&secret("signer", &json!({"kid": "second", "tls.key": key}))).await;
    let refused = |s: &Value| {
        condition(s, "TokenAvailable")["message"].as_str().is_some_and(|m| m.contains("new client credentials yet"))
    };
    world.until("subscriber", "signer", refused).await;
    for (data, says) in [
        (json!({"kid": format!("{BROKEN_HEADER}\n"), "tls.key": key}), "ends with a line break"),
        (json!({"kid": "third", "tls.key": format!("-----BEGIN PRIVATE KEY-----\n{BROKEN_HEADER}?\n")}), "malformed"),
        (json!({"kid": "third", "tls.key": BROKEN_HEADER}), "there is no PEM private key"),
    ] {
        world.apply(&secret("signer", &data)).await;
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(says));
        world.until("subscriber", "signer", says).await;
    }
}

/// The assertions that were sent at this path, and the parts of each: tokens of one API server share their first part.
fn assertions(world: &World, path: &str) -> Vec<String> {
    let mut requests = world.tokens.requests();
    requests.retain(|request| request.path == path);
    let sent: Vec<_> = requests.iter().filter_map(|request| request.fields.get("client_assertion")).collect();
    let parts = sent.iter().flat_map(|assertion| assertion.split('.'));
    sent.iter().copied().chain(parts).map(str::to_owned).collect()
}

/// Sends an event, and returns how that ended.
async fn send(world: &World, name: &str) -> Value {
    world.notification(name, "shop", json!({"source": "/s", "type": "t", "data": {"n": 1}})).await;
    let tried = world.until("notification", name, |n| n["status"]["attempts"] == 1).await;
    tried["status"]["lastAttempt"]["reason"].clone()
}

async fn look_again(world: &World, value: &str) {
    let annotate = ["annotate", "subr", "shop", &format!("tidings.dev/reconcile-requested-at={value}"), "--overwrite"];
    world.kubectl(&annotate).await.ok().unwrap();
    world.until("subscriber", "shop", |s| s["status"]["lastHandledRequest"] == value).await;
}

/// Deliveries, tests and questions for consent, with every kind of answer and without one.
async fn exchange_events(world: &mut World) {
    let webhook = path("shop");
    for status in STATUSES {
        world.receiver.answer_next(&webhook, 1, &Behaviour::reply(answer(status)));
        send(world, &format!("n-{status}")).await;
    }
    world.receiver.stop();
    assert_eq!(send(world, "n-away").await, "ConnectionFailed");
    world.receiver.resume().await.unwrap();
    world.receiver.answer_next(&webhook, 1, &Behaviour::reply(answer(500)));
    test_event::test(world, "1").await;
    let throttling = Reply::status(429).header("retry-after", "600").header("x-odd", ANSWER_HEADER).body(BODY);
    world.receiver.answer_next(&webhook, 1, &Behaviour::reply(throttling));
    test_event::test(world, "2").await;
    let refusing = answer(200).allow_origin(ORIGIN).allow_rate(ANSWER_HEADER);
    world.receiver.answer_next_options(&webhook, 1, &Behaviour::reply(refusing));
    look_again(world, "1").await;
    world.until_reason("shop", "HandshakeRefused").await;
    look_again(world, "2").await;
    world.until_reason("shop", "Operational").await;
}

/// Token answers that are none, refusals, and Secrets that change or cannot be used.
async fn exchange_tokens(world: &World) {
    let json = |status: u16, body: Value| answer(status).body(body.to_string());
    let refusal = |code: &str| json!({"error": code, "error_description": DESCRIPTION, "error_uri": DESCRIPTION});
    let unfit = format!("{MALFORMED}\u{1}");
    let hostile = [
        (json(200, json!({"access_token": unfit, "token_type": "bearer"})), "characters that are invalid in a header"),
        (json(201, json!({"access_token": MALFORMED, "token_type": MALFORMED})), "token_type is not Bearer"),
        (answer(203).body(MALFORMED), "not a JSON object"),
        (answer(302).body(MALFORMED), "answered 302"),
        (answer(503).body(MALFORMED), "answered 503"),
        (json(400, refusal(MALFORMED)), "answered 400"),
        (json(401, refusal("invalid_client")), "does not accept the new client credentials yet: invalid_client"),
        (json(400, refusal("invalid_scope")), "rejected the client: invalid_scope"),
    ];
    for (number, (answer, message)) in hostile.into_iter().enumerate() {
        world.tokens.answer_always(Behaviour::reply(answer));
        // A changed Secret causes an immediate token request.
        apply_credentials(world, &format!("{ROTATED}-{number}")).await;
        let says = |s: &Value| condition(s, "TokenAvailable")["message"].as_str().is_some_and(|m| m.contains(message));
        world.until("subscriber", "shop", says).await;
    }
    world.tokens.behave();
    register(world, ROTATED);
    for (client_secret, reason) in [(ROTATED, "TokenIssued"), (WRONG, "TokenUnavailable"), (ROTATED, "TokenIssued")] {
        apply_credentials(world, client_secret).await;
        world.until("subscriber", "shop", |s| condition(s, "TokenAvailable")["reason"] == reason).await;
    }
    assert_eq!(send(world, "n-rotated").await, "Acknowledged");
    for (key, reason) in [(BROKEN_SIGNING_KEY, "InvalidSecret"), (SIGNING_KEY, "Operational")] {
        world.apply(&secret("signing", &json!({"key": key}))).await;
        world.until_reason("shop", reason).await;
    }
    world.apply(&secret("hook", &json!({"api-key": format!("{BROKEN_HEADER}\r\nx: y")}))).await;
    world.until_reason("shop", "InvalidSecret").await;
}

/// One run, with logs in this format.
async fn run(format: &str) -> Run {
    let (mut world, keys) = world().await;
    let signing_key = signer(&world).await;
    robot(&world).await;
    let flags = ["--egress-allow-cidr", "127.0.0.0/8", "--log-level", "trace", "--log-format", format];
    let operator = world.start(&flags).await;
    operator.ready(PATIENCE).await.unwrap();
    exchange_events(&mut world).await;
    exchange_tokens(&world).await;
    exchange_assertions(&world, &signing_key).await;
    exchange_account_tokens(&world).await;
    assert_everything_was_in_play(&world);
    let shown = everything_shown(&world, &operator).await;
    let secrets = [SECRET, ROTATED, WRONG, HEADER, PLAIN_HEADER, BROKEN_HEADER, DESCRIPTION, MALFORMED];
    let addresses = [world.receiver.url(""), world.tokens.url_of("")].map(|url| url.replace("https://", ""));
    // A key may be shown as it is stored or as it is used.
    let signing_keys = [SIGNING_KEY, BROKEN_SIGNING_KEY].map(|key| key["whsec_".len()..].to_owned());
    let decoded = signing_keys.each_ref().map(|key| String::from_utf8(STANDARD.decode(key).unwrap()).unwrap());
    let keys = keys.into_iter().chain(signing_keys).chain(decoded);
    let secrets = secrets.map(str::to_owned).into_iter().chain(keys).chain(world.tokens.tokens().all());
    let secrets = secrets
        .chain(signing_key.lines().nth(1).map(str::to_owned))
        .chain([SIGNED, OF_ACCOUNT].iter().flat_map(|path| assertions(&world, path)));
    let answers = [BODY, ANSWER_HEADER, ORIGIN].map(str::to_owned).into_iter().chain(addresses);
    Run { shown, secrets: secrets.collect(), answers: answers.collect() }
}

/// All that the operator puts out, to its end. What a user wrote himself, specs and annotations, is not its own.
async fn everything_shown(world: &World, operator: &Operator) -> Vec<(&'static str, String)> {
    let mut objects = [world.list("subscribers").await, world.list("notifications").await].concat();
    for object in &mut objects {
        object["spec"].take();
        object["metadata"]["annotations"].take();
    }
    let mut described = String::new();
    for object in ["subr/shop", "subr/signer", "subr/robot", "ntf/n-500"] {
        let text = world.kubectl(&["describe", object]).await.ok().unwrap();
        described += &text[text.find("\nStatus:").unwrap()..];
    }
    let events = world.kubectl(&["get", "events", "-o", "yaml"]).await.ok().unwrap();
    let metrics = operator.metrics().await.unwrap();
    assert_eq!(operator.terminate().await.unwrap(), 0);
    let objects = Value::from(objects).to_string();
    vec![
        ("the log", operator.logs()),
        ("the metrics", metrics),
        ("kubectl get", objects),
        ("kubectl describe", described),
        ("Events", events),
    ]
}

/// Each canary was sent by us, or to us.
fn assert_everything_was_in_play(world: &World) {
    let requests = world.receiver.requests_for(&path("shop"));
    for (name, value) in [("x-api-key", HEADER), ("x-plain", PLAIN_HEADER)] {
        assert!(requests.iter().all(|request| request.header(name) == Some(value)), "{name} was not sent");
    }
    let webhook = standardwebhooks::Webhook::new(SIGNING_KEY).unwrap();
    let mut posts = requests.iter().filter(|request| request.method == Method::POST);
    assert!(posts.all(|post| webhook.verify(&post.body, &post.headers).is_ok()), "{SIGNING_KEY} did not sign");
    let answered: BTreeSet<_> = requests.iter().map(|r| (r.method == Method::POST, r.answered)).collect();
    for status in STATUSES.iter().chain(&[429]) {
        assert!(answered.contains(&(true, Some(*status))), "{status} is not in {answered:?}");
    }
    assert!(answered.contains(&(false, Some(200))), "{answered:?}");
    let issued: BTreeSet<_> = world.tokens.tokens().all().into_iter().collect();
    let used: BTreeSet<_> = requests.iter().filter_map(|request| request.token().map(str::to_owned)).collect();
    assert!(used.len() >= 3 && used.is_subset(&issued), "{used:?}");
    for path in [SIGNED, OF_ACCOUNT] {
        assert!(assertions(world, path).len() >= 8, "two assertions, each with its parts");
    }
    let asked = world.tokens.requests();
    let asked: BTreeSet<_> = asked.iter().map(|request| (request.answered.unwrap(), request.error)).collect();
    for hostile in [201, 203, 302, 503, 400, 401].map(|status| (status, None)) {
        assert!(asked.contains(&hostile), "{hostile:?} is not in {asked:?}");
    }
    assert!(asked.contains(&(401, Some("invalid_client"))), "{WRONG} was not sent: {asked:?}");
}

/// The ways in which a text may be shown: as it is, inside of something in base64 (a Secret's data, HTTP Basic), and as
/// the numbers of its bytes, which is what Debug makes of them.
fn shapes(text: &str) -> [String; 5] {
    let encoded = |offset: usize| {
        let bytes = [&vec![0; offset], text.as_bytes()].concat();
        // The characters that depend on its own bytes alone.
        let (first, end) = ((offset * 8).div_ceil(6), bytes.len() * 8 / 6);
        STANDARD.encode(&bytes)[first..end].to_owned()
    };
    let numbers: Vec<_> = text.bytes().map(|byte| byte.to_string()).collect();
    [text.to_owned(), encoded(0), encoded(1), encoded(2), numbers.join(", ")]
}

/// The line of `text` that shows `canary`.
pub fn line_with<'a>(text: &'a str, canary: &str) -> Option<&'a str> {
    let shapes = shapes(canary);
    text.lines().find(|line| shapes.iter().any(|shape| line.contains(shape.as_str())))
}

impl Run {
    fn shows_none_of(&self, canaries: &BTreeSet<String>) {
        for (place, text) in &self.shown {
            assert!(text.len() > 100, "there is nothing to search in {place}");
            for canary in canaries {
                assert_eq!(line_with(text, canary), None, "{canary} is in {place}");
            }
        }
    }
}

#[test]
fn a_canary_is_found_in_each_of_its_shapes() {
    for around in ["", "a", "ab", "abc"] {
        let text = format!("{around}{SECRET}{around}");
        for shown in [text.clone(), STANDARD.encode(&text), format!("{:?}", text.as_bytes())] {
            let shown = format!("before\nx{shown}x\nafter");
            assert_eq!(line_with(&shown, SECRET), shown.lines().nth(1), "{shown}");
        }
    }
    assert_eq!(line_with("before\nafter", SECRET), None);
}

#[tokio::test]
async fn s06_what_the_other_side_sends_is_shown_nowhere() {
    let run = run("text").await;
    run.shows_none_of(&run.answers);
    run.shows_none_of(&run.secrets);
}

#[tokio::test]
async fn s10_what_secrets_and_tokens_hold_is_shown_nowhere() {
    let run = run("json").await;
    run.shows_none_of(&run.secrets);
    run.shows_none_of(&run.answers);
}
