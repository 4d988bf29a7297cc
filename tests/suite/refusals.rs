//! Bad manifests are refused by the API server, with a message that says what to write instead.

use serde_json::{Value, json};
use testkit::ControlPlane;

use crate::cluster::{cluster, namespace};

async fn refusal(plane: &ControlPlane, namespace: &str, manifest: &Value) -> String {
    let args = ["apply", "-f", "-", "-n", namespace];
    let output = plane.admin().run_with_input(&args, &manifest.to_string()).await.unwrap();
    assert!(!output.success, "accepted: {manifest:#}");
    output.stderr
}

fn subscriber(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = json!({
        "webhook": {"url": "https://hooks.example.com/events"},
        "tokenService": {"url": "https://login.example.com/token", "credentialsSecretRef": {"name": "oauth"}},
    });
    change(&mut spec);
    json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": "s"}, "spec": spec})
}

fn notification(event: Value) -> Value {
    let spec = json!({"subscriberRef": {"name": "s"}, "event": event});
    json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": "n"}, "spec": spec})
}

#[tokio::test]
async fn a_bad_subscriber_is_refused_with_the_fields_name_and_what_to_write() {
    let plane = cluster().await;
    let namespace = namespace(plane, "refusals").await;
    let url = |url: &'static str| move |spec: &mut Value| spec["webhook"]["url"] = url.into();
    let cases = [
        (subscriber(url("http://hooks.example.com/")), "spec.webhook.url", "must be an absolute https URL"),
        (subscriber(url("hooks.example.com")), "spec.webhook.url", "must be an absolute https URL"),
        (subscriber(url("https://user:pass@hooks.example.com/")), "spec.webhook.url", "must not contain a user name"),
        (subscriber(url("https:///events")), "spec.webhook.url", "must name a host"),
        (subscriber(url("https://hooks.example.com/#now")), "spec.webhook.url", "must not contain a fragment"),
        (
            subscriber(|spec| spec["tokenService"]["url"] = "http://login.example.com/".into()),
            "spec.tokenService.url",
            "must be an absolute https URL",
        ),
        (
            subscriber(|spec| drop(spec.as_object_mut().unwrap().remove("tokenService"))),
            "spec.tokenService",
            "Required value",
        ),
        (
            subscriber(|spec| {
                spec["webhook"]["contentMode"] = "Binary".into();
                spec["webhook"]["contentType"] = "application/json".into();
            }),
            "spec.webhook",
            "contentType applies to contentMode Structured only",
        ),
        (
            subscriber(|spec| spec["webhook"]["contentMode"] = "Batched".into()),
            "spec.webhook.contentMode",
            "supported values",
        ),
        (
            subscriber(|spec| spec["webhook"]["timeoutSeconds"] = 61.into()),
            "spec.webhook.timeoutSeconds",
            "less than or equal to 60",
        ),
        (
            subscriber(|spec| spec["tokenService"]["scopes"] = json!(["a", "a"])),
            "spec.tokenService.scopes[1]",
            "Duplicate value",
        ),
        (
            subscriber(|spec| spec["tokenService"]["scopes"] = json!(["a b"])),
            "spec.tokenService.scopes[0]",
            "must be one scope",
        ),
        (
            subscriber(|spec| spec["tokenService"]["credentialsSecretRef"]["name"] = "../../other/secrets/x".into()),
            "spec.tokenService.credentialsSecretRef.name",
            "must be the name of an object",
        ),
        (
            subscriber(|spec| spec["delivery"] = json!({"backoff": {"initialSeconds": 10, "maxSeconds": 5}})),
            "spec.delivery.backoff",
            "initialSeconds must not be more than maxSeconds",
        ),
        (subscriber(|spec| spec["webhok"] = json!({})), "spec.webhok", "unknown field"),
    ];
    for (manifest, field, message) in cases {
        let refusal = refusal(plane, &namespace, &manifest).await;
        assert!(refusal.contains(field) && refusal.contains(message), "{field}: {message}: {refusal}");
    }
}

