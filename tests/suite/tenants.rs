//! What one tenant can do with another's Secrets (S8), and what the writer of a Subscriber can do with those of the own
//! namespace that are not theirs to read (S9).

use serde_json::{Value, json};

use crate::world::{CLIENT, PATIENCE, World, condition, path};

#[test]
fn s08_no_reference_has_a_namespace() {
    fn names(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if name.to_lowercase().contains("namespace") {
                found.push(path.clone());
            }
            names(property, &path, found);
            names(&property["items"], &path, found);
        }
    }
    for crd in [tidings::api::subscriber_crd(), tidings::api::notification_crd()] {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        assert!(schema["spec"]["properties"].as_object().unwrap().len() > 1);
        let mut found = Vec::new();
        names(&schema["spec"], "spec", &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}

#[tokio::test]
async fn s08_a_subscriber_finds_the_secrets_of_its_own_namespace_alone() {
    let (victim, tenant) = (World::new("victim").await, World::new("tenant").await);
    victim.secret(CLIENT.1).await;
    let _operator = tenant.operator().await;
    tenant.subscriber("shop", |_| ()).await;
    tenant.until_reason("shop", "SecretNotFound").await;
    for name in ["../victim/acme-oauth", "victim/acme-oauth"] {
        let patch = json!({"spec": {"tokenService": {"credentialsSecretRef": {"name": name}}}}).to_string();
        let output = tenant.kubectl(&["patch", "subr", "shop", "--type=merge", "-p", &patch]).await;
        assert!(output.stderr.contains("must be the name of an object"), "{}", output.stderr);
    }
    assert!(tenant.tokens.requests().is_empty() && victim.tokens.requests().is_empty());
}

/// A Secret of this name with this annotation.
fn secret(name: &str, allowed: Option<&str>, data: &Value) -> Value {
    let annotations = allowed.map_or_else(|| json!({}), |allowed| json!({"tidings.dev/allowed-hosts": allowed}));
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": annotations}, "stringData": data,
    })
}

#[tokio::test]
async fn s09_where_consent_is_required_a_secrets_values_go_only_to_the_hosts_that_it_allows() {
    let world = World::new("consent").await;
    let operator = world.start(&["--egress-allow-cidr", "127.0.0.0/8", "--require-secret-consent"]).await;
    operator.ready(PATIENCE).await.unwrap();
    let credentials = json!({"client_id": CLIENT.0, "client_secret": CLIENT.1});
    let key = json!({"api-key": "k"});
    let identity = world.authority.client_identity("tidings");
    let certificate = json!({"tls.crt": identity.certificate_pem, "tls.key": identity.key_pem});
    world.apply(&secret("acme-oauth", None, &credentials)).await;
    world.apply(&secret("hook", Some("elsewhere.example.com"), &key)).await;
    world.apply(&secret("mtls", None, &certificate)).await;
    world
        .subscriber("shop", |spec| {
            spec["webhook"]["headers"] =
                json!([{"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "api-key"}}}]);
            spec["webhook"]["tls"]["clientCertificateSecretRef"] = json!({"name": "mtls"});
        })
        .await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    // Each in turn: the certificate, the header's value, the credentials.
    for (name, data) in [("mtls", &certificate), ("hook", &key), ("acme-oauth", &credentials)] {
        let expected = format!("Secret {name} does not allow its values to be sent to 127.0.0.1");
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(&expected));
        let refused = world.until("subscriber", "shop", says).await;
        assert_eq!(condition(&refused, "Ready")["reason"], "SecretNotPermitted");
        assert_eq!(condition(&refused, "Stalled")["status"], "True");
        assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
        world.apply(&secret(name, Some("login.example.com, 127.0.0.1"), data)).await;
    }
    world.until_phase("n", "Delivered").await;
    // Nor does a token go to a host that its credentials do not allow: the webhook is at another name of the same place.
    world
        .subscriber("stolen", |spec| {
            let url = spec["webhook"]["url"].as_str().unwrap().replace("127.0.0.1", "localhost");
            spec["webhook"]["url"] = url.into();
        })
        .await;
    let stolen = world.until_reason("stolen", "SecretNotPermitted").await;
    let message = condition(&stolen, "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("Secret acme-oauth") && message.contains("localhost"), "{message}");
    // Consent that is withdrawn counts at once.
    world.apply(&secret("hook", Some(""), &key)).await;
    world.until_reason("shop", "SecretNotPermitted").await;
}

#[tokio::test]
async fn s09_where_it_is_not_required_the_annotation_means_nothing() {
    let world = World::new("no-consent").await;
    let _operator = world.operator().await;
    let credentials = json!({"client_id": CLIENT.0, "client_secret": CLIENT.1});
    world.apply(&secret("acme-oauth", Some("elsewhere.example.com"), &credentials)).await;
    world.subscriber("shop", |_| ()).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("n", "Delivered").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
}
