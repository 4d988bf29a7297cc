//! An API server whose answers are lost, late, broken off or too old: what the operator makes of them.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use testkit::{
    ApiProxy, Behaviour,
    endpoints::{Client, Reply},
    proxies::{Call, Treatment},
};
use tokio::time::{Instant, sleep};

use crate::world::{CLIENT, PATIENCE, World, condition, path};

/// A world with a Subscriber `shop`, and a proxy before its API server.
async fn shop(name: &str) -> (World, ApiProxy) {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |spec| spec["delivery"] = json!({"backoff": {"initialSeconds": 1}})).await;
    let proxy = ApiProxy::start(world.plane).await.unwrap();
    (world, proxy)
}

/// How often each event arrived.
fn arrivals(world: &World) -> BTreeMap<String, usize> {
    let mut arrivals = BTreeMap::new();
    for post in world.posts(&path("shop")) {
        *arrivals.entry(post.event_id().unwrap()).or_default() += 1;
    }
    arrivals
}

fn writes_a_status(call: &Call) -> bool {
    call.is_status_write_to("notifications")
}

/// Waits until this many requests were treated this way.
async fn until_treated(proxy: &ApiProxy, how: &str, count: usize) {
    let end = Instant::now() + PATIENCE;
    while proxy.treated().get(how).copied().unwrap_or_default() < count {
        assert!(Instant::now() < end, "{:?}", proxy.treated());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_lost_response_to_a_status_write_repeats_no_post_and_the_status_is_correct() {
    let (world, proxy) = shop("lost-answer").await;
    let _operator = world.operator_through(&proxy).await;
    world.until_reason("shop", "Operational").await;
    for (name, answers, phase) in
        [("ok", vec![204], "Delivered"), ("no", vec![422], "Failed"), ("again", vec![500, 204], "Delivered")]
    {
        for answer in &answers {
            world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(*answer));
        }
        let before = proxy.treated().get("response lost").copied().unwrap_or_default();
        proxy.treat_next(1, Treatment::LoseAnswer, writes_a_status);
        world.notification(name, "shop", json!({"id": name, "source": "/s", "type": "t"})).await;
        let ended = world.until_phase(name, phase).await;
        assert_eq!(ended["status"]["attempts"], answers.len(), "{name}");
        assert_eq!(proxy.treated()["response lost"], before + 1, "{name}");
    }
    // What would be sent again, would be by now.
    world.notification("marker", "shop", json!({"id": "marker", "source": "/s", "type": "t"})).await;
    world.until_phase("marker", "Delivered").await;
    let expected = [("again", 2), ("marker", 1), ("no", 1), ("ok", 1)];
    assert_eq!(arrivals(&world), expected.map(|(id, times)| (id.to_owned(), times)).into());
}

#[tokio::test]
async fn a_listing_that_breaks_off_midway_starts_again_and_each_event_is_sent_once() {
    let (world, proxy) = shop("broken-listing").await;
    world.create("n", "shop", 200).await;
    // Of the later pages of the queue's own listing, so that the first is at work already.
    let later_page = |call: &Call| {
        call.is_list_of("notifications") && call.query.contains("continue=") && call.query.contains("status.phase")
    };
    proxy.treat_next(2, Treatment::BreakOff(10_000), later_page);
    let _operator = world.operator_through(&proxy).await;
    world.until_delivered(200).await;
    assert_eq!(proxy.treated()["broken off"], 2);
    let arrivals = arrivals(&world);
    assert!(arrivals.len() == 200 && arrivals.values().all(|times| *times == 1), "{arrivals:?}");
}

#[tokio::test]
async fn watches_that_expire_start_again_and_each_event_is_sent_once() {
    let (world, proxy) = shop("expired-watch").await;
    proxy.treat_next(12, Treatment::Expire, Call::is_watch);
    let _operator = world.operator_through(&proxy).await;
    world.create("n", "shop", 50).await;
    until_treated(&proxy, "watch expired", 12).await;
    world.create("m", "shop", 50).await;
    world.until_delivered(100).await;
    let arrivals = arrivals(&world);
    assert!(arrivals.len() == 100 && arrivals.values().all(|times| *times == 1), "{arrivals:?}");
}

#[tokio::test]
async fn a_replay_between_retentions_read_and_its_delete_wins() {
    let (world, proxy) = shop("late-delete").await;
    let _operator = world.operator_through(&proxy).await;
    world.until_reason("shop", "Operational").await;
    let deletes = |call: &Call| call.method == "DELETE" && call.path.contains("/notifications/");
    proxy.treat_next(1, Treatment::Late(Duration::from_secs(3)), deletes);
    world
        .apply(&json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": "n"},
            "spec": {"subscriberRef": {"name": "shop"}, "ttlSecondsAfterFinished": 0,
                "event": {"id": "n", "source": "/s", "type": "t"}}}))
        .await;
    until_treated(&proxy, "late", 1).await;
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    world.receiver.wait_for(&path("shop"), 2, PATIENCE).await.unwrap();
    let end = Instant::now() + PATIENCE;
    while !world.kubectl(&["get", "ntf", "n", "--ignore-not-found", "-o", "name"]).await.stdout.is_empty() {
        assert!(Instant::now() < end, "it is still there");
    }
    assert_eq!(arrivals(&world)["n"], 2);
}

