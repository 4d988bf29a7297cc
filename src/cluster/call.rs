//! Calls of the API server: their deadlines, and what their answers say.

use std::time::Duration;

use kube::{Api, Client, Resource, api::ObjectMeta, core::NamespaceResourceScope};

/// A call to the API server that takes longer has failed.
pub const API_TIMEOUT: Duration = Duration::from_secs(15);
/// The API server is asked to end each watch after this, so that a half-open connection does not go unnoticed.
pub const WATCH_SECONDS: u32 = 45;

/// The resourceVersion as a number; the API server promises that they can be compared (0 if there is none).
pub fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// An answer that takes longer than `limit` is a failure.
pub async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
}

/// An answer that takes longer than [`API_TIMEOUT`] is a failure.
pub async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    within(API_TIMEOUT, call).await
}

/// An error of the API server in plain words, without anything of an object that could not be read.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        kube::Error::SerdeError(error) => {
            format!("cannot read an object: line {}, column {}", error.line(), error.column())
        }
        error => error.to_string(),
    }
}

/// The objects of a kind in one namespace, or (None) in all.
pub fn in_namespace<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}
