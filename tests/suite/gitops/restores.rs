//! Backups and restores: the procedures of `docs/gitops.md`, followed with the commands of the page.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use testkit::Behaviour;

use super::{page, run, shell_blocks, suspend};
use crate::{
    cluster::unique,
    world::{CLIENT, PATIENCE, World, path},
};

fn event(id: &str) -> Value {
    json!({"id": id, "source": "/shop", "type": "order.paid"})
}

/// The ids of the events that arrived at `shop`, in order.
fn arrived(world: &World) -> Vec<String> {
    world.posts(&path("shop")).iter().map(|request| request.event_id().unwrap()).collect()
}

/// The commands of the page in the only block that contains this text.
fn commands(text: &str) -> String {
    let mut found: Vec<_> = shell_blocks(&page()).into_iter().filter(|block| block.contains(text)).collect();
    assert_eq!(found.len(), 1, "{text}: {found:#?}");
    found.remove(0)
}

/// Backs the namespace up into a folder, with the commands of the page that contain this text. Returns the folder.
async fn backup(world: &World, text: &str) -> PathBuf {
    let folder = world.plane.folder().join(unique(&world.namespace));
    fs::create_dir_all(&folder).unwrap();
    run(world, &folder, &commands(text)).await.ok().unwrap();
    folder
}

/// Loses all objects of both kinds.
async fn lose(world: &World) {
    world.kubectl(&["delete", "notifications,subscribers", "--all"]).await.ok().unwrap();
}

/// Loses all objects and creates them again from a backup, with the commands of the page that contain this text.
async fn restore(world: &World, backup: &Path, text: &str) {
    lose(world).await;
    run(world, backup, &commands(text)).await.ok().unwrap();
}

/// The texts by which the tests find the commands on the page.
const BACK_UP: &str = "> notifications.yaml";
const RESTORE: &str = "replace --subresource=status";
const BACK_UP_UNFINISHED: &str = "> unfinished.yaml";
const RESTORE_UNFINISHED: &str = "create -f unfinished.yaml";

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
    let before = backup(&world, BACK_UP).await;
    let sent = arrived(&world);

    // The operator runs, and the Subscriber is suspended.
    restore(&world, &before, RESTORE).await;
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
    let before = backup(&world, BACK_UP).await;
    let sent = arrived(&world);
    operator.terminate().await.unwrap();
    restore(&world, &before, RESTORE).await;
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.notification("marker", "shop", event("marker")).await;
    world.until_phase("marker", "Delivered").await;
    assert_eq!(arrived(&world)[sent.len()..], ["marker"]);

    // The operator runs, and the Subscriber in the backup is not suspended: the commands restore it last.
    restore(&world, &before, RESTORE).await;
    world.notification("marker-2", "shop", event("marker-2")).await;
    world.until_phase("marker-2", "Delivered").await;
    assert_eq!(arrived(&world)[sent.len()..], ["marker", "marker-2"]);

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
    let before = backup(&world, BACK_UP).await;
    lose(&world).await;
    let all = commands(RESTORE);
    let create: Vec<_> = all.lines().filter(|line| line.contains(" create ")).collect();
    run(&world, &before, &create.join("\n")).await.ok().unwrap();
    world.until_delivered(3).await;
    let (mut first, mut again) = (arrived(&world), arrived(&world).split_off(3));
    first.truncate(3);
    first.sort();
    again.sort();
    assert_eq!(again, first, "a receiver can drop the repeats by their ids");
}

#[tokio::test]
async fn field_21_a_backup_of_unfinished_notifications_needs_no_statuses_and_sends_nothing_twice() {
    let world = World::new("restore-unfinished").await;
    world.secret(CLIENT.1).await;
    let _operator = world.operator().await;
    suspend(&world, false).await;
    world.notification("delivered", "shop", event("delivered")).await;
    world.until_phase("delivered", "Delivered").await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(422));
    world.notification("failed", "shop", event("failed")).await;
    world.until_phase("failed", "Failed").await;
    world.subscriber("held", |spec| spec["suspend"] = true.into()).await;
    world.until_reason("held", "Suspended").await;
    world.notification("waiting", "held", event("waiting")).await;

    let before = backup(&world, BACK_UP_UNFINISHED).await;
    let sent = arrived(&world);
    restore(&world, &before, RESTORE_UNFINISHED).await;
    let all = world.list("notifications").await;
    let names: Vec<_> = all.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["waiting"]);
    world.subscriber("held", |spec| spec["suspend"] = false.into()).await;
    world.until_phase("waiting", "Delivered").await;
    let of_held: Vec<_> = world.posts(&path("held")).iter().map(|request| request.event_id().unwrap()).collect();
    assert_eq!((of_held, arrived(&world)), (vec!["waiting".to_owned()], sent));
}
