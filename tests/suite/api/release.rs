//! A release of the chart in a cluster with all its controllers: garbage collection, deletion of namespaces, quotas,
//! aggregated roles, and Pods for the Deployment. No kubelet runs the Pods: the test runs the operator with the
//! arguments of the Deployment, as the ServiceAccount of the release.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};
use testkit::{
    Client, ControlPlane, Operator, Stage, chart, control_plane::Kubectl, endpoints::Received, process::Process,
};
use tokio::{sync::OnceCell, time::sleep};

use crate::{
    api::chart::{objects, of_kind},
    cluster::{cluster, render_chart, root, unique},
    world::{CLIENT, PATIENCE, binary},
};

/// The namespace of the release.
const SYSTEM: &str = "tidings-system";
/// What an administrator sets. The test's endpoints are on loopback.
const VALUES: [&str; 4] =
    ["--set", "image.repository=registry.example.com/tidings", "--set", "egress.allowCIDRs={127.0.0.1/32}"];

/// What installs the release.
const INSTALL: [&str; 6] = ["install", "tidings", chart::PATH, "-n", SYSTEM, "--create-namespace"];

/// A control plane with the controller-manager and the release, which one test removes; its CustomResourceDefinitions
/// stay.
async fn plane() -> &'static ControlPlane {
    static PLANE: OnceCell<(ControlPlane, Process)> = OnceCell::const_new();
    let start = async || {
        let plane = ControlPlane::start().await.unwrap();
        let controllers = plane.start_controllers().await.unwrap();
        chart::release(&plane, &INSTALL, &VALUES).unwrap();
        (plane, controllers)
    };
    &PLANE.get_or_init(start).await.0
}

/// Runs kubectl until it succeeds and prints what `is_right` accepts. The controllers work at their own pace: they see a
/// new kind of object within half a minute.
async fn until(kubectl: &Kubectl, args: &[&str], is_right: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    for _ in 0..600 {
        let output = kubectl.run(args).await.unwrap();
        if output.success && is_right(&output.stdout) {
            return output.stdout;
        }
        last = format!("{}{}", output.stdout, output.stderr);
        sleep(Duration::from_millis(200)).await;
    }
    panic!("kubectl {args:?}: {last}");
}

/// Starts the operator as the Pod of the Deployment would.
async fn operator(plane: &ControlPlane) -> Operator {
    let deployment = plane.kubectl(&["get", "deployment", "tidings", "-n", SYSTEM, "-o", "json"]).await.unwrap();
    let deployment: Value = serde_json::from_str(&deployment.ok().unwrap()).unwrap();
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().clone();
    // The kit chooses free ports.
    let of_kit = |arg: &&str| ["run", "--admin-addr", "--health-addr"].contains(&arg.split('=').next().unwrap());
    let args: Vec<_> = args.iter().map(|arg| arg.as_str().unwrap()).filter(|arg| !of_kit(arg)).collect();
    let token = chart::token(plane, SYSTEM).await.unwrap();
    let kubeconfig = plane.kubeconfig_for_token("release", &token).unwrap();
    let operator = Operator::start(binary(), &kubeconfig, &args, &[]).await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    operator
}

