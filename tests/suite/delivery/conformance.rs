//! The CloudEvents rules for a sender, numbered as in `docs/conformance.md`, tested with real deliveries to a real HTTPS
//! receiver.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use testkit::{
    Authority, Behaviour, Client, Receiver, TokenService,
    endpoints::{Received, Reply},
};
use tidings_api::AttemptReason;
use tidings_delivery::{
    egress::{Egress, Policy, Trust},
    event::{CheckedEvent, Defaults, Encoding},
    oauth::AuthMethod,
    webhook::{Delivery, Outcome, ResponseRules, Target, TokenDoubt, Verdict},
};

use crate::sending::Cleared;
use crate::token_sources::{source_of, trusting};

pub const STRUCTURED: Encoding = Encoding::Structured(Encoding::CLOUDEVENTS_JSON);
pub const PATH: &str = "/hook";

/// A receiver, a token service, and a target that uses both.
pub struct Exchange {
    pub receiver: Receiver,
    tokens: TokenService,
    pub target: Target,
}

impl Exchange {
    pub async fn new(encoding: Encoding) -> Self {
        let authority = Authority::new();
        let tokens = TokenService::start(&authority).await.unwrap();
        tokens.register(Client::new("id", "secret"));
        let receiver = Receiver::start(&authority, tokens.tokens()).await.unwrap();
        let egress = Egress::new(Policy::allowing(vec!["127.0.0.0/8".parse().unwrap()]));
        let http = egress.client("test", &trusting(&authority)).unwrap();
        let source = source_of(&tokens, http.clone(), AuthMethod::Basic);
        let target = Target {
            url: receiver.url(PATH).parse().unwrap(),
            encoding,
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(5),
            http,
            tokens: source,
            rules: ResponseRules::default(),
            token_doubt: TokenDoubt::default(),
            signer: None,
            origin: HeaderValue::from_static("events.example.com"),
        };
        Self { receiver, tokens, target }
    }

    pub async fn deliver(&self, event: &Value) -> Outcome {
        let defaults = Defaults { id: "uid-1", time: "2026-10-01T10:02:00Z" };
        let event = CheckedEvent::parse(&event.to_string(), defaults).unwrap();
        let authorized = Delivery::prepare(&self.target, &event).unwrap().authorize(&Cleared).await.unwrap();
        authorized.send(&Cleared).await.unwrap()
    }

    pub fn received(&self) -> Vec<Received> {
        self.receiver.requests_for(PATH)
    }
}

