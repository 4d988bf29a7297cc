//! All that a campaign needs, up and running: each part that can be made bad behind a proxy.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use testkit::proxies::{Call, Link, Treatment};
use testkit::stage::Endpoints;
use testkit::{ApiProxy, Behaviour, Client, ControlPlane, Error, Receiver, Result, TcpProxy, TokenService};
use tokio::sync::RwLock;
use tokio::time::{sleep, timeout};

use crate::client::{ApiClient, until};
use crate::credentials::{CLIENT, HANGING_PATH, OTHER_CLIENT, SECRET, TOKEN_PATH};
use crate::history::History;
use crate::install::install;
use crate::many::BUSY;
use crate::record::{Post, Record, State, Window, close};
use crate::replicas::{NAMES, Replicas};
use crate::spaces;
use crate::webhooks::{self, IN_FLIGHT, WEBHOOKS, namespace_of, namespace_of_notification};

/// Short, so that the token service is asked all the time.
const TOKEN_LIFE: Duration = Duration::from_secs(30);
const START_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) seed: u64,
    // The order is the order of dropping: the operators first, what they talk to after them.
    pub(crate) replicas: Replicas,
    pub(crate) webhook_link: TcpProxy,
    pub(crate) token_link: TcpProxy,
    pub(crate) api: ApiProxy,
    /// What is wrong with the answers of the API server; the first that says something counts.
    pub(crate) rules: Rules,
    pub(crate) history: History,
    pub(crate) client: Arc<ApiClient>,
    /// The client secret that the token service takes.
    secret: Mutex<String>,
    scene: testkit::Stage,
    pub(crate) record: Arc<Mutex<Record>>,
    /// Held by faults that decide who leads.
    pub(crate) leaders: RwLock<()>,
}

/// Rules that hold at the same time, each with a number to remove it by.
pub(crate) type Rules = Arc<Mutex<Vec<(usize, Rule)>>>;
pub(crate) type Rule = Box<dyn Fn(&Call) -> Treatment + Send + Sync>;

impl Stage {
    /// Sets it, with all logs in the folder `logs`.
    pub(crate) async fn set(binary: &Path, seed: u64, logs: &Path) -> Result<Self> {
        let scene = scene(logs).await?;
        let Endpoints { tokens, receiver, .. } = scene.endpoints();
        tokens.answer_always_at(HANGING_PATH, Behaviour::hang());
        tokens.set_expires_in(Some(TOKEN_LIFE));
        webhooks::behave(receiver, seed);
        let webhook_link = TcpProxy::start(receiver.address()).await?;
        let token_link = TcpProxy::start(tokens.address()).await?;

        let in_flight = IN_FLIGHT * (WEBHOOKS.len() + usize::try_from(BUSY).unwrap_or_default());
        let record = Arc::new(Mutex::new(Record { in_flight, ..Record::default() }));
        let history = History::watch(scene.plane().etcd_address(), Arc::clone(&record));
        let api_client = Arc::new(ApiClient::new(scene.plane())?);
        let (webhook, token) = (url(&webhook_link), url(&token_link));
        install(&scene, &api_client, &webhook, &token).await?;

        let api = ApiProxy::start(scene.plane()).await?;
        let rules = rules_of(&api);
        let replicas = Replicas::start(binary, &scene, &api, logs).await?;
        replicas.lead(START_LIMIT).await?;
        // The faults begin when the operators have reconciled every Subscriber.
        let _ = timeout(START_LIMIT, all_reconciled(&history)).await;
        Ok(Self {
            seed,
            replicas,
            webhook_link,
            token_link,
            api,
            rules,
            history,
            client: api_client,
            secret: Mutex::new(CLIENT.1.to_owned()),
            scene,
            record,
            leaders: RwLock::default(),
        })
    }

    /// The control plane.
    pub(crate) fn plane(&self) -> &ControlPlane {
        self.scene.plane()
    }

    /// The webhooks.
    pub(crate) fn receiver(&self) -> &Receiver {
        &self.scene.endpoints().receiver
    }

    /// The token service.
    pub(crate) fn tokens(&self) -> &TokenService {
        &self.scene.endpoints().tokens
    }

    /// The number of the operator that holds the Lease, or held it last, by etcd. An operator that is cut off believes
    /// longer that it holds the Lease.
    pub(crate) fn leader(&self) -> usize {
        let record = self.record.lock().unwrap();
        let mut holders = record.holders.iter().rev().map(|(_, holder)| holder).filter(|holder| !holder.is_empty());
        let holder = holders.next().map_or("", String::as_str);
        NAMES.iter().position(|name| holder.starts_with(name)).unwrap_or_default()
    }

    /// Whether the Lease was released and has no holder.
    pub(crate) fn is_free(&self) -> bool {
        self.record.lock().unwrap().holders.last().is_none_or(|(_, holder)| holder.is_empty())
    }

    /// Where the operators find the webhooks.
    pub(crate) fn webhook_url(&self) -> String {
        url(&self.webhook_link)
    }

    /// Where the operators find the token service.
    pub(crate) fn token_url(&self) -> String {
        url(&self.token_link) + TOKEN_PATH
    }

