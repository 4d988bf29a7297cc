//! What one tenant can do with another's Secrets (S8), and what the writer of a Subscriber can do with those of the own
//! namespace that are not theirs to read (S9, S24).

use serde_json::{Value, json};
use testkit::Operator;

use crate::delivery::{keys, service_accounts};
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
    for crd in [tidings_api::subscriber_crd(), tidings_api::notification_crd()] {
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
        assert!(output.stderr.contains("must be a valid object name"), "{}", output.stderr);
    }
    assert!(tenant.tokens.requests().is_empty() && victim.tokens.requests().is_empty());
}

/// A Secret of this name with these endpoints in `allowed-hosts`.
fn secret(name: &str, allowed: Option<&str>, data: &Value) -> Value {
    secret_with(name, allowed, None, data)
}

/// A Secret of this name with these endpoints in `allowed-hosts` and `allowed-token-hosts`.
fn secret_with(name: &str, allowed: Option<&str>, tokens: Option<&str>, data: &Value) -> Value {
    let mut annotations = json!({});
    for (name, value) in [("tidings.dev/allowed-hosts", allowed), ("tidings.dev/allowed-token-hosts", tokens)] {
        if let Some(value) = value {
            annotations[name] = value.into();
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": annotations}, "stringData": data,
    })
}

/// Host and port of a URL.
fn endpoint(url: &str) -> &str {
    url.trim_start_matches("https://").split('/').next().unwrap()
}

/// A world whose operator requires consent.
async fn consenting(name: &str) -> (World, Operator) {
    let world = World::new(name).await;
    let operator = world.start(&["--egress-allow-cidr", "127.0.0.0/8", "--require-secret-consent"]).await;
    operator.ready(PATIENCE).await.unwrap();
    (world, operator)
}

