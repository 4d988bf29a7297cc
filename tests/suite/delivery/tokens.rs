//! The token source against a real token service: the requests and how often they are sent, how responses are read, and
//! what errors show.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use http::HeaderValue;
use testkit::{
    Authority, Behaviour, Client, TokenService,
    endpoints::{AuthMethod as Method, Reply, TokenRequest as Received},
};
use tidings_delivery::{
    egress::{Egress, Policy, SendError},
    oauth::{AuthMethod, CredentialsFingerprint, TokenCache, TokenError, TokenKey, TokenSource},
};
use tokio::time::{Instant, sleep};

use crate::{
    token_sources::{Way, client, source_in, trusting},
    world::PATIENCE,
};

/// The ways to send a client secret that the token service knows.
const WAYS: [(Way, Method); 2] = [(AuthMethod::Post, Method::Post), (AuthMethod::Basic, Method::Basic)];

/// A token service, and the means to create sources of its tokens.
struct Field {
    service: TokenService,
    http: Arc<tidings_delivery::egress::Client>,
    cache: TokenCache,
    paths: AtomicUsize,
}

impl Field {
    async fn new() -> Self {
        let authority = Authority::new();
        let service = TokenService::start(&authority).await.unwrap();
        service.register(Client::new("id", "secret").scopes(["a", "b"]));
        let egress = Egress::new(Policy::allowing(vec!["127.0.0.0/8".parse().unwrap()]));
        let http = egress.client("test", &trusting(&authority)).unwrap();
        Self { service, http, cache: TokenCache::default(), paths: AtomicUsize::new(0) }
    }

    /// The source for the usual path.
    fn source(&self) -> Arc<TokenSource> {
        self.source_with(|_| ())
    }

    fn source_with(&self, change: impl FnOnce(&mut TokenKey)) -> Arc<TokenSource> {
        self.source_by(AuthMethod::Post, change)
    }

    fn source_by(&self, way: Way, change: impl FnOnce(&mut TokenKey)) -> Arc<TokenSource> {
        source_in(&self.cache, &self.service.url(), self.http.clone(), way, change)
    }

    /// A new path of the token service, and the source for that path.
    fn elsewhere(&self) -> (String, Arc<TokenSource>) {
        let path = format!("/{}", self.paths.fetch_add(1, Ordering::Relaxed));
        let url = self.service.url_of(&path);
        (path, self.source_with(|key| key.url = url))
    }

    /// The result of a token request that gets this response.
    async fn outcome(&self, reply: Reply) -> Result<HeaderValue, TokenError> {
        let (path, source) = self.elsewhere();
        self.service.answer_always_at(&path, Behaviour::reply(reply));
        source.token().await.map_err(|no_token| no_token.error)
    }

    fn requests_at(&self, path: &str) -> Vec<Received> {
        let mut requests = self.service.requests();
        requests.retain(|request| request.path == path);
        requests
    }

