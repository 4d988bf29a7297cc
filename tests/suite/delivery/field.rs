//! The behaviour of real endpoints, from public reports. `docs/field.md` lists each behaviour with its test.

use serde_json::json;
use testkit::{Authority, Behaviour, RawServer, endpoints::Reply};
use tidings_api::AttemptReason;

use crate::{
    sending::{PATIENCE, Sender, WAYS, Way, allowing},
    token_sources::trusting,
    world::{CLIENT, World, condition, path},
};

#[tokio::test]
async fn field_03_folded_header_lines_and_a_space_before_the_colon_are_read() {
    let authority = Authority::new();
    for sender in Sender::both(allowing("127.0.0.1"), &trusting(&authority)).await {
        for header in [
            "X-Policy: a;\r\n  b",
            "X-Policy: a;\r\n\tb;\r\n\tc",
            "Server : x",
            "Server\t: x",
            "WebHook-Allowed-Origin : *\r\nX-Folded:\r\n late",
        ] {
            let response =
                format!("HTTP/1.1 202 Accepted\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let server = RawServer::answering(authority.server_config(&[]), response).await.unwrap();
            for way in WAYS {
                let before = server.connections();
                assert_eq!(sender.answer(way, &server.url("/events")).await, Ok(()), "{way:?}: {header:?}");
                assert_eq!(server.connections(), before + 1, "{way:?}: exactly one request: {header:?}");
            }
            assert_eq!(
                sender.post(&server.url("/events"), PATIENCE).await.reason,
                AttemptReason::Accepted,
                "{header:?}"
            );
        }
    }
}

#[tokio::test]
async fn field_02_a_redirect_renews_the_token_once_and_ends_no_event() {
    let world = World::new("redirect").await;
    world.secret(CLIENT.1).await;
    let quick = |spec: &mut serde_json::Value| spec["delivery"] = json!({"backoff": {"initialSeconds": 1}});
    world.subscriber("shop", quick).await;
    world.subscriber("moved", quick).await;
    let _operator = world.operator().await;
    for name in ["shop", "moved"] {
        world.until_reason(name, "Operational").await;
    }
    // An auth proxy sends a token that it does not know to its login page.
    let login = Behaviour::reply(Reply::status(302).header("location", &world.receiver.url("/login")));
    world.receiver.answer_next(&path("shop"), 1, &login);
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    assert_eq!(world.until_phase("n", "Delivered").await["status"]["attempts"], 2);
    let posts = world.posts(&path("shop"));
    assert!(posts.len() == 2 && posts[0].token().unwrap() != posts[1].token().unwrap(), "the token was not renewed");
    assert!(world.posts("/login").is_empty(), "the redirect was followed");

    // A webhook that has moved, or whose path is wrong: the events wait, and the circuit opens.
    for status in [308, 405] {
        let moved = Behaviour::reply(Reply::status(status).header("location", &world.receiver.url("/new")));
        world.receiver.answer_always(&path("moved"), moved);
        let names: Vec<_> = (0..6).map(|n| format!("moved-{status}-{n}")).collect();
        for name in &names {
            world.notification(name, "moved", json!({"source": "/s", "type": "t"})).await;
        }
        world.until("subscriber", "moved", |s| condition(s, "Healthy")["reason"] == "CircuitOpen").await;
        for name in &names {
            assert_eq!(world.get("notification", name).await["status"]["phase"], "Pending", "{name}");
        }
        world.receiver.answer_always(&path("moved"), Behaviour::status(204));
        world.kubectl(&["annotate", "subr", "moved", &format!("tidings.dev/reconcile-requested-at={status}")]).await;
        for name in &names {
            world.until_phase(name, "Delivered").await;
        }
    }
    assert!(world.tokens.requests().len() <= 4, "two at the start, and one after each first refusal");
}

#[tokio::test]
async fn field_04_a_401_or_403_with_retry_after_pauses_and_spends_neither_an_attempt_nor_a_token() {
    let world = World::new("quota").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |spec| spec["delivery"] = json!({"maxAttempts": 1})).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    // Azure API Management's quota, and a gateway that refuses the renewed token too.
    for (status, requests) in [(403, 1), (401, 2)] {
        let (name, tokens) = (format!("n-{status}"), world.tokens.requests().len());
        let refusal = Behaviour::reply(Reply::status(status).header("retry-after", "4"));
        world.receiver.answer_next(&path("shop"), requests, &refusal);
        world.notification(&name, "shop", json!({"id": name, "source": "/s", "type": "t"})).await;
        let paused = world.until("notification", &name, |n| n["status"]["reason"] == "Paused").await;
        assert_eq!((&paused["status"]["attempts"], &paused["status"]["deferredAttempts"]), (&json!(1), &json!(1)));
        world.until_phase(&name, "Delivered").await;
        let posts: Vec<_> =
            world.posts(&path("shop")).into_iter().filter(|post| post.event_id() == Some(name.clone())).collect();
        assert_eq!(posts.len(), requests + 1);
        let wait = posts[requests].arrived.duration_since(posts[requests - 1].arrived);
        assert!(wait.as_secs_f64() > 2.5, "{status}: sent again after {wait:?}");
        assert_eq!(world.tokens.requests().len(), tokens + requests - 1, "{status}");
    }

    // Any other failure with Retry-After pauses too, and counts: one event that breaks the webhook ends.
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(Reply::status(500).header("retry-after", "3600")));
    world.notification("poison", "shop", json!({"source": "/s", "type": "t"})).await;
    assert_eq!(world.until_phase("poison", "Failed").await["status"]["reason"], "Exhausted");
    world.until("subscriber", "shop", |s| s["status"]["pausedUntilTime"].is_string()).await;
}

