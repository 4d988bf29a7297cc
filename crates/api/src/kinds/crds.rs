//! The manifests that an administrator applies: both CustomResourceDefinitions and the admission policies.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{Notification, Subscriber, admission_policy, secret_access_policy};

/// The CustomResourceDefinition of Subscriber.
pub fn subscriber_crd() -> CustomResourceDefinition {
    with_initial_status(Subscriber::crd(), json!({ "observedGeneration": -1 }))
}

/// The CustomResourceDefinition of Notification.
pub fn notification_crd() -> CustomResourceDefinition {
    with_initial_status(
        Notification::crd(),
        json!({ "observedGeneration": -1, "phase": "Pending", "reason": "Queued", "attempts": 0 }),
    )
}

/// Everything in `crds/`, one value for each YAML document, in the order to apply them.
pub fn manifests() -> Result<Vec<Value>, serde_json::Error> {
    let mut manifests = vec![serde_json::to_value(subscriber_crd())?, serde_json::to_value(notification_crd())?];
    for (policy, binding) in [admission_policy(), secret_access_policy()] {
        manifests.extend([serde_json::to_value(policy)?, serde_json::to_value(binding)?]);
    }
    Ok(manifests)
}

/// Sets the default of `status`, so that a new object is unfinished without a write by the operator, and removes what
/// the generator adds against the API conventions.
fn with_initial_status(mut crd: CustomResourceDefinition, status: Value) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        tidy(schema);
        if let Some(properties) = &mut schema.properties
            && let Some(schema) = properties.get_mut("status")
        {
            schema.default = Some(JSON(status.clone()));
            schema.description = Some("Observed state. Only the operator writes it.".into());
        }
    }
    crd
}

/// Adapts a generated schema: optional fields are omitted rather than null, and Kubernetes has no unsigned formats.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    // Doc comments wrap for the editor; kubectl explain wraps for the terminal.
    schema.description = schema.description.take().map(|text| text.replace('\n', " "));
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = Some(if schema.format.as_deref() == Some("uint64") { "int64" } else { "int32" }.into());
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        tidy(property);
    }
    if let Some(items) = &mut schema.items {
        use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray as Items;
        match items {
            Items::Schema(schema) => tidy(schema),
            Items::Schemas(schemas) => schemas.iter_mut().for_each(tidy),
        }
    }
}
