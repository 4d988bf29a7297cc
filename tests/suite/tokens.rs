//! The token source: early renewal, serving on through an outage, failures remembered, hostile answers refused.

use std::{sync::Arc, time::Duration};

use testkit::{Authority, Behaviour, Client, TokenService, exchange::Reply};
use tidings::{
    egress::{Egress, Policy, Trust},
    oauth::{ClientAuthentication, Credentials, TokenCache, TokenError, TokenKey, TokenRequest, TokenSource},
};
use tokio::time::sleep;

/// Trust in an authority's certificates.
pub fn trusting(authority: &Authority) -> Trust {
    Trust { roots_pem: Some(authority.ca_pem().into()), identity: None }
}

/// A source of the service's tokens for the client `id`, whose secret is `secret`.
pub fn source_of(
    service: &TokenService,
    http: Arc<tidings::egress::Client>,
    authentication: ClientAuthentication,
) -> Arc<TokenSource> {
    source_at(&service.url(), Duration::from_secs(5), http, authentication)
}

/// The same for whatever is at `url`.
pub fn source_at(
    url: &str,
    timeout: Duration,
    http: Arc<tidings::egress::Client>,
    authentication: ClientAuthentication,
) -> Arc<TokenSource> {
    let url = url.parse::<url::Url>().unwrap();
    let key = TokenKey {
        namespace: "test".into(),
        secret_uid: "uid".into(),
        secret_version: "1".into(),
        secret_keys: ["client_id".into(), "client_secret".into()],
        url: url.to_string(),
        client_id: "id".into(),
        authentication,
        scopes: Vec::new(),
        audience: None,
        timeout,
        trust: Trust::default().fingerprint(),
    };
    TokenCache::default().source(key, || TokenRequest {
        url,
        credentials: Credentials { client_id: "id".into(), client_secret: "secret".into() },
        authentication,
        scopes: Vec::new(),
        audience: None,
        timeout,
        http,
    })
}

async fn source(life: Option<Duration>) -> (TokenService, Arc<TokenSource>) {
    let authority = Authority::new();
    let service = TokenService::start(&authority).await.unwrap();
    service.register(Client::new("id", "secret"));
    service.set_expires_in(life);
    let egress = Egress::new(Policy::allowing(vec!["127.0.0.0/8".parse().unwrap()]));
    let http = egress.client(&trusting(&authority)).unwrap();
    let source = source_of(&service, http, ClientAuthentication::Post);
    (service, source)
}

/// The error for an answer of 200 with this body.
async fn refusal(body: String) -> TokenError {
    let (service, source) = source(None).await;
    let reply = Reply::status(200).header("content-type", "application/json").body(body);
    service.answer_always(Behaviour::reply(reply));
    source.token().await.unwrap_err().error
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_marked_sensitive() {
    let (service, source) = source(Some(Duration::from_secs(3600))).await;
    let (first, second) = tokio::join!(source.token(), source.token());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    assert!(first.is_sensitive() && !format!("{first:?}").contains("Bearer"));
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_serves_on_while_the_service_is_in_trouble() {
    let (service, source) = source(Some(Duration::from_secs(4))).await;
    let first = source.token().await.unwrap();
    sleep(Duration::from_millis(2200)).await; // past the half of its life, which is when so short a token is renewed
    service.answer_always(Behaviour::status(503));
    assert_eq!(source.token().await.unwrap(), first, "it lives on");
    assert_eq!(source.token().await.unwrap(), first);
    assert_eq!(service.requests().len(), 2, "the failure is remembered");
    sleep(Duration::from_millis(2000)).await;
    assert!(matches!(source.token().await.unwrap_err().error, TokenError::Unavailable { .. }), "it has ended");
    service.behave();
    source.forget_failure().await;
    assert_ne!(source.token().await.unwrap(), first);
}

#[tokio::test]
async fn a_failure_is_not_asked_about_again_before_its_time() {
    let (service, source) = source(None).await;
    service.answer_always(Behaviour::reply(Reply::status(503).header("retry-after", "600")));
    let asked = tokio::time::Instant::now();
    for _ in 0..100 {
        let error = source.token().await.unwrap_err();
        assert!(error.ask_again >= asked + Duration::from_secs(599));
    }
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_refused_and_never_shown() {
    let cases = [
        (r#"{"access_token":"canary","token_type":"mac"}"#.to_owned(), "token_type"),
        (r#"{"access_token":"can\nary","token_type":"bearer"}"#.to_owned(), "characters"),
        (r#"{"token_type":"bearer","canary":1}"#.to_owned(), "a field is missing"),
        (format!(r#"{{"access_token":"canary","token_type":"bearer","pad":"{}"}}"#, "x".repeat(70_000)), "too long"),
        ("canary".to_owned(), "a field is missing"),
    ];
    for (body, expected) in cases {
        let error = refusal(body).await;
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(expected) && !shown.contains("canary"), "{expected}: {shown}");
    }
    let (service, source) = source(None).await;
    let typed = r#"{"access_token":"t","token_type":"BEARER","expires_in":60}"#;
    let reply = Reply::status(200).header("content-type", "application/json").body(typed);
    service.answer_always(Behaviour::reply(reply));
    assert_eq!(source.token().await.unwrap(), "Bearer t", "the type is compared without case");
}