pub fn event(more: Value) -> Value {
    let mut event = json!({"id": "1", "source": "/s", "type": "t"});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

/// Delivers one event and returns the request that the receiver got.
async fn sent(encoding: Encoding, more: Value) -> Received {
    let exchange = Exchange::new(encoding).await;
    let outcome = exchange.deliver(&event(more)).await;
    assert_eq!(outcome.verdict, Verdict::Delivered, "{outcome:?}");
    exchange.received().remove(0)
}

/// The outcome when the receiver behaves this way, and the requests that it got.
async fn answered(behaviour: Behaviour) -> (Outcome, Vec<Received>) {
    let exchange = Exchange::new(STRUCTURED).await;
    exchange.receiver.answer_always(PATH, behaviour);
    let outcome = exchange.deliver(&event(json!({"data": {}}))).await;
    (outcome, exchange.received())
}

/// The event in the request, as read by an independent library.
pub fn read_by_the_sdk(received: &Received) -> cloudevents::Event {
    let mut request = http::Request::new(received.body.to_vec());
    *request.headers_mut() = received.headers.clone();
    cloudevents::binding::http::to_event(request.headers(), request.body().clone()).unwrap()
}

#[tokio::test]
async fn webhook_01_tls_always() {
    let exchange = Exchange::new(STRUCTURED).await;
    let mut target = exchange.target;
    target.url = format!("http://{}", &target.url.as_str()["https://".len()..]).parse().unwrap();
    let exchange = Exchange { target, ..exchange };
    let outcome = exchange.deliver(&event(json!({}))).await;
    assert_eq!((outcome.verdict, outcome.status), (Verdict::Retry, None));
    assert!(exchange.received().is_empty());
}

#[tokio::test]
async fn webhook_02_post_always() {
    assert_eq!(sent(STRUCTURED, json!({})).await.method, "POST");
    assert_eq!(sent(Encoding::Binary, json!({"data": 1})).await.method, "POST");
}

#[tokio::test]
async fn webhook_03_content_type_always() {
    for encoding in [STRUCTURED, Encoding::Binary] {
        for more in [json!({}), json!({"data": 1}), json!({"data_base64": "AA=="})] {
            let received = sent(encoding, more).await;
            assert!(received.header("content-type").is_some_and(|value| value.starts_with("application/")));
        }
    }
}

#[tokio::test]
async fn webhook_04_a_body_always() {
    for encoding in [STRUCTURED, Encoding::Binary] {
        let received = sent(encoding, json!({})).await;
        assert_eq!(received.header("content-type"), Some("application/cloudevents+json"));
        assert_eq!(received.json().unwrap()["id"], "1");
    }
}

#[tokio::test]
async fn webhook_05_every_delivery_names_its_origin() {
    assert_eq!(sent(STRUCTURED, json!({})).await.header("webhook-request-origin"), Some("events.example.com"));
}

#[tokio::test]
async fn webhook_06_a_redirect_is_never_followed() {
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::status(status).header("location", "/elsewhere");
        let exchange = Exchange::new(STRUCTURED).await;
        exchange.receiver.answer_always(PATH, Behaviour::reply(reply));
        let outcome = exchange.deliver(&event(json!({}))).await;
        assert_eq!((outcome.verdict, outcome.reason), (Verdict::Retry, AttemptReason::RedirectRefused));
        assert_eq!(exchange.receiver.requests().len(), 1);
    }
}

#[tokio::test]
async fn webhook_07_200_and_201_are_success_with_and_without_a_body() {
    for reply in
        [Reply::status(200), Reply::status(201), Reply::status(200).body("anything"), Reply::status(201).body("{}")]
    {
        let (outcome, received) = answered(Behaviour::reply(reply)).await;
        assert_eq!((outcome.reason, received.len()), (AttemptReason::Acknowledged, 1));
    }
}

#[tokio::test]
async fn webhook_08_202_is_success_reported_as_accepted() {
    let (outcome, _) = answered(Behaviour::status(202)).await;
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Delivered, AttemptReason::Accepted));
}

#[tokio::test]
async fn webhook_09_204_is_success() {
    let (outcome, _) = answered(Behaviour::status(204)).await;
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Delivered, AttemptReason::Acknowledged));
}

#[tokio::test]
async fn webhook_11_429_is_over_the_rate() {
    let (outcome, _) = answered(Behaviour::status(429)).await;
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Pause(None), AttemptReason::Throttled));
    let reply = Reply::status(429).header("retry-after", "17");
    let (outcome, _) = answered(Behaviour::reply(reply)).await;
    assert_eq!(outcome.verdict, Verdict::Pause(Some(Duration::from_secs(17))));
}

#[tokio::test]
async fn webhook_13_415_fails_and_says_what_was_sent() {
    let (outcome, _) = answered(Behaviour::status(415)).await;
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Rejected, AttemptReason::Rejected));
    assert!(outcome.message.contains("content mode Structured with Content-Type application/cloudevents+json"));
}

#[tokio::test]
async fn webhook_14_the_token_goes_in_the_authorization_header_with_the_scheme_bearer() {
    let received = sent(STRUCTURED, json!({"data": {}})).await;
    let authorization = received.header("authorization").unwrap();
    assert!(authorization.strip_prefix("Bearer ").is_some_and(|token| token.len() > 10), "{authorization}");
    assert_eq!(received.answered, Some(204), "the receiver knows the token");
}

