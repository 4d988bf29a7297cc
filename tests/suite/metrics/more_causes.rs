//! Metrics of the operator itself, and of what Subscribers use: each is caused on a running operator.

use std::{collections::BTreeSet, sync::Mutex};

use serde_json::json;
use testkit::{
    ApiProxy, Behaviour,
    proxies::{Call, Treatment},
};

use super::{until_at_least, until_scraped};
use crate::{
    security::client_certificates::{guarded, with_both_certificates},
    world::{CLIENT, PATIENCE, World, path},
};

#[tokio::test]
async fn attempts_and_bytes_in_flight_are_shown_while_the_webhook_is_silent() {
    let world = World::new("metrics-flight").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |spec| spec["webhook"]["timeoutSeconds"] = 60.into()).await;
    world.receiver.answer_always(&path("shop"), Behaviour::hang());
    let operator = world.operator().await;
    let data = "x".repeat(1000);
    world.notification("n", "shop", json!({"source": "/s", "type": "t", "data": data})).await;
    let flight = [("tidings_attempts_in_flight", 1.0), ("tidings_event_bytes_in_flight", 1000.0)];
    let scrape = until_at_least(&operator, &flight).await;
    assert_eq!(scrape.value("tidings_attempts_in_flight"), Some(1.0));
    assert_eq!(scrape.value("tidings_notifications_unfinished"), Some(1.0));
    assert!(scrape.value("tidings_oldest_unfinished_timestamp_seconds").is_some(), "it is in flight");
}

#[tokio::test]
async fn the_lease_and_its_takeover_are_counted_by_the_leader_alone() {
    let world = World::new("metrics-lease").await;
    let leader = world.replica().await;
    let renewed = [
        ("tidings_lease_takeovers_total", 1.0),
        ("tidings_lease_renewals_total{result=\"renewed\"}", 2.0),
        ("tidings_api_writes_total{kind=\"Lease\",result=\"recorded\"}", 3.0),
        ("tidings_leading", 1.0),
    ];
    until_at_least(&leader, &renewed).await;
    let standby = world.replica().await;
    let idle = super::Scrape::text(&standby.metrics().await.unwrap());
    for (series, _) in renewed {
        assert_eq!(idle.value(series), Some(0.0), "{series}");
    }
    leader.terminate().await.unwrap();
    until_at_least(&standby, &[("tidings_lease_takeovers_total", 1.0), ("tidings_leading", 1.0)]).await;
}

const RESOURCES: [&str; 4] = ["subscribers", "notifications", "secrets", "configmaps"];

#[tokio::test]
async fn watches_that_fail_and_refused_writes_are_counted() {
    let world = World::new("metrics-watches").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let proxy = ApiProxy::start(world.plane).await.unwrap();
    let treated = Mutex::new(BTreeSet::new());
    proxy.treat(move |call: &Call| {
        let resource = call.path.trim_end_matches("/status").rsplit('/').find(|part| RESOURCES.contains(part));
        let is_first = |how: &str| treated.lock().unwrap().insert(format!("{how} {resource:?}"));
        let is_status = ["notifications", "subscribers"].iter().any(|of| call.is_status_write_to(of));
        match resource {
            Some(_) if call.is_watch() && is_first("watch") => Treatment::Expire,
            Some(_) if is_status && is_first("status") => Treatment::Answer(500),
            _ => Treatment::Pass,
        }
    });
    let operator = world.operator_through(&proxy).await;
    world.notifications("n", "shop", 1).await;
    world.until_delivered(1).await;
    until_at_least(
        &operator,
        &[
            ("tidings_watch_restarts_total{kind=\"Subscriber\"}", 1.0),
            ("tidings_watch_restarts_total{kind=\"Notification\"}", 1.0),
            ("tidings_watch_restarts_total{kind=\"Secret\"}", 1.0),
            ("tidings_watch_restarts_total{kind=\"ConfigMap\"}", 1.0),
            ("tidings_api_writes_total{kind=\"Notification\",result=\"error\"}", 1.0),
            ("tidings_api_writes_total{kind=\"Subscriber\",result=\"error\"}", 1.0),
        ],
    )
    .await;
}

#[tokio::test]
async fn certificates_and_credentials_show_when_they_expire() {
    let (world, [of_webhook, of_tokens]) = guarded("metrics-expiry").await;
    with_both_certificates(&world, [&of_webhook, &of_tokens]).await;
    let operator = world.operator().await;
    let of = |metric: &str, more: &str| {
        format!("tidings_subscriber_{metric}{{namespace=\"{}\",subscriber=\"shop\"{more}}}", world.namespace)
    };
    // The first second of the year 4096, which the kit puts into its certificates.
    const YEAR_4096: f64 = 67_090_118_400.0;
    let certificate = |use_: &str| of("certificate_expiry_timestamp_seconds", &format!(",use=\"{use_}\""));
    let credentials = of("credentials_expiry_timestamp_seconds", "");
    let scrape =
        until_at_least(&operator, &[(&certificate("webhook"), YEAR_4096), (&certificate("token_service"), YEAR_4096)])
            .await;
    assert_eq!(scrape.value(&credentials), None, "no annotation says that");
    let annotate = async |value: &str| {
        world.kubectl(&["annotate", "secret", "acme-oauth", "--overwrite", value]).await.ok().unwrap();
    };
    annotate("tidings.dev/expires=2027-01-31T12:00:00+01:00").await;
    let scrape = until_at_least(&operator, &[(&credentials, 1.0)]).await;
    assert_eq!(scrape.value(&credentials), Some(1_801_393_200.0));
    annotate("tidings.dev/expires=next spring").await;
    until_scraped(&operator, |scrape| match scrape.value(&credentials) {
        None => Ok(()),
        Some(value) => Err(format!("{credentials} is {value}")),
    })
    .await;
    assert!(
        operator.logs().contains("the annotation tidings.dev/expires is not a time by RFC 3339"),
        "{}",
        operator.logs()
    );
    world.until_reason("shop", "Operational").await;
}

#[tokio::test]
async fn further_subscribers_than_the_limit_share_the_overflow_and_no_name_is_shown_if_that_is_off() {
    let world = World::new("metrics-limit").await;
    world.secret(CLIENT.1).await;
    for name in ["a", "b", "c"] {
        world.subscriber(name, |spec| spec["suspend"] = true.into()).await;
        world.notifications(name, name, 2).await;
    }
    let flags = ["--subscriber-metrics-limit", "1"];
    let operator = world.launch().to_loopback().args(&flags).ready(PATIENCE).await.unwrap();
    let overflow = "tidings_subscriber_pending{namespace=\"\",subscriber=\"overflow\"}";
    let scrape = until_at_least(&operator, &[(overflow, 4.0)]).await;
    assert_eq!(scrape.value(overflow), Some(4.0));
    assert_eq!(scrape.families["tidings_subscriber_pending"].series.len(), 2);
    operator.terminate().await.unwrap();
    let operator = world.launch().to_loopback().args(&["--subscriber-metrics", "false"]).ready(PATIENCE).await.unwrap();
    let waiting = "tidings_notifications_waiting{gate=\"Suspended\"}";
    let scrape = until_at_least(&operator, &[(waiting, 6.0)]).await;
    assert!(scrape.families.keys().all(|name| !name.starts_with("tidings_subscriber_")), "{scrape:?}");
}
