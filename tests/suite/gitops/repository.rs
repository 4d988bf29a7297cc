//! `examples/gitops/`: what a tool applies, and what it waits for.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{Behaviour, chart};

use super::{
    health::{argo_cd, flux},
    run, shell_blocks,
};
use crate::{
    cluster::root,
    world::{CLIENT, World, path},
};

/// Copies a folder; `change` alters each file.
fn copy(from: &Path, to: &Path, change: &impl Fn(&str) -> String) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to, change),
            false => fs::write(to, change(&fs::read_to_string(entry.path()).unwrap())).unwrap(),
        }
    }
}

fn documents(manifests: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(manifests).map(|document| Value::deserialize(document).unwrap()).collect()
}

#[tokio::test]
async fn gitops_the_example_is_applied_in_steps_and_waits_for_the_test_of_the_subscriber() {
    let world = World::alone("repository").await;
    let admin = world.plane.admin();
    chart::install_gitops_crds(admin).await.unwrap();
    admin.run(&["create", "namespace", "flux-system"]).await.unwrap().ok().unwrap();
    let example = root().join("examples/gitops");
    let of_flux = fs::read_to_string(example.join("flux.yaml")).unwrap();
    admin.apply(&of_flux, &["--validate=strict"]).await.unwrap();

    // The example, with endpoints that exist.
    let folder = world.plane.folder().join(&world.namespace);
    let tls = "\n    tls:\n      caRef: {kind: ConfigMap, name: webhook-ca}\n";
    copy(&example, &folder, &|text| {
        text.replace("https://hooks.acme.example/events\n", &format!("{}\n", world.receiver.url("/acme")))
            .replace("https://login.acme.example/oauth2/token\n", &format!("{}{tls}", world.tokens.url()))
            .replace("namespace: shop\n", &format!("namespace: {}\n", world.namespace))
            .replace("literals: [ca.crt=replace-me]", "files: [ca.crt]")
    });
    fs::write(folder.join("shop/webhook/ca.crt"), world.authority.ca_pem()).unwrap();
    let _operator = world.operator().await;

    // The order in which Flux applies the folders.
    let mut before = None;
    for kustomization in documents(&of_flux) {
        let name = kustomization["metadata"]["name"].as_str().unwrap();
        assert_eq!(kustomization["spec"]["dependsOn"][0]["name"].as_str(), before.as_deref(), "{name}");
        before = Some(name.to_owned());
        let path = kustomization["spec"]["path"].as_str().unwrap();
        let built = admin.run(&["kustomize", folder.join(path).to_str().unwrap()]).await.unwrap().ok().unwrap();
        admin.apply(&built, &["-n", &world.namespace, "--validate=strict"]).await.unwrap();
        match name {
            // What External Secrets does.
            "shop-secrets" => {
                let external = &documents(&built)[0]["spec"];
                assert_eq!((&external["target"]["name"], &external["data"]), (&json!("acme-oauth"), &json!(null)));
                assert_eq!(CLIENT.0, "acme");
                world.secret(CLIENT.1).await;
            }
            "shop-webhook" => {
                let [bundle, subscriber] = &documents(&built)[..] else { panic!("{built}") };
                let hashed = bundle["metadata"]["name"].as_str().unwrap();
                assert!(hashed.starts_with("webhook-ca-"), "{hashed}");
                assert_eq!(subscriber["spec"]["webhook"]["tls"]["caRef"]["name"], hashed);
                let tested = world.until("subscriber", "acme", |s| flux(s) == "Current").await;
                assert_eq!(tested["status"]["lastHandledTest"], "2026-11-29");
                assert_eq!(argo_cd(&tested).0, "Healthy");
            }
            _ => {}
        }
    }
    assert_eq!(before.as_deref(), Some("shop-events"));
    let delivered = world.until("notification", "shop-1.4.0-released", |n| flux(n) == "Current").await;
    assert_eq!((argo_cd(&delivered).0.as_str(), &delivered["status"]["phase"]), ("Healthy", &json!("Delivered")));
    let ids: Vec<_> = world.posts(&path("acme")).iter().map(|request| request.event_id().unwrap()).collect();
    assert!(ids.len() == 2 && ids[1] == "shop-1.4.0-released", "{ids:?}");

    // What Argo CD applies at once is the same.
    let all = admin.run(&["kustomize", folder.join("shop").to_str().unwrap()]).await.unwrap().ok().unwrap();
    let again = admin.apply(&all, &["--validate=strict"]).await.unwrap();
    assert!(again.lines().count() == 4 && again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    let waves = documents(&all).into_iter().filter_map(|object| {
        let wave = object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"].as_str()?.to_owned();
        Some((object["kind"].as_str().unwrap().to_owned(), wave))
    });
    let waves: Vec<_> = waves.collect();
    assert_eq!(waves, [("ExternalSecret".into(), "-1".into()), ("Notification".into(), "1".into())]);

    // The commands of the README, with a test that passes and one that fails.
    let readme = fs::read_to_string(example.join("README.md")).unwrap();
    let commands = shell_blocks(&readme).into_iter().find(|block| block.contains("condition=Tested")).unwrap();
    run(&world, &folder, &commands).await.ok().unwrap();
    world.receiver.answer_always(&path("acme"), Behaviour::status(401));
    let subscriber = folder.join("shop/webhook/subscriber.yaml");
    let changed = fs::read_to_string(&subscriber).unwrap().replace("\"2026-11-29\"", "\"2026-11-30\"");
    fs::write(subscriber, changed).unwrap();
    let failed = run(&world, &folder, &commands.replace("2026-11-29", "2026-11-30")).await;
    assert!(!failed.success && failed.stderr.contains("condition"), "{failed:?}");
    let failed = world.get("subscriber", "acme").await;
    let (status, message) = argo_cd(&failed);
    assert!(status == "Degraded" && message.contains("DeliveryTestFailed") && message.contains("401"), "{message}");
    assert_eq!(flux(&failed), "Failed");
}

#[test]
fn gitops_the_example_has_the_configuration_of_the_kustomize_example() {
    let read = |folder: &str| fs::read_to_string(root().join(folder).join("kustomizeconfig.yaml")).unwrap();
    assert_eq!(read("examples/gitops/shop/webhook"), read("examples/kustomize"));
}

#[test]
fn gitops_the_application_of_argo_cd_names_a_folder_that_exists() {
    let application = fs::read_to_string(root().join("examples/gitops/argocd.yaml")).unwrap();
    let application: Value = serde_yaml::from_str(&application).unwrap();
    let folder = application["spec"]["source"]["path"].as_str().unwrap();
    assert!(root().join("examples/gitops").join(folder).join("kustomization.yaml").is_file());
}
