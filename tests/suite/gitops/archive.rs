//! `docs/archive.md`: what an archive can rely on, and the commands against growth.

use std::fs;

use serde_json::{Value, json};
use testkit::Behaviour;

use super::{run, shell_blocks};
use crate::{
    cluster::root,
    world::{CLIENT, World, path},
};

#[tokio::test]
async fn gitops_the_commands_of_the_archive_keep_what_is_finished_and_delete_no_other_notification() {
    let world = World::new("archive").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    world.subscriber("held", |spec| spec["suspend"] = true.into()).await;
    let _operator = world.operator().await;
    let event = json!({"source": "/shop", "type": "order.paid"});
    world.notifications("delivered", "shop", 2).await;
    world.until_delivered(2).await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(422));
    world.notification("failed", "shop", event.clone()).await;
    world.until_phase("failed", "Failed").await;
    world.notification("waiting", "held", event).await;

    let folder = world.plane.folder().join(&world.namespace);
    fs::create_dir_all(&folder).unwrap();
    let page = fs::read_to_string(root().join("docs/archive.md")).unwrap();
    let commands = |text: &str| shell_blocks(&page).into_iter().find(|block| block.contains(text)).unwrap();
    let counted = run(&world, &folder, &commands("uniq -c")).await.ok().unwrap();
    let counted = counted.lines().find(|line| line.contains(&world.namespace)).unwrap();
    assert_eq!(counted.split_whitespace().collect::<Vec<_>>(), ["3", &world.namespace, "shop"]);

    run(&world, &folder, &commands("> finished.json")).await.ok().unwrap();
    let kept: Value = serde_json::from_str(&fs::read_to_string(folder.join("finished.json")).unwrap()).unwrap();
    let kept: Vec<_> = kept["items"].as_array().unwrap().iter().map(|object| &object["metadata"]["name"]).collect();
    assert_eq!(kept, ["delivered-0", "delivered-1", "failed"]);

    run(&world, &folder, &commands("delete notifications")).await.ok().unwrap();
    let left = world.list("notifications").await;
    let left: Vec<_> = left.iter().map(|object| &object["metadata"]["name"]).collect();
    assert_eq!(left, ["failed", "waiting"]);
}

#[tokio::test]
async fn gitops_the_finalizer_of_an_archive_delays_the_deletion_and_repeats_no_delivery() {
    let world = World::new("finalizer").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let mut operator = world.operator().await;
    let archived = json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
        "metadata": {"name": "n", "finalizers": ["archive.example.com/stored"]},
        "spec": {
            "subscriberRef": {"name": "shop"}, "ttlSecondsAfterFinished": 0,
            "event": {"id": "n", "source": "/shop", "type": "order.paid"},
        },
    });
    world.apply(&archived).await;
    let deleted = world.until("ntf", "n", |n| n["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(deleted["status"]["phase"], "Delivered");
    operator.restart().await.unwrap();
    operator.ready(crate::world::PATIENCE).await.unwrap();
    world.notification("marker", "shop", json!({"id": "marker", "source": "/shop", "type": "order.paid"})).await;
    world.until_phase("marker", "Delivered").await;
    assert_eq!(world.get("ntf", "n").await["status"]["phase"], "Delivered");
    let stored = ["patch", "ntf", "n", "--type=merge", "-p", "{\"metadata\":{\"finalizers\":null}}"];
    world.kubectl(&stored).await.ok().unwrap();
    world.kubectl(&["wait", "--for=delete", "ntf/n", "--timeout=30s"]).await.ok().unwrap();
    let ids: Vec<_> = world.posts(&path("shop")).iter().map(|request| request.event_id().unwrap()).collect();
    assert_eq!(ids, ["n", "marker"]);
}
