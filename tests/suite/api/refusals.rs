//! The API server refuses invalid manifests, with a message that says what to write instead.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::ControlPlane;
use tidings_api::{RESERVED_TOKEN_HEADERS, RESERVED_TOKEN_PARAMETERS, token_parameter_fault};
use tokio::time::{Instant, sleep};

use crate::cluster::{cluster, install_crds, namespace};

/// The message with which the API server refuses a manifest.
pub async fn refusal(plane: &ControlPlane, namespace: &str, manifest: &Value) -> String {
    let args = ["apply", "-f", "-", "-n", namespace];
    let output = plane.admin().run_with_input(&args, &manifest.to_string()).await.unwrap();
    assert!(!output.success, "accepted: {manifest:#}");
    output.stderr
}

/// Makes the token service of a spec one that knows the client by its certificate.
fn by_certificate(spec: &mut Value) {
    let service = &mut spec["tokenService"];
    service.as_object_mut().unwrap().remove("credentialsSecretRef");
    service["clientAuthentication"] = "TLS".into();
    service["clientID"] = "shop".into();
    service["tls"] = json!({"clientCertificateSecretRef": {"name": "mtls"}});
}

/// Makes the token service of a spec one that knows the client by its public key.
fn by_key(spec: &mut Value) {
    let service = &mut spec["tokenService"];
    service.as_object_mut().unwrap().remove("credentialsSecretRef");
    service["clientAuthentication"] = "PrivateKeyJWT".into();
    service["clientID"] = "shop".into();
    service["privateKeyJWT"] = json!({"keySecretRef": {"name": "signer"}, "algorithm": "ES256"});
}

/// A valid Subscriber whose token service knows the client by its public key, altered in `privateKeyJWT`.
fn signing(change: impl FnOnce(&mut Value)) -> Value {
    subscriber(|spec| {
        by_key(spec);
        change(&mut spec["tokenService"]["privateKeyJWT"]);
    })
}

/// A valid Subscriber whose token service knows the client by tokens of a ServiceAccount, altered in
/// `serviceAccountToken`.
pub fn by_account(change: impl FnOnce(&mut Value)) -> Value {
    subscriber(|spec| {
        let service = &mut spec["tokenService"];
        service.as_object_mut().unwrap().remove("credentialsSecretRef");
        service["clientAuthentication"] = "ServiceAccountToken".into();
        service["clientID"] = "shop".into();
        service["serviceAccountToken"] = json!({"name": "robot", "audience": "api://AzureADTokenExchange"});
        change(&mut service["serviceAccountToken"]);
    })
}

