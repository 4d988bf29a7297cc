//! How clients without a secret authenticate at the token service.

use std::{collections::BTreeSet, time::SystemTime};

use serde_json::{Value, json};
use testkit::{
    Authority, Behaviour, Client, Receiver, TokenService,
    endpoints::{AuthMethod, Reply, TokenRequest},
};

use crate::{
    delivery::keys::{self, Parts},
    world::{World, condition, tls_secret},
};

/// A client of which a server has only the certificate.
const CLIENT: &str = "shop:1";

/// A world whose token service demands certificates of the authority.
async fn world(name: &str) -> (World, Authority) {
    let (mut world, clients) = (World::new(name).await, Authority::new());
    let tls = world.authority.server_identity(&[]).server_config_for_clients_of(&clients);
    world.tokens = TokenService::start_with(tls).await.unwrap();
    let tls = world.authority.server_config(&[]);
    world.receiver = Receiver::start_with(tls, world.tokens.tokens()).await.unwrap();
    (world, clients)
}

/// Makes the token service of a Subscriber's spec one that knows the client by its certificate.
fn by_certificate(spec: &mut Value) {
    let service = &mut spec["tokenService"];
    service.as_object_mut().unwrap().remove("credentialsSecretRef");
    service["clientAuthentication"] = "TLS".into();
    service["clientID"] = CLIENT.into();
    service["tls"]["clientCertificateSecretRef"] = json!({"name": "client"});
    spec["abuseProtection"] = json!({"policy": "Disabled"});
}

/// Waits until a Subscriber is not ready for this reason, and checks that its message has each of these parts.
async fn refused(world: &World, subscriber: &str, reason: &str, parts: &[&str]) {
    let says = |s: &Value| {
        let message = condition(s, "Ready")["message"].as_str().unwrap_or_default().to_owned();
        parts.iter().all(|part| message.contains(part))
    };
    let object = world.until("subscriber", subscriber, says).await;
    assert_eq!(condition(&object, "Ready")["reason"], reason, "{subscriber}");
    assert_eq!(condition(&object, "Stalled")["status"], "True", "{subscriber}");
}

fn names(request: &TokenRequest) -> Vec<&str> {
    request.fields.0.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn field_17_a_client_with_a_certificate_and_no_secret_gets_tokens_and_a_new_certificate_is_used() {
    let (world, clients) = world("tls-client").await;
    let certificate = clients.client_identity("shop");
    let register = |certificate: &str| {
        world.tokens.register(Client::with_certificate(CLIENT, certificate).scopes(["events.write"]));
    };
    register(&certificate.certificate_pem);
    let _operator = world.operator().await;
    world.subscriber("shop", by_certificate).await;
    world.until_reason("shop", "SecretNotFound").await;
    world.apply(&tls_secret("client", &certificate)).await;
    world.notification("a", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("a", "Delivered").await;
    let requests = world.tokens.requests();
    assert_eq!(names(&requests[0]), ["grant_type", "scope", "client_id"]);
    assert_eq!(requests[0].authentication, Some(AuthMethod::Tls));
    assert!(!requests[0].headers.contains_key("authorization"));

    // Another certificate of the same authority is valid, but is not the client's.
    let next = clients.client_identity("shop");
    world.apply(&tls_secret("client", &next)).await;
    refused(&world, "shop", "TokenRejected", &["invalid_client", "tokenService.tls.clientCertificateSecretRef"]).await;
    register(&next.certificate_pem);
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    world.until_reason("shop", "Operational").await;

    // The client ID may be in a Secret, which then needs no client secret.
    let secret = json!({"client_id": CLIENT});
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "id"}, "stringData": secret})).await;
    world
        .subscriber("from-secret", |spec| {
            by_certificate(spec);
            spec["tokenService"].as_object_mut().unwrap().remove("clientID");
            spec["tokenService"]["credentialsSecretRef"] = json!({"name": "id"});
        })
        .await;
    world.until_reason("from-secret", "Operational").await;
    assert_eq!(names(world.tokens.requests().last().unwrap()), ["grant_type", "scope", "client_id"]);
    let empty = json!({"client_id": ""});
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "id"}, "stringData": empty})).await;
    refused(&world, "from-secret", "InvalidSecret", &["Secret id, key client_id", "the value is empty"]).await;
}

#[tokio::test]
async fn a_client_id_of_the_spec_replaces_the_one_in_the_secret() {
    let world = World::new("client-id").await;
    world.tokens.register(Client::new(CLIENT, "secret").scopes(["events.write"]));
    let data = json!({"client_secret": "secret"});
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "only"}, "stringData": data})).await;
    let _operator = world.operator().await;
    for method in ["Basic", "Post"] {
        world
            .subscriber(&method.to_lowercase(), |spec| {
                spec["tokenService"]["clientAuthentication"] = method.into();
                spec["tokenService"]["clientID"] = CLIENT.into();
                spec["tokenService"]["credentialsSecretRef"] = json!({"name": "only"});
            })
            .await;
        world.until_reason(&method.to_lowercase(), "Operational").await;
        let request = world.tokens.requests().pop().unwrap();
        assert_eq!((request.client_id.as_deref(), request.answered), (Some(CLIENT), Some(200)), "{method}");
    }
    world.subscriber("without", |spec| spec["tokenService"]["credentialsSecretRef"] = json!({"name": "only"})).await;
    refused(&world, "without", "InvalidSecret", &["Secret only, key client_id", "there is no such key"]).await;
}

