//! When Subscribers are reconciled: beside many that wait for their endpoints, through relists in pages, and whatever
//! one of them, or one namespace, does to its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    ApiProxy, Behaviour, Operator, chart,
    proxies::{Call, Treatment},
};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::namespace,
    world::{CLIENT, PATIENCE, World, condition},
};

/// A namespace beside that of the world, with the operator's Role, the Secret and the bundle of the world.
async fn second_namespace(world: &World, name: &str) -> String {
    let other = namespace(world.plane, name).await;
    chart::install(world.plane, &world.namespace, &[&world.namespace, &other]).await.unwrap();
    world.secret(CLIENT.1).await;
    for kind in ["secret/acme-oauth", "configmap/test-ca"] {
        copy(world, kind, &other).await;
    }
    other
}

/// Copies an object of the world into another namespace.
async fn copy(world: &World, what: &str, namespace: &str) {
    let text = world.kubectl(&["get", what, "-o", "json"]).await.ok().unwrap();
    let mut object: Value = serde_json::from_str(&text).unwrap();
    let metadata = json!({"name": object["metadata"]["name"], "namespace": namespace});
    object["metadata"] = metadata;
    world.plane.admin().apply(&object.to_string(), &["--server-side"]).await.unwrap();
}

/// Applies Subscribers of the world's kind with these names to a namespace.
async fn subscribers(world: &World, namespace: &str, names: impl Iterator<Item = String>, change: impl Fn(&mut Value)) {
    let tls = json!({"caRef": {"kind": "ConfigMap", "name": "test-ca"}});
    let make = |name: String| {
        let mut spec = json!({
            "webhook": {"url": world.receiver.url(&format!("/{name}")), "tls": tls},
            "tokenService": {
                "url": world.tokens.url(), "tls": tls, "scopes": ["events.write"],
                "credentialsSecretRef": {"name": "acme-oauth"},
            },
        });
        change(&mut spec);
        json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": names.map(make).collect::<Vec<_>>()});
    world.plane.admin().apply(&list.to_string(), &["--server-side"]).await.unwrap();
}

async fn list_in(world: &World, namespace: &str) -> Vec<Value> {
    let text = world.plane.kubectl(&["-n", namespace, "get", "subr", "-o", "json"]).await.unwrap().ok().unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
}

async fn until_true(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + 2 * PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not within {:?}: {what}", 2 * PATIENCE);
        sleep(Duration::from_millis(50)).await;
    }
}

fn reason(subscriber: &Value) -> String {
    condition(subscriber, "Ready")["reason"].as_str().unwrap_or_default().to_owned()
}

/// The value of a metric.
async fn metric(operator: &Operator, name: &str) -> Option<String> {
    let metrics = operator.metrics().await.unwrap();
    let prefix = format!("{name} ");
    metrics.lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
}

