//! An engine over a source in memory, and a webhook with its token service to send to.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use testkit::{Authority, Client, Receiver, TokenService};
use tidings_delivery::{
    egress::{self, Authorities, Egress, Policy, Trust},
    event::Encoding,
    oauth::{AuthMethod, Credentials, CredentialsFingerprint, TokenCache, TokenKey, TokenRequest, TokenSource},
    webhook::{Target, TokenDoubt},
};
use tidings_queue::{Backoff, Bounds, Gate, LaneSnapshot, Limits, SpecVersion, SubscriberKey};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::memory::Memory;
use crate::{
    contract::{self, LaneUpdate, Report, Route},
    engine::{Engine, Surroundings},
    metrics::Metrics,
    ownership::{Leadership, Mandate},
};

/// Nothing takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The first wait of a failed event, unless a test wants another.
pub const WAIT: Duration = Duration::from_millis(200);
const HOUR: Duration = Duration::from_secs(3600);

/// The Subscriber with this name.
pub fn named(name: &str) -> SubscriberKey {
    SubscriberKey { namespace: "test".into(), name: name.into() }
}

/// A running engine and all around it. Each Subscriber's webhook is the path of its name.
pub struct World {
    pub memory: Memory,
    pub webhook: Webhook,
    updates: mpsc::UnboundedSender<LaneUpdate>,
    reports: mpsc::UnboundedReceiver<Report>,
    stop: watch::Sender<bool>,
    engine: JoinHandle<()>,
}

impl World {
    /// An engine that is alone.
    pub async fn new() -> Self {
        Self::led(Leadership::alone(), Memory::default()).await
    }

    /// An engine that sends what is in `memory`, while `ownership` lets it.
    pub async fn led(ownership: Leadership, memory: Memory) -> Self {
        let webhook = Webhook::start().await;
        let (updates, received) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        let bounds = Bounds { in_flight: 64, bytes_in_flight: 8 << 20, bytes_kept: 1 << 20 };
        let with = Surroundings::new(Mandate::new(ownership, stopping), reports, Metrics::default());
        let engine = Engine::new(memory.clone(), &bounds, &[None], with);
        let engine = tokio::spawn(engine.run(memory.watch(), received, || {}));
        Self { memory, webhook, updates, reports: reported, stop, engine }
    }

    /// Another engine over the same store, with another webhook.
    pub async fn after(memory: &Memory) -> Self {
        Self::led(Leadership::alone(), memory.clone()).await
    }

    /// Opens the Subscriber of this name.
    pub fn open(&self, name: &str) -> SubscriberKey {
        self.open_with(name, |_| {})
    }

    /// The same; `change` may alter its route.
    pub fn open_with(&self, name: &str, change: impl FnOnce(&mut Route)) -> SubscriberKey {
        let mut route = self.webhook.route(name);
        change(&mut route);
        self.update(contract::open(named(name), Arc::new(route)));
        named(name)
    }

    /// Closes a Subscriber.
    pub fn suspend(&self, of: &SubscriberKey) {
        let (version, gate) = (Some(SpecVersion::new(&*of.name, 1)), Gate::Suspended);
        self.update(LaneUpdate::Closed { of: of.clone(), version, gate, lifetime: Some(HOUR) });
    }

    /// Hands news to the engine.
    pub fn update(&self, update: LaneUpdate) {
        self.updates.send(update).unwrap();
    }

    /// Returns once the engine has received all updates and seen all changes of the store until now, and has acted on
    /// them: what comes after them in both channels has gone the whole way.
    pub async fn settle(&self, name: &str) {
        let id = self.memory.add(&self.open(name), &[name]);
        self.memory.written(id, 1).await;
    }

