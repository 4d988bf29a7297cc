//! Subscribers in each situation that a reason names, from real runs.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::{Behaviour, endpoints::Reply};
use tidings_api::SubscriberReason as Reason;
use tokio::sync::OnceCell;

use crate::{
    delivery::service_accounts::{account, by_account, grant},
    world::{CLIENT, PATIENCE, World, path},
};

/// The audience of the tokens of ServiceAccounts.
const AUDIENCE: &str = "https://login.acme.example";

/// A Subscriber one of whose conditions has a certain reason.
pub struct Shown {
    /// The status and the Events as `kubectl describe` shows them, with the host names of the other pages.
    pub described: String,
    /// The Subscriber.
    pub object: Value,
}

/// What each reason shows. The situations are set up once for all tests.
pub async fn every_reason() -> &'static BTreeMap<&'static str, Shown> {
    static SHOWN: OnceCell<BTreeMap<&'static str, Shown>> = OnceCell::const_new();
    SHOWN.get_or_init(all).await
}

/// What leads to a reason: the Subscriber's name is the reason's in lower case, and so is its path at the receiver.
struct Case {
    reason: Reason,
    change: fn(&mut Value),
    /// How many Notifications it has.
    notifications: usize,
    /// Whether a test of it is requested.
    tested: bool,
}

fn case(reason: Reason, change: fn(&mut Value)) -> Case {
    Case { reason, change, notifications: 0, tested: false }
}

impl Case {
    fn notified(self, notifications: usize) -> Self {
        Self { notifications, ..self }
    }

    fn tested(self) -> Self {
        Self { tested: true, ..self }
    }

    fn name(&self) -> String {
        self.reason.as_str().to_lowercase()
    }