/// A Secret with a private key, and what belongs to it.
fn key_secret(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// Makes the token service of a Subscriber's spec one that knows the client by its public key.
fn by_key(algorithm: &str) -> impl FnOnce(&mut Value) {
    let settings = json!({"keySecretRef": {"name": "signer"}, "algorithm": algorithm});
    move |spec| {
        let service = &mut spec["tokenService"];
        service.as_object_mut().unwrap().remove("credentialsSecretRef");
        service["clientAuthentication"] = "PrivateKeyJWT".into();
        service["clientID"] = CLIENT.into();
        service["privateKeyJWT"] = settings;
        spec["abuseProtection"] = json!({"policy": "Disabled"});
    }
}

/// The assertion of a token request.
fn assertion(request: &TokenRequest) -> &str {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    assert_eq!(request.fields.get("client_assertion_type"), Some(kind));
    assert_eq!(names(request), ["grant_type", "scope", "client_id", "client_assertion_type", "client_assertion"]);
    assert!(!request.headers.contains_key("authorization"));
    request.fields.get("client_assertion").unwrap()
}

/// A world whose token service issues a token for any request, as far as the operator sees.
async fn trusting(name: &str) -> World {
    let world = World::new(name).await;
    let token = json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600}).to_string();
    world.tokens.answer_always(Behaviour::reply(Reply::status(200).body(token)));
    world
}

#[tokio::test]
async fn openssl_verifies_the_assertion_of_every_algorithm_and_each_request_has_its_own() {
    let world = trusting("assertions").await;
    let _operator = world.operator().await;
    let algorithms =
        [("RS256", keys::RSA_PKCS1), ("PS256", keys::RSA), ("ES256", keys::P256_SEC1), ("EdDSA", keys::ED25519)];
    let mut ids = BTreeSet::new();
    for (number, (algorithm, kind)) in algorithms.into_iter().enumerate() {
        let name = algorithm.to_lowercase();
        let (key, other) = (keys::key(kind), keys::key(kind));
        let certificate = keys::certificate(&key);
        let data = json!({"tls.key": key, "tls.crt": certificate, "kid": format!("key {number}")});
        world.apply(&key_secret(&name, &data)).await;
        let audience = format!("https://login.example.com/{number}");
        let settings = json!({
            "keySecretRef": {"name": name, "keyIDKey": "kid", "certificateKey": "tls.crt"},
            "algorithm": algorithm, "audience": audience, "lifetimeSeconds": 600,
        });
        let change = |scopes: Value| {
            let settings = settings.clone();
            move |spec: &mut Value| {
                by_key(algorithm)(spec);
                spec["tokenService"]["privateKeyJWT"] = settings;
                spec["tokenService"]["scopes"] = scopes;
            }
        };
        let before = world.tokens.requests().len();
        // Other scopes need another token.
        for scope in ["one", "two"] {
            world.subscriber(&name, change(json!([scope]))).await;
            let asked = |s: &Value| {
                s["metadata"]["generation"] == s["status"]["observedGeneration"]
                    && condition(s, "Ready")["reason"] == "Operational"
            };
            world.until("subscriber", &name, asked).await;
        }
        let requests = world.tokens.requests().split_off(before);
        assert_eq!(requests.len(), 2, "{algorithm}");
        for request in &requests {
            let jwt = assertion(request);
            assert!(keys::is_signed_by(jwt, &key, algorithm), "{algorithm}: {jwt}");
            assert!(!keys::is_signed_by(jwt, &other, algorithm), "{algorithm}: any key verifies it");
            let Parts { header, claims, .. } = keys::parts(jwt);
            let thumbprint = keys::thumbprint(&certificate);
            let kid = format!("key {number}");
            assert_eq!(header, json!({"alg": algorithm, "typ": "JWT", "kid": kid, "x5t#S256": thumbprint}));
            let (issued, id) = (claims["iat"].as_u64().unwrap(), claims["jti"].as_str().unwrap());
            let expected = json!({
                "iss": CLIENT, "sub": CLIENT, "aud": audience, "jti": id, "iat": issued, "exp": issued + 600,
            });
            assert_eq!(claims, expected);
            let arrived = request.arrived_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            assert!(issued <= arrived && arrived - issued <= 5, "issued {issued}, arrived {arrived}");
            assert!(id.len() >= 22 && ids.insert(id.to_owned()), "{id} is not new");
        }
    }

    // Without options: no names of the key, and the token URL as the spec has it.
    world.apply(&key_secret("signer", &json!({"tls.key": keys::key(keys::P256)}))).await;
    world.subscriber("plain", by_key("ES256")).await;
    world.until_reason("plain", "Operational").await;
    let request = world.tokens.requests().pop().unwrap();
    let Parts { header, claims, .. } = keys::parts(assertion(&request));
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT"}));
    assert_eq!(claims["aud"], world.tokens.url());
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
}