#[tokio::test]
async fn a_replay_that_the_queue_has_not_seen_causes_no_second_post() {
    let (world, proxy) = shop("unheard-replay").await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.notification("n", "shop", json!({"id": "n", "source": "/s", "type": "t"})).await;
    // The queue lists, and hears of nothing that follows.
    proxy.treat(|call| match call.is_watch() && call.query.contains("status.phase") {
        true => Treatment::Answer(500),
        false => Treatment::Pass,
    });
    let _operator = world.operator_through(&proxy).await;
    world.until_reason("shop", "Suspended").await;
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    world.until("notification", "n", |n| n["status"]["lastHandledReplay"] == "1").await;
    world.subscriber("shop", |_| ()).await;
    let ended = world.until_phase("n", "Delivered").await;
    assert_eq!((&ended["status"]["attempts"], &ended["status"]["lastHandledReplay"]), (&json!(1), &json!("1")));
    assert_eq!(arrivals(&world)["n"], 1);
}

#[tokio::test]
async fn a_late_write_of_a_process_that_has_exited_undoes_no_replay() {
    let (world, proxy) = shop("late-write").await;
    let mut operator = world.operator_through(&proxy).await;
    world.until_reason("shop", "Operational").await;
    let late = Duration::from_secs(10);
    proxy.treat_next(1, Treatment::Late(late), writes_a_status);
    world.notification("n", "shop", json!({"id": "n", "source": "/s", "type": "t"})).await;
    until_treated(&proxy, "late", 1).await;
    let held = Instant::now();
    operator.restart().await.unwrap();
    world.until_phase("n", "Delivered").await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("shop", "Suspended").await;
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    world.until("notification", "n", |n| n["status"]["lastHandledReplay"] == "1").await;
    assert!(held.elapsed() < late, "the write is no longer late: the machine is too slow");
    // From now on, only the status shows the replay.
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay-"]).await.ok().unwrap();
    let replayed = world.get("notification", "n").await["status"].clone();
    sleep(late.saturating_sub(held.elapsed()) + Duration::from_secs(2)).await;
    let status = world.get("notification", "n").await["status"].clone();
    for field in ["phase", "attempts", "lastHandledReplay", "replayTime"] {
        assert_eq!(status[field], replayed[field], "the late write covered {field}");
    }
    world.subscriber("shop", |_| ()).await;
    world.until_phase("n", "Delivered").await;
    assert_eq!(arrivals(&world)["n"], 3, "the first, the one that repeats it, the replay");
}