#[tokio::test]
async fn three_hundred_subscribers_whose_token_service_hangs_delay_no_other_namespace() {
    let world = World::alone("well").await;
    let plane = world.plane;
    let other = second_namespace(&world, "hangs").await;
    // In one watch of all namespaces, all reconciles share one queue.
    let args = ["--egress-allow-cidr", "127.0.0.0/8"];
    let operator = Operator::start(crate::world::binary(), plane.admin_kubeconfig(), &args, &[]).await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.tokens.answer_always_at("/hangs", Behaviour::hang());
    subscribers(&world, &other, (0..300).map(|n| format!("s{n}")), |spec| {
        spec["tokenService"]["url"] = world.tokens.url_of("/hangs").into();
        spec["tokenService"]["timeoutSeconds"] = 60.into();
        // Each has a token of its own.
        spec["tokenService"]["audience"] = spec["webhook"]["url"].clone();
    })
    .await;
    let hang = |count| world.tokens.requests().len() >= count;
    until_true("as many hang as there is room for", async || hang(256)).await;
    // Their owner requests another reconcile of each.
    let annotate = ["-n", &other, "annotate", "subr", "--all", "--overwrite", "tidings.dev/reconcile-requested-at=1"];
    plane.kubectl(&annotate).await.unwrap().ok().unwrap();
    world.subscriber("shop", |_| ()).await;
    world.until_reason("shop", "Operational").await;
    // It did not wait for any of them to end, and each of them, those that are not at work included, says what it waits
    // for.
    until_true("each has a status", async || list_in(&world, &other).await.iter().all(|s| !reason(s).is_empty())).await;
    let hanging = list_in(&world, &other).await;
    let messages: Vec<_> = hanging
        .iter()
        .filter(|s| reason(s) == "Progressing")
        .map(|s| condition(s, "Reconciling")["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(messages.len(), 300, "a token request has ended: {}", operator.logs());
    assert!(messages.iter().any(|message| message.starts_with("step 2 of 4, token: ")), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains("checks other Subscribers")), "{messages:?}");
}

#[tokio::test]
async fn a_subscriber_whose_first_reconcile_takes_long_shows_its_current_step() {
    let world = World::new("first-word").await;
    let operator = world.operator().await;
    world.secret(CLIENT.1).await;
    world.receiver.answer_options("/shop", Behaviour::hang());
    world.subscriber("shop", |spec| spec["webhook"]["timeoutSeconds"] = 10.into()).await;
    let waits = world.until_reason("shop", "Progressing").await;
    assert_eq!(condition(&waits, "Ready")["status"], "False");
    assert_eq!(condition(&waits, "Reconciling")["status"], "True");
    let message = condition(&waits, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("step 3 of 4, handshake: ") && message.contains("OPTIONS"), "{message}");
    assert_eq!(waits["status"]["observedGeneration"], 1);
    let ready = world.until_reason("shop", "Operational").await;
    assert!(condition(&ready, "Reconciling").is_null());
    let audit = world.plane.audit().await.unwrap();
    let is_write = |event: &&testkit::control_plane::AuditEvent| {
        event.verb == "patch" && event.resource.starts_with("subscribers") && event.namespace == world.namespace
    };
    let writes = audit.iter().filter(is_write).filter(|event| event.user.ends_with(":tidings")).count();
    assert!(writes <= 2, "{writes} writes: {}", operator.logs());
}

#[tokio::test]
async fn changes_between_two_pages_of_a_relist_take_effect_immediately() {
    let world = World::new("pages").await;
    world.secret(CLIENT.1).await;
    let fill = |spec: &mut Value| spec["suspend"] = true.into();
    subscribers(&world, &world.namespace, (0..501).map(|n| format!("s{n:03}")), fill).await;
    world.subscriber("a-changed", |_| ()).await;
    let proxy = ApiProxy::start(world.plane).await.unwrap();
    // The first watch is too old; of the relist that follows, each page is held up.
    let (watches, lists) = (AtomicUsize::new(0), AtomicUsize::new(0));
    proxy.treat(move |call: &Call| {
        if !call.path.ends_with("/subscribers") {
            return Treatment::Pass;
        }
        if call.is_watch() {
            return if watches.fetch_add(1, Ordering::Relaxed) == 0 { Treatment::Expire } else { Treatment::Pass };
        }
        // The check at the start, two pages, then the relist: its first page, its second page.
        match (call.query.contains("limit=500"), watches.load(Ordering::Relaxed)) {
            (true, 1) if lists.fetch_add(1, Ordering::Relaxed) == 0 => Treatment::Late(Duration::from_secs(20)),
            (true, 1) => Treatment::Late(Duration::from_secs(45)),
            _ => Treatment::Pass,
        }
    });
    let _operator = world.operator_through(&proxy).await;
    world.until_reason("a-changed", "Operational").await;
    until_true("the first page is held up", async || proxy.held() == 1).await;
    world.subscriber("a-changed", |spec| spec["suspend"] = true.into()).await;
    world.subscriber("a-new", |_| ()).await;
    assert_eq!(proxy.late().len(), 0, "the machine is too slow: the first page has passed");
    world.until_reason("a-changed", "Suspended").await;
    world.until_reason("a-new", "Operational").await;
    assert_eq!(proxy.late().len(), 1, "the second page is still held up");
}

#[tokio::test]
async fn a_subscriber_that_this_version_cannot_read_affects_no_other() {
    let world = World::alone("unreadable").await;
    let plane = world.plane;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let path =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/webhook/properties/contentMode/enum/-";
    let patch = json!([{"op": "add", "path": path, "value": "Telepathic"}]).to_string();
    plane
        .kubectl(&["patch", "crd", "subscribers.tidings.dev", "--type=json", "-p", &patch])
        .await
        .unwrap()
        .ok()
        .unwrap();
    let change = |spec: &mut Value| spec["webhook"]["contentMode"] = "Telepathic".into();
    let end = Instant::now() + PATIENCE;
    // The API server takes a moment to serve the definition.
    loop {
        let list = json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": "probe"},
            "spec": {"webhook": {"url": "https://x.example/", "contentMode": "Telepathic"}, "suspend": true, "tokenService":
                {"url": "https://x.example/", "credentialsSecretRef": {"name": "x"}}}});
        let args = ["-n", world.namespace.as_str(), "--server-side"];
        if plane.admin().apply(&list.to_string(), &args).await.is_ok() {
            break;
        }
        assert!(Instant::now() < end, "the API server refuses the new value");
        sleep(Duration::from_millis(200)).await;
    }
    world.subscriber("odd", change).await;
    let mut operator = world.operator().await;
    for restarted in [false, true] {
        if restarted {
            operator.restart().await.unwrap();
            operator.ready(PATIENCE).await.unwrap();
        }
        let id = format!("n{}", u8::from(restarted));
        let event = json!({"id": id, "source": "/s", "type": "t"});
        world.notification(&format!("odd-{id}"), "odd", event.clone()).await;
        world.notification(&id, "shop", event).await;
        world.until_phase(&id, "Delivered").await;
        let odd = world.until_reason("odd", "InvalidSpec").await;
        assert_eq!(condition(&odd, "Stalled")["status"], "True");
        let message = condition(&odd, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(
            message.starts_with("spec.webhook.contentMode: ") && message.contains("correct the field"),
            "{message}"
        );
        let held = |n: &Value| n["status"]["reason"] == "SubscriberNotReady";
        world.until("notification", &format!("odd-{id}"), held).await;
    }
    // What is suspended in a spec that cannot be read is not read either.
    world.until_reason("probe", "InvalidSpec").await;
    assert!(world.posts("/odd").is_empty());
    world.subscriber("odd", |_| ()).await;
    world.until_reason("odd", "Operational").await;
    world.until_delivered(4).await;
}

