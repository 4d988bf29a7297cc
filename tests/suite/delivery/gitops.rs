//! Tools that create, restore and delete Notifications: what `docs/gitops.md` says, followed step by step.

use std::{fs, path::Path};

use mlua::{Lua, LuaSerdeExt};
use serde_json::{Value, json};
use testkit::{Behaviour, chart};

use crate::{
    cluster::root,
    world::{CLIENT, PATIENCE, World, path},
};

fn event(id: &str) -> Value {
    json!({"id": id, "source": "/shop", "type": "order.paid"})
}

/// The ids of the events that arrived at `shop`, in order.
fn arrived(world: &World) -> Vec<String> {
    world.posts(&path("shop")).iter().map(|request| request.event_id().unwrap()).collect()
}

async fn suspend(world: &World, suspended: bool) {
    world
        .subscriber("shop", |spec| {
            spec["suspend"] = suspended.into();
            spec["delivery"] = json!({"backoff": {"initialSeconds": 1}});
        })
        .await;
    world.until_reason("shop", if suspended { "Suspended" } else { "Operational" }).await;
}

/// What a backup contains: all Notifications, without the fields that a restore drops.
async fn backup(world: &World) -> Vec<Value> {
    let mut all = world.list("notifications").await;
    for object in &mut all {
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.retain(|field, _| ["name", "namespace", "labels", "annotations"].contains(&field.as_str()));
    }
    all
}

/// Deletes all Notifications and creates them again, as a restore does: first the objects, then, if wanted, the
/// statuses.
async fn restore(world: &World, backup: &[Value], with_status: bool) {
    world.kubectl(&["delete", "ntf", "--all"]).await.ok().unwrap();
    for object in backup {
        let admin = world.plane.admin();
        admin.run_with_input(&["create", "-f", "-"], &object.to_string()).await.unwrap().ok().unwrap();
        if with_status {
            let args = ["replace", "--subresource=status", "-f", "-"];
            admin.run_with_input(&args, &object.to_string()).await.unwrap().ok().unwrap();
        }
    }
}

#[tokio::test]
async fn field_21_a_restore_with_statuses_sends_nothing_again_and_keeps_the_ids() {
    let world = World::new("restore").await;
    world.secret(CLIENT.1).await;
    let mut operator = world.operator().await;
    suspend(&world, false).await;
    world.notification("delivered", "shop", event("own")).await;
    let without_id = json!({"source": "/shop", "type": "order.paid"});
    world.notification("delivered-without-id", "shop", without_id.clone()).await;
    world.until_delivered(2).await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(422));
    world.notification("failed", "shop", event("failed")).await;
    world.until_phase("failed", "Failed").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(500));
    world.notification("retrying", "shop", without_id).await;
    let retrying = world.until("ntf", "retrying", |n| n["status"]["reason"] == "Retrying").await;
    suspend(&world, true).await;
    let uid_of = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let first_uid = uid_of(&retrying);
    world.notification("untried", "shop", event("untried")).await;
    let before = backup(&world).await;
    let sent = arrived(&world);

    // The operator runs, and the Subscriber is suspended.
    restore(&world, &before, true).await;
    assert_ne!(uid_of(&world.get("ntf", "retrying").await), first_uid);
    suspend(&world, false).await;
    world.until_delivered(4).await;
    let mut again = arrived(&world).split_off(sent.len());
    again.sort();
    let mut expected = vec![first_uid.clone(), "untried".to_owned()];
    expected.sort();
    assert_eq!(again, expected);
    let restored = world.get("ntf", "retrying").await;
    assert_eq!((&restored["status"]["eventID"], &restored["status"]["attempts"]), (&json!(first_uid), &json!(2)));
    assert_eq!(world.get("ntf", "failed").await["status"]["reason"], "Rejected");

    // The operator is stopped during the restore.
    let before = backup(&world).await;
    let sent = arrived(&world);
    operator.terminate().await.unwrap();
    restore(&world, &before, true).await;
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("marker", "shop", event("marker")).await;
    world.until_phase("marker", "Delivered").await;
    assert_eq!(arrived(&world)[sent.len()..], ["marker"]);

    // A replay of what was restored keeps the id, too.
    let id = world.get("ntf", "delivered-without-id").await["status"]["eventID"].clone();
    assert_ne!(id, json!(uid_of(&world.get("ntf", "delivered-without-id").await)));
    world.kubectl(&["label", "ntf", "delivered-without-id", "tidings.dev/replay=1"]).await.ok().unwrap();
    let replayed = |n: &Value| n["status"]["lastHandledReplay"] == "1" && n["status"]["phase"] == "Delivered";
    world.until("ntf", "delivered-without-id", replayed).await;
    assert_eq!(json!(arrived(&world).last()), id);
}

