//! Several operators, of which one leads: who sends when the leader ends, dies, is stopped, or cannot reach the API
//! server.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testkit::{Behaviour, Client, Operator, Part, control_plane::AuditEvent};
use tokio::time::{Instant, sleep};

use crate::world::{CLIENT, PATIENCE, World, path};

/// The life of a Lease, with what the next leader may take besides until it sends.
const TAKEOVER: Duration = Duration::from_secs(15 + 2);

/// A world with a Subscriber `shop`, and two operators of which the first leads.
async fn two(name: &str) -> (World, Operator, Operator) {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let leader = world.replica().await;
    until_leads(&leader).await;
    let standby = world.replica().await;
    (world, leader, standby)
}

/// The same, and the leader is stopped with 19 Notifications in its queue that the standby has delivered since.
async fn overtaken(name: &str) -> (World, Operator, Operator) {
    let (world, leader, standby) = two(name).await;
    world.subscriber("shop", |spec| spec["delivery"] = json!({"rateLimitPerMinute": 6})).await;
    world.until("subscriber", "shop", |s| s["status"]["observedGeneration"] == s["metadata"]["generation"]).await;
    world.create("n", "shop", 20).await;
    world.until_delivered(1).await;
    leader.process().signal("STOP").await.unwrap();
    until_leads(&standby).await;
    world.subscriber("shop", |_| ()).await;
    world.until_delivered(20).await;
    (world, leader, standby)
}

async fn leads(operator: &Operator) -> bool {
    operator.metrics().await.is_ok_and(|metrics| metrics.lines().any(|line| line == "tidings_leading 1"))
}

async fn until_leads(operator: &Operator) {
    let end = Instant::now() + PATIENCE;
    while !leads(operator).await {
        assert!(Instant::now() < end, "it does not lead: {}", operator.logs());
        sleep(Duration::from_millis(20)).await;
    }
}

async fn lease(world: &World) -> Value {
    world.get("lease", "tidings").await["spec"].clone()
}

/// How often each event arrived.
fn arrivals(world: &World) -> HashMap<String, usize> {
    let mut arrivals = HashMap::new();
    for post in world.posts(&path("shop")) {
        *arrivals.entry(post.event_id().unwrap()).or_default() += 1;
    }
    arrivals
}

/// What the operators asked of the API server about this resource.
async fn requests(world: &World, resource: &str) -> Vec<AuditEvent> {
    let mut requests = world.plane.audit().await.unwrap();
    requests.retain(|event| {
        event.namespace == world.namespace && event.resource == resource && event.user.ends_with(":tidings")
    });
    requests
}

/// How many writes the operators made, those to the Lease left out.
async fn writes(world: &World) -> usize {
    let mut writes = world.plane.audit().await.unwrap();
    writes.retain(|event| {
        let of_operators = event.namespace == world.namespace && event.user.ends_with(":tidings");
        of_operators && event.is_write() && event.resource != "leases"
    });
    writes.len()
}

#[tokio::test]
async fn of_two_operators_one_sends_and_the_other_stands_by_ready() {
    let (world, leader, standby) = two("standby").await;
    world.create("n", "shop", 50).await;
    world.until_delivered(50).await;
    assert!(arrivals(&world).values().all(|times| *times == 1));
    assert!(leads(&leader).await && !leads(&standby).await);
    assert_eq!(lease(&world).await["leaseTransitions"], 1);
    // One that stands by ends at once, and the leader goes on.
    assert_eq!(standby.terminate().await.unwrap(), 0);
    world.create("m", "shop", 1).await;
    world.until_delivered(51).await;
}

