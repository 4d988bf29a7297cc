//! Tests against a token server of another project: Ory Hydra, which holds a client to RFC 6749.

use serde_json::{Value, json};
use testkit::{Authority, Client, Hydra, Receiver, endpoints::AuthMethod};

use crate::delivery::keys;
use crate::world::{PATIENCE, World, condition, path};

/// A secret that section 2.3.1 requires to be form-encoded. Decoded twice, or not at all, it would be a different secret.
const SECRET: &str = r#"p@ss:w+rd/=%41&~ "2"#;
const AUDIENCE: &str = "https://hooks.example.com/events?a=b&c";

/// A world whose tokens come from Hydra, and whose receiver checks each token with Hydra.
struct Foreign {
    world: World,
    hydra: Hydra,
    receiver: Receiver,
}

impl Foreign {
    async fn new(name: &str) -> Self {
        let world = World::new(name).await;
        let hydra = Hydra::start(&world.authority).await.unwrap();
        let receiver = receiver(&world.authority, &hydra).await;
        Self { world, hydra, receiver }
    }

    /// Registers a client with this method of authentication, and applies a Subscriber `name` that uses the client.
    async fn subscriber(&self, name: &str, client_id: &str, authentication: AuthMethod) {
        let client = Client::new(client_id, SECRET).scopes(["events.write", "events.read"]);
        self.hydra.register(&client, authentication, &[AUDIENCE]).await.unwrap();
        self.secret(name, client_id, SECRET).await;
        self.apply(name, |service| service["clientAuthentication"] = format!("{authentication:?}").into()).await;
    }

    async fn apply(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let change = |spec: &mut Value| {
            spec["webhook"]["url"] = self.receiver.url(&path(name)).into();
            let service = &mut spec["tokenService"];
            service["url"] = self.hydra.url().into();
            service["credentialsSecretRef"]["name"] = name.into();
            service["audience"] = AUDIENCE.into();
            change(service);
        };
        self.world.subscriber(name, change).await;
    }

    async fn secret(&self, name: &str, client_id: &str, client_secret: &str) {
        let data = json!({"client_id": client_id, "client_secret": client_secret});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        self.world.apply(&secret).await;
    }

    async fn notification(&self, name: &str, subscriber: &str) {
        self.world.notification(name, subscriber, json!({"source": "/test", "type": "test"})).await;
    }

    /// Hydra's description of the token in the POST of a Subscriber's only Notification.
    async fn token_of(&self, subscriber: &str) -> Value {
        let requests = self.receiver.wait_for(&path(subscriber), 1, PATIENCE).await.unwrap();
        let posts: Vec<_> = requests.iter().filter(|request| request.method == "POST").collect();
        assert_eq!(posts.len(), 1);
        self.hydra.introspection().introspect(posts[0].token().unwrap()).await.unwrap().expect("an active token")
    }
}

async fn receiver(authority: &Authority, hydra: &Hydra) -> Receiver {
    let introspection = hydra.introspection();
    let check = move |token: String| async move {
        let known = introspection.introspect(&token).await.unwrap_or_default();
        known.is_some_and(|known| known["scope"] == "events.write" && known["aud"] == json!([AUDIENCE]))
    };
    Receiver::start_with_check(authority, check).await.unwrap()
}

#[tokio::test]
async fn events_arrive_with_tokens_that_a_foreign_server_vouches_for_by_basic_and_by_post() {
    let foreign = Foreign::new("foreign").await;
    let _operator = foreign.world.operator().await;
    let clients = [("basic", "shop:1 %41", AuthMethod::Basic), ("post", "shop&2=%41", AuthMethod::Post)];
    for (subscriber, client_id, authentication) in clients {
        foreign.subscriber(subscriber, client_id, authentication).await;
        foreign.notification(subscriber, subscriber).await;
    }
    for (subscriber, client_id, _) in clients {
        foreign.world.until_phase(subscriber, "Delivered").await;
        let token = foreign.token_of(subscriber).await;
        assert_eq!(token["client_id"], client_id);
        assert_eq!(token["scope"], "events.write", "the requested scope, not all scopes of the client");
        foreign.world.until_reason(subscriber, "Operational").await;
    }
}