#[tokio::test]
async fn field_21_a_restore_without_statuses_sends_everything_again_under_the_ids_of_the_events() {
    let world = World::new("restore-bare").await;
    world.secret(CLIENT.1).await;
    let _operator = world.operator().await;
    suspend(&world, false).await;
    world.notifications("n", "shop", 3).await;
    world.until_delivered(3).await;
    suspend(&world, true).await;
    let before = backup(&world).await;
    restore(&world, &before, false).await;
    suspend(&world, false).await;
    world.until_delivered(3).await;
    let (mut first, mut again) = (arrived(&world), arrived(&world).split_off(3));
    first.truncate(3);
    first.sort();
    again.sort();
    assert_eq!(again, first, "a receiver can drop the repeats by their ids");
}

/// Runs a health check of `examples/argocd/argocd-cm.yaml` on an object, as Argo CD does.
fn health(object: &Value) -> (String, String) {
    let config = fs::read_to_string(root().join("examples/argocd/argocd-cm.yaml")).unwrap();
    let config: Value = serde_yaml::from_str(&config).unwrap();
    let key = format!("resource.customizations.health.tidings.dev_{}", object["kind"].as_str().unwrap());
    let script = config["data"][&key].as_str().unwrap_or_else(|| panic!("{key} is missing"));
    let lua = Lua::new();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let health: mlua::Table = lua.load(script).eval().unwrap();
    (health.get("status").unwrap(), health.get("message").unwrap())
}

#[tokio::test]
async fn field_22_the_health_checks_for_argo_cd_hold_for_objects_in_every_state() {
    let world = World::new("argo").await;
    let of = async |kind: &str, name: &str| health(&world.get(kind, name).await);
    // No operator has seen these yet.
    world.subscriber("shop", |_| ()).await;
    world.notification("n", "shop", event("n")).await;
    assert_eq!(of("subr", "shop").await.0, "Progressing");
    assert_eq!(of("ntf", "n").await.0, "Progressing");
    let mut bare = world.get("ntf", "n").await;
    bare.as_object_mut().unwrap().remove("status");
    assert_eq!(health(&bare).0, "Progressing");

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
    for (value, expected) in [("1", "Healthy"), ("3", "Progressing")] {
        let label = format!("tidings.dev/replay={value}");
        world.kubectl(&["label", "ntf", "n", &label, "--overwrite"]).await.ok().unwrap();
        assert_eq!(of("ntf", "n").await.0, expected, "{value}");
    }
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    assert_eq!(of("subr", "shop").await.0, "Progressing");
}

/// The chart of the example in `docs/gitops.md`, with these further annotations of the hook.
fn release(folder: &Path, annotations: &str) {
    fs::create_dir_all(folder.join("templates")).unwrap();
    fs::write(folder.join("Chart.yaml"), "apiVersion: v2\nname: deployed\nversion: 1.0.0\n").unwrap();
    let page = fs::read_to_string(root().join("docs/gitops.md")).unwrap();
    let mut examples = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let hook = examples.find(|example| example.contains("helm.sh/hook")).unwrap();
    let hook = hook.replace("name: acme", "name: shop");
    let hook = hook.replace("    helm.sh/hook:", &format!("{annotations}    helm.sh/hook:"));
    fs::write(folder.join("templates/notification.yaml"), hook).unwrap();
}

#[tokio::test]
async fn field_22_a_helm_hook_is_delivered_unless_its_policy_deletes_it_at_once() {
    let world = World::new("helm").await;
    world.secret(CLIENT.1).await;
    let _operator = world.operator().await;
    suspend(&world, false).await;
    let folder = world.plane.folder().join(&world.namespace);
    let kubeconfig = world.plane.admin_kubeconfig().to_str().unwrap();
    let install = |name: &str, annotations: &str| {
        let chart = folder.join(name);
        release(&chart, annotations);
        chart::helm(
            &["install", name, chart.to_str().unwrap(), "-n", &world.namespace, "--kubeconfig", kubeconfig],
            &[],
        )
    };
    install("kept", "").unwrap();
    let delivered = world.until_phase("kept-1", "Delivered").await;
    assert_eq!(delivered["status"]["eventID"], json!(format!("{}-kept-1", world.namespace)));
    assert_eq!(delivered["spec"]["ttlSecondsAfterFinished"], 3600);
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("shop", "Suspended").await;
    install("deleted", "    helm.sh/hook-delete-policy: hook-succeeded\n").unwrap();
    assert!(
        !world.kubectl(&["get", "ntf", "deleted-1"]).await.success,
        "Helm waits for such a hook now: update the page"
    );
}
