//! What Argo CD, kstatus and Flux make of real objects in every situation: the table of `docs/gitops.md`.

use std::{collections::BTreeMap, env, fs};

use mlua::{Lua, LuaSerdeExt};
use serde_json::{Value, json};
use testkit::{Behaviour, endpoints::Reply, kstatus};
use tidings_api::{NotificationReason, SubscriberReason};

use super::{PAGE, page, suspend};
use crate::{
    cluster::root,
    subscribers::every_reason::every_reason,
    world::{CLIENT, World, condition, path},
};

const START: &str = "<!-- The table comes from real runs: run make generate. -->\n";
const END: &str = "<!-- End of the table. -->\n";

/// Runs the health check of `examples/argocd/argocd-cm.yaml` on an object, as Argo CD does. Returns status and message.
pub fn argo_cd(object: &Value) -> (String, String) {
    let config = fs::read_to_string(root().join("examples/argocd/argocd-cm.yaml")).unwrap();
    let config: Value = serde_yaml::from_str(&config).unwrap();
    let key = format!("resource.customizations.health.tidings.dev_{}", object["kind"].as_str().unwrap());
    let script = config["data"][&key].as_str().unwrap_or_else(|| panic!("{key} is missing"));
    let lua = Lua::new();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let health: mlua::Table = lua.load(script).eval().unwrap();
    (health.get("status").unwrap(), health.get("message").unwrap())
}

/// What kstatus computes, which is also what Flux computes without further configuration.
fn plain_kstatus(object: &Value) -> String {
    kstatus::compute(&[object], &[]).unwrap().remove(0)
}

/// What Flux computes with the `healthCheckExprs` of `examples/gitops/flux.yaml`.
pub fn flux(object: &Value) -> String {
    let manifests = fs::read_to_string(root().join("examples/gitops/flux.yaml")).unwrap();
    let checks = serde_yaml::Deserializer::from_str(&manifests)
        .map(|document| <Value as serde::Deserialize>::deserialize(document).unwrap())
        .flat_map(|manifest| manifest["spec"]["healthCheckExprs"].as_array().cloned().unwrap_or_default());
    let check = checks.into_iter().find(|check| check["kind"] == object["kind"]).expect("an expression for the kind");
    assert_eq!(check["apiVersion"], object["apiVersion"]);
    let flags = [("-current", "current"), ("-failed", "failed"), ("-in-progress", "inProgress")];
    let flags: Vec<_> = flags.iter().flat_map(|(flag, field)| [*flag, check[*field].as_str().unwrap()]).collect();
    kstatus::compute(&[object], &flags).unwrap().remove(0)
}

/// What the three columns of the table say about an object.
fn judged(object: &Value) -> [String; 3] {
    [argo_cd(object).0, plain_kstatus(object), flux(object)]
}

/// The Notifications in each situation that a reason names, from a real run.
async fn notifications() -> BTreeMap<&'static str, Value> {
    let world = World::new("states").await;
    world.secret(CLIENT.1).await;
    let answers = [
        ("accepting", Reply::status(202)),
        ("rejecting", Reply::status(422)),
        ("failing", Reply::status(500)),
        ("exhausting", Reply::status(500)),
        ("pausing", Reply::status(429).header("retry-after", "900")),
        ("broken", Reply::status(502)),
        ("misled", Reply::status(400)),
        ("gone", Reply::status(410)),
    ];
    for (name, reply) in answers {
        world.receiver.answer_always(&path(name), Behaviour::reply(reply));
        let attempts = (name == "exhausting").then(|| json!({"maxAttempts": 1}));
        let soon = (name == "broken").then(|| json!({"backoff": {"initialSeconds": 1}}));
        world.subscriber(name, |spec| spec["delivery"] = attempts.or(soon).unwrap_or_else(|| json!({}))).await;
    }
    world.subscriber("shop", |_| ()).await;
    world.subscriber("suspended", |spec| spec["suspend"] = true.into()).await;
    let missing = |spec: &mut Value| spec["tokenService"]["credentialsSecretRef"]["name"] = "missing".into();
    world.subscriber("unready", missing).await;

    let event = json!({"source": "/shop", "type": "order.paid"});
    world.notification("queued", "shop", event.clone()).await;
    let queued = world.get("ntf", "queued").await;
    let single = ["shop", "accepting", "rejecting", "failing", "exhausting", "pausing", "gone"];
    for name in single.iter().chain(&["nothing", "unready", "suspended"]) {
        world.notification(name, name, event.clone()).await;
    }
    for name in ["broken", "misled"] {
        world.notifications(&format!("{name}-first"), name, 5).await;
    }
    world.notification("invalid", "shop", json!({"source": "not a URI", "type": "order.paid"})).await;
    let mut expiring = json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": "expiring"},
        "spec": {"subscriberRef": {"name": "suspended"}, "event": &event, "expireAfterSeconds": 1},
    });
    world.apply(&expiring).await;
    expiring["metadata"] = json!({"name": "large", "namespace": world.namespace});
    expiring["spec"]["subscriberRef"]["name"] = "shop".into();
    expiring["spec"]["expireAfterSeconds"] = 600.into();
    expiring["spec"]["event"]["data"] = "x".repeat(1_571_000).into();
    let large = expiring.to_string();
    world.plane.admin().run_with_input(&["create", "-f", "-"], &large).await.unwrap().ok().unwrap();

    let _operator = world.operator().await;
    for (name, reason) in [("broken", "CircuitOpen"), ("misled", "RejectsAll")] {
        world.until("subscriber", name, |s| condition(s, "Healthy")["reason"] == reason).await;
        world.notification(name, name, event.clone()).await;
    }
    let mut shown = BTreeMap::from([("Queued", queued)]);
    let of_names = [
        ("shop", NotificationReason::Acknowledged),
        ("accepting", NotificationReason::Accepted),
        ("rejecting", NotificationReason::Rejected),
        ("failing", NotificationReason::Retrying),
        ("exhausting", NotificationReason::Exhausted),
        ("pausing", NotificationReason::Paused),
        ("gone", NotificationReason::EndpointGone),
        ("nothing", NotificationReason::SubscriberNotFound),
        ("unready", NotificationReason::SubscriberNotReady),
        ("suspended", NotificationReason::Suspended),
        ("broken", NotificationReason::CircuitOpen),
        ("misled", NotificationReason::RejectsAll),
        ("invalid", NotificationReason::InvalidEvent),
        ("expiring", NotificationReason::Expired),
        ("large", NotificationReason::TooLarge),
    ];
    for (name, reason) in of_names {
        let object = world.until("ntf", name, |n| n["status"]["reason"] == reason.as_str()).await;
        shown.insert(reason.as_str(), object);
    }
    shown
}

