use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tidings_testkit::endpoints::Reply;
use tidings_testkit::endpoints::TokenBook;
use tidings_testkit::{Authority, Behaviour, Receiver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Answer, connect, connect_as, send};

const LIMIT: Duration = Duration::from_secs(10);

struct Fixture {
    authority: Authority,
    receiver: Receiver,
    bearer: String,
}

impl Fixture {
    async fn start() -> Self {
        let (authority, tokens) = (Authority::new(), TokenBook::default());
        let bearer = format!("Bearer {}", tokens.issue("acme", &[], None));
        let receiver = Receiver::start(&authority, &tokens).await.unwrap();
        Self { authority, receiver, bearer }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
        let headers = [&[("authorization", self.bearer.as_str())], headers].concat();
        send(&self.authority, "POST", &self.receiver.url(path), &headers, body).await
    }
}

#[tokio::test]
async fn a_post_with_a_valid_token_is_acknowledged_and_recorded() {
    let fixture = Fixture::start().await;
    let answer = fixture.post("/events?a=b", &[("ce-specversion", "1.0"), ("ce-id", "a%20b")], "x").await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    fixture.post("/events", &[], r#"{"id": "c"}"#).await.unwrap();
    let requests = fixture.receiver.wait_for("/events", 2, LIMIT).await.unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].query.as_deref(), Some("a=b"));
    assert_eq!(requests[0].token(), fixture.bearer.strip_prefix("Bearer "));
    assert_eq!(&requests[0].body[..], b"x");
    assert_eq!(requests[0].answered, Some(204));
    assert!(requests[0].is_binary() && !requests[1].is_binary());
    assert_eq!(requests[0].event_id().as_deref(), Some("a b"));
    assert_eq!(requests[1].event_id().as_deref(), Some("c"));
    assert_ne!(requests[0].peer, requests[1].peer, "two connections");
}

#[tokio::test]
async fn a_post_without_a_valid_token_is_refused_and_does_not_use_up_the_script() {
    let fixture = Fixture::start().await;
    fixture.receiver.answer_next("/", 1, &Behaviour::status(500));
    let url = fixture.receiver.url("/");
    for headers in [&[][..], &[("authorization", "Bearer guessed")], &[("authorization", "Basic YTpi")]] {
        let answer = send(&fixture.authority, "POST", &url, headers, "").await.unwrap();
        assert_eq!(answer.status, 401);
        assert!(answer.head.contains("www-authenticate: bearer"));
    }
    assert_eq!(fixture.post("/", &[], "").await.unwrap().status, 500);
    assert_eq!(fixture.post("/", &[], "").await.unwrap().status, 204);
}

#[tokio::test]
async fn options_is_recorded_and_does_not_count_as_a_delivery() {
    let fixture = Fixture::start().await;
    let answer = send(&fixture.authority, "OPTIONS", &fixture.receiver.url("/"), &[], "").await.unwrap();
    assert_eq!(answer.status, 204);
    assert_eq!(fixture.receiver.requests()[0].method, "OPTIONS");
    let error = fixture.receiver.wait_for("/", 1, Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().contains("0 of 1 POST to /"), "{error}");
    assert!(error.to_string().contains("OPTIONS / None Some(204)"), "{error}");
}

#[tokio::test]
async fn it_answers_validation_requests_as_scripted_until_it_behaves() {
    let fixture = Fixture::start().await;
    let options = async |path| {
        let url = fixture.receiver.url(path);
        let headers = [("webhook-request-origin", "events.example.com"), ("webhook-request-rate", "600")];
        send(&fixture.authority, "OPTIONS", &url, &headers, "").await.unwrap()
    };
    let all = Reply::status(200).allow_origin("a.example").allow_origin("events.example.com").allow_rate("120");
    fixture.receiver.answer_options("/", Behaviour::reply(all.allow_rate("60")));
    fixture.receiver.answer_next_options("/", 1, &Behaviour::status(404));
    assert_eq!(options("/").await.status, 404);
    for _ in 0..2 {
        let answer = options("/").await;
        assert_eq!(answer.status, 200);
        for header in ["origin: a.example", "origin: events.example.com", "rate: 120", "rate: 60"] {
            assert!(answer.head.contains(&format!("\r\nwebhook-allowed-{header}")), "{header}: {}", answer.head);
        }
    }
    assert!(!options("/other").await.head.contains("webhook-"), "the script is for one path");
    assert_eq!(fixture.post("/", &[], "").await.unwrap().status, 204, "and for OPTIONS alone");
    fixture.receiver.behave("/");
    let answer = options("/").await;
    assert_eq!(answer.status, 204);
    assert!(!answer.head.contains("webhook-"), "{}", answer.head);
    let request = &fixture.receiver.requests_for("/")[0];
    assert_eq!(request.header("webhook-request-origin"), Some("events.example.com"));
    assert_eq!(request.header("webhook-request-rate"), Some("600"));
}

#[tokio::test]
async fn waiting_for_validation_requests_ignores_deliveries() {
    let fixture = Fixture::start().await;
    fixture.post("/", &[], "").await.unwrap();
    let url = fixture.receiver.url("/");
    let error = fixture.receiver.wait_for_options("/", 1, Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().contains("0 of 1 OPTIONS to /"), "{error}");
    let validation = send(&fixture.authority, "OPTIONS", &url, &[], "");
    let (answer, requests) = tokio::join!(validation, fixture.receiver.wait_for_options("/", 1, LIMIT));
    assert_eq!(answer.unwrap().status, 204);
    assert_eq!(requests.unwrap().iter().map(|r| r.method.as_str()).collect::<Vec<_>>(), ["POST", "OPTIONS"]);
}