    /// Waits for the next report that `pick` wants; those before it are dropped.
    pub async fn report<T>(&mut self, mut pick: impl FnMut(Report) -> Option<T>) -> T {
        let reports = &mut self.reports;
        let found = async {
            loop {
                if let Some(found) = pick(reports.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("a report")
    }

    /// Waits until the engine reports that the Subscriber's lane is as `is` says.
    pub async fn lane(&mut self, of: &SubscriberKey, is: impl Fn(&LaneSnapshot) -> bool) {
        self.report(|report| match report {
            Report::Lanes(lanes) => lanes.iter().any(|(key, lane)| key == of && is(lane)).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until `count` attempts were reported.
    pub async fn attempts(&mut self, count: usize) {
        for _ in 0..count {
            self.report(|report| matches!(report, Report::Attempted { .. }).then_some(())).await;
        }
    }

    /// Asks the engine to end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether the engine ended.
    pub fn has_ended(&self) -> bool {
        self.engine.is_finished()
    }

    /// Returns when the engine has ended.
    pub async fn ended(&mut self) {
        timeout(PATIENCE, &mut self.engine).await.expect("the engine ends").unwrap();
    }

    /// The ids of the events that arrived for a Subscriber, in order.
    pub fn arrived(&self, of: &SubscriberKey) -> Vec<String> {
        let requests = self.webhook.receiver.requests_for(&format!("/{}", of.name));
        requests.iter().map(|request| request.event_id().unwrap()).collect()
    }
}

/// A receiver over HTTPS that takes the tokens of a token service.
pub struct Webhook {
    pub receiver: Receiver,
    http: Arc<egress::Client>,
    tokens: Arc<TokenSource>,
    held: watch::Sender<bool>,
    asked: watch::Sender<usize>,
    _service: TokenService,
}

impl Webhook {
    async fn start() -> Self {
        let authority = Authority::new();
        let service = TokenService::start(&authority).await.unwrap();
        service.register(Client::new("id", "secret"));
        let (held, asked) = (watch::Sender::new(false), watch::Sender::new(0));
        let (book, gate, count) = (service.tokens().clone(), held.clone(), asked.clone());
        let check = move |token: String| {
            count.send_modify(|asked| *asked += 1);
            let (is_valid, mut held) = (book.check(&token).is_some(), gate.subscribe());
            async move { held.wait_for(|held| !held).await.is_ok() && is_valid }
        };
        let receiver = Receiver::start_with_check(&authority, check).await.unwrap();
        let trust = Trust { authorities: Authorities::PublicAnd(authority.ca_pem().into()), identity: None };
        let http = Egress::new(Policy::allowing(vec!["127.0.0.1".parse().unwrap()])).client("test", &trust).unwrap();
        let tokens = tokens(&service, &http, &trust);
        Self { receiver, http, tokens, held, asked, _service: service }
    }

    /// POSTs are not answered, nor counted as arrived, from now on, or are.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Waits until `count` POSTs have come, answered or not.
    pub async fn asked(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        timeout(PATIENCE, asked.wait_for(|asked| *asked >= count)).await.expect("a POST").unwrap();
    }

    fn route(&self, name: &str) -> Route {
        Route {
            target: Target {
                url: self.receiver.url(&format!("/{name}")).parse().unwrap(),
                encoding: Encoding::Binary,
                headers: HeaderMap::new(),
                timeout: PATIENCE,
                http: self.http.clone(),
                tokens: self.tokens.clone(),
                rules: Default::default(),
                token_doubt: TokenDoubt::default(),
                signer: None,
                origin: HeaderValue::from_static("events.example.com"),
            },
            version: SpecVersion::new(name, 1),
            limits: Limits { max_in_flight: 8, rate_per_minute: None },
            backoff: Backoff { initial: WAIT, max: HOUR },
            max_attempts: None,
            expire_after: HOUR,
        }
    }
}

fn tokens(service: &TokenService, http: &Arc<egress::Client>, trust: &Trust) -> Arc<TokenSource> {
    let (client_id, timeout) = ("id".to_owned(), PATIENCE);
    let authentication = AuthMethod::Basic("secret".into());
    let credentials = Credentials { client_id: client_id.clone(), authentication };
    let key = TokenKey {
        namespace: "test".into(),
        secret_uid: "uid".into(),
        credentials: credentials.fingerprint(),
        authentication: credentials.method(),
        secret_keys: Vec::new(),
        url: service.url(),
        client_id,
        scopes: Vec::new(),
        audience: None,
        resources: Vec::new(),
        parameters: Default::default(),
        headers: CredentialsFingerprint::of_headers(&HeaderMap::new()),
        timeout,
        trust: trust.fingerprint(),
    };
    TokenCache::default().source(key, || TokenRequest {
        url: service.url().parse().unwrap(),
        credentials,
        scopes: Vec::new(),
        audience: None,
        resources: Vec::new(),
        parameters: Default::default(),
        headers: HeaderMap::new(),
        timeout,
        http: http.clone(),
    })
}