#[tokio::test]
async fn an_outcome_that_a_former_leader_writes_late_is_not_sent_again_by_the_next_leader() {
    let (world, of_first) = shop("stragglers").await;
    let of_second = ApiProxy::start(world.plane).await.unwrap();
    world.subscriber("held", |spec| spec["suspend"] = true.into()).await;
    // One page of the queue's listing, so that what comes behind them is on the next.
    world.notifications("held", "held", 64).await;
    let lease = ["--lease-namespace", world.namespace.as_str()];
    let first = world.start_through(&of_first, &lease).await;
    world.until_reason("shop", "Operational").await;
    let second = world.start_through(&of_second, &lease).await;
    // The outcome arrives 25 s later: the second leads by then, and has its first page.
    let outcome = |call: &Call| writes_a_status(call) && call.path.contains("/notifications/z/");
    of_first.treat_next(1, Treatment::Late(Duration::from_secs(25)), outcome);
    let next_page = |call: &Call| {
        call.is_list_of("notifications") && call.query.contains("continue=") && call.query.contains("status.phase")
    };
    of_second.treat_next(1, Treatment::Late(Duration::from_secs(15)), next_page);
    world.notification("z", "shop", json!({"id": "z", "source": "/s", "type": "t"})).await;
    until_treated(&of_first, "late", 1).await;
    first.kill().await.unwrap();
    until_treated(&of_second, "late", 1).await;
    assert_eq!(world.get("notification", "z").await["status"]["phase"], "Pending", "the outcome came too early");
    // It is Delivered while the second still lists, and the listing shows an older version.
    world.until_phase("z", "Delivered").await;
    assert!(!second.logs().contains("all unfinished Notifications are listed"), "the listing was too early");
    world.notification("zz", "shop", json!({"id": "zz", "source": "/s", "type": "t"})).await;
    world.until_phase("zz", "Delivered").await;
    assert_eq!(arrivals(&world)["z"], 1);
}

#[tokio::test]
async fn a_notification_whose_replay_is_requested_is_not_deleted_though_its_ttl_has_expired() {
    let (world, proxy) = shop("overdue-replay").await;
    let mut operator = world.operator_through(&proxy).await;
    for name in ["n", "overdue"] {
        world
            .apply(&json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": name},
                "spec": {"subscriberRef": {"name": "shop"}, "ttlSecondsAfterFinished": 3,
                    "event": {"id": name, "source": "/s", "type": "t"}}}))
            .await;
        world.until_phase(name, "Delivered").await;
    }
    operator.kill().await.unwrap();
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    sleep(Duration::from_secs(4)).await; // they expire while no operator runs
    // Retention has looked at both when the replay is noticed.
    let replays = |call: &Call| call.is_list_of("notifications") && call.query.contains("labelSelector");
    proxy.treat_next(1, Treatment::Late(Duration::from_secs(4)), replays);
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    let end = Instant::now() + PATIENCE;
    while !world.kubectl(&["get", "ntf", "overdue", "--ignore-not-found", "-o", "name"]).await.stdout.is_empty() {
        assert!(Instant::now() < end, "it is still there");
    }
    world.receiver.wait_for(&path("shop"), 3, PATIENCE).await.unwrap();
    assert_eq!((arrivals(&world)["n"], arrivals(&world)["overdue"]), (2, 1));
}

#[tokio::test]
async fn a_leader_logs_that_it_leads_though_the_response_to_its_lease_request_was_lost() {
    let (world, proxy) = shop("lost-lease").await;
    proxy.treat_next(1, Treatment::LoseAnswer, |call| call.method == "POST" && call.path.ends_with("/leases"));
    let operator = world.start_through(&proxy, &["--lease-namespace", world.namespace.as_str()]).await;
    world.until_reason("shop", "Operational").await;
    assert_eq!(proxy.treated()["response lost"], 1);
    assert_eq!(operator.logs().matches("became the leader").count(), 1, "{}", operator.logs());
}