    /// Has a rule hold for as long as `work` takes.
    pub(crate) async fn rule(&self, work: impl Future, rule: Rule) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.rules.lock().unwrap().push((number, rule));
        work.await;
        self.rules.lock().unwrap().retain(|(other, _)| *other != number);
    }

    /// The token service takes this client secret from now on, and no token that it issued before; the Secret has it
    /// after `time`.
    pub(crate) async fn rotate_secret(&self, secret: &str, time: Duration) {
        self.record.lock().unwrap().rotations.push(Window::open());
        secret.clone_into(&mut self.secret.lock().unwrap());
        self.tokens().register(client(CLIENT.0, secret));
        self.tokens().tokens().revoke(CLIENT.0);
        sleep(time).await;
        self.publish_secret().await;
    }

    /// Has the Secret hold what the token service takes.
    async fn publish_secret(&self) {
        let secret = self.secret.lock().unwrap().clone();
        until(&[200], || self.client.write_secret(SECRET, "client_secret", &secret)).await;
        close(&mut self.record.lock().unwrap().rotations);
    }

    /// Ends every fault, except that it gives no right back. From now on the webhooks take everything.
    pub(crate) async fn heal(&self) -> Result<()> {
        self.rules.lock().unwrap().clear();
        for link in self.replicas.links().chain([&self.webhook_link, &self.token_link]) {
            link.set(Link::Pass);
        }
        self.tokens().behave();
        self.tokens().behave_at(HANGING_PATH);
        webhooks::calm(self.receiver());
        {
            // Of faults that ended before their time.
            let mut record = self.record.lock().unwrap();
            close(&mut record.bad_ways);
            close(&mut record.stops);
            // An API server that does not respond is restarted.
            record.unready.push(Window::open());
        }
        self.replicas.go_on().await;
        self.plane().revive().await?;
        close(&mut self.record.lock().unwrap().unready);
        self.publish_secret().await;
        Ok(())
    }

    /// Adds to the record what only the end shows.
    ///
    /// # Errors
    /// When the record is not complete.
    pub(crate) async fn finish(&self) -> Result<()> {
        let (takeovers, ends) = (self.replicas.takeovers().await, self.replicas.ends().await);
        {
            let mut record = self.record.lock().unwrap();
            record.takeovers = takeovers;
            record.ends = ends;
            record.posts = self.posts();
            record.late = self.api.late();
            record.forbidden = self.api.forbidden();
            record.ended = Timestamp::now();
            if record.barred.contains_key(spaces::DOOMED) {
                let doomed = record.accepted.keys().filter(|name| namespace_of_notification(name) == spaces::DOOMED);
                let doomed: Vec<_> = doomed.cloned().collect();
                record.deleted.extend(doomed);
            }
        }
        if let Some(why) = self.history.incomplete() {
            return Err(Error::new(format!("the history is not complete: {why}")));
        }
        let listed = self.client.list("notifications").await?;
        let name = |object: &serde_json::Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let of = |name: &String| (name.clone(), namespace_of(name).to_owned());
        let mut record = self.record.lock().unwrap();
        record.namespaces = record.specs.keys().map(of).collect();
        record.listed = listed.iter().map(|object| (name(object), State::of(object))).collect();
        Ok(())
    }

    /// The POSTs that arrived so far.
    fn posts(&self) -> Vec<Post> {
        let requests = self.receiver().requests();
        let posts = requests.iter().filter(|request| request.method == http::Method::POST).map(|request| Post {
            id: request.event_id().unwrap_or_default(),
            subscriber: request.path.split('/').nth(1).unwrap_or_default().to_owned(),
            path: request.path.trim_start_matches('/').to_owned(),
            arrived: Timestamp::try_from(request.arrived_at).unwrap_or_default(),
            answered: request.answered,
        });
        posts.collect()
    }
}

fn url(link: &TcpProxy) -> String {
    format!("https://{}", link.address())
}

async fn all_reconciled(history: &History) {
    while !history.unheard().is_empty() {
        sleep(Duration::from_millis(200)).await;
    }
}

/// The rules of the proxy, at first none.
fn rules_of(api: &ApiProxy) -> Rules {
    let rules = Rules::default();
    let active = Arc::clone(&rules);
    api.treat(move |call| {
        let active = active.lock().unwrap();
        let treatments = active.iter().map(|(_, rule)| rule(call));
        treatments.into_iter().find(|treatment| *treatment != Treatment::Pass).unwrap_or(Treatment::Pass)
    });
    rules
}

/// The control plane, the endpoints and the namespaces, with the logs of the control plane in this folder.
async fn scene(logs: &Path) -> Result<testkit::Stage> {
    let client_of = |namespace: &str| {
        let (id, secret) = if namespace == spaces::CORE { CLIENT } else { OTHER_CLIENT };
        client(id, secret)
    };
    let scene = testkit::Stage::builder().logs_in(logs).namespaces(&spaces::ALL).bundle("test-ca");
    let scene = scene.client(client(CLIENT.0, CLIENT.1)).client(client(OTHER_CLIENT.0, OTHER_CLIENT.1));
    scene.credentials(SECRET, client_of).set().await
}

/// A client with this secret, that may request what the Subscribers request.
fn client(id: &str, secret: &str) -> Client {
    Client::new(id, secret).scopes(["events.write"])
}