#[tokio::test]
async fn a_namespace_whose_subscribers_may_not_be_listed_delays_no_other_and_heals() {
    let world = World::new("allowed").await;
    let other = second_namespace(&world, "forbidden").await;
    let proxy = ApiProxy::start(world.plane).await.unwrap();
    let of_other = format!("/namespaces/{other}/subscribers");
    // Not the check at the start.
    let forbidden = move |call: &Call| call.path.ends_with(&of_other) && !call.query.split('&').any(|f| f == "limit=1");
    proxy.treat(move |call| match forbidden(call) {
        true => Treatment::Answer(403),
        false => Treatment::Pass,
    });
    subscribers(&world, &other, ["shop".to_owned()].into_iter(), |_| ()).await;
    world.subscriber("shop", |_| ()).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let operator = world.start_through(&proxy, &["--watch-namespace", &other]).await;
    world.until_phase("n", "Delivered").await;
    assert_eq!(metric(&operator, "tidings_namespaces_refused").await.as_deref(), Some("1"));
    assert!(operator.logs().contains(&other), "{}", operator.logs());
    assert_eq!(reason(&list_in(&world, &other).await[0]), "");
    proxy.pass();
    until_true("it heals", async || reason(&list_in(&world, &other).await[0]) == "Operational").await;
    assert_eq!(metric(&operator, "tidings_namespaces_refused").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_changed_secret_takes_effect_immediately_while_the_watch_of_subscribers_fails() {
    let world = World::new("watch-fails").await;
    world.secret("wrong").await;
    world.subscriber("shop", |_| ()).await;
    let proxy = ApiProxy::start(world.plane).await.unwrap();
    proxy.treat(|call| match call.is_watch() && call.path.ends_with("/subscribers") {
        true => Treatment::Answer(500),
        false => Treatment::Pass,
    });
    let _operator = world.operator_through(&proxy).await;
    world.until_reason("shop", "TokenRejected").await;
    let refused = || proxy.treated().get("refused").copied().unwrap_or_default();
    // The next try is many seconds away by then.
    until_true("the watch waits longer and longer", async || refused() >= 6).await;
    let tries = refused();
    world.secret(CLIENT.1).await;
    world.until_reason("shop", "Operational").await;
    assert_eq!(refused(), tries, "it waited for the watch");
}
