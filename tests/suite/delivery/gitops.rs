//! Tools that create, restore and delete Notifications: what `docs/gitops.md` says, followed step by step.

use serde_json::{Value, json};
use testkit::Behaviour;

use crate::world::{CLIENT, PATIENCE, World, path};

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
