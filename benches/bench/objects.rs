//! The objects of the bench, and the requests that create them.

use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Request;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::api_server::Pending;
pub use crate::api_server::path;

/// Subscribers of each tenant that share the load, each with the default limits.
pub const SUBSCRIBERS: usize = 4;
/// How many concurrent requests create Notifications.
pub const CREATORS: usize = 32;
/// Bytes of data in each event.
pub const EVENT_BYTES: usize = 1024;

/// The manifest of Notification number `number`, whose event has its name as id, for one of the Subscribers.
pub fn manifest(number: usize) -> Value {
    manifest_of(number, EVENT_BYTES)
}

/// An event with this many bytes of data.
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

/// Creates these objects with `at_once` concurrent requests, and returns the rate per second.
pub async fn create(client: &Client, namespace: &str, manifests: Vec<Value>, at_once: usize) -> (f64, Vec<Pending>) {
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
