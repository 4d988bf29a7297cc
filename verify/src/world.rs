//! A cluster with two operators that elect a leader, webhooks, Subscribers and a steady load.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testkit::control_plane::Kubectl;
use testkit::endpoints::NameAnswer;
use testkit::folder::Folder;
use testkit::pki::Identity;
use testkit::{Client, NameServer, Operator, Receiver, Result, Stage};
use tokio::time::sleep;

/// The namespace of the chart.
pub(crate) const CORE: &str = "tidings-system";

/// The Subscribers: namespace and name. Each path of the webhook is `/namespace/name`.
pub(crate) const SUBSCRIBERS: [(&str, &str); 9] = [
    ("shop", "acme"),
    ("shop", "gateway"),
    ("shop", "named"),
    ("shop", "calm"),
    ("shop", "parcels"),
    ("shop", "held"),
    ("billing", "partner"),
    ("billing", "bank"),
    ("billing", "ledger"),
];

/// A Subscriber that `spec.suspend` holds: its events wait, and no alert may fire for it.
pub(crate) const HELD: (&str, &str) = ("shop", "held");

/// The name of a Subscriber in `shop` that does not exist.
pub(crate) const MISSING: &str = "missing";

/// The host name of the webhook of the Subscriber `named`.
const HOST: &str = "hooks.example.com";
/// The secret of each client.
pub(crate) const SECRET: &str = "s3cr3t";
const ROUND: Duration = Duration::from_secs(2);
const TOKEN_LIFE: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(60);

pub(crate) struct World {
    // Fields are dropped in this order: the operators first.
    pub(crate) operators: Vec<Operator>,
    pub(crate) receiver: Receiver,
    pub(crate) stage: Stage,
    /// Whether the name server resolves [`HOST`].
    resolves: Arc<AtomicBool>,
    created: Arc<Mutex<u64>>,
    _names: NameServer,
    _folder: Folder,
}

impl World {
    /// Starts everything and waits until one operator is ready.
    pub(crate) async fn start(binary: &Path) -> Result<Self> {
        let client = |id: &str| Client::new(id, SECRET).scopes(["events.write"]);
        let builder = Stage::builder().namespaces(&[CORE, "shop", "billing"]).bundle("ca");
        let builder = ["shop", "billing", "partner", "ledger"].iter().fold(builder, |of, id| of.client(client(id)));
        let stage = builder.credentials("oauth", |namespace| Client::new(namespace, SECRET)).set().await?;
        // So short that the operators often request a token.
        stage.endpoints().tokens.set_expires_in(Some(TOKEN_LIFE));
        let authority = &stage.endpoints().authority;
        let receiver =
            Receiver::start_with(authority.server_config(&[HOST]), stage.endpoints().tokens.tokens()).await?;
        let resolves = Arc::new(AtomicBool::new(true));
        let known = Arc::clone(&resolves);
        let names = NameServer::start(move |name| match name == HOST && known.load(Ordering::Relaxed) {
            true => NameAnswer::Addresses(vec![std::net::Ipv4Addr::LOCALHOST.into()], 1),
            false => NameAnswer::NoSuchName,
        })?;
        let folder = Folder::new("verify")?;
        let mut operators = Vec::new();
        for number in ["1", "2"] {
            let server = names.address().to_string();
            let launch = stage.operator(binary).to_loopback().lease_in(CORE).args(&["--dns-server", &server]);
            let log = folder.path().join(format!("operator-{number}.log"));
            operators.push(launch.log_to(&log).env("HOSTNAME", &format!("tidings-{number}")).ready(READY).await?);
        }
        let world =
            Self { operators, receiver, stage, resolves, created: Arc::default(), _names: names, _folder: folder };
        world.install().await?;
        Ok(world)
    }

    /// Applies the Secrets and the Subscribers in their healthy state.
    async fn install(&self) -> Result<()> {
        self.receiver.answer_always("/shop/parcels", testkit::Behaviour::status(204).after(Duration::from_millis(300)));
        self.credentials("partner", None).await?;
        self.credentials("ledger", Some(days_from_now(200))).await?;
        self.certificate(300).await?;
        for (namespace, name) in SUBSCRIBERS {
            self.stage.apply(namespace, &self.subscriber(namespace, name)).await?;
        }
        Ok(())
    }