/// A valid Subscriber, altered by `change`.
pub fn subscriber(change: impl FnOnce(&mut Value)) -> Value {
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
            "contentType requires contentMode Structured",
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
            "must be a single scope",
        ),
        (
            subscriber(|spec| spec["tokenService"]["credentialsSecretRef"]["name"] = "../../other/secrets/x".into()),
            "spec.tokenService.credentialsSecretRef.name",
            "must be a valid object name",
        ),
        (
            subscriber(|spec| spec["delivery"] = json!({"backoff": {"initialSeconds": 10, "maxSeconds": 5}})),
            "spec.delivery.backoff",
            "initialSeconds must not exceed maxSeconds",
        ),
        (
            subscriber(|spec| spec["abuseProtection"] = json!({"policy": "Disabled", "requestRatePerMinute": 60})),
            "spec.abuseProtection",
            "which policy Disabled turns off",
        ),
        (
            subscriber(|spec| spec["abuseProtection"] = json!({"requestRatePerMinute": 0})),
            "spec.abuseProtection.requestRatePerMinute",
            "greater than or equal to 1",
        ),
        (
            subscriber(|spec| spec["webhook"]["tls"] = json!({"clientCertificateSecretRef": {"name": "a/b"}})),
            "spec.webhook.tls.clientCertificateSecretRef.name",
            "must be a valid object name",
        ),
        (
            subscriber(|spec| spec["webhook"]["tls"] = json!({"publicRoots": "Exclude"})),
            "spec.webhook.tls",
            "publicRoots Exclude requires caRef",
        ),
        (
            subscriber(|spec| {
                spec["tokenService"]["tls"] =
                    json!({"publicRoots": "Exclude", "clientCertificateSecretRef": {"name": "mtls"}});
            }),
            "spec.tokenService.tls",
            "publicRoots Exclude requires caRef",
        ),
        (
            subscriber(|spec| spec["webhook"]["tls"] = json!({"publicRoots": "None"})),
            "spec.webhook.tls.publicRoots",
            "supported values: \"Include\", \"Exclude\"",
        ),
        (
            subscriber(|spec| {
                let value = "v".repeat(4096);
                spec["webhook"]["headers"] =
                    (0..8).map(|n| json!({"name": format!("X-{n}"), "value": value})).collect();
            }),
            "spec.webhook.headers",
            "names and values together exceed 32 KiB",
        ),
        (
            subscriber(|spec| spec["webhook"]["responses"] = json!([{"code": 204, "action": "Fail"}])),
            "spec.webhook.responses[0].code",
            "greater than or equal to 300",
        ),
        (
            subscriber(|spec| spec["webhook"]["responses"] = json!([{"code": 410, "action": "Retry"}])),
            "spec.webhook.responses[0]",
            "code must not be 410 or 429: their meaning is fixed",
        ),
        (
            subscriber(|spec| {
                spec["webhook"]["responses"] =
                    json!([{"code": 409, "action": "Deliver"}, {"code": 409, "action": "Fail"}]);
            }),
            "spec.webhook.responses[1]",
            "Duplicate value",
        ),
        (
            subscriber(|spec| spec["webhook"]["responses"] = json!([{"code": 409, "action": "Ignore"}])),
            "spec.webhook.responses[0].action",
            "supported values",
        ),
        (
            subscriber(|spec| spec["delivery"] = json!({"onRejection": "Drop"})),
            "spec.delivery.onRejection",
            "supported values",
        ),
        (
            subscriber(|spec| spec["webhook"]["signature"] = json!({})),
            "spec.webhook.signature.secretRef",
            "Required value",
        ),
        (
            subscriber(|spec| spec["webhook"]["signature"] = json!({"secretRef": {"name": "signing"}})),
            "spec.webhook.signature.secretRef.key",
            "Required value",
        ),
        (
            subscriber(|spec| spec["webhook"]["signature"] = json!({"secretRef": {"name": "a/b", "key": "k"}})),
            "spec.webhook.signature.secretRef.name",
            "must be a valid object name",
        ),
        (
            subscriber(|spec| {
                let key = json!({"name": "signing", "key": "k"});
                spec["webhook"]["signature"] = json!({"secretRef": key, "previousSecretRef": key});
            }),
            "spec.webhook.signature",
            "previousSecretRef names the same key as secretRef",
        ),
        (
            subscriber(|spec| spec["tokenService"]["headers"] = json!([{"name": "Content-Type", "value": "a"}])),
            "spec.tokenService.headers[0].name",
            "must not be a header that Tidings or HTTP owns",
        ),
        (
            subscriber(|spec| spec["tokenService"]["headers"] = json!([{"name": "X-A"}])),
            "spec.tokenService.headers[0]",
            "set exactly one of value and valueFrom",
        ),
        (
            subscriber(|spec| {
                spec["tokenService"]["headers"] = json!([{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}]);
            }),
            "spec.tokenService.headers",
            "must name each header once",
        ),
        (
            subscriber(|spec| {
                let value = "v".repeat(4096);
                spec["tokenService"]["headers"] =
                    (0..8).map(|n| json!({"name": format!("X-{n}"), "value": value})).collect();
            }),
            "spec.tokenService.headers",
            "names and values together exceed 32 KiB",
        ),
        (subscriber(|spec| spec["webhok"] = json!({})), "spec.webhok", "unknown field"),
    ];
    for (manifest, field, message) in cases {
        let refusal = refusal(plane, &namespace, &manifest).await;
        assert!(refusal.contains(field) && refusal.contains(message), "{field}: {message}: {refusal}");
    }
}

#[tokio::test]
async fn every_header_of_a_token_request_that_tidings_sets_is_refused() {
    let plane = cluster().await;
    let namespace = namespace(plane, "token-headers").await;
    for name in RESERVED_TOKEN_HEADERS.iter().flat_map(|name| [name.to_string(), name.to_uppercase()]) {
        let manifest =
            subscriber(|spec| spec["tokenService"]["headers"] = json!([{"name": name.as_str(), "value": "a"}]));
        let refusal = refusal(plane, &namespace, &manifest).await;
        assert!(
            refusal.contains("spec.tokenService.headers") && refusal.contains("which Tidings sets in a token request"),
            "{name}: {refusal}"
        );
    }
}