    /// Applies what leads to the reason, waits for the reason, and returns what it shows.
    async fn shown(&self, world: &World) -> Shown {
        let name = self.name();
        world.subscriber(&name, self.change).await;
        for number in 0..self.notifications {
            let id = format!("{name}-{number}");
            world.notification(&id, &name, json!({"id": id, "source": "/shop", "type": "order.paid"})).await;
        }
        if self.tested {
            world.kubectl(&["annotate", "subr", &name, "tidings.dev/test-requested-at=1"]).await.ok().unwrap();
        }
        // Two writes may set the same reason, first in another condition.
        let is_of_ready = self.reason.meaning().trim().starts_with("Not Ready");
        let shows = |s: &Value| {
            let mut conditions = s["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.retain(|condition| !is_of_ready || condition["type"] == "Ready");
            conditions.iter().any(|condition| condition["reason"] == self.reason.as_str())
        };
        let object = world.until("subscriber", &name, shows).await;
        let described = world.kubectl(&["describe", "subr", &name]).await.ok().unwrap();
        Shown { described: plain(&described, world), object }
    }
}

/// The reasons that need nothing but the usual flags.
fn cases() -> Vec<Case> {
    let nothing: fn(&mut Value) = |_| ();
    vec![
        case(Reason::Operational, nothing),
        case(Reason::Progressing, |spec| {
            let url = spec["tokenService"]["url"].as_str().unwrap().replace("/oauth2/token", "/hangs");
            spec["tokenService"]["url"] = url.into();
            spec["tokenService"]["timeoutSeconds"] = 60.into();
        }),
        case(Reason::Suspended, |spec| spec["suspend"] = true.into()),
        case(Reason::SecretNotFound, |spec| spec["tokenService"]["credentialsSecretRef"]["name"] = "acme-oauht".into()),
        case(Reason::ConfigMapNotFound, |spec| spec["webhook"]["tls"]["caRef"]["name"] = "corp-ac".into()),
        case(Reason::InvalidSpec, |spec| spec["webhook"]["url"] = "https://hooks.acme.example:99999/events".into()),
        case(Reason::InvalidSecret, |spec| {
            spec["tokenService"]["credentialsSecretRef"]["clientSecretKey"] = "secret".into();
        }),
        case(Reason::SecretTypeDenied, |spec| {
            spec["webhook"]["headers"] =
                json!([{"name": "X-Api-Key", "valueFrom": {"secretKeyRef": {"name": "release", "key": "release"}}}]);
        }),
        case(Reason::InvalidTrustBundle, |spec| spec["webhook"]["tls"]["caRef"]["name"] = "not-pem".into()),
        case(Reason::ServiceAccountNotFound, |spec| by_account(spec, "acme-robto", AUDIENCE)),
        case(Reason::ServiceAccountNotPermitted, |spec| by_account(spec, "acme-robot", AUDIENCE)),
        case(Reason::TokenRequestDenied, |spec| by_account(spec, "other-robot", AUDIENCE)),
        case(Reason::TokenIssued, nothing),
        case(Reason::TokenUnavailable, |spec| {
            let url = spec["tokenService"]["url"].as_str().unwrap().replace("/oauth2/token", "/unavailable");
            spec["tokenService"]["url"] = url.into();
        }),
        case(Reason::TokenRejected, |spec| spec["tokenService"]["credentialsSecretRef"]["name"] = "wrong".into()),
        case(Reason::OriginAllowed, |spec| spec["abuseProtection"] = json!({"requestRatePerMinute": 600})),
        case(Reason::NotRequired, |spec| spec["abuseProtection"] = json!({"policy": "Disabled"})),
        case(Reason::NotSupported, nothing),
        case(Reason::HandshakePending, |spec| spec["abuseProtection"] = json!({"policy": "Required"})),
        case(Reason::HandshakeRefused, |spec| spec["abuseProtection"] = json!({"policy": "Required"})),
        case(Reason::Idle, nothing),
        case(Reason::Delivering, nothing).notified(1),
        case(Reason::RateLimited, |spec| spec["delivery"] = json!({"rateLimitPerMinute": 1})).notified(3),
        case(Reason::Paused, nothing).notified(1),
        case(Reason::CircuitOpen, |spec| spec["delivery"] = json!({"backoff": {"initialSeconds": 1}})).notified(5),
        case(Reason::RejectsAll, nothing).notified(5),
        case(Reason::EndpointGone, nothing).notified(1),
        case(Reason::TestPassed, nothing).tested(),
        case(Reason::SecretTestFailed, |spec| {
            spec["tokenService"]["credentialsSecretRef"]["name"] = "acme-oauht".into();
        })
        .tested(),
        case(Reason::TokenTestFailed, |spec| spec["tokenService"]["credentialsSecretRef"]["name"] = "wrong".into())
            .tested(),
        case(Reason::HandshakeTestFailed, |spec| spec["abuseProtection"] = json!({"policy": "Required"})).tested(),
        case(Reason::DeliveryTestFailed, nothing).tested(),
    ]
}

/// Teaches the endpoints to answer in the way that leads to each reason.
fn script(world: &World) {
    let at = |reason: Reason| path(&reason.as_str().to_lowercase());
    world.tokens.answer_always_at("/unavailable", Behaviour::status(503));
    world.tokens.answer_always_at("/hangs", Behaviour::hang());
    let granting = Reply::status(200).allow_origin("tidings.dev").allow_rate("120");
    world.receiver.answer_options(&at(Reason::OriginAllowed), Behaviour::reply(granting));
    world.receiver.answer_options(&at(Reason::HandshakePending), Behaviour::status(503));
    world.receiver.answer_always(&at(Reason::Delivering), Behaviour::hang());
    let paused = Reply::status(429).header("retry-after", "900");
    world.receiver.answer_always(&at(Reason::Paused), Behaviour::reply(paused));
    world.receiver.answer_always(&at(Reason::CircuitOpen), Behaviour::status(502));
    world.receiver.answer_always(&at(Reason::RejectsAll), Behaviour::status(400));
    world.receiver.answer_always(&at(Reason::EndpointGone), Behaviour::status(410));
    world.receiver.answer_always(&at(Reason::DeliveryTestFailed), Behaviour::status(401));
}

async fn all() -> BTreeMap<&'static str, Shown> {
    let world = World::new("acme").await;
    world.secret(CLIENT.1).await;
    let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"}, "stringData": {"client_id": CLIENT.0, "client_secret": "wrong"}});
    let not_pem =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "not-pem"}, "data": {"ca.crt": "none"}});
    let release = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "release"}, "type": "helm.sh/release.v1",
        "stringData": {"release": "r"},
    });
    for object in [wrong, not_pem, release, account("acme-robot", &json!({}))] {
        world.apply(&object).await;
    }
    grant(&world, &["acme-robot", "acme-robto"]).await;
    script(&world);
    let _operator = world.operator().await;
    let mut shown = BTreeMap::new();
    for case in cases() {
        shown.insert(case.reason.as_str(), case.shown(&world).await);
    }
    for (flags, reason) in [
        (&[][..], Reason::EgressDenied),
        (&["--egress-allow-cidr", "127.0.0.0/8", "--require-secret-consent"][..], Reason::SecretNotPermitted),
    ] {
        let world = World::new("acme").await;
        world.secret(CLIENT.1).await;
        let operator = world.start(flags).await;
        operator.ready(PATIENCE).await.unwrap();
        shown.insert(reason.as_str(), case(reason, |_| ()).shown(&world).await);
    }
    shown
}

/// The status and the Events, under the names of the other pages.
fn plain(described: &str, world: &World) -> String {
    let host = |url: &str| url.trim_start_matches("https://").split('/').next().unwrap().to_owned();
    let status = described.find("\nStatus:").map_or("", |at| &described[at + 1..]);
    let status = status.replace(&host(&world.tokens.url()), "login.acme.example");
    let status = status.replace(&host(&world.receiver.url("/")), "hooks.acme.example");
    let status = status.replace(&world.namespace, "shop");
    status.replace("127.0.0.1", "hooks.acme.example").lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
