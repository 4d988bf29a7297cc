//! What the store of the cluster had, version by version: a watch on etcd itself, which outlives every API server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use testkit::{Error, Result};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::lease;
use crate::record::{Change, Record, Spec, State};
use crate::spaces;

/// Where the API server keeps all.
const REGISTRY: &str = "/registry/";
/// Our kinds below it, as JSON.
const GROUP: &str = "tidings.dev/";
/// One range holds Leases and our kinds; what lies between them changes seldom.
const RANGE: (&str, &str) = ("/registry/leases/", "/registry/tidings.dev0");

/// A watch that writes what it sees into a record. Dropping it ends it.
pub(crate) struct History {
    record: Arc<Mutex<Record>>,
    incomplete: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl History {
    pub(crate) fn watch(etcd: SocketAddr, record: Arc<Mutex<Record>>) -> Self {
        let incomplete = Arc::default();
        let mut watch =
            Watch { etcd, next: 1, record: Arc::clone(&record), incomplete: Arc::clone(&incomplete), rest: Vec::new() };
        let task = tokio::spawn(async move {
            loop {
                // It ends with each etcd that is killed, and goes on where it was.
                let _ = watch.follow().await;
                watch.rest.clear();
                sleep(Duration::from_millis(50)).await;
            }
        });
        Self { record, incomplete, task }
    }

    /// Why something is missing, if it is.
    pub(crate) fn incomplete(&self) -> Option<String> {
        self.incomplete.lock().unwrap().clone()
    }

    /// Notifications that are accepted and neither finished nor deleted, and those with a pending replay.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let record = self.record.lock().unwrap();
        let is_open = |id: &&String| {
            let Some(change) = record.changes.get(*id).and_then(|changes| changes.last()) else { return true };
            let Some(state) = &change.state else { return false };
            let asked = record.replays.get(*id).map(|(value, _)| value);
            !state.is_finished() || (asked.is_some() && asked != state.handled.as_ref())
        };
        record.accepted.keys().filter(is_open).cloned().collect()
    }

    /// The Subscribers whose status is not about their spec as it is now.
    pub(crate) fn unheard(&self) -> Vec<String> {
        let record = self.record.lock().unwrap();
        let is_unheard = |spec: &Spec| !spec.deleted && spec.observed < spec.generation;
        let unheard = record.specs.iter().filter(|(_, specs)| specs.last().is_some_and(is_unheard));
        unheard.map(|(name, _)| name.clone()).collect()
    }

    /// What is finished and should have deleted itself.
    pub(crate) fn kept(&self) -> Vec<String> {
        let record = self.record.lock().unwrap();
        let is_kept = |state: &State| state.has_ttl && state.is_finished();
        let last = |id: &&String| record.changes.get(*id).and_then(|changes| changes.last()?.state.as_ref());
        record.accepted.keys().filter(|id| last(id).is_some_and(is_kept)).cloned().collect()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watch {
    etcd: SocketAddr,
    /// The revision to begin with.
    next: u64,
    record: Arc<Mutex<Record>>,
    incomplete: Arc<Mutex<Option<String>>>,
    /// The beginning of a line.
    rest: Vec<u8>,
}

impl Watch {
    async fn follow(&mut self) -> Result<()> {
        let mut body = self.open().await?;
        let mut searched = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::new(error.to_string()))?;
            self.rest.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            // A line may hold some MiB: what was searched is not searched again.
            while let Some(end) = self.rest[searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=searched + end).collect();
                self.take(&serde_json::from_slice(&line).map_err(|error| Error::new(error.to_string()))?);
                searched = 0;
            }
            searched = self.rest.len();
        }
        Ok(())
    }

    /// The watch by etcd's JSON gateway: one line for each answer.
    async fn open(&self) -> Result<Incoming> {
        let stream = TcpStream::connect(self.etcd).await?;
        let failed = |error: hyper::Error| Error::new(error.to_string());
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(connection);
        let create = json!({"create_request": {"key": STANDARD.encode(RANGE.0), "range_end": STANDARD.encode(RANGE.1),
            "start_revision": self.next.to_string()}});
        let request = Request::post("/v3/watch").header(HOST, "etcd").body(Full::new(Bytes::from(create.to_string())));
        let answer = sender.send_request(request.map_err(|error| Error::new(error.to_string()))?).await;
        Ok(answer.map_err(failed)?.into_body())
    }

    fn take(&mut self, line: &Value) {
        let (result, at) = (&line["result"], Timestamp::now());
        if result["canceled"].as_bool() == Some(true) {
            *self.incomplete.lock().unwrap() = Some(line.to_string());
        }
        for event in result["events"].as_array().into_iter().flatten() {
            self.take_event(event, at);
        }
    }

    fn take_event(&mut self, event: &Value, at: Timestamp) {
        let kv = &event["kv"];
        let revision = kv["mod_revision"].as_str().and_then(|revision| revision.parse::<u64>().ok());
        self.next = self.next.max(revision.unwrap_or_default() + 1);
        let decoded = |field: &str| kv[field].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        let (key, value) = (String::from_utf8(decoded("key")).unwrap_or_default(), decoded("value"));
        let Some((kind, namespace, name)) = place(&key) else { return };
        let object = serde_json::from_slice::<Value>(&value).ok();
        let mut record = self.record.lock().unwrap();
        match (kind, object) {
            ("notifications", object) => {
                let state = object.as_ref().map(State::of);
                record.changes.entry(name.to_owned()).or_default().push(Change { at, state });
            }
            ("subscribers", subscriber) => {
                record.see_spec(name, subscriber.as_ref(), at);
                if let Some(subscriber) = subscriber {
                    record.see_subscriber(name, &subscriber, at);
                }
            }
            ("leases", _) if namespace == spaces::CORE => {
                if let Some(holder) = lease::holder(&value) {
                    record.see_holder(holder, at);
                }
            }
            _ => {}
        }
    }
}

/// The kind, the namespace and the name of what is kept under a key, if it is in a namespace of the campaign.
fn place(key: &str) -> Option<(&str, &str, &str)> {
    let below = key.strip_prefix(REGISTRY)?;
    let (kind, rest) = below.strip_prefix(GROUP).unwrap_or(below).split_once('/')?;
    let (namespace, name) = rest.split_once('/')?;
    spaces::ALL.contains(&namespace).then_some((kind, namespace, name))
}