#[tokio::test]
async fn webhook_15_the_token_goes_nowhere_else() {
    let received = sent(STRUCTURED, json!({"data": {}})).await;
    let token = received.token().unwrap();
    let elsewhere = format!("{} {:?} {}", received.path, received.query, String::from_utf8_lossy(&received.body));
    assert!(!elsewhere.contains(token));
    let holders = received.headers.values().filter(|value| value.to_str().is_ok_and(|value| value.contains(token)));
    assert_eq!(holders.count(), 1);
}

#[tokio::test]
async fn webhook_16_a_401_renews_the_token_once_and_no_challenge_is_followed() {
    let exchange = Exchange::new(STRUCTURED).await;
    assert_eq!(exchange.deliver(&event(json!({}))).await.verdict, Verdict::Delivered);
    exchange.tokens.tokens().revoke_all();
    let outcome = exchange.deliver(&event(json!({}))).await;
    assert_eq!(outcome.verdict, Verdict::Delivered, "a second request within the attempt");
    let tokens: Vec<_> = exchange.received().iter().map(|r| r.token().unwrap().to_owned()).collect();
    assert!(tokens[0] == tokens[1] && tokens[1] != tokens[2]);

    let challenge = Reply::status(401).header("www-authenticate", "Basic realm=\"login\"");
    exchange.receiver.answer_always(PATH, Behaviour::reply(challenge));
    let outcome = exchange.deliver(&event(json!({}))).await;
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Retry, AttemptReason::Unauthorized));
    assert!(exchange.received().iter().all(|r| r.header("authorization").unwrap().starts_with("Bearer ")));
    assert_eq!(
        exchange.tokens.requests().len(),
        2,
        "a webhook that always answers 401 causes no storm of token requests"
    );
}

#[tokio::test]
async fn binding_01_structured_is_the_whole_event_as_one_json_object() {
    let received = sent(STRUCTURED, json!({"subject": "x", "ext": 7, "data": {"n": [1, null]}})).await;
    assert_eq!(received.header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(
        received.json().unwrap(),
        json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-10-01T10:02:00Z",
            "subject": "x", "ext": 7, "data": {"n": [1, null]}})
    );
    read_by_the_sdk(&received);
}

#[tokio::test]
async fn binding_02_structured_as_application_json_has_the_same_body() {
    let plain = sent(Encoding::Structured("application/json"), json!({"data": 1})).await;
    assert_eq!(plain.header("content-type"), Some("application/json"));
    assert_eq!(plain.body, sent(STRUCTURED, json!({"data": 1})).await.body);
}

#[tokio::test]
async fn binding_03_binary_puts_attributes_into_headers_and_data_into_the_body() {
    let more = json!({"datacontenttype": "application/vnd.x+json", "subject": "x", "flag": true, "data": {"n": 1}});
    let received = sent(Encoding::Binary, more).await;
    let expected = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-subject", "x"),
        ("ce-time", "2026-10-01T10:02:00Z"),
        ("ce-flag", "true"),
        ("content-type", "application/vnd.x+json"),
    ];
    for (name, value) in expected {
        assert_eq!(received.header(name), Some(value), "{name}");
    }
    let attributes = received.headers.keys().filter(|name| name.as_str().starts_with("ce-")).count();
    assert_eq!(attributes, 7, "no ce-datacontenttype, no ce-data");
    assert_eq!(received.json().unwrap(), json!({"n": 1}));
    let event = read_by_the_sdk(&received);
    assert_eq!(cloudevents::AttributesReader::subject(&event), Some("x"));
}

#[tokio::test]
async fn binding_04_binary_header_values_are_percent_encoded() {
    let received = sent(Encoding::Binary, json!({"subject": "a \"ü\" 100%~", "data": 1})).await;
    assert_eq!(received.header("ce-subject"), Some("a%20%22%C3%BC%22%20100%25~"));
}