    /// Waits until `count` requests have arrived.
    async fn until_requests(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.service.requests().len() < count {
            assert!(Instant::now() < end, "{} requests", self.service.requests().len());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn json(status: u16, body: impl Into<String>) -> Reply {
    Reply::status(status).header("content-type", "application/json").body(body.into())
}

/// A valid response with this token.
fn token(token: &str) -> Reply {
    json(200, format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#))
}

#[tokio::test]
async fn a_token_is_requested_once_and_marked_sensitive() {
    let field = Field::new().await;
    let source = field.source();
    let first = source.token().await.unwrap();
    assert_eq!(source.token().await.unwrap(), first);
    assert!(first.is_sensitive() && !format!("{first:?}").contains("Bearer"));
    assert_eq!(field.service.requests().len(), 1);
}

#[tokio::test]
async fn a_hundred_callers_at_once_make_one_request() {
    let field = Field::new().await;
    field.service.answer_always(Behaviour::reply(token("t")).after(Duration::from_millis(100)));
    let source = field.source();
    let tokens = join_all((0..100).map(|_| source.token())).await;
    assert!(tokens.into_iter().all(|token| token.unwrap() == "Bearer t"));
    assert_eq!(field.service.requests().len(), 1);

    let fresh = Behaviour::reply(token("u")).after(Duration::from_millis(100));
    field.service.answer_always(fresh);
    let refused = HeaderValue::from_static("Bearer t");
    let tokens = join_all((0..100).map(|_| source.token_other_than(&refused))).await;
    assert!(tokens.into_iter().all(|token| token.unwrap().unwrap() == "Bearer u"));
    assert_eq!(field.service.requests().len(), 2);
}

#[tokio::test]
async fn a_caller_that_is_cancelled_does_not_cancel_the_request() {
    let field = Field::new().await;
    let source = field.source();
    for (number, text) in [(1, "first"), (2, "second")] {
        field.service.answer_next(1, &Behaviour::reply(token(text)).after(Duration::from_millis(300)));
        let caller = tokio::spawn({
            let source = source.clone();
            async move {
                match number {
                    1 => drop(source.token().await),
                    _ => drop(source.token_other_than(&HeaderValue::from_static("Bearer first")).await),
                }
            }
        });
        field.until_requests(number).await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled(), "the caller was cancelled while the request was in flight");
        assert_eq!(source.token().await.unwrap(), format!("Bearer {text}"));
        assert_eq!(field.service.requests().len(), number);
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let field = Field::new().await;
    field.service.set_expires_in(Some(Duration::from_secs(2)));
    let source = field.source();
    let start = Instant::now();
    let first = source.token().await.unwrap();
    while source.token().await.unwrap() == first {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(2), "the next token arrived before the first token expired");
    let requests = field.service.requests();
    assert!(
        requests[1].arrived - requests[0].arrived > Duration::from_millis(400),
        "not before a quarter of the token's lifetime"
    );
}

#[tokio::test]
async fn expires_in_may_be_a_numeric_string_and_without_a_usable_value_the_token_stays_in_use() {
    let field = Field::new().await;
    let watched = Duration::from_secs(5);
    // How long the token stays in use when its service fails from then on, and how many requests the service gets.
    let life = async |expires_in: &str| {
        let (path, source) = field.elsewhere();
        let body = format!(r#"{{"access_token":"t","token_type":"Bearer"{expires_in}}}"#);
        field.service.answer_next_at(&path, 1, &Behaviour::reply(json(200, body)));
        field.service.answer_always_at(&path, Behaviour::status(503));
        let start = Instant::now();
        while start.elapsed() < watched && source.token().await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
        (start.elapsed(), field.requests_at(&path).len())
    };
    let short = [r#","expires_in":2"#, r#","expires_in":"2""#, r#","expires_in":2.0"#, r#","expires_in":" 2 ""#];
    let unusable =
        ["0", "-1", r#""-3600""#, r#""soon""#, "null", "{}"].map(|value| format!(r#","expires_in":{value}"#));
    let huge = [r#","expires_in":99999999999999999999"#, r#","expires_in":"1e999""#];
    let long: Vec<_> = unusable.iter().map(String::as_str).chain(huge).chain([""]).collect();
    let (short_lives, long_lives) =
        tokio::join!(join_all(short.iter().map(|value| life(value))), join_all(long.iter().map(|value| life(value))));
    for (value, (life, requests)) in short.iter().zip(short_lives) {
        assert!((Duration::from_secs(2)..watched).contains(&life), "{value}: {life:?}");
        assert_eq!(
            requests, 2,
            "{value}: one renewal failed and was not repeated; the token stayed in use until it expired"
        );
    }
    for (value, (life, requests)) in long.iter().zip(long_lives) {
        assert!(life >= watched && requests == 1, "{value}: {life:?}, {requests} requests");
    }
}

#[tokio::test]
async fn parameters_arrive_as_form_fields_next_to_the_fields_of_the_grant() {
    let field = Field::new().await;
    for (way, method) in WAYS {
        let source = field.source_by(way, |key| {
            key.scopes = vec!["a".into(), "b".into()];
            key.audience = Some("https://hooks.example.com/?a=b&c".into());
            key.resources = vec!["urn:acme:hooks".into(), "https://hooks.example.com/?a=b&c".into()];
            key.parameters = BTreeMap::from([
                ("authorization_details".into(), r#"[{"type":"events"}]"#.into()),
                ("odd name&=+%".into(), "ü + & = %41".into()),
            ]);
        });
        source.token().await.unwrap();
        let requests = field.service.requests();
        let request = requests.last().unwrap();
        assert_eq!(request.authentication, Some(method));
        let mut expected = vec![
            ("grant_type", "client_credentials"),
            ("scope", "a b"),
            ("audience", "https://hooks.example.com/?a=b&c"),
            ("resource", "urn:acme:hooks"),
            ("resource", "https://hooks.example.com/?a=b&c"),
            ("authorization_details", r#"[{"type":"events"}]"#),
            ("odd name&=+%", "ü + & = %41"),
        ];
        if method == Method::Post {
            expected.insert(2, ("client_id", "id"));
            expected.push(("client_secret", "secret"));
        }
        let sent: Vec<_> = request.fields.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn a_client_id_of_all_printable_characters_authenticates_either_way() {
    let field = Field::new().await;
    let printable: String = (' '..='~').collect();
    field.service.register(Client::new(&printable, "secret"));
    for (way, method) in WAYS {
        let odd_id = field.source_by(way, |key| key.client_id = printable.clone());
        odd_id.token().await.unwrap();
        let request = field.service.requests().pop().unwrap();
        assert_eq!((request.authentication, request.client_id.as_deref()), (Some(method), Some(&*printable)));
    }
}

#[tokio::test]
async fn a_token_is_accepted_with_any_content_type_any_2xx_status_and_any_case_of_bearer() {
    let field = Field::new().await;
    let body = |token_type: &str| format!(r#"{{"access_token":"t","token_type":"{token_type}","expires_in":60}}"#);
    let types = [
        Some("application/json; charset=utf-8"),
        Some("application/json;charset=UTF-8"),
        Some("APPLICATION/JSON"),
        Some("text/html"),
        Some("text/plain; charset=iso-8859-1"),
        Some("?"),
        None,
    ];
    for (content_type, status) in types.into_iter().flat_map(|of_type| [200, 201, 203].map(|status| (of_type, status)))
    {
        let reply = Reply::status(status).body(body("Bearer"));
        let reply = content_type.into_iter().fold(reply, |reply, value| reply.header("content-type", value));
        assert_eq!(field.outcome(reply).await.unwrap(), "Bearer t", "{content_type:?} {status}");
    }
    for token_type in ["bearer", "BEARER", "bEaReR"] {
        assert_eq!(field.outcome(json(200, body(token_type))).await.unwrap(), "Bearer t", "{token_type}");
    }
    for token_type in ["mac", "DPoP", ""] {
        let refused = field.outcome(json(200, body(token_type))).await.unwrap_err();
        assert_eq!(refused, TokenError::Malformed("token_type is not Bearer"), "{token_type}");
    }
}

#[tokio::test]
async fn a_standard_error_code_decides_between_rejected_and_unavailable_and_a_401_is_always_rejected() {
    let field = Field::new().await;
    let refusals = [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "access_denied",
        "invalid_target",
    ];
    let outages = ["server_error", "temporarily_unavailable", "slow_down"];
    for code in refusals.into_iter().chain(outages) {
        let body =
            format!(r#"{{"error":"{code}","error_description":"canary","error_uri":"https://canary.example/"}}"#);
        for status in [200, 400, 401, 403, 404] {
            for content_type in ["application/json;charset=UTF-8", "text/html", "application/problem+json"] {
                let reply = Reply::status(status).header("content-type", content_type).body(body.clone());
                let error = field.outcome(reply).await.unwrap_err();
                let (expected, shown) = match error {
                    TokenError::Rejected(shown) => (refusals.contains(&code) && shown == code, code),
                    TokenError::Unauthorized => (outages.contains(&code) && status == 401, "401"),
                    TokenError::Unavailable { code: shown, .. } => {
                        (outages.contains(&code) && status != 401 && shown == Some(code), code)
                    }
                    _ => (false, code),
                };
                assert!(expected, "{code} {status} {content_type}: {error:?}");
                assert!(error.to_string().contains(shown), "{error}");
                assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_error_status_and_a_lost_connection_mean_unavailable_whatever_the_body() {
    let field = Field::new().await;
    for status in [301, 302, 307, 404, 418, 429, 500, 502, 503, 504, 599] {
        let body = if matches!(status, 404 | 418) { r#"{"error":"canary"}"# } else { r#"{"error":"invalid_client"}"# };
        let reply = json(status, body).header("location", "https://canary.example/");
        let error = field.outcome(reply).await.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable { code: None, .. }), "{status}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    let (path, source) = field.elsewhere();
    field.service.answer_always_at(&path, Behaviour::reset());
    assert_eq!(source.token().await.unwrap_err().error, TokenError::Unreachable(SendError::Broken));
    assert_eq!(field.requests_at(&path).len(), 1, "no layer repeats the request");
}

#[tokio::test]
async fn s10_an_answer_that_is_no_token_is_refused_and_never_shown() {
    let field = Field::new().await;
    let long = "canary".repeat(20_000);
    let cases = [
        (200, r#"{"access_token":"canary","token_type":"mac"}"#.to_owned(), "token_type is not Bearer"),
        (200, r#"{"access_token":"can\nary","token_type":"bearer"}"#.to_owned(), "are invalid in a header"),
        (200, r#"{"access_token":"","token_type":"bearer"}"#.to_owned(), "access_token is empty"),
        (200, r#"{"access_token":["canary"],"token_type":"bearer"}"#.to_owned(), "access_token is not a string"),
        (200, r#"{"token_type":"bearer","canary":1}"#.to_owned(), "access_token is missing"),
        (200, r#"{"access_token":"canary","error":"canary"}"#.to_owned(), "a non-standard OAuth 2.0 error code"),
        (200, "canary".to_owned(), "not a JSON object"),
        (200, r#"{"access_token":"canary""#.to_owned(), "not a JSON object"),
        (200, format!(r#"{{"access_token":"canary","token_type":"bearer","pad":"{long}"}}"#), "too long"),
        (400, long.clone(), "answered 400 Bad Request"),
        (400, format!(r#"{{"error":"{long}"}}"#), "answered 400 Bad Request"),
        (401, long.clone(), "answered 401 Unauthorized"),
        (403, r#"{"error":"canary","error_description":"canary"}"#.to_owned(), "answered 403 Forbidden"),
    ];
    for (status, body, expected) in cases {
        let error = field.outcome(json(status, body)).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains(expected) && !shown.contains("canary") && !shown.contains("nary"),
            "{expected}: {shown}"
        );
    }
}

#[tokio::test]
async fn a_failed_request_is_not_repeated_before_its_time_even_by_a_recreated_source() {
    let field = Field::new().await;
    field.service.answer_always(Behaviour::reply(Reply::status(503).header("retry-after", "600")));
    let start = Instant::now();
    let first = field.source().token().await.unwrap_err();
    assert!(first.ask_again >= start + Duration::from_secs(600));
    assert!(first.ask_again <= Instant::now() + Duration::from_secs(720));
    for _ in 0..100 {
        assert_eq!(field.source().token().await.unwrap_err(), first, "the source is created again each time");
    }
    assert_eq!(field.service.requests().len(), 1);
}

#[tokio::test]
async fn a_service_that_issues_the_refused_token_again_provides_no_other_token() {
    let field = Field::new().await;
    field.service.answer_always(Behaviour::reply(token("t")));
    let refused = field.source().token().await.unwrap();
    assert!(field.source().token_other_than(&refused).await.is_none());
    assert_eq!(field.service.requests().len(), 2);
}

#[tokio::test]
async fn a_403_during_an_outage_keeps_the_current_token() {
    let field = Field::new().await;
    let held = field.source().token().await.unwrap();
    field.service.answer_always(Behaviour::status(503));
    field.source().renew_next(&held).await;
    for _ in 0..10 {
        assert_eq!(field.source().token().await.unwrap(), held);
    }
    assert_eq!(field.service.requests().len(), 2, "a new token was requested once");
}

#[tokio::test]
async fn s11_an_unused_token_is_forgotten_a_minute_after_its_request() {
    let field = Field::new().await;
    let start = Instant::now();
    let source = field.source();
    source.token().await.unwrap();
    let watched = Arc::downgrade(&source);
    drop(source);
    while watched.strong_count() > 0 {
        assert!(start.elapsed() < Duration::from_secs(60) + PATIENCE, "the token is kept");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(
        start.elapsed() >= Duration::from_secs(60),
        "a new source within the minute would have sent a request again"
    );
    field.source().token().await.unwrap();
    assert_eq!(field.service.requests().len(), 2);
}

#[tokio::test]
async fn a_renewal_is_forced_at_most_once_a_minute_even_by_a_recreated_source() {
    let field = Field::new().await;
    let first = field.source().token().await.unwrap();
    let second = field.source().token_other_than(&first).await.unwrap().unwrap();
    assert_ne!(first, second);
    for _ in 0..100 {
        assert!(field.source().token_other_than(&second).await.is_none());
        field.source().renew_next(&second).await;
        assert_eq!(field.source().token().await.unwrap(), second);
        assert_eq!(
            field.source().token_other_than(&first).await.unwrap().unwrap(),
            second,
            "the newer token is already cached"
        );
    }
    assert_eq!(field.service.requests().len(), 2);
    // Each key has its own minute.
    let neighbor = field.source_with(|key| key.namespace = "neighbor".into());
    let token = neighbor.token().await.unwrap();
    neighbor.renew_next(&token).await;
    assert_ne!(neighbor.token().await.unwrap(), token, "the attempt after a 403 has a new token");
    assert_eq!(field.service.requests().len(), 4);
}

/// The fingerprint of credentials with this client secret.
fn fingerprint(client_secret: &str) -> CredentialsFingerprint {
    client("id", client_secret, AuthMethod::Post).fingerprint()
}

#[tokio::test]
async fn s11_a_changed_secret_and_another_namespace_get_tokens_of_their_own() {
    let field = Field::new().await;
    let first = field.source();
    let changed = field.source_with(|key| key.credentials = fingerprint("2"));
    let recreated = field.source_with(|key| key.secret_uid = "other".into());
    let tenant = field.source_with(|key| key.namespace = "tenant".into());
    let mut tokens = Vec::new();
    for source in [&first, &changed, &recreated, &tenant] {
        let token = source.token().await.unwrap();
        assert!(!tokens.contains(&token), "the token of another source");
        tokens.push(token);
        assert_eq!(field.service.requests().len(), tokens.len(), "each source sends its own request");
    }
    assert_eq!(first.token().await.unwrap(), tokens[0]);
    assert_eq!(field.service.requests().len(), 4);
}

#[tokio::test]
async fn s11_every_part_of_a_token_request_distinguishes_its_source() {
    let field = Field::new().await;
    let changes: [fn(&mut TokenKey); 14] = [
        |key| key.namespace = "other".into(),
        |key| key.secret_uid = "other".into(),
        |key| key.credentials = fingerprint("other"),
        |key| key.secret_keys[0] = "other".into(),
        |key| key.url += "?other",
        |key| key.client_id = "other".into(),
        |key| key.authentication = client("id", "secret", AuthMethod::Basic).method(),
        |key| key.scopes = vec!["other".into()],
        |key| key.audience = Some("other".into()),
        |key| key.parameters = BTreeMap::from([("resource".into(), "other".into())]),
        |key| key.headers = fingerprint("other"),
        |key| key.resources = vec!["urn:other".into()],
        |key| key.timeout = Duration::from_secs(6),
        |key| key.trust = trusting(&Authority::new()).fingerprint(),
    ];
    let sources: Vec<_> = [field.source()].into_iter().chain(changes.map(|change| field.source_with(change))).collect();
    for (number, source) in sources.iter().enumerate() {
        assert!(sources[..number].iter().all(|other| !Arc::ptr_eq(source, other)), "{number}");
    }
    assert!(Arc::ptr_eq(&sources[0], &field.source()), "without a change, the source is the same");
}