fn notification(name: &str) -> String {
    let event = json!({"id": name, "source": "/shop", "type": "com.example.paid", "data": {"n": 1}});
    let spec = json!({"subscriberRef": {"name": "acme"}, "event": event});
    json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

#[tokio::test]
async fn a_release_is_installed_upgraded_removed_and_installed_again_and_no_event_is_lost() {
    let plane = plane().await;
    let admin = plane.admin();
    // Deployment to ReplicaSet to Pods, as for any workload.
    let pods = ["get", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=tidings", "-o", "name"];
    until(admin, &pods, |names| names.lines().count() == 2).await;
    until(admin, &["get", "pdb", "tidings", "-n", SYSTEM, "-o", "jsonpath={.status.expectedPods}"], |n| n == "2").await;

    // A tenant with the role edit of Kubernetes applies a Subscriber and a Notification.
    let namespace = unique("tenant");
    let client = Client::new(CLIENT.0, CLIENT.1);
    let stage =
        Stage::builder().on(plane).namespaces(&[&namespace]).client(client.clone()).as_admin().bundle("test-ca");
    let stage = stage.credentials("acme-oauth", move |_| client.clone()).set().await.unwrap();
    let bind = ["create", "rolebinding", "tessa", "--clusterrole=edit", "--user=tessa", "-n", &namespace];
    admin.run(&bind).await.unwrap().ok().unwrap();
    let as_tenant = ["-n", namespace.as_str(), "--as=tessa"];
    let can = [&["auth", "can-i", "create", "subscribers.tidings.dev"], &as_tenant[..]].concat();
    until(admin, &can, |answer| answer.trim() == "yes").await;
    let endpoints = stage.endpoints();
    let tls = json!({"caRef": {"kind": "ConfigMap", "name": "test-ca"}});
    let subscriber = json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": "acme"},
        "spec": {
            "webhook": {"url": endpoints.receiver.url("/events"), "tls": tls},
            "tokenService": {"url": endpoints.tokens.url(), "credentialsSecretRef": {"name": "acme-oauth"}, "tls": tls},
        },
    });
    let apply = async |manifest: &str| {
        let args = [&["apply", "-f", "-"], &as_tenant[..]].concat();
        admin.run_with_input(&args, manifest).await.unwrap().ok().unwrap();
    };
    let phase = ["get", "notifications", "-n", &namespace, "-o", "jsonpath={.items[*].status.phase}"];
    let first = operator(plane).await;
    apply(&subscriber.to_string()).await;
    apply(&notification("first")).await;
    until(admin, &phase, |phases| phases == "Delivered").await;

    // An upgrade rolls the Pods over.
    let upgrade = ["upgrade", "tidings", chart::PATH, "-n", SYSTEM];
    chart::release(plane, &upgrade, &[&VALUES[..], &["--set", "limits.maxInFlight=64"]].concat()).unwrap();
    let replica_sets = ["get", "replicasets", "-n", SYSTEM, "-o", "name"];
    until(admin, &replica_sets, |names| names.lines().count() == 2).await;
    assert_eq!(first.terminate().await.unwrap(), 0);
    let second = operator(plane).await;
    apply(&notification("second")).await;
    until(admin, &phase, |phases| phases == "Delivered Delivered").await;
    assert_eq!(second.terminate().await.unwrap(), 0);

    // What is not delivered when the release is removed is delivered after the next installation.
    apply(&notification("third")).await;
    chart::release(plane, &["uninstall", "tidings", "-n", SYSTEM], &[]).unwrap();
    let left = "deployments,replicasets,pods,pdb,serviceaccounts,roles,rolebindings";
    let left = ["get", left, "-n", SYSTEM, "-l", "app.kubernetes.io/instance=tidings", "-o", "name"];
    until(admin, &left, str::is_empty).await;
    let cluster_wide =
        ["get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/instance=tidings", "-o", "name"];
    until(admin, &cluster_wide, str::is_empty).await;
    let kept = admin.run(&["get", "subscribers,notifications", "-n", &namespace, "-o", "name"]).await.unwrap();
    assert_eq!(kept.ok().unwrap().lines().count(), 4);
    chart::release(plane, &INSTALL, &VALUES).unwrap();
    let third = operator(plane).await;
    until(admin, &phase, |phases| phases == "Delivered Delivered Delivered").await;
    let ids: Vec<_> = endpoints.receiver.requests().iter().filter_map(Received::event_id).collect();
    assert_eq!(ids, ["first", "second", "third"]);

    // No object holds up the deletion of its namespace, not even while no operator runs.
    assert_eq!(third.terminate().await.unwrap(), 0);
    let delete = ["delete", "namespace", &namespace, "--timeout=120s"];
    admin.run(&delete).await.unwrap().ok().unwrap();
}

#[tokio::test]
async fn a_quota_limits_the_objects_of_a_tenant() {
    let plane = plane().await;
    let (release, tenant) = (unique("quota-release"), unique("quota-tenant"));
    for namespace in [&release, &tenant] {
        plane.kubectl(&["create", "namespace", namespace]).await.unwrap().ok().unwrap();
    }
    let watched = format!("watchNamespaces={{{tenant}}}");
    let quota = "policies.resourceQuota.enabled=true,policies.resourceQuota.subscribers=1,policies.resourceQuota.notifications=2";
    let values = [&VALUES[..], &["--set", &watched, "--set", "crds.install=false", "--set", quota]].concat();
    chart::release(plane, &["install", "quota", chart::PATH, "-n", &release], &values).unwrap();
    let counted = [
        "get",
        "resourcequota",
        "-n",
        &tenant,
        "-o",
        r"jsonpath={.items[*].status.used.count/notifications\.tidings\.dev}",
    ];
    until(plane.admin(), &counted, |used| used == "0").await;
    let create = async |name: &str| {
        let args = ["create", "-n", &tenant, "-f", "-"];
        plane.admin().run_with_input(&args, &notification(name)).await.unwrap()
    };
    for name in ["one", "two"] {
        create(name).await.ok().unwrap();
    }
    let refused = create("three").await;
    assert!(!refused.success && refused.stderr.contains("exceeded quota"), "{}{}", refused.stdout, refused.stderr);
    // A deleted Notification makes room.
    until(plane.admin(), &counted, |used| used == "2").await;
    plane.kubectl(&["delete", "notification", "one", "-n", &tenant]).await.unwrap().ok().unwrap();
    until(plane.admin(), &counted, |used| used == "1").await;
    create("three").await.ok().unwrap();
}

