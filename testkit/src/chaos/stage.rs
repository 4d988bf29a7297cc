//! All that a campaign needs, up and running: each part that can be made bad behind a proxy.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::client::ApiClient;
use super::faults;
use super::history::History;
use super::record::{Post, Record, State};
use super::replicas::Replicas;
use super::webhooks::{self, ALL_IN_FLIGHT, WEBHOOKS};
use crate::api_proxy::{ApiProxy, Call, Treatment};
use crate::control_plane::ControlPlane;
use crate::error::{Error, Result};
use crate::pki::Authority;
use crate::receiver::Receiver;
use crate::tcp_proxy::{Link, TcpProxy};
use crate::token_service::{Client, TokenService};

/// Where everything is.
pub(crate) const NAMESPACE: &str = "chaos";
const CLIENT: (&str, &str) = ("acme", "s3cr3t-for-the-campaign");
const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
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
    pub(crate) plane: ControlPlane,
    pub(crate) record: Arc<Mutex<Record>>,
}

/// Rules that hold at the same time, each with a number to remove it by.
pub(crate) type Rules = Arc<Mutex<Vec<(usize, Rule)>>>;
pub(crate) type Rule = Box<dyn Fn(&Call) -> Treatment + Send + Sync>;

impl Stage {
    pub(crate) async fn set(binary: &Path, seed: u64) -> Result<Self> {
        let plane = ControlPlane::start().await?;
        let authority = Authority::new();
        let tokens = TokenService::start(&authority).await?;
        tokens.register(Client::new(CLIENT.0, CLIENT.1).scopes(["events.write"]));
        tokens.set_expires_in(Some(TOKEN_LIFE));
        let receiver = Receiver::start(&authority, tokens.tokens()).await?;
        webhooks::behave(&receiver, seed);
        let webhook_link = TcpProxy::start(receiver.address()).await?;
        let token_link = TcpProxy::start(tokens.address()).await?;

        let record = Arc::new(Mutex::new(Record { in_flight: ALL_IN_FLIGHT, ..Record::default() }));
        let history = History::watch(plane.etcd_address(), Arc::clone(&record));
        install(&plane, &authority, &webhook_link, &token_link).await?;

        let api = ApiProxy::start(&plane).await?;
        let rules = Rules::default();
        let active = Arc::clone(&rules);
        api.treat(move |call| {
            let active = active.lock().unwrap();
            let treatments = active.iter().map(|(_, rule)| rule(call));
            treatments.into_iter().find(|treatment| *treatment != Treatment::Pass).unwrap_or(Treatment::Pass)
        });
        let replicas = Replicas::start(binary, &plane, &api).await?;
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
            plane,
            record,
        })
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
        }
        self.replicas.go_on().await;
        self.plane.revive().await
    }

    /// Adds what only the end shows, and returns all.
    pub(crate) async fn finish(&self) -> Result<Record> {
        if let Some(why) = self.history.incomplete() {
            return Err(Error::new(format!("the history is not complete: {why}")));
        }
        let listed = self.client.list("notifications").await?;
        let takeovers = self.replicas.takeovers().await;
        let mut record = self.record.lock().unwrap();
        let name = |object: &serde_json::Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        record.listed = listed.iter().map(|object| (name(object), State::of(object))).collect();
        record.takeovers = takeovers;
        record.posts = self.posts();
        Ok(record.clone())
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

/// Applies the definitions, and what the Subscribers need, and the Subscribers.
async fn install(plane: &ControlPlane, authority: &Authority, webhook: &TcpProxy, token: &TcpProxy) -> Result<()> {
    plane.kubectl(&["apply", "--server-side", "-f", CRDS]).await?.ok()?;
    plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]).await?.ok()?;
    // The first use of a new definition may still be told to come again.
    for kind in ["subscribers", "notifications"] {
        while !plane.kubectl(&["get", kind]).await?.success {}
    }
    plane.kubectl(&["create", "namespace", NAMESPACE]).await?.ok()?;
    let webhook = format!("https://{}", webhook.address());
    let token = format!("https://{}/oauth2/token", token.address());
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "test-ca"},
            "data": {"ca.crt": authority.ca_pem()}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-oauth"},
            "stringData": {"client_id": CLIENT.0, "client_secret": CLIENT.1}}),
    ];
    items.extend(WEBHOOKS.iter().map(|subscriber| subscriber.subscriber(&webhook, &token)));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    plane.admin().apply(&list.to_string(), &["-n", NAMESPACE, "--server-side"]).await.map(drop)
}