#[tokio::test]
async fn a_leader_that_receives_sigterm_finishes_attempts_in_flight_and_hands_over_within_a_second() {
    let (world, leader, standby) = two("handover").await;
    world.until_reason("shop", "Operational").await;
    let slow = Behaviour::status(204).after(Duration::from_secs(6));
    world.receiver.answer_next(&path("shop"), 1, &slow);
    world.create("slow", "shop", 1).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    world.create("n", "shop", 20).await;
    // A look at a Subscriber that will not end.
    world.receiver.answer_options(&path("mute"), Behaviour::hang());
    world.subscriber("mute", |_| ()).await;
    world.receiver.wait_for_options(&path("mute"), 1, PATIENCE).await.unwrap();
    let holder = lease(&world).await["holderIdentity"].clone();
    let signalled = Timestamp::now();
    assert_eq!(leader.terminate().await.unwrap(), 0);
    until_leads(&standby).await;
    let taken = lease(&world).await;
    assert_ne!(taken["holderIdentity"], holder);
    // Nothing is written to the Lease between its release and that.
    let taken: Timestamp = taken["acquireTime"].as_str().unwrap().parse().unwrap();
    let last_before = async |resource: &str| {
        let writes = requests(&world, resource).await.into_iter().filter(|event| event.is_write() && event.at < taken);
        writes.map(|event| event.at).max().unwrap()
    };
    let (outcome, released) = (last_before("notifications").await, last_before("leases").await);
    assert!(outcome < released, "{outcome} {released}");
    assert!(
        released.duration_since(outcome.max(signalled)) < SignedDuration::from_secs(1),
        "{signalled} {outcome} {released}"
    );
    // The standby looks every second; the rest is for a busy machine.
    assert!(taken.duration_since(released) < SignedDuration::from_secs(5), "{released} {taken}");
    world.until_delivered(21).await;
    assert!(arrivals(&world).values().all(|times| *times == 1), "{:?}", arrivals(&world));
}

#[tokio::test]
async fn a_leader_that_is_killed_is_replaced_within_the_leases_duration_and_two_seconds() {
    let (world, leader, standby) = two("killed").await;
    world.until_reason("shop", "Operational").await;
    leader.kill().await.unwrap();
    let killed = std::time::Instant::now();
    world.create("n", "shop", 20).await;
    let posts = world.receiver.wait_for(&path("shop"), 1, 2 * TAKEOVER).await.unwrap();
    let first = posts.iter().find(|post| post.event_id().is_some()).unwrap().arrived - killed;
    assert!(first < TAKEOVER, "the next leader sent after {first:?}");
    world.until_delivered(20).await;
    assert!(leads(&standby).await);
}

#[tokio::test]
async fn a_standby_knows_the_secrets_and_has_written_and_requested_nothing() {
    let (world, leader, standby) = two("warm").await;
    world.until_reason("shop", "Operational").await;
    let watches = async |resource: &str| {
        let begun = |event: &&AuditEvent| (&*event.verb, &*event.stage) == ("watch", "ResponseStarted");
        requests(&world, resource).await.iter().filter(begun).count()
    };
    let end = Instant::now() + PATIENCE;
    while watches("secrets").await < 2 || watches("configmaps").await < 2 {
        assert!(Instant::now() < end, "the standby does not watch");
        sleep(Duration::from_millis(100)).await;
    }
    // Whatever is asked and written from now on, the standby does: the leader is stopped, and leads for some seconds
    // still.
    leader.process().signal("STOP").await.unwrap();
    let (asked, said) = (world.tokens.requests().len(), world.receiver.requests().len());
    let written = writes(&world).await;
    world.secret("another").await;
    world.subscriber("shop", |spec| spec["delivery"] = json!({"maxInFlight": 3})).await;
    world.create("n", "shop", 1).await;
    sleep(Duration::from_secs(3)).await;
    assert!(!leads(&standby).await);
    assert_eq!((world.tokens.requests().len(), world.receiver.requests().len()), (asked, said));
    assert_eq!(writes(&world).await, written);
    world.secret(CLIENT.1).await;
    leader.process().signal("CONT").await.unwrap();
    world.until_delivered(1).await;

    let lists =
        async |resource: &str| requests(&world, resource).await.iter().filter(|event| event.verb == "list").count();
    let before = (lists("secrets").await, lists("configmaps").await, lists("subscribers").await);
    leader.terminate().await.unwrap();
    until_leads(&standby).await;
    world.create("m", "shop", 1).await;
    world.until_delivered(2).await;
    let after = (lists("secrets").await, lists("configmaps").await, lists("subscribers").await);
    // Subscribers are listed again, which shows everything that the last leader wrote, such as a pause.
    assert_eq!(after, (before.0, before.1, before.2 + 1));
}