#[tokio::test]
async fn helm_test_runs_the_check_with_the_permissions_of_the_operator() {
    let plane = cluster().await;
    let (release, tenant) = (unique("check-release"), unique("check-tenant"));
    for namespace in [&release, &tenant] {
        plane.kubectl(&["create", "namespace", namespace]).await.unwrap().ok().unwrap();
    }
    let watched = format!("watchNamespaces={{{tenant}}}");
    let rendered = render_chart(&release, &["--set", &watched, "--set", "crds.install=false"]).unwrap();
    // The API server accepts the Pod of the test, too. No kubelet runs it: the program runs here with its arguments.
    plane.admin().apply(&rendered, &["--server-side", "--validate=strict"]).await.unwrap();
    let objects = objects(&rendered);
    let pod = of_kind(&objects, "Pod")[0];
    assert_eq!(pod["spec"]["automountServiceAccountToken"], true, "the ServiceAccount itself mounts no token");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    let args = pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let token = chart::token(plane, &release).await.unwrap();
    let kubeconfig = plane.kubeconfig_for_token(&release, &token).unwrap();
    let check = |args: &mut dyn Iterator<Item = &str>| {
        let output = Command::new(binary()).args(args).env("KUBECONFIG", &kubeconfig).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, text) = check(&mut args.clone());
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "the API server serves what the operator needs and permits what the operator does\n")
    );
    // The operator has no permission in other namespaces.
    let (code, text) = check(&mut args.clone().chain(["--watch-namespace=default"]));
    assert!(code == Some(1) && text.contains("list secrets in namespace default"), "{text}");
    assert!(!text.contains(&tenant), "{text}");
    // Each missing permission is named, and no other.
    let patch = r#"[{"op": "replace", "path": "/rules/2/verbs", "value": ["get"]}]"#;
    let patch = ["patch", "role", "tidings", "-n", &tenant, "--type=json", "-p", patch];
    plane.kubectl(&patch).await.unwrap().ok().unwrap();
    plane.kubectl(&["delete", "role", "tidings-lease", "-n", &release]).await.unwrap().ok().unwrap();
    let missing = format!(
        "delete notifications in namespace {tenant}, create leases in namespace {release}, get leases in namespace {release}, update leases in namespace {release}:"
    );
    let (code, text) = check(&mut args.clone());
    assert!(code == Some(1) && text.contains(&missing), "{text}");
}

#[tokio::test]
async fn the_guide_to_a_hardened_installation_works_as_it_is_written() {
    let plane = ControlPlane::start().await.unwrap();
    let _controllers = plane.start_controllers().await.unwrap();
    let page = std::fs::read_to_string(root().join("docs/multi-tenancy.md")).unwrap();
    let guide = page.split("\n## ").find(|section| section.starts_with("From zero")).unwrap();
    let blocks: Vec<_> = guide.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let (checks, steps) = blocks.split_last().unwrap();
    assert_eq!(steps.len(), 5);
    let run = |script: &str| {
        let path = testkit::binaries::search_path().unwrap();
        let shell = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(root())
            .env("PATH", path)
            .env("KUBECONFIG", plane.admin_kubeconfig())
            .output()
            .unwrap();
        (shell.status.success(), String::from_utf8([shell.stdout, shell.stderr].concat()).unwrap())
    };
    for step in steps {
        let (success, text) = run(step);
        assert!(success, "{step}\n{text}");
    }
    // The API server enforces a new policy within a few seconds.
    let commands: Vec<_> = checks.replace("\\\n", " ").lines().map(str::to_owned).collect();
    let refusals = ["no", "no", "may not use the host evil.example:443", "must be Required in this cluster"];
    assert_eq!(commands.len(), refusals.len());
    for (command, expected) in commands.iter().zip(refusals) {
        let mut answer = run(command);
        for _ in 0..100 {
            if !answer.0 {
                break;
            }
            sleep(Duration::from_millis(200)).await;
            answer = run(command);
        }
        assert!(!answer.0 && answer.1.contains(expected), "{command}\n{}", answer.1);
    }
    let objects =
        plane.kubectl(&["get", "resourcequotas,networkpolicies", "-A", "-o", "name"]).await.unwrap().ok().unwrap();
    assert_eq!(objects.lines().count(), 3, "{objects}");
}
