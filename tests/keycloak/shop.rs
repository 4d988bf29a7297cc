//! The fixture: Keycloak, a webhook that checks each token with Keycloak, and the operator's namespace.

use serde_json::{Value, json};
use testkit::{Authority, Identity, Keycloak, Receiver};

use crate::{
    keys,
    world::{PATIENCE, World, condition, path, tls_secret},
};

pub const SCOPE: &str = "events.write";
pub const AUDIENCE: &str = "https://hooks.example.com/events";

/// A world whose tokens come from Keycloak.
pub struct Shop {
    pub world: World,
    pub keycloak: Keycloak,
    /// The authority whose client certificates Keycloak accepts.
    pub clients: Authority,
    receiver: Receiver,
}

/// What a client proves its identity with.
pub enum Proof {
    Secret(String),
    Certificate(Identity),
    /// A private key with its ID at the token service.
    Key {
        pem: String,
        id: &'static str,
    },
}

impl Shop {
    pub async fn new() -> Self {
        let (world, clients) = (World::new("keycloak").await, Authority::new());
        let keycloak = Keycloak::start(&world.authority, &clients, SCOPE, AUDIENCE).await.unwrap();
        let introspection = keycloak.introspection();
        let check = move |token: String| async move {
            let known = introspection.introspect(&token).await.unwrap_or_default();
            known.is_some_and(|known| known["scope"] == SCOPE && has_audience(&known))
        };
        let receiver = Receiver::start_with_check(&world.authority, check).await.unwrap();
        Self { world, keycloak, clients, receiver }
    }

    /// Applies the Secret `name` with this proof.
    pub async fn secret(&self, name: &str, proof: &Proof) {
        let secret =
            |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let secret = match proof {
            Proof::Secret(value) => secret(json!({"client_secret": value})),
            Proof::Certificate(identity) => tls_secret(name, identity),
            Proof::Key { pem, id } => secret(json!({"tls.key": pem, "kid": id})),
        };
        self.world.apply(&secret).await;
    }

    /// Applies a Subscriber for the client `client_id`, whose proof is in the Secret `name`. `how` is the
    /// `clientAuthentication`, or the algorithm of an assertion.
    pub async fn subscriber(&self, name: &str, client_id: &str, how: &str, change: impl FnOnce(&mut Value)) {
        let change = |spec: &mut Value| {
            spec["webhook"]["url"] = self.receiver.url(&path(name)).into();
            let service = &mut spec["tokenService"];
            service["url"] = self.keycloak.url().into();
            service["scopes"] = json!([SCOPE]);
            service["clientID"] = client_id.into();
            service.as_object_mut().unwrap().remove("credentialsSecretRef");
            service["clientAuthentication"] = how.into();
            match how {
                "TLS" => service["tls"]["clientCertificateSecretRef"] = json!({"name": name}),
                "RS256" | "PS256" | "ES256" | "EdDSA" => {
                    service["clientAuthentication"] = "PrivateKeyJWT".into();
                    service["privateKeyJWT"] =
                        json!({"keySecretRef": {"name": name, "keyIDKey": "kid"}, "algorithm": how});
                }
                _ => service["credentialsSecretRef"] = json!({"name": name}),
            }
            change(service);
        };
        self.world.subscriber(name, change).await;
    }

    /// Delivers the Notification `name` to a Subscriber, and returns Keycloak's description of the token in the POST.
    pub async fn deliver(&self, name: &str, subscriber: &str) -> Value {
        self.world.notification(name, subscriber, json!({"id": name, "source": "/test", "type": "test"})).await;
        self.world.until_phase(name, "Delivered").await;
        let requests = self.receiver.wait_for(&path(subscriber), 1, PATIENCE).await.unwrap();
        let posts: Vec<_> = requests.iter().filter(|request| request.event_id().as_deref() == Some(name)).collect();
        assert_eq!(posts.len(), 1, "{name} arrived once");
        let token = posts[0].token().unwrap();
        self.keycloak.introspection().introspect(token).await.unwrap().expect("an active token")
    }

    /// Waits until the condition TokenAvailable of a Subscriber has this reason and this part of a message.
    pub async fn until_token(&self, subscriber: &str, reason: &str, part: &str) {
        let says = |s: &Value| {
            let token = condition(s, "TokenAvailable");
            token["reason"] == reason && token["message"].as_str().unwrap().contains(part)
        };
        self.world.until("subscriber", subscriber, says).await;
    }

    /// Requests a reconcile and waits until it has ended: the operator has read the Secrets of the Subscriber.
    pub async fn reconcile(&self, subscriber: &str, value: &str) {
        let annotation = format!("tidings.dev/reconcile-requested-at={value}");
        self.world.kubectl(&["annotate", "--overwrite", "subr", subscriber, &annotation]).await.ok().unwrap();
        self.world.until("subscriber", subscriber, |s| s["status"]["lastHandledRequest"] == value).await;
    }
}

impl Proof {
    /// What Keycloak's ClientRepresentation says of a client with these proofs, all of one kind. `how` as in
    /// [`Shop::subscriber`].
    pub fn settings(how: &str, proofs: &[&Self]) -> Value {
        match proofs {
            [Self::Secret(value)] => json!({"clientAuthenticatorType": "client-secret", "secret": value}),
            [Self::Certificate(_)] => json!({
                "clientAuthenticatorType": "client-x509",
                "attributes": {
                    "x509.subjectdn": "CN=shop", "x509.casubjectdn": "CN=Tidings test CA",
                    "x509.allow.regex.pattern.comparison": "false",
                    "tls.client.certificate.bound.access.tokens": "true",
                },
            }),
            keys => {
                let jwk = |proof: &&Self| match proof {
                    Self::Key { pem, id } => keys::jwk(pem, id, how),
                    _ => panic!("not a key"),
                };
                let jwks = json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()}).to_string();
                json!({
                    "clientAuthenticatorType": "client-jwt",
                    "attributes": {
                        "token.endpoint.auth.signing.alg": how, "use.jwks.string": "true", "jwks.string": jwks,
                    },
                })
            }
        }
    }
}

/// Whether a token is for the webhook. It is also for the client that introspects it.
pub fn has_audience(token: &Value) -> bool {
    token["aud"].as_array().is_some_and(|audience| audience.contains(&AUDIENCE.into()))
}