#[tokio::test]
async fn a_client_authentication_without_what_it_needs_is_refused_and_each_complete_one_is_accepted() {
    let plane = cluster().await;
    let namespace = namespace(plane, "clients").await;
    let without_credentials =
        |spec: &mut Value| drop(spec["tokenService"].as_object_mut().unwrap().remove("credentialsSecretRef"));
    let cases = [
        (subscriber(without_credentials), "send a client secret: set credentialsSecretRef"),
        (
            subscriber(|spec| {
                without_credentials(spec);
                spec["tokenService"]["clientID"] = "shop".into();
            }),
            "send a client secret: set credentialsSecretRef",
        ),
        (
            subscriber(|spec| {
                by_certificate(spec);
                spec["tokenService"].as_object_mut().unwrap().remove("clientID");
            }),
            "set exactly one of clientID and credentialsSecretRef",
        ),
        (
            subscriber(|spec| {
                by_certificate(spec);
                spec["tokenService"]["credentialsSecretRef"] = json!({"name": "oauth"});
            }),
            "set exactly one of clientID and credentialsSecretRef",
        ),
        (
            subscriber(|spec| {
                by_certificate(spec);
                spec["tokenService"].as_object_mut().unwrap().remove("tls");
            }),
            "set tls.clientCertificateSecretRef",
        ),
        (
            subscriber(|spec| {
                by_certificate(spec);
                spec["tokenService"]["tls"] = json!({"caRef": {"kind": "ConfigMap", "name": "ca"}});
            }),
            "set tls.clientCertificateSecretRef",
        ),
        (
            subscriber(|spec| {
                spec["tokenService"]["clientAuthentication"] = "BasicUnencoded".into();
                spec["tokenService"]["clientID"] = "shop:1".into();
            }),
            "which clientAuthentication BasicUnencoded cannot send",
        ),
        (
            subscriber(|spec| {
                by_key(spec);
                spec["tokenService"].as_object_mut().unwrap().remove("privateKeyJWT");
            }),
            "needs a private key: set privateKeyJWT",
        ),
        (
            subscriber(|spec| {
                by_key(spec);
                spec["tokenService"]["clientAuthentication"] = "Basic".into();
                spec["tokenService"]["credentialsSecretRef"] = json!({"name": "oauth"});
            }),
            "remove privateKeyJWT or change clientAuthentication",
        ),
        (
            subscriber(|spec| {
                by_key(spec);
                spec["tokenService"]["credentialsSecretRef"] = json!({"name": "oauth"});
            }),
            "set exactly one of clientID and credentialsSecretRef",
        ),
        (by_account(|settings| *settings = Value::Null), "set serviceAccountToken"),
        (
            subscriber(|spec| spec["tokenService"]["serviceAccountToken"] = json!({"name": "robot", "audience": "a"})),
            "remove serviceAccountToken or change clientAuthentication",
        ),
        (
            subscriber(|spec| {
                by_key(spec);
                spec["tokenService"]["serviceAccountToken"] = json!({"name": "robot", "audience": "a"});
            }),
            "remove serviceAccountToken or change clientAuthentication",
        ),
        (
            {
                let mut both = by_account(|_| ());
                both["spec"]["tokenService"]["credentialsSecretRef"] = json!({"name": "oauth"});
                both
            },
            "set exactly one of clientID and credentialsSecretRef",
        ),
        (
            {
                let mut neither = by_account(|_| ());
                neither["spec"]["tokenService"].as_object_mut().unwrap().remove("clientID");
                neither
            },
            "set exactly one of clientID and credentialsSecretRef",
        ),
        (by_account(|settings| drop(settings.as_object_mut().unwrap().remove("name"))), "Required value"),
        (by_account(|settings| drop(settings.as_object_mut().unwrap().remove("audience"))), "Required value"),
        (by_account(|settings| settings["name"] = "../victim/robot".into()), "must be a valid object name"),
        (by_account(|settings| settings["audience"] = "".into()), "at least 1 chars"),
        (by_account(|settings| settings["audience"] = "a b".into()), "without spaces and commas"),
        (by_account(|settings| settings["audience"] = "a,b".into()), "without spaces and commas"),
        (by_account(|settings| settings["audience"] = "é".into()), "without spaces and commas"),
        (by_account(|settings| settings["audience"] = "a".repeat(1025).into()), "may not be more than 1024"),
        (by_account(|settings| settings["expirationSeconds"] = 599.into()), "greater than or equal to 600"),
        (by_account(|settings| settings["expirationSeconds"] = 3601.into()), "less than or equal to 3600"),
        (signing(|settings| settings["algorithm"] = "HS256".into()), "supported values"),
        (signing(|settings| drop(settings.as_object_mut().unwrap().remove("algorithm"))), "Required value"),
        (signing(|settings| settings["lifetimeSeconds"] = 9.into()), "greater than or equal to 10"),
        (signing(|settings| settings["lifetimeSeconds"] = 601.into()), "less than or equal to 600"),
        (signing(|settings| settings["keyID"] = "é".into()), "must be printable ASCII"),
        (signing(|settings| settings["keyID"] = "k".repeat(257).into()), "may not be more than 256"),
        (signing(|settings| settings["audience"] = "".into()), "at least 1 chars"),
        (signing(|settings| settings["keySecretRef"]["name"] = "a/b".into()), "must be a valid object name"),
        (signing(|settings| settings["keySecretRef"]["privateKeyKey"] = "a/b".into()), "should match"),
        (
            signing(|settings| {
                settings["keyID"] = "k".into();
                settings["keySecretRef"]["keyIDKey"] = "kid".into();
            }),
            "set at most one of keyID and keySecretRef.keyIDKey",
        ),
        (subscriber(|spec| spec["tokenService"]["clientID"] = "".into()), "at least 1 chars"),
        (subscriber(|spec| spec["tokenService"]["clientID"] = "shöp".into()), "must be printable ASCII"),
        (subscriber(|spec| spec["tokenService"]["clientID"] = "a\nb".into()), "must be printable ASCII"),
        (subscriber(|spec| spec["tokenService"]["clientID"] = "i".repeat(1025).into()), "may not be more than 1024"),
        (subscriber(|spec| spec["tokenService"]["clientAuthentication"] = "Tls".into()), "supported values"),
    ];
    for (manifest, message) in cases {
        let refusal = refusal(plane, &namespace, &manifest).await;
        assert!(refusal.contains("spec.tokenService") && refusal.contains(message), "{message}: {refusal}");
    }
    for complete in [
        subscriber(by_certificate),
        subscriber(by_key),
        signing(|settings| {
            settings["audience"] = "https://login.example.com".into();
            settings["lifetimeSeconds"] = 600.into();
            settings["keySecretRef"] =
                json!({"name": "signer", "privateKeyKey": "key", "keyIDKey": "kid", "certificateKey": "tls.crt"});
        }),
        subscriber(|spec| {
            by_certificate(spec);
            let service = spec["tokenService"].as_object_mut().unwrap();
            service.remove("clientID");
            service.insert("credentialsSecretRef".into(), json!({"name": "oauth", "clientIDKey": "id"}));
        }),
        subscriber(|spec| spec["tokenService"]["clientID"] = "shop:1".into()),
    ] {
        plane.admin().apply(&complete.to_string(), &["-n", &namespace]).await.unwrap();
    }
}

