use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tidings_testkit::endpoints::AuthMethod;
use tidings_testkit::{Authority, Behaviour, Client, TokenService};

use crate::client::{Answer, send};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn service() -> (Authority, TokenService) {
    let authority = Authority::new();
    let service = TokenService::start(&authority).await.unwrap();
    service.register(Client::new("acme", "s3 cr:t").scopes(["events.write", "events.read"]));
    (authority, service)
}

/// Sends a form with Basic authentication as `acme`. The caller form-urlencodes the secret (RFC 6749, section 2.3.1).
async fn basic(authority: &Authority, service: &TokenService, secret: &str, body: &str) -> Answer {
    let header = format!("Basic {}", STANDARD.encode(format!("acme:{secret}")));
    send(authority, "POST", &service.url(), &[FORM, ("authorization", &header)], body).await.unwrap()
}

#[tokio::test]
async fn a_client_gets_a_token_by_basic_authentication() {
    let (authority, service) = service().await;
    let answer = basic(&authority, &service, "s3+cr%3At", "grant_type=client_credentials&scope=events.write").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    let token = answer.json();
    assert_eq!(token["token_type"], "Bearer");
    assert_eq!(token["expires_in"], 3600);
    assert_eq!(token["scope"], "events.write");
    let grant = service.tokens().check(token["access_token"].as_str().unwrap()).unwrap();
    assert_eq!((grant.client_id.as_str(), grant.scopes), ("acme", vec!["events.write".to_owned()]));
}

#[tokio::test]
async fn a_client_gets_a_token_by_post_and_the_request_is_recorded() {
    let (authority, service) = service().await;
    let body = "grant_type=client_credentials&client_id=acme&client_secret=s3+cr%3At&audience=https%3A%2F%2Fhooks";
    let answer = send(&authority, "POST", &service.url(), &[FORM], body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.json()["scope"],
        "events.write events.read",
        "without a requested scope, all allowed scopes are granted"
    );
    let [request] = &service.requests_of("acme")[..] else { panic!("{:?}", service.requests()) };
    assert_eq!(request.authentication, Some(AuthMethod::Post));
    assert_eq!(request.audience(), Some("https://hooks"));
    assert_eq!((request.scope(), request.answered, request.error), (None, Some(200), None));
}

#[tokio::test]
async fn refusals_carry_the_codes_of_rfc_6749() {
    let (authority, service) = service().await;
    let grant = "grant_type=client_credentials";
    let post = format!("{grant}&client_id=acme&client_secret=s3+cr%3At");
    let (right, wrong) = (Some("s3+cr%3At"), Some("wrong"));
    let cases = [
        (wrong, grant.to_owned(), 401, "invalid_client"),
        (Some("s3 cr:x"), grant.to_owned(), 401, "invalid_client"),
        (None, grant.to_owned(), 401, "invalid_client"),
        (None, format!("{grant}&client_id=acme&client_secret=wrong"), 401, "invalid_client"),
        (None, format!("{grant}&client_secret=s3+cr%3At"), 400, "invalid_request"),
        (right, post.clone(), 400, "invalid_request"),
        (right, format!("{grant}&client_id=other"), 400, "invalid_request"),
        (right, String::new(), 400, "invalid_request"),
        (right, "grant_type=".to_owned(), 400, "invalid_request"),
        (right, format!("{grant}&{grant}"), 400, "invalid_request"),
        (right, "grant_type=password".to_owned(), 400, "unsupported_grant_type"),
        (right, format!("{grant}&scope=events.write+admin"), 400, "invalid_scope"),
        (right, format!("{grant}&scope=events.write++events.read"), 400, "invalid_scope"),
    ];
    for (secret, body, status, code) in cases {
        let answer = match secret {
            Some(secret) => basic(&authority, &service, secret, &body).await,
            None => send(&authority, "POST", &service.url(), &[FORM], &body).await.unwrap(),
        };
        assert_eq!((answer.status, &answer.json()["error"]), (status, &code.into()), "{secret:?} {body:?}");
        assert_eq!(answer.head.contains("www-authenticate: basic"), status == 401, "{}", answer.head);
        assert_eq!(service.requests().last().unwrap().error, Some(code));
    }
    let answer = send(&authority, "POST", &service.url(), &[("content-type", "text/plain")], &post).await.unwrap();
    assert_eq!((answer.status, &answer.json()["error"]), (400, &"invalid_request".into()));
    let answer = send(&authority, "POST", &format!("{}?{post}", service.url()), &[FORM], "").await.unwrap();
    assert_eq!((answer.status, &answer.json()["error"]), (400, &"invalid_request".into()));
    let answer = send(&authority, "GET", &service.url(), &[], "").await.unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: post"));
}

#[tokio::test]
async fn tokens_expire_and_can_be_revoked() {
    let (authority, service) = service().await;
    let token = async || {
        let answer = basic(&authority, &service, "s3+cr%3At", "grant_type=client_credentials").await;
        (answer.json()["access_token"].as_str().unwrap().to_owned(), answer.json()["expires_in"].clone())
    };
    service.set_expires_in(None);
    let (lasting, expires_in) = token().await;
    assert!(expires_in.is_null());
    service.set_expires_in(Some(Duration::ZERO));
    let (expired, expires_in) = token().await;
    assert_eq!(expires_in, 0);
    assert_ne!(lasting, expired);
    assert!(service.tokens().check(&expired).is_none());
    assert!(service.tokens().check(&lasting).is_some());
    service.tokens().revoke_all();
    assert!(service.tokens().check(&lasting).is_none());
}

#[tokio::test]
async fn it_misbehaves_as_often_as_scripted() {
    let (authority, service) = service().await;
    service.answer_next(2, &Behaviour::status(503));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(basic(&authority, &service, "s3+cr%3At", "grant_type=client_credentials").await.status);
    }
    assert_eq!(statuses, [503, 503, 200]);
    assert_eq!(service.requests().iter().map(|r| r.answered.unwrap()).collect::<Vec<_>>(), statuses);
}