/// The message of a Subscriber that is not ready for this reason.
async fn message(world: &World, subscriber: &str, reason: &str) -> String {
    let object = world.until_reason(subscriber, reason).await;
    condition(&object, "Ready")["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn s09_where_consent_is_required_a_secrets_values_go_only_to_the_hosts_that_it_allows() {
    let (world, _operator) = consenting("consent").await;
    let credentials = json!({"client_id": CLIENT.0, "client_secret": CLIENT.1});
    let key = json!({"api-key": "k"});
    let identity = world.authority.client_identity("tidings");
    let certificate = json!({"tls.crt": identity.certificate_pem, "tls.key": identity.key_pem});
    world.apply(&secret("acme-oauth", None, &credentials)).await;
    world.apply(&secret("hook", Some("elsewhere.example.com"), &key)).await;
    world.apply(&secret("mtls", None, &certificate)).await;
    let signing = json!({"key": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"});
    world.apply(&secret_with("signing", None, Some("127.0.0.1"), &signing)).await;
    world
        .subscriber("shop", |spec| {
            spec["webhook"]["signature"] = json!({"secretRef": {"name": "signing", "key": "key"}});
            spec["webhook"]["headers"] =
                json!([{"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "hook", "key": "api-key"}}}]);
            spec["webhook"]["tls"]["clientCertificateSecretRef"] = json!({"name": "mtls"});
        })
        .await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    let (webhook, tokens) = (world.receiver.url(""), world.tokens.url());
    let (webhook, tokens) = (endpoint(&webhook), endpoint(&tokens));
    let both = format!("login.example.com, {tokens},{webhook}");
    // Each in turn: the certificate, the header's value, the signing key, the credentials.
    for (name, data, what, to) in [
        ("mtls", &certificate, "be sent", webhook),
        ("hook", &key, "be sent", webhook),
        ("signing", &signing, "sign what is sent", webhook),
        ("acme-oauth", &credentials, "be sent", tokens),
    ] {
        let expected = format!("Secret {name} may not {what} to {to} (");
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(&expected));
        let refused = world.until("subscriber", "shop", says).await;
        assert_eq!(condition(&refused, "Ready")["reason"], "SecretNotPermitted");
        assert_eq!(condition(&refused, "Stalled")["status"], "True");
        assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
        world.apply(&secret(name, Some(&both), data)).await;
    }
    world.until_phase("n", "Delivered").await;
    // Nor does a token go to a host that its credentials do not allow: the webhook is at another name of the same
    // place.
    world
        .subscriber("stolen", |spec| {
            let url = spec["webhook"]["url"].as_str().unwrap().replace("127.0.0.1", "localhost");
            spec["webhook"]["url"] = url.into();
        })
        .await;
    let message = message(&world, "stolen", "SecretNotPermitted").await;
    assert!(message.contains("Secret acme-oauth") && message.contains("localhost"), "{message}");
    // Consent that is withdrawn counts at once.
    world.apply(&secret("hook", Some(""), &key)).await;
    world.until_reason("shop", "SecretNotPermitted").await;
}

#[tokio::test]
async fn s09_a_header_of_the_token_service_goes_only_to_token_services_that_its_secret_allows() {
    let (world, _operator) = consenting("token-headers").await;
    let (webhook, tokens) = (world.receiver.url(""), world.tokens.url());
    let (webhook, tokens) = (endpoint(&webhook), endpoint(&tokens));
    let credentials = json!({"client_id": CLIENT.0, "client_secret": CLIENT.1});
    world.apply(&secret_with("acme-oauth", Some(webhook), Some(tokens), &credentials)).await;
    let key = json!({"api-key": "k"});
    world.apply(&secret_with("gateway", Some(tokens), Some(webhook), &key)).await;
    world
        .subscriber("shop", |spec| {
            spec["tokenService"]["headers"] =
                json!([{"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "gateway", "key": "api-key"}}}]);
        })
        .await;
    let message = message(&world, "shop", "SecretNotPermitted").await;
    let parts = [&*format!("Secret gateway may not be sent to {tokens} (tokenService.url)"), "allowed-token-hosts"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
    // The webhook needs no entry: it gets no value of this Secret.
    world.apply(&secret_with("gateway", None, Some(tokens), &key)).await;
    world.until_reason("shop", "Operational").await;
    assert_eq!(world.tokens.requests()[0].headers["x-api-key"], "k");
}

#[tokio::test]
async fn s09_a_certificate_that_authenticates_the_client_must_allow_the_webhook_too() {
    let (mut world, _operator) = consenting("certificates").await;
    let clients = testkit::Authority::new();
    let server = world.authority.server_identity(&[]).server_config_for_clients_of(&clients);
    world.tokens = testkit::TokenService::start_with(server).await.unwrap();
    let identity = clients.client_identity("shop");
    let client = testkit::Client::with_certificate("shop", &identity.certificate_pem);
    world.tokens.register(client.scopes(["events.write"]));
    let (webhook, tokens) = (world.receiver.url(""), world.tokens.url());
    let (webhook, tokens) = (endpoint(&webhook), endpoint(&tokens));
    let data = json!({"tls.crt": identity.certificate_pem, "tls.key": identity.key_pem});
    world.apply(&secret_with("client", None, Some(tokens), &data)).await;
    world
        .subscriber("shop", |spec| {
            let service = &mut spec["tokenService"];
            service.as_object_mut().unwrap().remove("credentialsSecretRef");
            service["clientAuthentication"] = "TLS".into();
            service["clientID"] = "shop".into();
            service["tls"]["clientCertificateSecretRef"] = json!({"name": "client"});
        })
        .await;
    // The webhook would receive a token that was issued for this certificate.
    let message = message(&world, "shop", "SecretNotPermitted").await;
    let parts = [&*format!("Secret client may not be sent to {webhook} (webhook.url)"), "tidings.dev/allowed-hosts"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
    world.apply(&secret_with("client", Some(webhook), Some(tokens), &data)).await;
    world.until_reason("shop", "Operational").await;
}

#[tokio::test]
async fn s09_a_private_key_that_signs_assertions_must_allow_the_token_service_and_the_webhook() {
    let (world, _operator) = consenting("signers").await;
    let token = json!({"access_token": "t", "token_type": "Bearer"}).to_string();
    world.tokens.answer_always(testkit::Behaviour::reply(testkit::endpoints::Reply::status(200).body(token)));
    let (webhook, tokens) = (world.receiver.url(""), world.tokens.url());
    let (webhook, tokens) = (endpoint(&webhook), endpoint(&tokens));
    let data = json!({"tls.key": keys::key(keys::P256)});
    world.apply(&secret_with("signer", Some(webhook), Some(webhook), &data)).await;
    world
        .subscriber("shop", |spec| {
            let service = &mut spec["tokenService"];
            service.as_object_mut().unwrap().remove("credentialsSecretRef");
            service["clientAuthentication"] = "PrivateKeyJWT".into();
            service["clientID"] = "shop".into();
            service["privateKeyJWT"] = json!({"keySecretRef": {"name": "signer"}, "algorithm": "ES256"});
        })
        .await;
    for (hosts, token_hosts, refused) in [(webhook, webhook, tokens), (tokens, tokens, webhook)] {
        world.apply(&secret_with("signer", Some(hosts), Some(token_hosts), &data)).await;
        let expected = format!("Secret signer may not be sent to {refused} (");
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(&expected));
        let object = world.until("subscriber", "shop", says).await;
        assert_eq!(condition(&object, "Ready")["reason"], "SecretNotPermitted");
    }
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
    world.apply(&secret_with("signer", Some(webhook), Some(tokens), &data)).await;
    world.until_reason("shop", "Operational").await;
    world.kubectl(&["delete", "subscriber", "shop"]).await.ok().unwrap();

    // The Secret with the client ID stays the same, and another key takes over no token of the former key.
    world.apply(&secret_with("id", Some(webhook), Some(tokens), &json!({"client_id": "shop"}))).await;
    let other = json!({"tls.key": keys::key(keys::P256)});
    world.apply(&secret_with("other", Some(webhook), Some(tokens), &other)).await;
    let with_key = |key: &'static str| {
        move |spec: &mut Value| {
            let service = &mut spec["tokenService"];
            service["credentialsSecretRef"]["name"] = "id".into();
            service["clientAuthentication"] = "PrivateKeyJWT".into();
            service["privateKeyJWT"] = json!({"keySecretRef": {"name": key}, "algorithm": "ES256"});
        }
    };
    world.subscriber("shop", with_key("signer")).await;
    world.until_reason("shop", "Operational").await;
    let refusal = testkit::endpoints::Reply::status(401).body(json!({"error": "invalid_client"}).to_string());
    world.tokens.answer_always(testkit::Behaviour::reply(refusal));
    world.subscriber("shop", with_key("other")).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until("subscriber", "shop", |s| condition(s, "Ready")["reason"] == "TokenUnavailable").await;
    world.until("notification", "n", |n| n["status"]["reason"] == "SubscriberNotReady").await;
    assert!(world.posts(&path("shop")).is_empty(), "the token of another key");
}

#[tokio::test]
async fn s09_a_service_account_must_allow_the_webhook_too_where_consent_is_required() {
    let (world, _operator) = consenting("robots").await;
    service_accounts::register(&world);
    service_accounts::grant(&world, &["robot"]).await;
    let webhook = world.receiver.url("");
    let webhook = endpoint(&webhook);
    let entry = service_accounts::entry(&world, service_accounts::AUDIENCE);
    let consent = |hosts: &str| {
        let annotations = json!({service_accounts::ANNOTATION: entry, "tidings.dev/allowed-hosts": hosts});
        service_accounts::account("robot", &annotations)
    };
    world.apply(&consent("login.acme.example")).await;
    let by_account = |spec: &mut Value| service_accounts::by_account(spec, "robot", service_accounts::AUDIENCE);
    world.subscriber("shop", by_account).await;
    // The webhook would receive a token that was obtained with a token of the ServiceAccount.
    let message = message(&world, "shop", "ServiceAccountNotPermitted").await;
    let parts = [&*format!("may not be sent to {webhook} (webhook.url)"), "annotation tidings.dev/allowed-hosts"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
    world.apply(&consent(webhook)).await;
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    world.until_reason("shop", "Operational").await;
}

#[tokio::test]
async fn s27_a_subscriber_finds_the_service_accounts_of_its_own_namespace_alone() {
    let (victim, tenant) = (World::new("victim").await, World::new("tenant").await);
    let consent = json!({service_accounts::ANNOTATION: service_accounts::entry(&tenant, service_accounts::AUDIENCE)});
    victim.apply(&service_accounts::account("robot", &consent)).await;
    // Whatever the operator may do in the other namespace.
    service_accounts::grant(&victim, &["robot"]).await;
    service_accounts::grant(&tenant, &["robot"]).await;
    let _operator = tenant.operator().await;
    let by_account = |spec: &mut Value| service_accounts::by_account(spec, "robot", service_accounts::AUDIENCE);
    tenant.subscriber("shop", by_account).await;
    tenant.until_reason("shop", "ServiceAccountNotFound").await;
    assert!(tenant.tokens.requests().is_empty());
}

#[tokio::test]
async fn s09_a_secret_that_does_not_consent_says_nothing_of_its_keys() {
    let (world, _operator) = consenting("keys").await;
    let credentials = json!({"client_id": CLIENT.0, "client_secret": CLIENT.1});
    // The token service is allowed, the webhook is not.
    world.apply(&secret_with("acme-oauth", None, Some(endpoint(&world.tokens.url())), &credentials)).await;
    world.apply(&secret("vault", None, &json!({"password": "no certificate"}))).await;
    let mut said = Vec::new();
    for (name, key) in [("there", "password"), ("absent", "passwort")] {
        world
            .subscriber(&format!("signing-{name}"), |spec| {
                spec["webhook"]["signature"] = json!({"secretRef": {"name": "vault", "key": key}});
            })
            .await;
        world
            .subscriber(&format!("header-{name}"), |spec| {
                spec["webhook"]["headers"] =
                    json!([{"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "vault", "key": key}}}]);
            })
            .await;
        world
            .subscriber(&format!("bundle-{name}"), |spec| {
                spec["webhook"]["tls"]["caRef"] = json!({"kind": "Secret", "name": "vault", "key": key});
            })
            .await;
        world
            .subscriber(&format!("client-{name}"), |spec| {
                spec["tokenService"]["credentialsSecretRef"]["clientSecretKey"] =
                    if name == "there" { "client_secret" } else { key }.into();
            })
            .await;
        let messages = [
            message(&world, &format!("header-{name}"), "SecretNotPermitted").await,
            message(&world, &format!("signing-{name}"), "SecretNotPermitted").await,
            message(&world, &format!("bundle-{name}"), "InvalidTrustBundle").await.replace(key, "KEY"),
            message(&world, &format!("client-{name}"), "SecretNotPermitted").await,
        ]
        .map(|message| message.replace(&format!("-{name}"), ""));
        said.push(messages);
    }
    assert_eq!(said[0], said[1]);
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");
}

#[tokio::test]
async fn s24_consent_to_a_webhook_is_none_to_a_token_service_nor_the_other_way_round() {
    let (world, _operator) = consenting("purposes").await;
    let credentials = json!({"client_id": CLIENT.0, "client_secret": CLIENT.1});
    let (webhook, tokens) = (world.receiver.url(""), world.tokens.url());
    let (webhook, login) = (endpoint(&webhook), endpoint(&tokens));
    let below = format!("{webhook}/shop");
    world.apply(&secret_with("acme-oauth", Some(&below), Some(login), &credentials)).await;
    world.subscriber("shop", |_| ()).await;
    world.until_reason("shop", "Operational").await;
    let before = (world.tokens.requests().len(), world.receiver.requests().len());
    // The partner who runs the webhook would get the client secret, and the token service a token.
    let partner = world.receiver.url("/shop/token");
    world.subscriber("secret", |spec| spec["tokenService"]["url"] = partner.into()).await;
    world.subscriber("token", |spec| spec["webhook"]["url"] = tokens.clone().into()).await;
    // Another path of the same host.
    world.subscriber("shop2", |_| ()).await;
    let expected = [
        ("secret", format!("{webhook} (tokenService.url)"), "annotation tidings.dev/allowed-token-hosts"),
        ("token", format!("{login} (webhook.url)"), "annotation tidings.dev/allowed-hosts"),
        ("shop2", format!("{webhook} (webhook.url)"), "annotation tidings.dev/allowed-hosts"),
    ];
    for (name, endpoint, annotation) in expected {
        let message = message(&world, name, "SecretNotPermitted").await;
        assert!(message.contains(&endpoint) && message.contains(annotation), "{name}: {message}");
    }
    assert_eq!((world.tokens.requests().len(), world.receiver.requests().len()), before, "no connection");
}

#[tokio::test]
async fn s09_without_the_flag_the_annotation_has_no_effect() {
    let world = World::new("no-consent").await;
    let _operator = world.operator().await;
    let credentials = json!({"client_id": CLIENT.0, "client_secret": CLIENT.1});
    world.apply(&secret("acme-oauth", Some("elsewhere.example.com"), &credentials)).await;
    world.subscriber("shop", |_| ()).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("n", "Delivered").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
}
