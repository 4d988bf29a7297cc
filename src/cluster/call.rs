//! Calls of the API server: their deadlines, and what their answers say.

use std::{error::Error, time::Duration};

use kube::{
    Api, Client, Resource,
    api::ObjectMeta,
    core::{NamespaceResourceScope, Status},
    runtime::watcher,
};
use tokio::time::error::Elapsed;

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

/// Describes a failed request to the API server in one line for people: without Rust debug output, and without any content of an
/// object that could not be read.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => of_status(status),
        kube::Error::SerdeError(error) => {
            format!("cannot read an object: line {}, column {}", error.line(), error.column())
        }
        kube::Error::Service(error) if error.is::<Elapsed>() => "the API server did not respond in time".into(),
        error => chain(error),
    }
}

/// Describes why a watch failed, as [`plain`] does.
pub fn plain_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => plain(error),
        watcher::Error::WatchError(status) => of_status(status),
        error @ watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn of_status(status: &Status) -> String {
    format!("{} ({})", status.message, status.code)
}

/// The causes of `error`, from the outermost to the innermost. An error whose text ends with that of its cause, as most do, is left to
/// its cause.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        next = error.source();
        if !next.is_some_and(|cause| text.ends_with(&cause.to_string())) {
            causes.push(text);
        }
    }
    causes.join(": ")
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test]
    async fn errors_are_described_in_one_line_without_debug_output() {
        let status = Status::failure("notifications.tidings.dev is forbidden", "Forbidden").with_code(403).boxed();
        let refused = "notifications.tidings.dev is forbidden (403)";
        assert_eq!(plain(&kube::Error::Api(status.clone())), refused);
        assert_eq!(plain_watch(&watcher::Error::WatchError(status.clone())), refused);
        assert_eq!(plain_watch(&watcher::Error::InitialListFailed(kube::Error::Api(status))), refused);
        let late = within(Duration::ZERO, std::future::pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!(plain(&late), "the API server did not respond in time");
        let closed = kube::Error::Service(io::Error::other("connection closed").into());
        assert_eq!(plain(&closed), "connection closed");
    }
}