#[tokio::test]
async fn a_resource_that_is_no_absolute_uri_is_refused_and_so_are_resources_in_both_fields() {
    let plane = cluster().await;
    let namespace = namespace(plane, "resources").await;
    let with = |resources: Value| subscriber(|spec| spec["tokenService"]["resources"] = resources);
    let both = |name: &str| {
        subscriber(|spec| {
            spec["tokenService"]["resources"] = json!(["urn:acme"]);
            spec["tokenService"]["parameters"] = json!({name: "urn:acme"});
        })
    };
    let many: Vec<_> = (0..17).map(|n| format!("urn:{n}")).collect();
    for (manifest, message) in [
        (with(json!(["hooks.example.com"])), "must be an absolute URI"),
        (with(json!(["urn:a b"])), "must be an absolute URI"),
        (with(json!(["urn:é"])), "must be an absolute URI"),
        (with(json!(["https://hooks.example.com/#a"])), "must not contain a fragment"),
        (with(json!([""])), "at least 1 chars"),
        (with(json!([format!("urn:{}", "a".repeat(2045))])), "may not be more than 2048"),
        (with(json!(["urn:a", "urn:a"])), "Duplicate value"),
        (with(json!(many)), "must have at most 16 items"),
        (both("resource"), "set resources or the parameter resource, but not both"),
        (both("Resource"), "set resources or the parameter resource, but not both"),
    ] {
        let refusal = refusal(plane, &namespace, &manifest).await;
        assert!(refusal.contains("spec.tokenService") && refusal.contains(message), "{message}: {refusal}");
    }
    let largest: Vec<_> = (0..16).map(|n| format!("urn:{n:0>2044}")).collect();
    for resources in [json!([]), json!(["https://hooks.example.com/", "urn:acme:hooks"]), json!(largest)] {
        plane.admin().apply(&with(resources).to_string(), &["-n", &namespace]).await.unwrap();
    }
    let only_parameter = subscriber(|spec| {
        spec["tokenService"]["resources"] = json!([]);
        spec["tokenService"]["parameters"] = json!({"resource": "urn:acme"});
    });
    plane.admin().apply(&only_parameter.to_string(), &["-n", &namespace]).await.unwrap();
}

