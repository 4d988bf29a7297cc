//! What the API server itself can do: creates, status patches and a watch, without any of the operator's work.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Request, request};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{
    say,
    stage::{SUBSCRIBERS, Stage},
};

/// So many requests at once are tried; the best of them counts.
pub const AT_ONCE: [usize; 3] = [16, 32, 64];
/// Bytes of data in each event.
pub const EVENT_BYTES: usize = 1024;

/// A Notification that was created.
pub struct Created {
    pub name: String,
    pub uid: String,
}

/// The path of a namespace's Notifications.
pub fn path(namespace: &str) -> String {
    format!("/apis/tidings.dev/v1alpha1/namespaces/{namespace}/notifications")
}

/// The manifest of Notification number `number`, whose event has its name as id, for one of the Subscribers.
pub fn manifest(number: usize) -> Value {
    let name = format!("n-{number}");
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": name},
        "spec": {"subscriberRef": {"name": format!("shop-{}", number % SUBSCRIBERS)}, "event": {
            "id": name, "source": "/bench", "type": "com.example.measured", "datacontenttype": "text/plain",
            "data": "x".repeat(EVENT_BYTES),
        }},
    })
}

/// Sends one request and takes all of the answer, which must be a success.
async fn send(client: &Client, request: request::Builder, body: Vec<u8>) -> Bytes {
    let answer = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    body
}

/// Creates one at the path of its namespace.
pub async fn create_one(client: &Client, path: &str, body: Vec<u8>) -> Bytes {
    send(client, Request::post(path).header("content-type", "application/json"), body).await
}

/// Creates these, so many at once, and returns how many a second that were.
pub async fn create(client: &Client, namespace: &str, manifests: Vec<Value>, at_once: usize) -> (f64, Vec<Created>) {
    let count = manifests.len();
    let bodies: Vec<_> = manifests.iter().map(Value::to_string).collect();
    let path = path(namespace);
    let begun = Instant::now();
    let answers: Vec<_> = stream::iter(bodies)
        .map(|body| create_one(client, &path, body.into_bytes()))
        .buffer_unordered(at_once)
        .collect()
        .await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let created = answers.iter().map(|answer| {
        let object: Value = serde_json::from_slice(answer).unwrap();
        let field = |name: &str| object["metadata"][name].as_str().unwrap().to_owned();
        Created { name: field("name"), uid: field("uid") }
    });
    (rate, created.collect())
}

/// Finishes these with the status `status`; returns how many a second.
pub async fn patch(client: &Client, namespace: &str, created: &[Created], status: &Value, at_once: usize) -> f64 {
    let outcomes: Vec<_> = created.iter().map(|created| Outcome::new(namespace, created, status)).collect();
    let begun = Instant::now();
    stream::iter(outcomes).map(|outcome| outcome.write(client)).buffer_unordered(at_once).for_each(async |()| ()).await;
    created.len() as f64 / begun.elapsed().as_secs_f64()
}

/// The request that finishes one, as the operator makes it.
pub struct Outcome {
    path: String,
    patch: Vec<u8>,
}

impl Outcome {
    pub fn new(namespace: &str, created: &Created, status: &Value) -> Self {
        let patch = json!([
            { "op": "test", "path": "/metadata/uid", "value": created.uid },
            { "op": "test", "path": "/status/phase", "value": "Pending" },
            { "op": "test", "path": "/status/attempts", "value": 0 },
            { "op": "test", "path": "/status/lastHandledReplay", "value": null },
            { "op": "add", "path": "/status", "value": status },
        ]);
        let path = format!("{}/{}/status?&fieldManager=tidings", path(namespace), created.name);
        Self { path, patch: patch.to_string().into_bytes() }
    }

    pub async fn write(self, client: &Client) {
        let request = Request::patch(self.path)
            .header("content-type", "application/json-patch+json")
            .header("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;q=0.9");
        send(client, request, self.patch).await;
    }
}

/// Requests under way at once.
#[derive(Clone, Copy)]
pub struct AtOnce {
    pub creates: usize,
    pub patches: usize,
}

/// What the API server can do.
pub struct Bare {
    /// Creates a second.
    pub creates: f64,
    /// Status patches a second.
    pub patches: f64,
    /// Processor time of API server and etcd for a patch.
    pub patch_cpu: Duration,
}

/// Creates `count` objects in a new namespace, then patches them.
pub async fn run(stage: &Stage, namespace: &str, count: usize, status: &Value, at_once: AtOnce) -> Bare {
    let tenant = stage.tenant(namespace).await;
    let manifests = (0..count).map(manifest).collect();
    stage.collect_garbage().await;
    let (creates, created) = create(&stage.creator, &tenant.namespace, manifests, at_once.creates).await;
    stage.collect_garbage().await;
    let before = stage.control_plane_cpu().await;
    let patches = patch(&tenant.client, &tenant.namespace, &created, status, at_once.patches).await;
    let cpu = stage.control_plane_cpu().await - before;
    say(format!(
        "{creates:.0} bare creates/s, {} at once; {patches:.0} bare patches/s, {} at once",
        at_once.creates, at_once.patches
    ));
    Bare { creates, patches, patch_cpu: cpu / u32::try_from(count).unwrap() }
}

/// Tells, for each object that appears in the namespace, its name and when it was seen.
pub async fn watch(client: Client, namespace: String, seen: impl Fn(String, Duration)) {
    let api = kube::Api::<tidings::controller::Unfinished>::namespaced(client, &namespace);
    let list = api.list(&kube::api::ListParams::default().limit(1)).await.unwrap();
    let params = kube::api::WatchParams::default().timeout(290);
    let events = api.watch(&params, &list.metadata.resource_version.unwrap()).await.unwrap();
    let each = events.try_for_each(async |event| {
        if let kube::api::WatchEvent::Added(object) = event {
            seen(object.metadata.name.unwrap(), crate::receiver::now());
        }
        Ok(())
    });
    each.await.unwrap();
}
