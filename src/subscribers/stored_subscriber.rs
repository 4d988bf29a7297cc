//! Reads a Subscriber as the API server stores it. If this version of the operator cannot read the spec, only this
//! Subscriber is affected, never the list or watch that shows it.

use std::{borrow::Cow, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, ResourceExt, core::NamespaceResourceScope};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tidings_api::{REQUEST_ANNOTATION, Subscriber, SubscriberSpec, SubscriberStatus, TEST_ANNOTATION, if_readable};
use tidings_queue::{SpecVersion, SubscriberKey};
use url::Url;

use super::times::seconds;

/// The maximum of `expireAfterSeconds`.
const LONGEST_EXPIRY: u32 = 365 * 24 * 3600;

/// A Subscriber as the watch shows it: its metadata and status, and its spec or the fault that makes the spec
/// unreadable.
#[derive(Clone, Debug, Deserialize)]
pub struct StoredSubscriber {
    /// The name, namespace, uid, resourceVersion, generation, creationTimestamp, and the two annotations that the
    /// operator obeys. Nothing else is kept.
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    /// The spec, or why this version cannot read it.
    #[serde(default = "no_spec", deserialize_with = "spec")]
    pub spec: Result<Box<SubscriberSpec>, Unreadable>,
    /// The status. Parts that cannot be read count as absent.
    #[serde(default, deserialize_with = "if_readable")]
    pub status: SubscriberStatus,
}

/// Why a spec cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Which field cannot be read, why, and what to do.
    pub message: String,
    /// `spec.delivery.expireAfterSeconds`, if at least that can be read.
    pub expire_after_seconds: Option<u32>,
}

impl StoredSubscriber {
    /// The namespace and name.
    pub fn key(&self) -> SubscriberKey {
        SubscriberKey { namespace: self.namespace().unwrap_or_default().into(), name: self.name_any().into() }
    }

    /// The uid and the generation of the spec.
    pub fn id(&self) -> SpecVersion {
        SpecVersion::new(self.uid().unwrap_or_default(), self.metadata.generation.unwrap_or_default())
    }

    /// After what time a Notification of this Subscriber expires, if it may expire. If the field cannot be read, this
    /// is the latest time that the API allows.
    pub fn expire_after(&self) -> Duration {
        seconds(match &self.spec {
            Ok(spec) => spec.delivery.expire_after_seconds,
            Err(fault) => fault.expire_after_seconds.unwrap_or(LONGEST_EXPIRY),
        })
    }

    /// The host of the webhook, or an empty string if the spec names no host.
    pub fn webhook_host(&self) -> String {
        let url = self.spec.as_ref().ok().and_then(|spec| Url::parse(&spec.webhook.url.0).ok());
        url.as_ref().and_then(Url::host_str).unwrap_or_default().to_owned()
    }

    /// Whether a reconcile of `other`, an earlier state of the Subscriber, is sufficient for this one.
    pub fn has_same_requests_as(&self, other: &Self) -> bool {
        self.metadata.uid == other.metadata.uid
            && self.metadata.generation == other.metadata.generation
            && self.metadata.annotations == other.metadata.annotations
    }
}

impl Resource for StoredSubscriber {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Subscriber::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Subscriber::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Subscriber::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Subscriber::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

fn spec<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Result<Box<SubscriberSpec>, Unreadable>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let expire_after_seconds = value
        .pointer("/delivery/expireAfterSeconds")
        .and_then(Value::as_u64)
        .and_then(|seconds| seconds.try_into().ok());
    Ok(serde_path_to_error::deserialize(value).map(Box::new).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => "spec".to_owned(),
            path => format!("spec.{path}"),
        };
        Unreadable {
            message: format!(
                "{field}: {}: this version of the operator cannot read the field: correct the field, or run a version of the operator that supports it",
                error.inner()
            ),
            expire_after_seconds,
        }
    }))
}

fn no_spec() -> Result<Box<SubscriberSpec>, Unreadable> {
    Err(Unreadable { message: "spec: the field is missing: set it".into(), expire_after_seconds: None })
}