    fn subscriber(&self, namespace: &str, name: &str) -> Value {
        let path = format!("/{namespace}/{name}");
        let port = self.receiver.address().port();
        let url = if name == "named" { format!("https://{HOST}:{port}{path}") } else { self.receiver.url(&path) };
        let tls = json!({"caRef": {"kind": "ConfigMap", "name": "ca"}});
        let mut webhook = json!({"url": url, "tls": tls, "timeoutSeconds": 5});
        if name == "bank" {
            webhook["tls"]["clientCertificateSecretRef"] = json!({"name": "bank-mtls"});
        }
        let secret = match name {
            "partner" | "ledger" => name,
            _ => "oauth",
        };
        json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": name},
            "spec": {
                "webhook": webhook,
                "tokenService": {
                    "url": self.stage.endpoints().tokens.url(), "tls": tls, "scopes": ["events.write"],
                    "credentialsSecretRef": {"name": secret},
                },
                "delivery": {"backoff": {"initialSeconds": 1, "maxSeconds": 4}},
                "suspend": (namespace, name) == HELD,
            },
        })
    }

    /// Stores client credentials of a Subscriber in `billing` with a Secret of their own.
    pub(crate) async fn credentials(&self, id: &str, expires: Option<Timestamp>) -> Result<()> {
        let annotations = expires.map_or(json!({}), |at| json!({"tidings.dev/expires": at.to_string()}));
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": id, "annotations": annotations},
            "stringData": {"client_id": id, "client_secret": SECRET},
        });
        self.stage.apply("billing", &secret).await
    }

    /// Sets the secret of a client at the token service.
    pub(crate) fn client_secret(&self, id: &str, secret: &str) {
        self.stage.endpoints().tokens.register(Client::new(id, secret).scopes(["events.write"]));
    }

    /// Stores a client certificate for the Subscriber `bank` that is valid for this number of days.
    pub(crate) async fn certificate(&self, days: i64) -> Result<()> {
        let until = SystemTime::from(days_from_now(days));
        let Identity { certificate_pem, key_pem } =
            self.stage.endpoints().authority.server_identity_with(|params| params.not_after = until.into());
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "bank-mtls"},
            "stringData": {"tls.crt": certificate_pem, "tls.key": key_pem},
        });
        self.stage.apply("billing", &secret).await
    }

    /// Sets whether the name of the webhook of `named` resolves.
    pub(crate) fn resolves(&self, resolves: bool) {
        self.resolves.store(resolves, Ordering::Relaxed);
    }

    /// Creates a Notification for each Subscriber every two seconds, until it is dropped.
    pub(crate) fn load(&self) -> Load {
        let (kubectl, created) = (self.stage.kubectl().clone(), Arc::clone(&self.created));
        Load(tokio::spawn(async move {
            loop {
                let of = SUBSCRIBERS.iter().map(|(namespace, name)| notification(namespace, name, Some(20)));
                // While a fault is active, the API server may refuse them.
                if create(&kubectl, of.collect()).await.is_ok() {
                    *created.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += SUBSCRIBERS.len() as u64;
                }
                sleep(ROUND).await;
            }
        }))
    }

    /// The number of Notifications that the load has created.
    pub(crate) fn created(&self) -> u64 {
        *self.created.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends pauses, and the waiting of circuits.
    pub(crate) async fn retry(&self) -> Result<()> {
        let annotation = format!("tidings.dev/reconcile-requested-at={}", Timestamp::now().as_millisecond());
        for namespace in ["shop", "billing"] {
            let annotate = ["annotate", "subscribers", "--all", "-n", namespace, "--overwrite", &annotation];
            self.stage.kubectl().run(&annotate).await?.ok()?;
        }
        Ok(())
    }

    /// Restarts both operators.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        for operator in &mut self.operators {
            operator.restart().await?;
        }
        Ok(())
    }

    /// Deletes all Notifications of a Subscriber in `shop`.
    pub(crate) async fn delete(&self, subscriber: &str) -> Result<()> {
        let of = format!("--field-selector=spec.subscriberRef.name={subscriber}");
        let delete = ["delete", "notifications", "-n", "shop", &of, "--wait=false"];
        self.stage.kubectl().run(&delete).await?.ok().map(drop)
    }

    /// Creates a Notification for [`MISSING`].
    pub(crate) async fn orphan(&self) -> Result<()> {
        create(self.stage.kubectl(), vec![notification("shop", MISSING, None)]).await
    }

    /// Creates Notifications for `parcels` that stay after they are delivered.
    pub(crate) async fn store(&self, count: u32) -> Result<()> {
        for start in (0..count).step_by(100) {
            let of = (start..count.min(start + 100)).map(|_| notification("shop", "parcels", None)).collect();
            create(self.stage.kubectl(), of).await?;
        }
        Ok(())
    }
}

/// The load; it stops when it is dropped.
pub(crate) struct Load(tokio::task::JoinHandle<()>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn days_from_now(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * days)
}

fn notification(namespace: &str, subscriber: &str, ttl: Option<u32>) -> Value {
    let event = json!({"source": "/verify", "type": "dev.tidings.verify", "data": {"text": "x".repeat(500)}});
    let mut spec = json!({"subscriberRef": {"name": subscriber}, "event": event});
    if let Some(seconds) = ttl {
        spec["ttlSecondsAfterFinished"] = seconds.into();
    }
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
        "metadata": {"namespace": namespace, "generateName": format!("{subscriber}-")}, "spec": spec,
    })
}

async fn create(kubectl: &Kubectl, notifications: Vec<Value>) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": notifications}).to_string();
    kubectl.run_with_input(&["create", "-f", "-"], &list).await?.ok().map(drop)
}
