//! The behaviour of real endpoints, from public reports. `docs/field.md` lists each behaviour with its test.

use serde_json::json;
use testkit::{Authority, RawServer, endpoints::read_request};
use tidings_api::AttemptReason;
use tokio::{io::AsyncWriteExt, sync::mpsc};

use crate::{
    sending::{PATIENCE, Sender, WAYS, Way, allowing},
    token_sources::trusting,
    world::{CLIENT, World, path},
};

#[tokio::test]
async fn field_03_folded_header_lines_and_a_space_before_the_colon_are_read() {
    let authority = Authority::new();
    let sender = Sender::new(allowing("127.0.0.1"), &trusting(&authority)).await;
    for header in [
        "X-Policy: a;\r\n  b",
        "X-Policy: a;\r\n\tb;\r\n\tc",
        "Server : x",
        "Server\t: x",
        "WebHook-Allowed-Origin : *\r\nX-Folded:\r\n late",
    ] {
        let response = format!("HTTP/1.1 202 Accepted\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let server = RawServer::answering(authority.server_config(&[]), response).await.unwrap();
        for way in WAYS {
            let before = server.connections();
            assert_eq!(sender.answer(way, &server.url("/events")).await, Ok(()), "{way:?}: {header:?}");
            assert_eq!(server.connections(), before + 1, "{way:?}: exactly one request: {header:?}");
        }
        assert_eq!(sender.post(&server.url("/events"), PATIENCE).await.reason, AttemptReason::Accepted, "{header:?}");
    }
}

#[tokio::test]
async fn field_06_header_names_are_sent_in_title_case() {
    let authority = Authority::new();
    let (requests, mut received) = mpsc::unbounded_channel();
    let server = RawServer::tls(authority.server_config(&[]), move |mut stream| {
        let requests = requests.clone();
        async move {
            let _ = requests.send(String::from_utf8(read_request(&mut stream).await).unwrap());
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    })
    .await
    .unwrap();
    let sender = Sender::new(allowing("127.0.0.1"), &trusting(&authority)).await;
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
    world.until_reason("shop", "TokenRejected").await;
    world.secret(CLIENT.1).await;
    world.until_reason("shop", "Operational").await;
    assert_eq!(world.tokens.requests().len(), 2, "the token of the former credentials is still cached");
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