#[tokio::test]
async fn no_event_is_sent_under_a_spec_or_a_secret_that_changed_while_no_operator_led() {
    let (world, leader, standby) = two("stale").await;
    world.create("n", "shop", 1).await;
    world.until_delivered(1).await;
    leader.kill().await.unwrap();
    world.tokens.register(Client::new("other", "0ther-s3cr3t").scopes(["events.write"]));
    world
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-oauth"},
            "stringData": {"client_id": "other", "client_secret": "0ther-s3cr3t"},
        }))
        .await;
    world.subscriber("shop", |spec| spec["webhook"]["url"] = world.receiver.url(&path("moved")).into()).await;
    let asked = world.tokens.requests_of(CLIENT.0).len();
    world.create("m", "shop", 20).await;
    world.until_delivered(21).await;
    assert!(leads(&standby).await);
    assert_eq!((world.posts(&path("shop")).len(), world.posts(&path("moved")).len()), (1, 20));
    assert_eq!(world.tokens.requests_of(CLIENT.0).len(), asked, "the client of before");
}

#[tokio::test]
async fn a_leader_that_was_paused_past_its_lease_starts_nothing_when_it_resumes() {
    // It wakes with a queue of its own that the standby has emptied, and with more to come.
    let (world, leader, _standby) = overtaken("paused").await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("shop", "Suspended").await;
    world.create("held", "shop", 20).await;
    leader.process().signal("CONT").await.unwrap();
    assert_eq!(leader.process().wait(PATIENCE).await.unwrap(), 1);
    assert!(leader.logs().contains("lost leadership to"), "{}", leader.logs());
    let arrivals = arrivals(&world);
    assert_eq!(arrivals.len(), 20);
    assert!(arrivals.values().all(|times| *times == 1), "{arrivals:?}");
    assert_eq!(world.get("subscriber", "shop").await["status"]["conditions"][0]["reason"], json!("Suspended"));
}

/// It looks as if no operator had led meanwhile, but another one has, and has sent events that are still in the first
/// one's queue.
#[tokio::test]
async fn a_leader_that_resumes_after_another_released_the_lease_exits_and_the_next_leader_knows_of_it() {
    let (world, leader, standby) = overtaken("gave-back").await;
    assert_eq!(standby.terminate().await.unwrap(), 0);
    assert_eq!(lease(&world).await["holderIdentity"], "");
    leader.process().signal("CONT").await.unwrap();
    assert_eq!(leader.process().wait(PATIENCE).await.unwrap(), 1);
    // Outcomes of the first one may arrive still: the Lease says so.
    let handed_on = &world.get("lease", "tidings").await["metadata"]["annotations"]["tidings.dev/contested-seconds"];
    let seconds: u32 = handed_on.as_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let third = world.replica().await;
    until_leads(&third).await;
    world.create("m", "shop", 5).await;
    world.until_delivered(25).await;
    let arrivals = arrivals(&world);
    assert!(arrivals.len() == 25 && arrivals.values().all(|times| *times == 1), "{arrivals:?}");
    assert!(world.get("lease", "tidings").await["metadata"]["annotations"]["tidings.dev/contested-seconds"].is_null());
}

#[tokio::test]
async fn a_leader_that_cannot_renew_starts_no_attempts_and_continues_once_it_can() {
    let world = World::alone("cut-off").await;
    let plane = world.plane;
    world.secret(CLIENT.1).await;
    // One every second, so that there is always one to start.
    world.subscriber("shop", |spec| spec["delivery"] = json!({"rateLimitPerMinute": 60, "maxInFlight": 128})).await;
    let leader = world.replica().await;
    world.create("n", "shop", 30).await;
    world.receiver.wait_for(&path("shop"), 1, PATIENCE).await.unwrap();
    plane.signal(Part::ApiServer, "STOP").await.unwrap();
    let cut_off = std::time::Instant::now();
    // Longer than the ten seconds after which it may start nothing, shorter than the life of the Lease.
    sleep(Duration::from_secs(14)).await;
    let sent = world.posts(&path("shop"));
    plane.signal(Part::ApiServer, "CONT").await.unwrap();
    let last = sent.last().unwrap().arrived.saturating_duration_since(cut_off);
    assert!(last < Duration::from_secs(11), "something was sent {last:?} after the last renewal");
    assert!(sent.len() < 15, "{} were sent", sent.len());
    world.until_delivered(30).await;
    assert!(arrivals(&world).values().all(|times| *times == 1), "{:?}", arrivals(&world));
    assert!(leads(&leader).await);
}
