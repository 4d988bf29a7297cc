//! What the API server itself can do: creates, status patches and a watch, without any of the operator's work.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tidings::notifications::{record::outcome_request, wire::Unfinished};
use tidings_api::NotificationStatus;

use crate::{
    say,
    stage::{SUBSCRIBERS, Stage},
};

/// So many requests at once are tried; the best of them counts.
pub const AT_ONCE: [usize; 3] = [16, 32, 64];
/// Bytes of data in each event.
pub const EVENT_BYTES: usize = 1024;

/// The path of a namespace's Notifications.
pub fn path(namespace: &str) -> String {
    format!("/apis/tidings.dev/v1alpha1/namespaces/{namespace}/notifications")
}

/// The manifest of Notification number `number`, whose event has its name as id, for one of the Subscribers.
pub fn manifest(number: usize) -> Value {
    manifest_of(number, EVENT_BYTES)
}

/// The same with so many bytes of data.
pub fn manifest_of(number: usize, bytes: usize) -> Value {
    manifest_for(&format!("shop-{}", number % SUBSCRIBERS), number, bytes)
}

/// The manifest of Notification number `number` for the Subscriber `subscriber`, with `bytes` bytes of data.
pub fn manifest_for(subscriber: &str, number: usize, bytes: usize) -> Value {
    let name = format!("n-{number}");
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": name},
        "spec": {"subscriberRef": {"name": subscriber}, "event": {
            "id": name, "source": "/bench", "type": "com.example.measured", "datacontenttype": "text/plain",
            "data": "x".repeat(bytes),
        }},
    })
}

/// Sends one request and takes all of the answer, which must be a success.
pub async fn send(client: &Client, request: Request<Vec<u8>>) -> Bytes {
    let answer = client.send(request.map(Body::from)).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    body
}

/// Creates one at the path of its namespace.
pub async fn create_one(client: &Client, path: &str, body: Vec<u8>) -> Bytes {
    send(client, Request::post(path).header("content-type", "application/json").body(body).unwrap()).await
}

/// Creates these, so many at once, and returns how many a second that were.
pub async fn create(client: &Client, namespace: &str, manifests: Vec<Value>, at_once: usize) -> (f64, Vec<Unfinished>) {
    let (rate, answers) = create_at(client, &path(namespace), manifests, at_once).await;
    (rate, answers.iter().map(|answer| serde_json::from_slice(answer).unwrap()).collect())
}

/// Creates objects of any kind at the path `path`, `at_once` at once. Returns how many a second, and the answers.
pub async fn create_at(client: &Client, path: &str, manifests: Vec<Value>, at_once: usize) -> (f64, Vec<Bytes>) {
    let count = manifests.len();
    let bodies: Vec<_> = manifests.iter().map(Value::to_string).collect();
    let begun = Instant::now();
    let answers: Vec<_> = stream::iter(bodies)
        .map(|body| create_one(client, path, body.into_bytes()))
        .buffer_unordered(at_once)
        .collect()
        .await;
    (count as f64 / begun.elapsed().as_secs_f64(), answers)
}

/// Finishes these with the status `status`, by the requests that the operator makes; returns how many a second.
pub async fn patch(client: &Client, created: &[Unfinished], status: &NotificationStatus, at_once: usize) -> f64 {
    let outcomes: Vec<_> = created.iter().map(|created| outcome_request(created, status).unwrap()).collect();
    let begun = Instant::now();
    stream::iter(outcomes).map(|outcome| send(client, outcome)).buffer_unordered(at_once).for_each(async |_| ()).await;
    created.len() as f64 / begun.elapsed().as_secs_f64()
}

/// Requests under way at once.
#[derive(Clone, Copy)]
pub struct AtOnce {
    pub creates: usize,
    pub patches: usize,
}

/// What the API server can do.
#[derive(Clone, Copy)]
pub struct Bare {
    /// Creates a second.
    pub creates: f64,
    /// Status patches a second.
    pub patches: f64,
    /// Processor time of API server and etcd for a patch.
    pub patch_cpu: Duration,
}

/// Creates `count` objects in a new namespace, then patches them.
pub async fn run(stage: &Stage, namespace: &str, count: usize, status: &NotificationStatus, at_once: AtOnce) -> Bare {
    let tenant = stage.tenant(namespace).await;
    let manifests = (0..count).map(manifest).collect();
    stage.collect_garbage().await;
    let (creates, created) = create(&stage.creator, &tenant.namespace, manifests, at_once.creates).await;
    stage.collect_garbage().await;
    let before = stage.control_plane_cpu().await;
    let patches = patch(&tenant.client, &created, status, at_once.patches).await;
    let cpu = stage.control_plane_cpu().await - before;
    say(format!(
        "{creates:.0} bare creates/s, {} at once; {patches:.0} bare patches/s, {} at once",
        at_once.creates, at_once.patches
    ));
    Bare { creates, patches, patch_cpu: cpu / u32::try_from(count).unwrap() }
}

/// Tells, for each object that appears in the namespace, its name and when it was seen.
pub async fn watch(client: Client, namespace: String, seen: impl Fn(String, Duration)) {
    let api = kube::Api::<Unfinished>::namespaced(client, &namespace);
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