fn with_parameters(parameters: &Value) -> Value {
    subscriber(|spec| spec["tokenService"]["parameters"] = parameters.clone())
}

#[tokio::test]
async fn every_reserved_token_parameter_is_refused_with_what_to_write_instead() {
    let plane = cluster().await;
    let namespace = namespace(plane, "parameters").await;
    let names =
        RESERVED_TOKEN_PARAMETERS.iter().flat_map(|reserved| reserved.names.iter().map(|n| (*n, reserved.instead)));
    let mut count = 0;
    for (name, instead) in names {
        for name in [name.to_owned(), name.to_uppercase()] {
            let by_code = token_parameter_fault(&name).unwrap();
            let refusal =
                refusal(plane, &namespace, &with_parameters(&json!({"resource": "urn:acme", &name: "x"}))).await;
            assert!(by_code.contains(instead), "{name}: {by_code}");
            assert!(
                refusal.contains("spec.tokenService.parameters: Invalid value") && refusal.contains(&by_code),
                "{name}: {refusal}"
            );
            count += 1;
        }
    }
    assert!(count >= 46, "{count} names");
}

#[tokio::test]
async fn an_odd_token_parameter_is_refused_and_a_good_one_accepted() {
    let plane = cluster().await;
    let namespace = namespace(plane, "parameters").await;
    let many: serde_json::Map<_, _> = (0..33).map(|n| (format!("p{n}"), "x".into())).collect();
    let cases = [
        (json!({"": "x"}), "1 to 128 printable ASCII"),
        (json!({"é": "x"}), "1 to 128 printable ASCII"),
        (json!({"a\nb": "x"}), "1 to 128 printable ASCII"),
        (json!({"n".repeat(129): "x"}), "1 to 128 printable ASCII"),
        (json!({"resource": ""}), "at least 1 chars"),
        (json!({"resource": "x".repeat(2049)}), "may not be more than 2048"),
        (json!({"resource": 1}), "must be of type string"),
        (json!({"resource": ["a", "b"]}), "must be of type string"),
        (json!(many), "must have at most 32 items"),
    ];
    for (parameters, message) in cases {
        let refusal = refusal(plane, &namespace, &with_parameters(&parameters)).await;
        assert!(refusal.contains("spec.tokenService.parameters") && refusal.contains(message), "{message}: {refusal}");
    }
    // The largest that the schema allows: the cost of the rules stays within the API server's budget.
    let largest: serde_json::Map<_, _> = (0..32).map(|n| (format!("{n:~>128}"), "ü".repeat(2048).into())).collect();
    for parameters in [json!({"resource": "urn:acme", "odd name&=": "ü"}), json!(largest)] {
        let manifest = with_parameters(&parameters);
        plane.admin().apply(&manifest.to_string(), &["-n", &namespace, "--server-side"]).await.unwrap();
        let args = ["get", "subscriber", "s", "-n", &namespace, "-o", "jsonpath={.spec.tokenService.parameters}"];
        let stored = plane.kubectl(&args).await.unwrap().ok().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&stored).unwrap(), parameters);
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
        (event(json!({"data": 1, "data_base64": "AA=="})), "spec.event", "data and data_base64 are mutually exclusive"),
        (event(json!({"data_base64": "?"})), "spec.event.data_base64", "should match"),
        (
            event(json!({"Bad-Name": "x"})),
            "spec.event.Bad-Name:",
            "an attribute name must have 1 to 64 lower-case letters and digits",
        ),
        (event(json!({"datacontenttype": "json"})), "spec.event.datacontenttype", "must be a media type"),
        (event(json!({"dataschema": "schema"})), "spec.event.dataschema", "must be an absolute URI"),
        (event(json!({("a".repeat(65)): "x"})), "spec.event", "an attribute name must have 1 to 64"),
        (event(json!({"ext": 1.5})), "spec.event.ext:", "a string, a boolean or a 32-bit integer"),
        (event(json!({"ext": 4_294_967_296_u64})), "spec.event", "a string, a boolean or a 32-bit integer"),
        (event(json!({"ext": {"a": 1}})), "spec.event", "a string, a boolean or a 32-bit integer"),
        (event(json!({"ext": "x".repeat(4097)})), "spec.event.ext:", "at most 4096 bytes"),
        (event(json!({"ext": "€".repeat(1366)})), "spec.event.ext:", "at most 4096 bytes"),
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
    plane.admin().apply(&original.to_string(), &["-n", &namespace]).await.expect("an identical spec is no change");
    let changes = [
        json!({"event": {"data": {"n": 2}}}),
        json!({"event": {"data": {"more": 1}}}),
        json!({"event": {"data": null}}),
        json!({"event": {"ext": "b"}}),
        json!({"event": {"ext": null}}),
        json!({"event": {"subject": "new"}}),
        json!({"subscriberRef": {"name": "other"}}),
        // One unknown attribute is renamed in the same write: the rule in the schema does not notice it; the admission
        // policy does.
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

/// Waits until the API server refuses a Notification with this event, or accepts it; nothing is stored.
async fn until_judged(plane: &ControlPlane, event: &Value, refused: bool) {
    let end = Instant::now() + Duration::from_secs(30);
    let args = ["create", "--dry-run=server", "-f", "-"];
    while plane.admin().run_with_input(&args, &notification(event.clone()).to_string()).await.unwrap().success
        == refused
    {
        assert!(Instant::now() < end, "refused: {}", !refused);
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_notification_from_before_a_rule_can_be_labelled_and_lose_its_finalizers() {
    let plane = ControlPlane::start().await.unwrap();
    install_crds(&plane).await;
    let policy = "notifications.tidings.dev";
    plane.kubectl(&["delete", "validatingadmissionpolicybinding", policy]).await.unwrap().ok().unwrap();
    let event = json!({"source": "/s", "type": "t", "Old-Name": "x".repeat(5000), "ratio": 1.5});
    until_judged(&plane, &event, false).await;
    let mut old = notification(event.clone());
    old["metadata"]["finalizers"] = json!(["example.com/held"]);
    plane.admin().run_with_input(&["create", "-f", "-"], &old.to_string()).await.unwrap().ok().unwrap();
    install_crds(&plane).await;
    until_judged(&plane, &event, true).await;
    plane.kubectl(&["label", "ntf", "n", "tidings.dev/replay=1"]).await.unwrap().ok().unwrap();
    plane.kubectl(&["delete", "ntf", "n", "--wait=false"]).await.unwrap().ok().unwrap();
    let patch = json!({"metadata": {"finalizers": null}}).to_string();
    plane.kubectl(&["patch", "ntf", "n", "--type=merge", "-p", &patch]).await.unwrap().ok().unwrap();
    assert!(!plane.kubectl(&["get", "ntf", "n"]).await.unwrap().success);
}

#[tokio::test]
async fn a_status_keeps_at_most_ten_handled_values_of_the_length_of_a_label_or_annotation() {
    let plane = cluster().await;
    let namespace = namespace(plane, "handled").await;
    let bare = notification(json!({"source": "/s", "type": "t"}));
    for manifest in [bare, subscriber(|_| ())] {
        plane.admin().apply(&manifest.to_string(), &["-n", &namespace]).await.unwrap();
    }
    for (object, field, longest) in [("ntf/n", "handledReplays", 63), ("subr/s", "handledTests", 256)] {
        let set = async |values: Vec<String>| {
            let patch = json!({"status": {(field): values}}).to_string();
            let args = ["patch", object, "-n", &namespace, "--subresource=status", "--type=merge", "-p", &patch];
            plane.kubectl(&args).await.unwrap()
        };
        let values = |count: usize, length: usize| vec!["x".repeat(length); count];
        set(values(10, longest)).await.ok().unwrap();
        for (refused, why) in [(values(11, 1), "must have at most 10 items"), (values(1, longest + 1), "Too long")] {
            let output = set(refused).await;
            assert!(!output.success && output.stderr.contains(&format!("status.{field}")), "{}", output.stderr);
            assert!(output.stderr.contains(why), "{}", output.stderr);
        }
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
