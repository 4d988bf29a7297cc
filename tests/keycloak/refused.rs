//! What Keycloak refuses, and what the operator then says.

use serde_json::{Value, json};
use testkit::Authority;

use crate::{
    gateway::SlowGateway,
    keys,
    report::Report,
    shop::{Proof, SCOPE, Shop},
    world::condition,
};

/// One refusal: what differs from a client that works.
struct Case {
    name: &'static str,
    /// What is wrong, for the report.
    fault: &'static str,
    how: &'static str,
    /// What Keycloak knows, and what the operator sends.
    known: Proof,
    sent: Proof,
    /// A change of Keycloak's ClientRepresentation.
    registered: Value,
    /// A change of `spec.tokenService`.
    spec: Box<dyn FnOnce(&mut Value)>,
    reason: &'static str,
    /// What the message of the operator says: the error, and what to do.
    says: &'static [&'static str],
}

impl Case {
    fn new(name: &'static str, fault: &'static str, how: &'static str, [known, sent]: [Proof; 2]) -> Self {
        let spec = Box::new(|_: &mut Value| ());
        Self { name, fault, how, known, sent, registered: json!({}), spec, reason: "TokenRejected", says: &[] }
    }

    /// A client with a secret that is correct.
    fn with_secret(name: &'static str, fault: &'static str) -> Self {
        Self::new(name, fault, "Basic", ["of-letters"; 2].map(|secret| Proof::Secret(secret.into())))
    }

    /// A client with a key that is correct.
    fn with_key(name: &'static str, fault: &'static str) -> Self {
        let pem = keys::key(keys::ED25519);
        Self::new(name, fault, "EdDSA", [pem.clone(), pem].map(|pem| Proof::Key { pem, id: "first" }))
    }

    fn registered(mut self, change: Value) -> Self {
        self.registered = change;
        self
    }

    fn spec(mut self, change: impl FnOnce(&mut Value) + 'static) -> Self {
        self.spec = Box::new(change);
        self
    }

    fn unavailable(mut self, says: &'static [&'static str]) -> Self {
        (self.reason, self.says) = ("TokenUnavailable", says);
        self
    }

    fn rejected(mut self, says: &'static [&'static str]) -> Self {
        self.says = says;
        self
    }
}

const CHECK_GRANT: &str = "enable the client credentials grant for this client at the token service";
const CHECK_SECRET: &str = "some token services answer this to a wrong secret: check the client ID and client secret";
const CHECK_CERTIFICATE: &str = "check the client ID, and whether the certificate in the Secret that tokenService.tls.clientCertificateSecretRef names is registered for the client";
const TO_BASIC: &str = "if they are correct, set tokenService.clientAuthentication to Basic or Post";
const CHECK_CLOCKS: &str = "compare the clocks of the operator and the token service, or set a longer tokenService.privateKeyJWT.lifetimeSeconds";
const CHECK_KEY: &str = "check the client ID, and whether the token service has the public key of the client and accepts the algorithm, keyID and audience of tokenService.privateKeyJWT";

fn secrets() -> Vec<Case> {
    let wrong = |name, fault, how, secrets: [&str; 2]| {
        let proofs = secrets.map(|secret| Proof::Secret(secret.into()));
        Case::new(name, fault, how, proofs).rejected(&["unauthorized_client", CHECK_SECRET])
    };
    vec![
        wrong("wrong-basic", "another client secret", "Basic", ["of-letters", "wrong"]),
        wrong("wrong-post", "another client secret", "Post", ["of-letters", "wrong"]),
        wrong(
            "unencoded",
            "a client secret with characters that Basic encodes, such as `%41`",
            "BasicUnencoded",
            ["of%41letters"; 2],
        )
        .rejected(&["unauthorized_client", CHECK_SECRET, TO_BASIC]),
        Case::with_secret("unknown-client", "a client ID that Keycloak does not know")
            .spec(|service| service["clientID"] = "nobody".into())
            .rejected(&["invalid_client", "check the client ID and client secret"]),
        Case::with_secret("disabled", "a client that is disabled")
            .registered(json!({"enabled": false}))
            .rejected(&["invalid_client", "check the client ID and client secret"]),
        Case::with_secret("no-service-account", "a client without *Service account roles*")
            .registered(json!({"serviceAccountsEnabled": false}))
            .rejected(&["unauthorized_client", CHECK_GRANT]),
        Case::with_secret("unknown-scope", "a scope that is not a client scope of the client")
            .spec(|service| service["scopes"] = json!(["events.admin"]))
            .rejected(&["invalid_scope", "check tokenService.scopes"]),
        Case::with_secret("unknown-realm", "a realm that does not exist")
            .spec(|service| {
                let url = service["url"].as_str().unwrap().replace("/realms/shop/", "/realms/none/");
                service["url"] = url.into();
            })
            .unavailable(&["404 Not Found", "check tokenService.url"]),
    ]
}