#[tokio::test]
async fn a_subscriber_whose_status_cannot_be_written_delays_no_other() {
    let (world, proxy) = shop("blocked-status").await;
    world.subscriber("other", |_| ()).await;
    let _operator = world.operator_through(&proxy).await;
    for name in ["shop", "other"] {
        world.until_reason(name, "Operational").await;
        let pause = Reply::status(429).header("retry-after", "3600");
        world.receiver.answer_next(&path(name), 1, &Behaviour::reply(pause));
    }
    let of_shop = |call: &Call| call.is_status_write_to("subscribers") && call.path.contains("/subscribers/shop/");
    proxy.treat(move |call| if of_shop(call) { Treatment::Answer(500) } else { Treatment::Pass });
    world.notification("blocked", "shop", json!({"source": "/s", "type": "t"})).await;
    until_treated(&proxy, "refused", 2).await;
    world.notification("free", "other", json!({"source": "/s", "type": "t"})).await;
    world.until("notification", "free", |n| n["status"]["reason"] == "Paused" && n["status"]["attempts"] == 1).await;
    assert!(world.get("subscriber", "other").await["status"]["pausedUntilTime"].is_string());
    // Its pause comes first.
    assert_eq!(world.get("notification", "blocked").await["status"]["attempts"], 0);
    proxy.pass();
    world.until("notification", "blocked", |n| n["status"]["attempts"] == 1).await;
    assert!(world.get("subscriber", "shop").await["status"]["pausedUntilTime"].is_string());
}

#[tokio::test]
async fn a_404_that_is_not_from_the_api_server_does_not_make_a_notification_gone() {
    let (world, proxy) = shop("page-not-found").await;
    let _operator = world.operator_through(&proxy).await;
    world.until_reason("shop", "Operational").await;
    proxy.treat_next(2, Treatment::Answer(404), writes_a_status);
    world.notification("write", "shop", json!({"id": "write", "source": "/s", "type": "t"})).await;
    assert_eq!(world.until_phase("write", "Delivered").await["status"]["attempts"], 1);
    until_treated(&proxy, "refused", 2).await;

    // The second attempt is preceded by a read.
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(500));
    let reads = |call: &Call| call.method == "GET" && call.path.ends_with("/notifications/read");
    proxy.treat_next(1, Treatment::Answer(404), reads);
    world.notification("read", "shop", json!({"id": "read", "source": "/s", "type": "t"})).await;
    assert_eq!(world.until_phase("read", "Delivered").await["status"]["attempts"], 2);
    until_treated(&proxy, "refused", 3).await;
    assert_eq!(arrivals(&world), BTreeMap::from([("write".into(), 1), ("read".into(), 2)]));
}

#[tokio::test]
async fn a_410_that_arrives_during_a_reconcile_is_not_undone_by_its_end() {
    let (world, proxy) = shop("gone-meanwhile").await;
    let _operator = world.operator_through(&proxy).await;
    world.until_reason("shop", "Operational").await;
    // The reconcile waits for the Secret, while the Subscriber stays open.
    let reads_secret = |call: &Call| call.method == "GET" && call.path.ends_with("/secrets/acme-oauth");
    proxy.treat_next(1, Treatment::Slow(Duration::from_secs(4)), reads_secret);
    world.tokens.register(Client::new(CLIENT.0, "an0ther-secret").scopes(["events.write"]));
    world.secret("an0ther-secret").await;
    until_treated(&proxy, "slow", 1).await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(410));
    let tokens = world.tokens.requests().len();
    world.notification("first", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_reason("shop", "EndpointGone").await;
    assert_eq!(world.tokens.requests().len(), tokens, "the reconcile is over already: the machine is too slow");
    world.notification("second", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until("notification", "second", |n| n["status"]["reason"] == "EndpointGone").await;
    assert!(world.tokens.requests().len() > tokens, "the reconcile goes on");
    assert_eq!(condition(&world.get("subscriber", "shop").await, "Ready")["reason"], "EndpointGone");
    assert_eq!(world.posts(&path("shop")).len(), 1);
}