#[tokio::test]
async fn events_arrive_with_tokens_for_assertions_that_a_foreign_server_verifies_also_after_a_rotation() {
    let foreign = Foreign::new("foreign-keys").await;
    let _operator = foreign.world.operator().await;
    let key_secret = async |name: &str, key: &str, id: &str| {
        let data = json!({"tls.key": key, "kid": id});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        foreign.world.apply(&secret).await;
    };
    for (algorithm, kind) in [("RS256", keys::RSA), ("PS256", keys::RSA), ("ES256", keys::P256)] {
        let name = algorithm.to_lowercase();
        let client_id = format!("{name}:1 %41");
        let [first, second, stranger] = [(); 3].map(|()| keys::key(kind));
        let registered = [keys::jwk(&first, "first", algorithm), keys::jwk(&second, "second", algorithm)];
        foreign.hydra.register_keys(&client_id, &registered, algorithm, &[AUDIENCE]).await.unwrap();
        key_secret(&name, &first, "first").await;
        foreign
            .apply(&name, |service| {
                service.as_object_mut().unwrap().remove("credentialsSecretRef");
                service["clientAuthentication"] = "PrivateKeyJWT".into();
                service["clientID"] = client_id.clone().into();
                service["privateKeyJWT"] =
                    json!({"keySecretRef": {"name": name, "keyIDKey": "kid"}, "algorithm": algorithm});
            })
            .await;
        foreign.notification(&name, &name).await;
        foreign.world.until_phase(&name, "Delivered").await;
        let token = foreign.token_of(&name).await;
        assert_eq!((&token["client_id"], &token["scope"]), (&json!(client_id), &json!("events.write")));

        // A key that the server does not know, then the next key that it knows.
        key_secret(&name, &stranger, "second").await;
        let says = |s: &Value| {
            let token = condition(s, "TokenAvailable");
            token["status"] == "False" && token["message"].as_str().unwrap().contains("new client credentials yet")
        };
        foreign.world.until("subscriber", &name, says).await;
        key_secret(&name, &second, "second").await;
        let is_issued = |s: &Value| condition(s, "TokenAvailable")["reason"] == "TokenIssued";
        foreign.world.until("subscriber", &name, is_issued).await;
    }
}

#[tokio::test]
async fn a_refusal_of_a_foreign_server_is_reported_and_heals_without_a_restart() {
    let foreign = Foreign::new("foreign-refusals").await;
    let _operator = foreign.world.operator().await;
    foreign.subscriber("shop", "shop", AuthMethod::Basic).await;
    foreign.world.until_reason("shop", "Operational").await;
    let rejected = async |error: &'static str, hint: &'static str| {
        let says = |s: &Value| condition(s, "Ready")["message"].as_str().is_some_and(|m| m.contains(error));
        let subscriber = foreign.world.until("subscriber", "shop", says).await;
        let message = condition(&subscriber, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(message.contains(hint), "{message}");
        assert_eq!(condition(&subscriber, "Ready")["reason"], "TokenRejected", "{error}");
        assert_eq!(condition(&subscriber, "Stalled")["status"], "True", "{error}");
    };
    // New credentials may be accepted later: the token of the former credentials serves on.
    foreign.secret("shop", "shop", "wrong").await;
    let is_refused = |s: &Value| condition(s, "TokenAvailable")["reason"] == "TokenUnavailable";
    let refused = foreign.world.until("subscriber", "shop", is_refused).await;
    assert!(condition(&refused, "TokenAvailable")["message"].as_str().unwrap().contains("invalid_client"));
    assert_eq!(condition(&refused, "Ready")["reason"], "Operational");
    foreign.notification("n", "shop").await;
    foreign.world.until_phase("n", "Delivered").await;
    assert_eq!(foreign.token_of("shop").await["client_id"], "shop");
    foreign.secret("shop", "shop", SECRET).await;
    foreign.world.until("subscriber", "shop", |s| condition(s, "TokenAvailable")["reason"] == "TokenIssued").await;

    foreign.apply("shop", |service| service["clientAuthentication"] = "Post".into()).await;
    rejected("invalid_client", "if they are correct, set tokenService.clientAuthentication to Basic").await;
    foreign.apply("shop", |service| service["scopes"] = json!(["admin"])).await;
    rejected("invalid_scope", "check tokenService.scopes").await;
    foreign.apply("shop", |service| service["audience"] = "https://elsewhere.example.com/".into()).await;
    rejected("invalid_request", "check tokenService.scopes, tokenService.audience").await;
    foreign.apply("shop", |_| ()).await;
    foreign.world.until_reason("shop", "Operational").await;
}
