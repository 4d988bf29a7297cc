//! Metrics of Subscribers and their deliveries: each is caused on a running operator.

use serde_json::json;
use testkit::{
    Behaviour, NameServer,
    endpoints::{NameAnswer, Reply},
    loopback::free_address,
};

use super::{until_at_least, until_scraped};
use crate::world::{CLIENT, PATIENCE, World, path};

#[tokio::test]
async fn a_delivery_is_counted_on_its_whole_way() {
    let world = World::new("metrics-way").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    world.notifications("n", "shop", 3).await;
    world.until_delivered(3).await;
    let of_shop = format!("namespace=\"{}\",subscriber=\"shop\"", world.namespace);
    let scrape = until_at_least(
        &operator,
        &[
            ("tidings_attempts_total{reason=\"Acknowledged\"}", 3.0),
            ("tidings_attempt_duration_seconds_count", 3.0),
            ("tidings_notifications_finished_total{phase=\"Delivered\"}", 3.0),
            ("tidings_time_to_delivery_seconds_count", 3.0),
            ("tidings_watch_delay_seconds_count", 3.0),
            ("tidings_token_requests_total{result=\"issued\"}", 1.0),
            ("tidings_token_request_duration_seconds_count", 1.0),
            ("tidings_validation_requests_total{result=\"not_supported\"}", 1.0),
            ("tidings_connects_total{result=\"connected\"}", 2.0),
            ("tidings_connect_duration_seconds_count", 2.0),
            ("tidings_reconcile_duration_seconds_count", 1.0),
            ("tidings_api_writes_total{kind=\"Notification\",result=\"recorded\"}", 3.0),
            ("tidings_api_writes_total{kind=\"Subscriber\",result=\"recorded\"}", 1.0),
            ("tidings_api_writes_total{kind=\"Event\",result=\"recorded\"}", 1.0),
            ("tidings_subscribers{ready=\"true\",reason=\"Operational\"}", 1.0),
            ("tidings_leading", 1.0),
            (&format!("tidings_subscriber_attempts_total{{{of_shop},outcome=\"delivered\"}}"), 3.0),
        ],
    )
    .await;
    assert_eq!(scrape.value("tidings_attempts_total{reason=\"Acknowledged\"}"), Some(3.0));
    assert_eq!(scrape.value("tidings_notifications_unfinished"), Some(0.0));
    assert_eq!(scrape.value(&format!("tidings_subscriber_pending{{{of_shop}}}")), Some(0.0));
    assert_eq!(scrape.value("tidings_oldest_unfinished_timestamp_seconds"), None, "nothing is pending");
    assert_eq!(scrape.value(&format!("tidings_subscriber_oldest_pending_timestamp_seconds{{{of_shop}}}")), None);
    let version = format!("tidings_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(scrape.value(&version), Some(1.0));
}

#[tokio::test]
async fn what_holds_notifications_is_counted_and_the_series_of_a_deleted_subscriber_vanish() {
    let world = World::new("metrics-gates").await;
    world.secret(CLIENT.1).await;
    let retrying = json!({"backoff": {"initialSeconds": 1, "maxSeconds": 3600}});
    world.subscriber("held", |spec| spec["suspend"] = true.into()).await;
    world.subscriber("ill", |spec| spec["delivery"] = retrying.clone()).await;
    world.subscriber("busy", |_| ()).await;
    world.subscriber("picky", |_| ()).await;
    world.receiver.answer_always(&path("ill"), Behaviour::status(502));
    world.receiver.answer_always(&path("busy"), Behaviour::reply(Reply::status(429).header("retry-after", "600")));
    world.receiver.answer_always(&path("picky"), Behaviour::status(400));
    let operator = world.operator().await;
    for (subscriber, count) in [("held", 2), ("ill", 6), ("busy", 1), ("picky", 6)] {
        world.notifications(subscriber, subscriber, count).await;
    }
    let of = |metric: &str, subscriber: &str, more: &str| {
        format!("tidings_subscriber_{metric}{{namespace=\"{}\",subscriber=\"{subscriber}\"{more}}}", world.namespace)
    };
    let scrape = until_at_least(
        &operator,
        &[
            ("tidings_notifications_waiting{gate=\"Suspended\"}", 2.0),
            ("tidings_notifications_waiting{gate=\"CircuitOpen\"}", 6.0),
            ("tidings_notifications_waiting{gate=\"Paused\"}", 1.0),
            ("tidings_notifications_waiting{gate=\"RejectsAll\"}", 1.0),
            ("tidings_circuits{state=\"open\"}", 1.0),
            ("tidings_circuits{state=\"rejects_all\"}", 1.0),
            ("tidings_subscribers_paused", 1.0),
            ("tidings_subscribers{ready=\"true\",reason=\"Suspended\"}", 1.0),
            ("tidings_oldest_unfinished_timestamp_seconds", 1.0),
            (&of("pending", "held", ""), 2.0),
            (&of("oldest_pending_timestamp_seconds", "ill", ""), 1.0),
            (&of("circuit", "ill", ",state=\"open\""), 1.0),
            (&of("circuit", "picky", ",state=\"rejects_all\""), 1.0),
            (&of("attempts_total", "ill", ",outcome=\"retried\""), 5.0),
            (&of("attempts_total", "picky", ",outcome=\"rejected\""), 5.0),
        ],
    )
    .await;
    assert_eq!(scrape.value("tidings_notifications_waiting{gate=\"Suspended\"}"), Some(2.0));
    let created = world.get("notification", "ill-0").await["metadata"]["creationTimestamp"].clone();
    let created: k8s_openapi::jiff::Timestamp = created.as_str().unwrap().parse().unwrap();
    let oldest = scrape.value(&of("oldest_pending_timestamp_seconds", "ill", "")).unwrap();
    assert!((created.as_second() as f64 - oldest).abs() < 2.0, "{oldest}");
    // A user holds these on purpose.
    assert_eq!(scrape.value(&of("oldest_pending_timestamp_seconds", "held", "")), None);
    world.kubectl(&["delete", "subr", "held"]).await.ok().unwrap();
    let gone = until_scraped(&operator, |scrape| {
        let has_series = scrape.families.values().any(|family| family.series.keys().any(|of| of.contains("\"held\"")));
        let waiting = scrape.value("tidings_notifications_waiting{gate=\"SubscriberNotFound\"}");
        if has_series || waiting != Some(2.0) { Err(format!("{has_series} {waiting:?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(gone.value("tidings_notifications_waiting{gate=\"Suspended\"}"), Some(0.0));
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_out_is_counted() {
    let world = World::new("metrics-out").await;
    world.secret(CLIENT.1).await;
    let names = NameServer::start(|_| NameAnswer::NoSuchName).unwrap();
    let closed = free_address().unwrap();
    world.subscriber("nowhere", |spec| spec["webhook"]["url"] = "https://nowhere.example/".into()).await;
    world.subscriber("closed", |spec| spec["webhook"]["url"] = format!("https://{closed}/").into()).await;
    world.subscriber("strange", |spec| drop(spec["webhook"].as_object_mut().unwrap().remove("tls"))).await;
    world.tokens.answer_always_at("/broken", Behaviour::status(503));
    world
        .subscriber("broken", |spec| {
            spec["tokenService"]["url"] = world.tokens.url_of("/broken").into();
        })
        .await;
    let refusal = Reply::status(401).header("content-type", "application/json").body(r#"{"error":"invalid_client"}"#);
    world.tokens.answer_always_at("/refuses", Behaviour::reply(refusal));
    world
        .subscriber("refused", |spec| {
            spec["tokenService"]["url"] = world.tokens.url_of("/refuses").into();
        })
        .await;
    let server = names.address().to_string();
    let operator = world.launch().to_loopback().args(&["--dns-server", &server]).ready(PATIENCE).await.unwrap();
    let of_refused = format!("namespace=\"{}\",subscriber=\"refused\",reason=\"TokenRejected\"", world.namespace);
    until_at_least(
        &operator,
        &[
            ("tidings_dns_lookups_total{result=\"nonexistent\"}", 1.0),
            ("tidings_dns_lookup_duration_seconds_count", 1.0),
            ("tidings_connects_total{result=\"name_not_resolved\"}", 1.0),
            ("tidings_connects_total{result=\"failed\"}", 1.0),
            ("tidings_connects_total{result=\"tls_failed\"}", 1.0),
            ("tidings_token_requests_total{result=\"rejected\"}", 1.0),
            ("tidings_token_requests_total{result=\"unavailable\"}", 1.0),
            ("tidings_validation_requests_total{result=\"unreachable\"}", 3.0),
            ("tidings_subscribers{ready=\"false\",reason=\"TokenRejected\"}", 1.0),
            ("tidings_subscribers{ready=\"false\",reason=\"TokenUnavailable\"}", 1.0),
            ("tidings_subscribers_stalled", 1.0),
            (&format!("tidings_subscriber_stalled{{{of_refused}}}"), 1.0),
        ],
    )
    .await;
}