/// A row of the table, before rows with the same judgements are joined: a condition or phase, and a reason.
type Row = ([String; 3], String, String);

/// The condition in which a Subscriber has this reason, as `Type True` or `Type False`; Ready before the others.
fn with_reason(subscriber: &Value, reason: &str) -> String {
    let conditions = subscriber["status"]["conditions"].as_array().unwrap();
    let of_reason = conditions.iter().find(|condition| condition["reason"] == reason).unwrap();
    let says = |condition: &Value| {
        format!("`{}` is {}", condition["type"].as_str().unwrap(), condition["status"].as_str().unwrap())
    };
    match of_reason["type"].as_str() {
        Some("Tested") => format!("{}, {}", says(&condition(subscriber, "Ready")), says(of_reason)),
        _ => says(of_reason),
    }
}

/// Situations, each with the reasons that name it.
type Situations = Vec<(String, Vec<String>)>;

/// The rows of a kind: situations with the same judgements share a row.
fn rows(kind: &str, all: Vec<Row>) -> String {
    let mut joined: Vec<([String; 3], Situations)> = Vec::new();
    for (judged, situation, reason) in all {
        let at = joined.iter().position(|(others, _)| *others == judged).unwrap_or_else(|| {
            joined.push((judged, Vec::new()));
            joined.len() - 1
        });
        let row = &mut joined[at].1;
        match row.iter_mut().find(|(other, _)| *other == situation) {
            Some((_, reasons)) => reasons.push(reason),
            None => row.push((situation, vec![reason])),
        }
    }
    let cell = |situations: &Situations| {
        let texts = situations.iter().map(|(situation, reasons)| match reasons.concat().is_empty() {
            true => situation.clone(),
            false => format!("{situation}: `{}`", reasons.join("`, `")),
        });
        texts.collect::<Vec<_>>().join("<br>")
    };
    let line = |([argo_cd, kstatus, flux], situations): &([String; 3], Situations)| {
        format!("| {kind} | {} | {argo_cd} | {kstatus} | {flux} |\n", cell(situations))
    };
    joined.iter().map(line).collect()
}

/// An object and the situation that no reason names.
fn unnamed(object: &Value, situation: &str) -> Row {
    (judged(object), situation.to_owned(), String::new())
}

/// The table of the page.
async fn table() -> String {
    let (subscribers, notifications) = tokio::join!(every_reason(), notifications());
    let named = SubscriberReason::ALL.iter().map(|reason| {
        let object = &subscribers[reason.as_str()].object;
        (judged(object), with_reason(object, reason.as_str()), reason.as_str().to_owned())
    });
    let mut of_subscribers: Vec<_> = named.collect();
    // What no operator has seen yet: a new Subscriber, a changed spec, a requested test.
    let mut new = subscribers["Operational"].object.clone();
    new["status"] = json!({"observedGeneration": -1});
    of_subscribers.push(unnamed(&new, "no operator has seen it"));
    let mut changed = subscribers["Operational"].object.clone();
    changed["metadata"]["generation"] = 2.into();
    of_subscribers.push(unnamed(&changed, "the operator has not seen the change of the spec"));
    let mut tested = subscribers["TestPassed"].object.clone();
    tested["metadata"]["annotations"]["tidings.dev/test-requested-at"] = "2".into();
    of_subscribers.push(unnamed(&tested, "the test of `tidings.dev/test-requested-at` is not over"));

    let named = NotificationReason::ALL.iter().map(|reason| {
        let object = &notifications[reason.as_str()];
        let phase = object["status"]["phase"].as_str().unwrap();
        (judged(object), format!("`phase` is {phase}"), reason.as_str().to_owned())
    });
    let mut of_notifications: Vec<_> = named.collect();
    let mut replayed = notifications["Acknowledged"].clone();
    replayed["metadata"]["labels"] = json!({"tidings.dev/replay": "2"});
    of_notifications.push(unnamed(&replayed, "Delivered, and the operator has not seen the new replay"));

    let rows = [rows("Subscriber", of_subscribers), rows("Notification", of_notifications)].concat();
    format!(
        "\n| kind | situation | Argo CD | kstatus, Flux | Flux with `healthCheckExprs` |\n|---|---|---|---|---|\n{rows}\n"
    )
}