/// Reads only a few of the fields, because managedFields would use most of the memory.
fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct SlimSubscriber {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        annotations: Option<Annotations>,
    }
    #[derive(Deserialize)]
    struct Annotations {
        #[serde(rename = "tidings.dev/reconcile-requested-at")]
        request: Option<String>,
        #[serde(rename = "tidings.dev/test-requested-at")]
        test: Option<String>,
    }
    SlimSubscriber::deserialize(deserializer).map(|slim| ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        generation: slim.generation,
        creation_timestamp: slim.creation_timestamp,
        annotations: slim.annotations.map(|Annotations { request, test }| {
            let named = [(REQUEST_ANNOTATION, request), (TEST_ANNOTATION, test)];
            named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
        }),
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A Subscriber as the API server may store it.
    fn stored(change: impl FnOnce(&mut Value)) -> Value {
        let mut stored = json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber",
            "metadata": {
                "name": "s", "namespace": "a", "uid": "u", "resourceVersion": "7", "generation": 2,
                "annotations": {"tidings.dev/reconcile-requested-at": "1", "example.com/other": "x"},
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {
                "webhook": {"url": "https://hooks.example.com/"},
                "tokenService": {"url": "https://login.example.com/", "credentialsSecretRef": {"name": "oauth"}},
                "delivery": {"expireAfterSeconds": 604800},
            },
        });
        change(&mut stored);
        stored
    }

    fn read(change: impl FnOnce(&mut Value)) -> StoredSubscriber {
        serde_json::from_value(stored(change)).unwrap()
    }

    #[test]
    fn a_spec_that_cannot_be_read_names_the_field_and_hides_no_other_subscriber() {
        let subscriber = read(|stored| stored["spec"]["webhook"]["contentMode"] = "Telepathic".into());
        let Unreadable { message, expire_after_seconds } = subscriber.spec.unwrap_err();
        assert!(message.starts_with("spec.webhook.contentMode: unknown variant `Telepathic`"), "{message}");
        assert!(message.contains("correct the field"), "{message}");
        assert_eq!(expire_after_seconds, Some(604_800));
        let least = read(|stored| stored["spec"] = json!({"delivery": {"expireAfterSeconds": "soon"}}));
        assert_eq!(least.expire_after(), Duration::from_secs(LONGEST_EXPIRY.into()));
        let list = json!({"metadata": {}, "items": [
            stored(|_| ()),
            stored(|stored| stored["spec"]["webhook"]["headers"] = json!([{"name": "X"}, {"name": 7}])),
            stored(|stored| drop(stored.as_object_mut().unwrap().remove("spec"))),
            stored(|stored| stored["status"] = json!({"observedGeneration": "odd"})),
        ]});
        let list: kube::core::ObjectList<StoredSubscriber> = serde_json::from_value(list).unwrap();
        let specs: Vec<_> = list.items.iter().map(|item| item.spec.as_ref().map(drop)).collect();
        assert!(specs[0].is_ok() && specs[3].is_ok());
        assert!(specs[1].unwrap_err().message.starts_with("spec.webhook.headers[1].name: "), "{specs:?}");
        assert!(specs[2].unwrap_err().message.starts_with("spec: the field is missing"), "{specs:?}");
    }

    #[test]
    fn only_changes_that_request_another_reconcile_make_a_difference() {
        let first = read(|_| ());
        assert!(first.metadata.managed_fields.is_none());
        assert!(first.has_same_requests_as(&read(|stored| {
            stored["metadata"]["resourceVersion"] = "8".into();
            stored["metadata"]["annotations"]["example.com/other"] = "y".into();
            stored["status"] = json!({"pending": 1});
        })));
        for (field, value) in [("generation", json!(3)), ("uid", json!("v")), ("annotations", json!({}))] {
            assert!(!first.has_same_requests_as(&read(|stored| stored["metadata"][field] = value)), "{field}");
        }
    }
}
