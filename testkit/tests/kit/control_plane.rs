use std::time::Duration;

use tidings_testkit::control_plane::Kubectl;
use tidings_testkit::{ControlPlane, Part};

use crate::process::{is_alive, until};

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_and_leaves_nothing_behind() {
    let plane = ControlPlane::start().await.unwrap();
    let namespaces = plane.kubectl(&["get", "ns", "-o", "name"]).await.unwrap().ok().unwrap();
    assert!(namespaces.contains("namespace/default"), "{namespaces}");
    let (pids, folder) = (plane.pids().await, plane.folder().to_owned());
    assert!(pids.into_iter().all(is_alive) && folder.exists());
    drop(plane);
    until("gone", || !pids.into_iter().any(is_alive) && !folder.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_has_only_its_permissions_and_its_writes_are_audited() {
    let plane = ControlPlane::shared().await.unwrap();
    let run = async |args: &[&str]| plane.kubectl(args).await.unwrap().ok().unwrap();
    run(&["create", "namespace", "audited"]).await;
    run(&["create", "serviceaccount", "writer", "-n", "audited"]).await;
    run(&["create", "role", "writer", "-n", "audited", "--verb=create,get", "--resource=configmaps"]).await;
    run(&["create", "rolebinding", "w", "-n", "audited", "--role=writer", "--serviceaccount=audited:writer"]).await;
    let token = run(&["create", "token", "writer", "-n", "audited"]).await;
    let kubeconfig = plane.kubeconfig_for_token("writer", token.trim()).unwrap();
    let writer = Kubectl::new(&kubeconfig);
    let manifest = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}}"#;
    writer.apply(manifest, &["-n", "audited"]).await.unwrap();
    let refused = writer.run(&["get", "secrets", "-n", "audited"]).await.unwrap();
    assert!(!refused.success && refused.stderr.contains("Forbidden"), "{refused:?}");

    // The log may be written shortly after the responses, and keeps their order only for each client.
    let mut writes = Vec::new();
    for _ in 0..100 {
        let events = plane.audit().await.unwrap();
        writes = events.into_iter().filter(|event| event.is_write_to("configmaps", "", "audited")).collect();
        if !writes.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let [write] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((write.verb.as_str(), write.name.as_str(), write.code), ("create", "note", 201));
    assert_eq!(write.user, "system:serviceaccount:audited:writer");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_parts_can_be_stopped_and_restarted_and_keep_their_data() {
    let plane = ControlPlane::start().await.unwrap();
    plane.kubectl(&["create", "namespace", "kept"]).await.unwrap().ok().unwrap();
    plane.signal(Part::ApiServer, "STOP").await.unwrap();
    let get = ["get", "ns", "kept", "--request-timeout=1s"];
    assert!(!plane.kubectl(&get).await.unwrap().success, "a stopped API server responded");
    plane.signal(Part::ApiServer, "CONT").await.unwrap();
    plane.ready(Duration::from_secs(30)).await.unwrap();
    let (url, before) = (plane.url(), plane.pids().await);
    plane.restart_api_server().await.unwrap();
    plane.restart(Part::Etcd).await.unwrap();
    let after = plane.pids().await;
    assert!(before[0] != after[0] && before[1] != after[1] && plane.url() == url);
    plane.kubectl(&["get", "ns", "kept"]).await.unwrap().ok().unwrap();
}
