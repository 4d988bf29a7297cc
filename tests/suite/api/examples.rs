//! The API server accepts every example unchanged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde::Deserialize;
use serde_json::Value;

use crate::cluster::{cluster, files, namespace, root};

#[tokio::test]
async fn every_example_is_accepted_by_the_api_server() {
    let plane = cluster().await;
    let namespace = namespace(plane, "examples").await;
    for (name, manifest) in files("examples") {
        let applied = plane.admin().apply(&manifest, &["-n", &namespace, "--validate=strict"]).await;
        let applied = applied.unwrap_or_else(|error| panic!("examples/{name}: {error}"));
        assert!(applied.contains("notification.tidings.dev/"), "examples/{name} shows no Notification: {applied}");
    }
}

/// The pages that show manifests, each with its path and text.
fn pages() -> Vec<(String, String)> {
    let of_folder = |folder: &str| {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let pages =
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
        pages.collect::<Vec<_>>()
    };
    let pages = ["", "docs", "charts/tidings"].into_iter().flat_map(of_folder);
    pages
        .map(|page| {
            let name = page.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&page).unwrap())
        })
        .collect()
}

/// The YAML blocks of a page, also those inside lists.
fn yaml_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        match (&mut block, line.trim()) {
            (None, "```yaml") => block = Some(String::new()),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(block), _) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[test]
fn yaml_blocks_are_the_lines_between_their_fences() {
    let page =
        "a\n```yaml\nkind: A\n---\nkind: B\n```\n```sh\nkind: C\n```\n- b\n  ```yaml\n  kind: D\n  ```\nkind: E\n";
    assert_eq!(yaml_blocks(page), ["kind: A\n---\nkind: B\n", "  kind: D\n"]);
}

#[tokio::test]
async fn every_subscriber_on_the_pages_is_accepted_by_the_api_server() {
    let plane = cluster().await;
    let namespace = namespace(plane, "pages").await;
    let args = ["-n", &namespace, "--validate=strict", "--dry-run=server"];
    let mut accepted = BTreeMap::new();
    for (name, page) in pages() {
        for block in yaml_blocks(&page).iter().filter(|block| block.contains("kind: Subscriber")) {
            let applied = plane.admin().apply(block, &args).await;
            applied.unwrap_or_else(|error| panic!("{name}: {error}\n{block}"));
            *accepted.entry(name.clone()).or_insert(0) += 1;
        }
    }
    assert!(accepted.contains_key("README.md"), "{accepted:?}");

    // One for each token service in the table, and a misspelled field is refused.
    let (_, page) = pages().into_iter().find(|(name, _)| name == "docs/token-services.md").unwrap();
    let services = page.lines().filter(|line| line.starts_with("| [")).count();
    assert!(services > 7 && accepted["docs/token-services.md"] == services, "{services} services, {accepted:?}");
    let block =
        yaml_blocks(&page).into_iter().find(|block| block.contains("kind: Subscriber") && block.contains("scopes:"));
    let block = block.unwrap();
    let refused = plane.admin().apply(&block.replace("scopes:", "scope:"), &args).await.unwrap_err().to_string();
    assert!(refused.contains("spec.tokenService.scope"), "{refused}");
}

/// The paths of all fields below `schema` that name another object.
fn references(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    if path.ends_with("Ref") || path.ends_with("/serviceAccountToken") {
        into.insert(format!("{path}/name"));
    }
    if schema["items"].is_object() {
        references(&schema["items"], path, into);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        references(field, &path, into);
    }
}

/// The names that `value` refers to.
fn named<'a>(value: &'a Value) -> Vec<&'a str> {
    let of_field = |(key, field): (&String, &'a Value)| {
        let name = field["name"].as_str().filter(|_| key.ends_with("Ref"));
        name.into_iter().chain(named(field)).collect::<Vec<_>>()
    };
    match value {
        Value::Object(fields) => fields.iter().flat_map(of_field).collect(),
        Value::Array(items) => items.iter().flat_map(named).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn field_26_kustomize_renames_every_reference_of_subscribers_and_notifications() {
    let plane = cluster().await;
    let namespace = namespace(plane, "kustomize").await;
    let folder = root().join("examples/kustomize");
    let built = plane.kubectl(&["kustomize", folder.to_str().unwrap()]).await.unwrap().ok().unwrap();
    plane.admin().apply(&built, &["-n", &namespace, "--validate=strict", "--dry-run=server"]).await.unwrap();
    let objects: Vec<_> =
        serde_yaml::Deserializer::from_str(&built).map(|document| Value::deserialize(document).unwrap()).collect();
    let names: BTreeSet<_> = objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with("shop-")), "{names:?}");
    let used: Vec<_> = objects.iter().flat_map(|object| named(&object["spec"])).collect();
    assert!(used.len() == 10 && used.iter().all(|name| names.contains(name)), "{used:?}, {names:?}");

    // The configuration has each field of the schemas that names an object.
    let configured: Value =
        serde_yaml::from_str(&fs::read_to_string(folder.join("kustomizeconfig.yaml")).unwrap()).unwrap();
    let specs =
        configured["nameReference"].as_array().unwrap().iter().flat_map(|of| of["fieldSpecs"].as_array().unwrap());
    let configured: BTreeSet<_> = specs.map(|spec| spec["path"].as_str().unwrap().to_owned()).collect();
    let mut fields = BTreeSet::new();
    for manifest in tidings_api::manifests().unwrap() {
        let manifest = serde_json::to_value(manifest).unwrap();
        for version in manifest["spec"]["versions"].as_array().into_iter().flatten() {
            references(&version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec", &mut fields);
        }
    }
    assert_eq!(configured, fields);
}
