//! All that a campaign needs, up and running: each part that can be made bad behind a proxy.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::client::{ApiClient, until};
use super::faults;
use super::history::History;
use super::install::{CLIENT, SECRET, install};
use super::record::{Post, Record, State, Window};
use super::replicas::{NAMES, Replicas};
use super::webhooks::{self, ALL_IN_FLIGHT};
use crate::api_proxy::{ApiProxy, Call, Treatment};
use crate::control_plane::ControlPlane;
use crate::error::{Error, Result};
use crate::pki::Authority;
use crate::receiver::Receiver;
use crate::tcp_proxy::{Link, TcpProxy};
use crate::token_service::{Client, TokenService};

/// Where everything is.
pub(crate) const NAMESPACE: &str = "chaos";
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
    pub(crate) client: ApiClient,
    pub(crate) receiver: Receiver,
    pub(crate) tokens: TokenService,
    /// The client secret that the token service takes.
    secret: Mutex<String>,
    pub(crate) plane: ControlPlane,
    pub(crate) record: Arc<Mutex<Record>>,
}

/// Rules that hold at the same time, each with a number to remove it by.
pub(crate) type Rules = Arc<Mutex<Vec<(usize, Rule)>>>;
pub(crate) type Rule = Box<dyn Fn(&Call) -> Treatment + Send + Sync>;

impl Stage {
    /// Sets it, with all logs in the folder `logs`.
    pub(crate) async fn set(binary: &Path, seed: u64, logs: &Path) -> Result<Self> {
        let plane = ControlPlane::start_logging_to(Some(logs)).await?;
        let authority = Authority::new();
        let tokens = TokenService::start(&authority).await?;
        tokens.register(client(CLIENT.1));
        tokens.set_expires_in(Some(TOKEN_LIFE));
        let receiver = Receiver::start(&authority, tokens.tokens()).await?;
        webhooks::behave(&receiver, seed);
        let webhook_link = TcpProxy::start(receiver.address()).await?;
        let token_link = TcpProxy::start(tokens.address()).await?;

        let record = Arc::new(Mutex::new(Record { in_flight: ALL_IN_FLIGHT, ..Record::default() }));
        let history = History::watch(plane.etcd_address(), Arc::clone(&record));
        let token = install(&plane, &authority, &webhook_link, &token_link).await?;

        let api = ApiProxy::start(&plane).await?;
        let rules = Rules::default();
        let active = Arc::clone(&rules);
        api.treat(move |call| {
            let active = active.lock().unwrap();
            let treatments = active.iter().map(|(_, rule)| rule(call));
            treatments.into_iter().find(|treatment| *treatment != Treatment::Pass).unwrap_or(Treatment::Pass)
        });
        let replicas = Replicas::start(binary, &plane, &api, &token, logs).await?;
        replicas.lead(START_LIMIT).await?;
        let client = ApiClient::new(&plane)?;
        Ok(Self {
            seed,
            replicas,
            webhook_link,
            token_link,
            api,
            rules,
            history,
            client,
            receiver,
            tokens,
            secret: Mutex::new(CLIENT.1.to_owned()),
            plane,
            record,
        })
    }

    /// The number of the operator that holds the Lease, or held it last, by etcd: one that was cut off believes it longer.
    pub(crate) fn leader(&self) -> usize {
        let record = self.record.lock().unwrap();
        let holder = record.holders.iter().rev().map(|(_, holder)| holder).find(|holder| !holder.is_empty());
        usize::from(holder.is_some_and(|holder| holder.starts_with(NAMES[1])))
    }

    /// The token service takes this client secret from now on, and no token that it issued before; the Secret has it
    /// after `time`.
    pub(crate) async fn rotate_secret(&self, secret: &str, time: Duration) {
        self.record.lock().unwrap().rotations.push(Window::open());
        secret.clone_into(&mut self.secret.lock().unwrap());
        self.tokens.register(client(secret));
        self.tokens.tokens().revoke(CLIENT.0);
        sleep(time).await;
        self.publish_secret().await;
    }

    /// Has the Secret hold what the token service takes.
    async fn publish_secret(&self) {
        let secret = self.secret.lock().unwrap().clone();
        until(&[200], || self.client.write_secret(SECRET, "client_secret", &secret)).await;
        faults::close(&mut self.record.lock().unwrap().rotations);
    }

    /// All is well again, whatever was wrong, and the webhooks take everything.
    pub(crate) async fn heal(&self) -> Result<()> {
        self.rules.lock().unwrap().clear();
        for link in self.replicas.links().chain([&self.webhook_link, &self.token_link]) {
            link.set(Link::Pass);
        }
        self.tokens.behave();
        webhooks::calm(&self.receiver);
        {
            // Of faults that ended before their time.
            let mut record = self.record.lock().unwrap();
            faults::close(&mut record.bad_ways);
            faults::close(&mut record.stops);
            // One that does not answer is started anew.
            record.unready.push(Window::open());
        }
        self.replicas.go_on().await;
        self.plane.revive().await?;
        faults::close(&mut self.record.lock().unwrap().unready);
        self.publish_secret().await;
        Ok(())
    }

    /// Adds to the record what only the end shows.
    ///
    /// # Errors
    /// When the record is not complete.
    pub(crate) async fn finish(&self) -> Result<()> {
        let takeovers = self.replicas.takeovers().await;
        {
            let mut record = self.record.lock().unwrap();
            record.takeovers = takeovers;
            record.posts = self.posts();
            record.late = self.api.late();
            record.forbidden = self.api.forbidden();
            record.ended = Timestamp::now();
        }
        if let Some(why) = self.history.incomplete() {
            return Err(Error::new(format!("the history is not complete: {why}")));
        }
        let listed = self.client.list("notifications").await?;
        let name = |object: &serde_json::Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.record.lock().unwrap().listed = listed.iter().map(|object| (name(object), State::of(object))).collect();
        Ok(())
    }

    /// The POSTs that arrived so far.
    fn posts(&self) -> Vec<Post> {
        let requests = self.receiver.requests();
        let posts = requests.iter().filter(|request| request.method == http::Method::POST).map(|request| Post {
            id: request.event_id().unwrap_or_default(),
            subscriber: request.path.trim_start_matches('/').to_owned(),
            arrived: Timestamp::try_from(request.arrived_at).unwrap_or_default(),
            answered: request.answered,
        });
        posts.collect()
    }
}

/// The operators' client, with this secret.
fn client(secret: &str) -> Client {
    Client::new(CLIENT.0, secret).scopes(["events.write"])
}