#[tokio::test]
async fn field_06_header_names_are_sent_in_title_case() {
    let authority = Authority::new();
    let (server, mut received) = RawServer::recording(authority.server_config(&[])).await.unwrap();
    for sender in Sender::both(allowing("127.0.0.1"), &trusting(&authority)).await {
        for (way, names) in [
            (Way::Post, &["Authorization: Bearer ", "Content-Type: application/", "Content-Length: ", "Host: "][..]),
            (Way::Options, &["Webhook-Request-Origin: ", "Host: "]),
            (Way::Token, &["Authorization: Basic ", "Content-Type: application/x-www-form-urlencoded", "Host: "]),
        ] {
            let _ = sender.answer(way, &server.url("/events")).await;
            let request = received.recv().await.unwrap();
            for name in names {
                assert!(request.contains(&format!("\r\n{name}")), "{way:?}: {name}: {request}");
            }
        }
    }
}

#[tokio::test]
async fn field_18_a_secret_whose_credentials_stay_the_same_causes_no_token_request() {
    let world = World::new("field-18").await;
    let _operator = world.operator().await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.until_reason("shop", "Operational").await;
    // The reconcile after each change shows that the operator has processed the change.
    let reconcile = async |value: &str| {
        let annotation = format!("tidings.dev/test-requested-at={value}");
        world.kubectl(&["annotate", "subr", "shop", &annotation, "--overwrite"]).await.ok().unwrap();
        world.until("subscriber", "shop", |s| s["status"]["lastHandledTest"] == value).await;
    };
    for touch in ["1", "2", "3"] {
        let annotation = format!("external-secrets.io/refreshed={touch}");
        world.kubectl(&["annotate", "secret", "acme-oauth", &annotation, "--overwrite"]).await.ok().unwrap();
        let more = json!({"stringData": {"more": touch}}).to_string();
        world.kubectl(&["patch", "secret", "acme-oauth", "-p", &more]).await.ok().unwrap();
        reconcile(touch).await;
    }
    assert_eq!(world.tokens.requests().len(), 1, "the first token stays in use");
    world.secret("another").await;
    let refused = |s: &serde_json::Value| condition(s, "TokenAvailable")["status"] == "False";
    world.until("subscriber", "shop", refused).await;
    world.secret(CLIENT.1).await;
    world.until("subscriber", "shop", |s| condition(s, "TokenAvailable")["status"] == "True").await;
    let issued = world.tokens.requests().iter().filter(|request| request.error.is_none()).count();
    assert_eq!(issued, 1, "the token of the former credentials is still cached");
    assert!(world.tokens.requests().len() <= 3, "one for the other credentials, and one more where kubectl is slow");
}

#[tokio::test]
async fn field_27_an_attribute_name_longer_than_the_specification_recommends_is_sent() {
    let world = World::new("field-27").await;
    let _operator = world.operator().await;
    world.secret(CLIENT.1).await;
    let longest = "a".repeat(64);
    let event = json!({"source": "/s", "type": "t", "originatingsystemname": "sap", longest.as_str(): "x", "data": 1});
    for (mode, sent) in [("Structured", false), ("Binary", true)] {
        let name = mode.to_lowercase();
        world.subscriber(&name, |spec| spec["webhook"]["contentMode"] = json!(mode)).await;
        world.notification(&name, &name, event.clone()).await;
        world.until_phase(&name, "Delivered").await;
        let posts = world.posts(&path(&name));
        let header = format!("ce-{longest}");
        assert_eq!(
            posts[0].headers.get("ce-originatingsystemname").is_some_and(|value| value == "sap"),
            sent,
            "{mode}"
        );
        assert_eq!(posts[0].headers.contains_key(header.as_str()), sent, "{mode}");
        assert_eq!(String::from_utf8_lossy(&posts[0].body).contains("originatingsystemname"), !sent, "{mode}");
    }
}