fn certificates(shop: &Shop) -> Vec<Case> {
    let case = |name, fault, sent| {
        let known = shop.clients.client_identity("shop");
        Case::new(name, fault, "TLS", [Proof::Certificate(known), Proof::Certificate(sent)])
    };
    vec![
        case("wrong-subject", "a certificate with another subject", shop.clients.client_identity("other"))
            .rejected(&["invalid_client", CHECK_CERTIFICATE]),
        case(
            "wrong-issuer",
            "a certificate of an authority that Keycloak does not trust",
            Authority::new().client_identity("shop"),
        )
        .unavailable(&["TLS", "certificate"]),
        case(
            "no-service-account-tls",
            "a client without *Service account roles*",
            shop.clients.client_identity("shop"),
        )
        .registered(json!({"serviceAccountsEnabled": false}))
        .rejected(&["unauthorized_client", CHECK_GRANT]),
    ]
}

fn assertions(slow: String, issuer: String) -> Vec<Case> {
    let wrong_key = |name, how, kind| {
        let proofs = [(); 2].map(|()| Proof::Key { pem: keys::key(kind), id: "first" });
        Case::new(name, "another private key", how, proofs).rejected(&["invalid_client", CHECK_KEY])
    };
    let rsa = keys::key(keys::RSA);
    vec![
        wrong_key("wrong-key-rs256", "RS256", keys::RSA),
        wrong_key("wrong-key-ps256", "PS256", keys::RSA),
        wrong_key("wrong-key-es256", "ES256", keys::P256),
        wrong_key("wrong-key-eddsa", "EdDSA", keys::ED25519),
        Case::with_key("wrong-kid", "a `keyID` that Keycloak does not know")
            .spec(|service| {
                service["privateKeyJWT"]["keySecretRef"].as_object_mut().unwrap().remove("keyIDKey");
                service["privateKeyJWT"]["keyID"] = "second".into();
            })
            .rejected(&["invalid_client", CHECK_KEY]),
        Case::with_key("wrong-audience", "an `audience` that is not the token URL or the issuer")
            .spec(|service| service["privateKeyJWT"]["audience"] = "https://elsewhere.example.com/".into())
            .rejected(&["invalid_client", CHECK_KEY]),
        Case::new(
            "wrong-algorithm",
            "PS256, where Keycloak has RS256 for the client",
            "RS256",
            [rsa.clone(), rsa].map(|pem| Proof::Key { pem, id: "first" }),
        )
        .spec(|service| service["privateKeyJWT"]["algorithm"] = "PS256".into())
        .rejected(&["invalid_client", CHECK_KEY]),
        Case::with_key("expired", "an assertion that a gateway holds until it has expired")
            .spec(move |service| {
                service["url"] = slow.into();
                service["timeoutSeconds"] = 60.into();
                service["privateKeyJWT"]["audience"] = issuer.into();
                service["privateKeyJWT"]["lifetimeSeconds"] = 10.into();
            })
            .rejected(&["invalid_client", CHECK_KEY, CHECK_CLOCKS]),
        Case::with_key("no-service-account-jwt", "a client without *Service account roles*")
            .registered(json!({"serviceAccountsEnabled": false}))
            .rejected(&["unauthorized_client", CHECK_GRANT]),
    ]
}

pub async fn every_refusal_says_what_to_check(shop: &Shop, report: &mut Report) {
    let gateway = SlowGateway::start(&shop.world.authority, shop.keycloak.plain_address()).await;
    let slow =
        shop.keycloak.url().replace(shop.keycloak.url().split('/').nth(2).unwrap(), &gateway.address().to_string());
    let cases = [secrets(), certificates(shop), assertions(slow, shop.keycloak.issuer())];
    let mut expected = Vec::new();
    for case in cases.into_iter().flatten() {
        let Case { name, fault, how, known, sent, registered, spec, reason, says } = case;
        let settings = Proof::settings(how, &[&known]);
        shop.keycloak.register(name, SCOPE, &settings).await.unwrap();
        if registered != json!({}) {
            shop.keycloak.change(name, &registered).await.unwrap();
        }
        shop.secret(name, &sent).await;
        shop.subscriber(name, name, how, spec).await;
        expected.push((name, fault, how, reason, says));
    }
    for (name, fault, how, reason, says) in expected {
        let is_refused = |s: &Value| condition(s, "Ready")["reason"] == reason;
        let subscriber = shop.world.until("subscriber", name, is_refused).await;
        let message = condition(&subscriber, "Ready")["message"].as_str().unwrap().to_owned();
        for part in says {
            assert!(message.contains(part), "{name}: {part:?} is not in {message:?}");
        }
        let is_without_secret = matches!(how, "TLS" | "RS256" | "PS256" | "ES256" | "EdDSA");
        assert!(!(is_without_secret && message.contains("client secret")), "{name} has no client secret: {message}");
        report.refused(how, fault, reason, says);
    }
    let answers = gateway.endpoint().answers();
    assert!(answers.iter().all(|answer| answer.contains("Token is not active")), "{answers:?}");
}
