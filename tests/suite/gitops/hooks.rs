//! Hooks of Argo CD and Helm, as `docs/gitops.md` shows them.

use std::{fs, path::Path};

use serde_json::json;
use testkit::chart;

use crate::{
    cluster::{cluster, namespace},
    gitops::{page, suspend},
    world::{CLIENT, World},
};

/// The example of a hook on the page that contains this text.
fn example(text: &str) -> String {
    let page = page();
    let mut examples = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    examples.find(|example| example.contains(text)).unwrap().to_owned()
}

#[tokio::test]
async fn gitops_the_hook_of_argo_cd_is_accepted_by_the_api_server() {
    let plane = cluster().await;
    let namespace = namespace(plane, "hook").await;
    let create = ["create", "-n", &namespace, "--validate=strict", "-o", "name", "-f", "-"];
    let hook = example("argocd.argoproj.io/hook");
    let created = plane.admin().run_with_input(&create, &hook).await.unwrap().ok().unwrap();
    assert!(created.starts_with("notification.tidings.dev/deployed-"), "{created}");
}

/// The chart of the example in `docs/gitops.md`, with these further annotations of the hook.
fn release(folder: &Path, annotations: &str) {
    fs::create_dir_all(folder.join("templates")).unwrap();
    fs::write(folder.join("Chart.yaml"), "apiVersion: v2\nname: deployed\nversion: 1.0.0\n").unwrap();
    let hook = example("helm.sh/hook").replace("name: acme", "name: shop");
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