#[tokio::test]
async fn each_path_has_its_own_answers() {
    let fixture = Fixture::start().await;
    let busy = Reply::status(429).header("retry-after", "7").body("later");
    fixture.receiver.answer_always("/busy", Behaviour::reply(busy));
    fixture.receiver.answer_next("/busy", 1, &Behaviour::status(202));
    assert_eq!(fixture.post("/busy", &[], "").await.unwrap().status, 202);
    for _ in 0..2 {
        let answer = fixture.post("/busy", &[], "").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (429, "later"));
        assert!(answer.head.contains("retry-after: 7"));
    }
    assert_eq!(fixture.post("/calm", &[], "").await.unwrap().status, 204);
    fixture.receiver.behave("/busy");
    assert_eq!(fixture.post("/busy", &[], "").await.unwrap().status, 204);
    assert_eq!(fixture.receiver.requests_for("/busy").len(), 4);
}

#[tokio::test]
async fn a_choice_depends_on_the_request_comes_after_plans_and_ends_when_it_behaves() {
    let fixture = Fixture::start().await;
    fixture.receiver.answer_by("/", |request| Behaviour::status(if request.body.is_empty() { 400 } else { 202 }));
    fixture.receiver.answer_next("/", 1, &Behaviour::status(500));
    let mut answers = Vec::new();
    for body in ["x", "x", ""] {
        answers.push(fixture.post("/", &[], body).await.unwrap().status);
    }
    fixture.receiver.behave("/");
    answers.push(fixture.post("/", &[], "").await.unwrap().status);
    assert_eq!(answers, [500, 202, 400, 204]);
}

#[tokio::test]
async fn it_delays_and_resets_and_hangs_as_scripted() {
    let fixture = Fixture::start().await;
    let delay = Duration::from_millis(200);
    fixture.receiver.answer_next("/", 1, &Behaviour::status(200).after(delay));
    fixture.receiver.answer_next("/", 1, &Behaviour::reset());
    fixture.receiver.answer_next("/", 1, &Behaviour::hang());

    let started = Instant::now();
    let delayed = fixture.post("/", &[], "");
    let seen = async {
        let requests = fixture.receiver.wait_for("/", 1, LIMIT).await.unwrap();
        assert_eq!(requests[0].answered, None, "answered before the end of the delay");
    };
    let (answer, ()) = tokio::join!(delayed, seen);
    assert_eq!(answer.unwrap().status, 200);
    assert!(started.elapsed() >= delay);
    assert_eq!(fixture.receiver.requests()[0].answered, Some(200));

    let error = fixture.post("/", &[], "").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let silence = tokio::time::timeout(delay, fixture.post("/", &[], "")).await;
    assert!(silence.is_err(), "an answer instead of a hang");
    assert_eq!(fixture.receiver.requests()[1..].iter().map(|r| r.answered).collect::<Vec<_>>(), [None, None]);
}

#[tokio::test]
async fn it_stops_and_resumes_on_the_same_port() {
    let mut fixture = Fixture::start().await;
    let url = fixture.receiver.url("/");
    let mut open = connect(&fixture.authority, &url).await.unwrap();
    fixture.receiver.stop();
    let error = fixture.post("/", &[], "").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let mut rest = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut open, &mut rest).await;
    assert!(end.is_err() || rest.is_empty(), "the open connection was not closed");
    fixture.receiver.resume().await.unwrap();
    assert_eq!(fixture.receiver.url("/"), url);
    assert_eq!(fixture.post("/", &[], "").await.unwrap().status, 204);
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_cannot_connect() {
    let fixture = Fixture::start().await;
    assert!(connect(&Authority::new(), &fixture.receiver.url("/")).await.is_err());
}

/// A receiver in a static is used by tests with different runtimes.
#[test]
fn it_outlives_the_runtime_that_started_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = runtime().block_on(Fixture::start());
    let answer = runtime().block_on(fixture.post("/", &[], "")).unwrap();
    assert_eq!(answer.status, 204);
}

#[tokio::test]
async fn a_receiver_that_requires_client_certificates_refuses_other_clients() {
    let (authority, tokens) = (Authority::new(), TokenBook::default());
    let tls = authority.server_identity(&[]).server_config_for_clients_of(&authority);
    let receiver = Receiver::start_with(tls, &tokens).await.unwrap();
    let strangers = Authority::new().client_identity("acme");
    for (identity, is_let_in) in
        [(None, false), (Some(&strangers), false), (Some(&authority.client_identity("acme")), true)]
    {
        // The server may reject the client after the client's side of the handshake is complete.
        let exchange = async {
            let mut stream = connect_as(identity, &authority, &receiver.url("/")).await?;
            stream.write_all(b"POST / HTTP/1.0\r\n\r\n").await?;
            stream.read(&mut [0]).await
        };
        assert_eq!(exchange.await.is_ok_and(|read| read == 1), is_let_in);
        assert_eq!(receiver.requests().len(), usize::from(is_let_in));
    }
}