#[tokio::test]
async fn binding_05_structured_keeps_json_as_json_and_bytes_as_base64() {
    let received = sent(STRUCTURED, json!({"data": {"text": "{\"not\": \"parsed\"}"}})).await;
    assert_eq!(received.json().unwrap()["data"], json!({"text": "{\"not\": \"parsed\"}"}));
    let received = sent(STRUCTURED, json!({"data_base64": "/wA="})).await;
    let body = received.json().unwrap();
    assert_eq!((&body["data_base64"], &body["data"]), (&json!("/wA="), &Value::Null));
}

#[tokio::test]
async fn binding_06_binary_sends_bytes_as_bytes_and_text_as_text() {
    let bytes = sent(Encoding::Binary, json!({"datacontenttype": "image/png", "data_base64": "/wD+"})).await;
    assert_eq!((&bytes.body[..], bytes.header("content-type")), (&[0xff, 0x00, 0xfe][..], Some("image/png")));
    let text = sent(Encoding::Binary, json!({"datacontenttype": "text/plain", "data": "say \"hi\"\n"})).await;
    assert_eq!(&text.body[..], b"say \"hi\"\n");
    let json_string = sent(Encoding::Binary, json!({"data": "quoted"})).await;
    assert_eq!(&json_string.body[..], b"\"quoted\"");
}

/// The error for an event that cannot be sent.
fn fault(more: Value) -> String {
    let defaults = Defaults { id: "uid-1", time: "2026-10-01T10:02:00Z" };
    CheckedEvent::parse(&event(more).to_string(), defaults).unwrap_err().to_string()
}

#[tokio::test]
async fn binding_07_attribute_names_and_values_are_those_of_cloudevents() {
    let more = json!({"a1": "text", "b2": false, "c3": -2_147_483_648_i64});
    let received =
        sent(Encoding::Binary, json!({"data": 1, "a1": "text", "b2": false, "c3": -2_147_483_648_i64})).await;
    for (name, value) in [("ce-a1", "text"), ("ce-b2", "false"), ("ce-c3", "-2147483648")] {
        assert_eq!(received.header(name), Some(value));
    }
    assert_eq!(sent(STRUCTURED, more).await.json().unwrap()["c3"], -2_147_483_648_i64);
    for (name, value) in [("Name", json!("x")), ("a_b", json!("x")), ("ext", json!(1.5)), ("ext", json!([1]))] {
        let mut more = json!({});
        more[name] = value;
        assert!(fault(more).starts_with(&format!("event.{name}: ")));
    }
}

#[tokio::test]
async fn binding_08_required_attributes_are_there_and_each_has_its_form() {
    for (name, value) in
        [("id", ""), ("source", ""), ("type", ""), ("source", "no uri"), ("dataschema", "relative"), ("time", "10:02")]
    {
        let mut more = json!({});
        more[name] = value.into();
        assert!(fault(more).starts_with(&format!("event.{name}: ")), "{name}={value:?}");
    }
}

#[tokio::test]
async fn binding_09_specversion_is_1_0() {
    assert_eq!(sent(STRUCTURED, json!({})).await.json().unwrap()["specversion"], "1.0");
    assert_eq!(sent(Encoding::Binary, json!({"data": 1})).await.header("ce-specversion"), Some("1.0"));
    assert!(fault(json!({"specversion": "0.3"})).starts_with("event.specversion: must be 1.0"));
}

#[tokio::test]
async fn binding_11_an_event_inside_an_event_is_not_taken_for_it() {
    let inner = event(json!({"id": "inner", "specversion": "1.0"}));
    let more = json!({"datacontenttype": "application/cloudevents+json", "data": inner});
    let received = sent(Encoding::Binary, more).await;
    assert_eq!(cloudevents::AttributesReader::id(&read_by_the_sdk(&received)), "1");
    assert_eq!(received.json().unwrap()["data"]["id"], "inner");
}

