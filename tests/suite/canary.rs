//! What the other side sends (S6) and what Secrets hold (S10) is shown nowhere: canaries in all of it, through good and bad
//! exchanges, and a search of all that the operator puts out at its most talkative.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit::{Behaviour, Client, exchange::Reply, loopback};

use crate::{
    self_test,
    world::{CLIENT, PATIENCE, World, condition, path},
};

const SECRET: &str = "canary-client-secret";
const ROTATED: &str = "canary-rotated-secret";
const HEADER: &str = "canary-header-value";
const PLAIN_HEADER: &str = "canary-plain-header";
const BROKEN_HEADER: &str = "canary-broken-header";
const BODY: &str = "canary-response-body";
const ANSWER_HEADER: &str = "canary-answer-header";
const ORIGIN: &str = "canary-origin.example.com";
const DESCRIPTION: &str = "canary-error-description";
const MALFORMED: &str = "canary-malformed-token";

/// All that the operator has put out in one run, and all that must not be in it.
struct Run {
    /// What was searched, by where it stands.
    shown: Vec<(&'static str, String)>,
    /// From Secrets and token services.
    secrets: BTreeSet<String>,
    /// From the webhook: what it sends, and where its name leads.
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

/// An answer with a canary wherever there is room for one.
fn answer(status: u16) -> Reply {
    let location = format!("/{ANSWER_HEADER}");
    Reply::status(status).header("x-odd", ANSWER_HEADER).header("location", &location).body(BODY)
}

/// A world with canaries in its Secrets, and a Subscriber `shop` that uses all of them, at a webhook given by name.
async fn world() -> (World, String) {
    let world = World::new("canary").await;
    world.tokens.register(Client::new(CLIENT.0, SECRET).scopes(["events.write"]));
    apply_credentials(&world, SECRET).await;
    let annotated = world.get("secret", "acme-oauth").await["metadata"]["annotations"].to_string();
    assert!(annotated.contains(SECRET));
    world.apply(&secret("hook", &json!({"api-key": HEADER}))).await;
    let identity = world.authority.client_identity("tidings");
    world.apply(&secret("mtls", &json!({"tls.crt": identity.certificate_pem, "tls.key": identity.key_pem}))).await;
    let key = identity.key_pem.lines().nth(1).unwrap().to_owned();
    world
        .subscriber("shop", |spec| {
            let url = spec["webhook"]["url"].as_str().unwrap().replace("127.0.0.1", "localhost");
            spec["webhook"]["url"] = url.into();
            spec["webhook"]["headers"] = json!([
                {"name": "X-Plain", "value": PLAIN_HEADER},
                {"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "api-key"}}},
            ]);
            spec["webhook"]["tls"]["clientCertificateSecretRef"] = json!({"name": "mtls"});
            spec["delivery"] = json!({"backoff": {"initialSeconds": 3600}});
        })
        .await;
    (world, key)
}

async fn look_again(world: &World, value: &str) {
    let annotate = ["annotate", "subr", "shop", &format!("tidings.dev/reconcile-requested-at={value}"), "--overwrite"];
    world.kubectl(&annotate).await.ok().unwrap();
    world.until("subscriber", "shop", |s| s["status"]["lastHandledRequest"] == value).await;
}

/// Deliveries and tests with every kind of answer.
async fn exchange_events(world: &World) {
    let webhook = path("shop");
    for status in [200, 202, 308, 400, 401, 403, 415, 500] {
        world.receiver.answer_next(&webhook, 1, &Behaviour::reply(answer(status)));
        let name = format!("n-{status}");
        world.notification(&name, "shop", json!({"source": "/s", "type": "t", "data": {"n": 1}})).await;
        world.until("notification", &name, |n| n["status"]["attempts"] == 1).await;
    }
    world.receiver.answer_next(&webhook, 1, &Behaviour::reply(answer(500)));
    self_test::test(world, "1").await;
    world.receiver.answer_next(&webhook, 1, &Behaviour::reply(answer(429).header("retry-after", "600")));
    self_test::test(world, "2").await;
    let refusing = Reply::status(200).header("x-odd", ANSWER_HEADER).allow_origin(ORIGIN).body(BODY);
    world.receiver.answer_next_options(&webhook, 1, &Behaviour::reply(refusing));
    look_again(world, "1").await;
    world.until_reason("shop", "HandshakeRefused").await;
    look_again(world, "2").await;
    world.until_reason("shop", "Operational").await;
}

/// Token answers that are none, refusals, and Secrets that change or cannot be used.
async fn exchange_tokens(world: &World) {
    let json = |status, body: Value| {
        Behaviour::reply(Reply::status(status).header("content-type", "application/json").body(body.to_string()))
    };
    world.tokens.register(Client::new(CLIENT.0, ROTATED).scopes(["events.write"]));
    let malformed = json!({"access_token": format!("{MALFORMED}\u{1}"), "token_type": "bearer"});
    world.tokens.answer_next(1, &json(200, malformed));
    apply_credentials(world, ROTATED).await;
    let says = |s: &Value| condition(s, "TokenAvailable")["reason"] == "TokenUnavailable";
    world.until("subscriber", "shop", says).await;
    let refusal = json!({"error": "invalid_client", "error_description": DESCRIPTION, "error_uri": DESCRIPTION});
    world.tokens.answer_next(1, &json(401, refusal));
    world.until_reason("shop", "TokenRejected").await;
    apply_credentials(world, "wrong").await;
    apply_credentials(world, ROTATED).await;
    world.until_reason("shop", "Operational").await;
    world.apply(&secret("hook", &json!({"api-key": format!("{BROKEN_HEADER}\r\nx: y")}))).await;
    world.until_reason("shop", "InvalidSecret").await;
}

/// One run, with logs in this format.
async fn run(format: &str) -> Run {
    let (world, key) = world().await;
    let flags = ["--egress-allow-cidr", "127.0.0.0/8", "--log-level", "trace", "--log-format", format];
    let operator = world.start(&flags).await;
    operator.ready(PATIENCE).await.unwrap();
    exchange_events(&world).await;
    exchange_tokens(&world).await;
    let (_, metrics) = loopback::get(operator.admin_address(), "/metrics", PATIENCE).await.unwrap();
    let objects = [world.list("subscribers").await, world.list("notifications").await].concat();
    let described = world.kubectl(&["describe", "subr", "shop"]).await.ok().unwrap();
    let events = world.kubectl(&["get", "events", "-o", "yaml"]).await.ok().unwrap();
    assert_eq!(operator.terminate().await.unwrap(), 0);
    let shown = vec![
        ("the log", operator.process().log()),
        ("the metrics", metrics),
        ("statuses", objects.iter().map(|object| object["status"].to_string()).collect()),
        ("kubectl describe", described[described.find("\nStatus:").unwrap()..].to_owned()),
        ("Events", events),
    ];
    // All of them were in play.
    let requests = world.receiver.requests_for(&path("shop"));
    for (name, value) in [("x-api-key", HEADER), ("x-plain", PLAIN_HEADER)] {
        assert!(requests.iter().all(|request| request.header(name) == Some(value)), "{name} was not sent");
    }
    let asked = world.tokens.requests();
    let errors: BTreeSet<_> = asked.iter().map(|request| (request.answered, request.error)).collect();
    for answered in [(Some(200), None), (Some(401), None), (Some(401), Some("invalid_client"))] {
        assert!(errors.contains(&answered), "{answered:?} is not in {errors:?}");
    }
    let tokens: BTreeSet<_> = requests.iter().filter_map(|request| request.token().map(str::to_owned)).collect();
    assert!(tokens.len() >= 2, "{tokens:?}");
    let secrets = [SECRET, ROTATED, HEADER, PLAIN_HEADER, BROKEN_HEADER, DESCRIPTION, MALFORMED].map(str::to_owned);
    let address = world.receiver.url("").trim_start_matches("https://").to_owned();
    Run {
        shown,
        secrets: tokens.into_iter().chain(secrets).chain([key]).collect(),
        answers: [BODY, ANSWER_HEADER, ORIGIN].map(str::to_owned).into_iter().chain([address]).collect(),
    }
}

impl Run {
    fn shows_none_of(&self, canaries: &BTreeSet<String>) {
        for (place, text) in &self.shown {
            assert!(text.len() > 100, "there is nothing to search in {place}");
            for canary in canaries {
                let at = text.find(canary.as_str()).map(|at| {
                    let line = text[..at].rfind('\n').map_or(0, |line| line + 1);
                    text[line..].lines().next().unwrap_or_default()
                });
                assert_eq!(at, None, "{canary} is in {place}");
            }
        }
    }
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