#[tokio::test]
async fn a_private_key_that_cannot_be_used_is_named_with_what_to_do() {
    let world = trusting("keys").await;
    let _operator = world.operator().await;
    let rsa = keys::key(keys::RSA);
    let locked =
        |args: &[&str]| keys::openssl(&[args, &["-aes256", "-passout", "pass:canary"]].concat(), rsa.as_bytes());
    let locked = |args: &[&str]| String::from_utf8(locked(args)).unwrap();
    let public = String::from_utf8(keys::openssl(&["pkey", "-pubout"], rsa.as_bytes())).unwrap();
    let key = |kind: &[&str]| keys::key(kind);
    let short = key(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    let p384 = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let cases = [
        ("RS256", locked(&["pkey"]), "has a passphrase: store the key without a passphrase"),
        ("RS256", locked(&["rsa", "-traditional"]), "has a passphrase: store the key without a passphrase"),
        ("RS256", short, "RS256 cannot use the private key: it needs an RSA key of 2048 to 8192 bits"),
        ("RS256", key(keys::P256), "is an ECDSA key, but the algorithm RS256 needs an RSA key of 2048 to 8192 bits"),
        ("PS256", key(keys::ED25519), "is an Ed25519 key, but the algorithm PS256 needs an RSA key"),
        ("ES256", rsa.clone(), "is an RSA key, but the algorithm ES256 needs an ECDSA key on the curve P-256"),
        ("ES256", key(&p384), "ES256 cannot use the private key: it needs an ECDSA key on the curve P-256"),
        ("EdDSA", key(keys::P256_SEC1), "is an ECDSA key, but the algorithm EdDSA needs an Ed25519 key"),
        (
            "EdDSA",
            key(&["genpkey", "-algorithm", "ED448"]),
            "EdDSA cannot use the private key: it needs an Ed25519 key",
        ),
        ("RS256", public, "there is no PEM private key"),
        ("RS256", "canary".into(), "there is no PEM private key"),
        ("RS256", String::new(), "there is no PEM private key"),
        (
            "RS256",
            "-----BEGIN PRIVATE KEY-----\n?canary?\n-----END PRIVATE KEY-----\n".into(),
            "the PEM text is malformed",
        ),
        ("RS256", rsa.replace("MIIE", "MIIF"), "RS256 cannot use the private key"),
        ("RS256", "k".repeat((64 << 10) + 1), "the value is longer than 64 KiB"),
    ];
    for (number, (algorithm, pem, fault)) in cases.into_iter().enumerate() {
        let name = format!("key-{number}");
        world.apply(&key_secret(&name, &json!({"tls.key": pem}))).await;
        world
            .subscriber(&name, |spec| {
                by_key(algorithm)(spec);
                spec["tokenService"]["privateKeyJWT"]["keySecretRef"]["name"] = name.clone().into();
            })
            .await;
        refused(&world, &name, "InvalidSecret", &[&format!("Secret {name}, key tls.key: "), fault]).await;
    }
    world.subscriber("shop", by_key("RS256")).await;
    world.apply(&key_secret("signer", &json!({"other": rsa}))).await;
    refused(&world, "shop", "InvalidSecret", &["Secret signer, key tls.key: there is no such key"]).await;

    let with_certificate = |spec: &mut Value| {
        by_key("RS256")(spec);
        spec["tokenService"]["privateKeyJWT"]["keySecretRef"]["certificateKey"] = "tls.crt".into();
        spec["tokenService"]["privateKeyJWT"]["keySecretRef"]["keyIDKey"] = "kid".into();
    };
    world.subscriber("shop", with_certificate).await;
    let good = keys::certificate(&rsa);
    let other = keys::certificate(&keys::key(keys::RSA));
    for (data, key, fault) in [
        (json!({"tls.crt": other, "kid": "k"}), "tls.crt", "the certificate belongs to another private key"),
        (json!({"tls.crt": rsa, "kid": "k"}), "tls.crt", "there is no PEM certificate"),
        (json!({"tls.crt": good.replace("MII", "MIJ"), "kid": "k"}), "tls.crt", "not a valid PEM certificate"),
        (json!({"tls.crt": good, "kid": "k\n"}), "kid", "ends with a line break"),
        (json!({"tls.crt": good, "kid": ""}), "kid", "the value is empty"),
    ] {
        let mut all = json!({"tls.key": rsa});
        all.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        world.apply(&key_secret("signer", &all)).await;
        refused(&world, "shop", "InvalidSecret", &[&format!("Secret signer, key {key}: "), fault]).await;
    }
    assert!(world.tokens.requests().is_empty(), "an unusable key is never sent");
    world.apply(&key_secret("signer", &json!({"tls.key": rsa, "tls.crt": good, "kid": "k"}))).await;
    world.until_reason("shop", "Operational").await;
}