#[tokio::test]
async fn binding_10_the_id_is_the_same_on_every_attempt() {
    let exchange = Exchange::new(STRUCTURED).await;
    exchange.receiver.answer_next(PATH, 2, &Behaviour::status(503));
    for _ in 0..3 {
        exchange.deliver(&json!({"source": "/s", "type": "t"})).await;
    }
    let ids: Vec<_> = exchange.received().iter().map(|r| r.event_id().unwrap()).collect();
    assert_eq!(ids, ["uid-1", "uid-1", "uid-1"]);
}

#[tokio::test]
async fn an_untrusted_certificate_a_refused_connection_a_reset_and_a_timeout_are_distinguished() {
    let exchange = Exchange::new(STRUCTURED).await;
    let deliver = async |change: &dyn Fn(&mut Target)| {
        let mut target = Exchange::new(STRUCTURED).await;
        target.target.url = exchange.target.url.clone();
        target.target.tokens = exchange.target.tokens.clone();
        change(&mut target.target);
        target.deliver(&event(json!({}))).await
    };
    let trusting = exchange.target.http.clone();
    let outcome = deliver(&|_| ()).await;
    assert_eq!(outcome.reason, AttemptReason::TLSFailed, "another authority: {outcome:?}");
    let trusted = |target: &mut Target| target.http = Arc::clone(&trusting);
    assert_eq!(deliver(&trusted).await.status, Some(StatusCode::NO_CONTENT));
    // A request on a kept connection that breaks is repeated once on a new connection.
    exchange.receiver.answer_next(PATH, 2, &Behaviour::reset());
    assert_eq!(deliver(&trusted).await.reason, AttemptReason::ConnectionFailed);
    exchange.receiver.answer_next(PATH, 1, &Behaviour::hang());
    let hurried = |target: &mut Target| {
        trusted(target);
        target.timeout = Duration::from_millis(200);
    };
    assert_eq!(deliver(&hurried).await.reason, AttemptReason::Timeout);
    let closed = |target: &mut Target| {
        trusted(target);
        target.url.set_port(Some(1)).unwrap();
    };
    assert_eq!(deliver(&closed).await.reason, AttemptReason::ConnectionFailed);
    let nameless = |target: &mut Target| {
        trusted(target);
        target.url.set_host(Some("no-such-host.invalid")).unwrap();
    };
    assert_eq!(deliver(&nameless).await.reason, AttemptReason::NameNotResolved);
}

#[tokio::test]
async fn response_headers_are_bounded_and_bodies_are_not_decompressed() {
    let long = Reply::status(200).header("x-long", &"x".repeat(40_000));
    let (outcome, _) = answered(Behaviour::reply(long)).await;
    assert_eq!(
        (outcome.verdict, outcome.status),
        (Verdict::Retry, None),
        "a response with more than 32 KiB of headers is an error"
    );
    let broken = Reply::status(200).header("content-encoding", "gzip").body("not gzip");
    let endless = Reply::status(200).body("x".repeat(5_000_000));
    for reply in [broken, endless] {
        let (outcome, _) = answered(Behaviour::reply(reply)).await;
        assert_eq!(outcome.verdict, Verdict::Delivered, "the body of a success is ignored");
    }
}

#[tokio::test]
async fn the_egress_policy_guards_literal_addresses_and_names_alike() {
    let exchange = Exchange::new(STRUCTURED).await;
    let closed = Egress::new(Policy::default());
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"] {
        let mut other = Exchange::new(STRUCTURED).await;
        other.target.url.set_host(Some(host)).unwrap();
        other.target.http = closed.client("test", &Trust::default()).unwrap();
        other.target.tokens = exchange.target.tokens.clone();
        let outcome = other.deliver(&event(json!({}))).await;
        assert_eq!(outcome.reason, AttemptReason::EgressDenied, "{host}: {outcome:?}");
        assert!(!outcome.message.contains(host), "the message carries no address: {}", outcome.message);
        assert!(other.received().is_empty());
    }
}