#[tokio::test]
async fn a_bad_notification_is_refused_with_the_attributes_name_and_what_to_write() {
    let plane = cluster().await;
    let namespace = namespace(plane, "refusals").await;
    let event = |more: Value| {
        let mut event = json!({"source": "/s", "type": "t"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        notification(event)
    };
    let cases = [
        (notification(json!({"type": "t"})), "spec.event.source", "Required value"),
        (notification(json!({"source": "/s"})), "spec.event.type", "Required value"),
        (event(json!({"source": ""})), "spec.event.source", "at least 1 chars"),
        (event(json!({"specversion": "0.3"})), "spec.event.specversion", "supported values: \"1.0\""),
        (event(json!({"time": "yesterday"})), "spec.event.time", "must be an RFC 3339 time"),
        (event(json!({"data": 1, "data_base64": "AA=="})), "spec.event", "data and data_base64 exclude each other"),
        (event(json!({"data_base64": "?"})), "spec.event.data_base64", "should match"),
        (
            event(json!({"Bad-Name": "x"})),
            "spec.event.Bad-Name:",
            "an attribute name has 1 to 20 lower-case letters and digits",
        ),
        (event(json!({"datacontenttype": "json"})), "spec.event.datacontenttype", "must be a media type"),
        (event(json!({"dataschema": "schema"})), "spec.event.dataschema", "must be an absolute URI"),
        (event(json!({"averyveryverylongattributename": "x"})), "spec.event", "an attribute name has 1 to 20"),
        (event(json!({"ext": 1.5})), "spec.event.ext:", "a string, a boolean or a 32-bit integer"),
        (event(json!({"ext": 4_294_967_296_u64})), "spec.event", "a string, a boolean or a 32-bit integer"),
        (event(json!({"ext": {"a": 1}})), "spec.event", "a string, a boolean or a 32-bit integer"),
    ];
    for (manifest, field, message) in cases {
        let refusal = refusal(plane, &namespace, &manifest).await;
        assert!(refusal.contains(field) && refusal.contains(message), "{field}: {message}: {refusal}");
    }
    let mut beside = event(json!({}));
    beside["spec"]["priority"] = 1.into();
    let refusal = refusal(plane, &namespace, &beside).await;
    assert!(refusal.contains("unknown field \"spec.priority\""), "{refusal}");
}

#[tokio::test]
async fn a_notifications_spec_cannot_be_changed_in_any_way() {
    let plane = cluster().await;
    let namespace = namespace(plane, "refusals").await;
    let original = notification(json!({"source": "/s", "type": "t", "ext": "a", "data": {"n": 1}}));
    plane.admin().apply(&original.to_string(), &["-n", &namespace]).await.unwrap();
    plane.admin().apply(&original.to_string(), &["-n", &namespace]).await.expect("the same again is no change");
    let changes = [
        json!({"event": {"data": {"n": 2}}}),
        json!({"event": {"data": {"more": 1}}}),
        json!({"event": {"data": null}}),
        json!({"event": {"ext": "b"}}),
        json!({"event": {"ext": null}}),
        json!({"event": {"subject": "new"}}),
        json!({"subscriberRef": {"name": "other"}}),
        // One unknown attribute renamed in the same write: the schema's rule does not see it, the admission policy does.
        json!({"event": {"ext": null, "extra": "a"}}),
    ];
    for change in changes {
        let patch = json!({"spec": change}).to_string();
        let args = ["patch", "ntf", "n", "-n", &namespace, "--type=merge", "-p", &patch];
        let output = plane.kubectl(&args).await.unwrap();
        assert!(!output.success, "accepted: {patch}");
        assert!(output.stderr.contains("create a new Notification instead"), "{patch}: {}", output.stderr);
    }
}

#[tokio::test]
async fn a_new_object_is_pending_from_the_start_and_can_be_selected() {
    let plane = cluster().await;
    let namespace = namespace(plane, "defaults").await;
    let manifest = notification(json!({"source": "/s", "type": "t"}));
    plane.admin().apply(&manifest.to_string(), &["-n", &namespace]).await.unwrap();
    let get = |selector: &'static str| {
        let namespace = namespace.clone();
        async move {
            let args =
                ["get", "ntf", "-n", &namespace, "--field-selector", selector, "-o", "jsonpath={.items[*].status}"];
            plane.kubectl(&args).await.unwrap().ok().unwrap()
        }
    };
    let status: Value = serde_json::from_str(&get("status.phase=Pending,spec.subscriberRef.name=s").await).unwrap();
    assert_eq!(status, json!({"observedGeneration": -1, "phase": "Pending", "reason": "Queued", "attempts": 0}));
    assert_eq!(get("status.phase=Delivered").await, "");
    assert_eq!(get("spec.subscriberRef.name=other").await, "");
}