#[tokio::test]
async fn golden_gitops_shows_what_the_tools_make_of_objects_in_every_situation() {
    let table = table().await;
    let page = page();
    let (before, rest) = page.split_once(START).expect("the start of the table");
    let (committed, after) = rest.split_once(END).expect("the end of the table");
    if env::var_os("TIDINGS_UPDATE_GOLDEN").is_some() {
        fs::write(root().join(PAGE), format!("{before}{START}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(committed, table, "the table in {PAGE} is stale: run make generate");

    // No tool takes an event that is not delivered, or a Subscriber that is not Ready, for a success.
    for row in table.lines().filter(|row| row.contains("`Ready` is False") || row.contains("is Pending")) {
        assert!(!row.contains("Healthy |") && !row.contains("Current"), "{row}");
    }
    for row in table.lines().filter(|row| row.contains("`phase` is Failed")) {
        assert!(row.ends_with("| Degraded | Failed | Failed |"), "{row}");
    }
}
#[tokio::test]
async fn field_22_the_health_checks_for_argo_cd_hold_for_objects_in_every_state() {
    let world = World::new("argo").await;
    let of = async |kind: &str, name: &str| argo_cd(&world.get(kind, name).await);
    let all_of = async |kind: &str, name: &str| judged(&world.get(kind, name).await);
    let unseen = ["Progressing", "InProgress", "InProgress"];
    // No operator has seen these yet.
    world.subscriber("shop", |_| ()).await;
    world.notification("n", "shop", json!({"id": "n", "source": "/shop", "type": "order.paid"})).await;
    assert_eq!(all_of("subr", "shop").await, unseen);
    assert_eq!(all_of("ntf", "n").await, unseen);
    let mut bare = world.get("ntf", "n").await;
    bare.as_object_mut().unwrap().remove("status");
    assert_eq!(argo_cd(&bare).0, "Progressing");

    let operator = world.operator().await;
    world.until_reason("shop", "SecretNotFound").await;
    let (status, message) = of("subr", "shop").await;
    assert_eq!(status, "Progressing");
    assert!(message.contains("SecretNotFound") && message.contains("acme-oauth"), "{message}");
    world.secret("wrong").await;
    world.until_reason("shop", "TokenRejected").await;
    assert_eq!(of("subr", "shop").await.0, "Degraded");
    suspend(&world, true).await;
    world.secret(CLIENT.1).await;
    world.until("ntf", "n", |n| n["status"]["reason"] == "Suspended").await;
    assert_eq!(of("ntf", "n").await.0, "Suspended");
    assert_eq!(of("subr", "shop").await.0, "Suspended");

    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(422));
    suspend(&world, false).await;
    assert_eq!(of("subr", "shop").await.0, "Healthy");
    world.until_phase("n", "Failed").await;
    let (status, message) = of("ntf", "n").await;
    assert_eq!(status, "Degraded");
    assert!(message.contains("422"), "{message}");
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(503));
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.ok().unwrap();
    world.until("ntf", "n", |n| n["status"]["reason"] == "Retrying").await;
    assert_eq!(of("ntf", "n").await.0, "Progressing");
    world.until_phase("n", "Delivered").await;
    assert_eq!(of("ntf", "n").await.0, "Healthy");
    world.kubectl(&["label", "ntf", "n", "tidings.dev/replay=2", "--overwrite"]).await.ok().unwrap();
    world.until("ntf", "n", |n| n["status"]["lastHandledReplay"] == "2" && n["status"]["phase"] == "Delivered").await;

    operator.terminate().await.unwrap();
    // A handled value is no request; a new value, and a new spec, wait for the operator.
    let replay = async |value: &str| {
        let label = format!("tidings.dev/replay={value}");
        world.kubectl(&["label", "ntf", "n", &label, "--overwrite"]).await.ok().unwrap();
        all_of("ntf", "n").await
    };
    assert_eq!(replay("1").await, ["Healthy", "Current", "Current"]);
    // kstatus reads no labels.
    assert_eq!(replay("3").await, ["Progressing", "Current", "InProgress"]);
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/test-requested-at=1"]).await.ok().unwrap();
    assert_eq!(all_of("subr", "shop").await, ["Progressing", "Current", "InProgress"]);
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    assert_eq!(all_of("subr", "shop").await, unseen);
}
