//! Reads the files of `examples/` and adapts them to this machine.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{Authority, Error, Identity, Result};

/// The endpoints that the examples name.
const WEBHOOK: &str = "https://hooks.acme.example";
const TOKEN_SERVICE: &str = "https://login.acme.example";
const CA_CONFIG_MAP: &str = "corp-ca";

pub(crate) struct Example {
    pub(crate) file: String,
    text: String,
}

pub(crate) struct Adapted {
    pub(crate) file: String,
    objects: Vec<Value>,
}

/// Reads every YAML file of the folder, `quickstart.yaml` first.
pub(crate) fn read(folder: &Path) -> Result<Vec<Example>> {
    let failed = |error| Error::new(format!("cannot read {}: {error}", folder.display()));
    let mut examples = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            examples.push(Example { file, text: fs::read_to_string(&path)? });
        }
    }
    examples.sort_by_key(|example| (example.file != "quickstart.yaml", example.file.clone()));
    Ok(examples)
}

impl Example {
    /// Replaces the URLs, and takes the certificates in the ConfigMap `corp-ca` and the client certificates from
    /// `authority`.
    pub(crate) fn adapt(self, webhook: &str, token_service: &str, authority: &Authority) -> Result<Adapted> {
        let mut text = self.text;
        for (example, here) in [(WEBHOOK, webhook), (TOKEN_SERVICE, token_service)] {
            // The examples contain URLs, and host names without a scheme.
            text = text.replace(example, here).replace(host(example), host(here));
        }
        let failed = |error| Error::new(format!("cannot parse examples/{}: {error}", self.file));
        let documents = serde_yaml::Deserializer::from_str(&text).map(Value::deserialize);
        let mut objects = documents.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        objects.retain(|object| !object.is_null());
        for object in &mut objects {
            if object["kind"] == "ConfigMap" && object["metadata"]["name"] == CA_CONFIG_MAP {
                let data = object["data"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut);
                data.for_each(|value| *value = authority.ca_pem().into());
            }
            if object["type"] == "kubernetes.io/tls" {
                let Identity { certificate_pem, key_pem } = authority.client_identity("tidings");
                object["stringData"] = json!({"tls.crt": certificate_pem, "tls.key": key_pem});
            }
        }
        Ok(Adapted { file: self.file, objects })
    }
}

fn host(url: &str) -> &str {
    let authority = url.trim_start_matches("https://");
    authority.split(['/', ':']).next().unwrap_or(authority)
}

impl Adapted {
    /// All objects as one JSON list for kubectl.
    pub(crate) fn manifests(&self) -> String {
        json!({"apiVersion": "v1", "kind": "List", "items": self.objects}).to_string()
    }

    pub(crate) fn notifications(&self) -> impl Iterator<Item = String> {
        let notifications = self.objects.iter().filter(|object| object["kind"] == "Notification");
        notifications.filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_and_certificate_of_the_examples_is_replaced() {
        let examples = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"))).unwrap();
        assert_eq!(examples[0].file, "quickstart.yaml");
        for example in examples {
            let adapted = example.adapt("https://127.0.0.1:1", "https://127.0.0.1:2", &Authority::new()).unwrap();
            let manifests = adapted.manifests();
            assert!(!manifests.contains("acme.example"), "{}: {manifests}", adapted.file);
            assert!(!manifests.contains("CERT\\n-"), "{}: {manifests}", adapted.file);
            assert_ne!(adapted.notifications().count(), 0, "{}", adapted.file);
        }
    }
}
