//! Requests to the API server: deadlines, and what the responses say.

use std::{error::Error, time::Duration};

use kube::{
    Api, Client, Resource,
    api::ObjectMeta,
    core::{NamespaceResourceScope, Status},
    runtime::watcher,
};
use tokio::time::error::Elapsed;

/// A request to the API server that takes longer than this has failed.
pub const API_TIMEOUT: Duration = Duration::from_secs(15);
/// The `timeoutSeconds` of each watch. The API server ends the watch then, so that a half-open connection is noticed.
pub const WATCH_SECONDS: u32 = 45;
/// The longest message of the API server that is shown, in characters.
const LONGEST_MESSAGE: usize = 300;

/// Returns the resourceVersion as a number, or 0 if there is none. The API server guarantees that resourceVersions can
/// be compared.
pub fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Makes a request, which fails if it takes longer than `limit`.
pub async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
}

/// Makes a request, which fails if it takes longer than [`API_TIMEOUT`].
pub async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    within(API_TIMEOUT, call).await
}

/// Describes a failed request to the API server in one line for people: without Rust debug output, and without any
/// content of an object that could not be read.
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

/// The first line of the message, at most [`LONGEST_MESSAGE`] characters: the message of a proxy is its whole page.
fn of_status(status: &Status) -> String {
    let line = status.message.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(LONGEST_MESSAGE) {
        _ if line.is_empty() => format!("the response has status {} and no message", status.code),
        Some((end, _)) => format!("{}… ({})", &line[..end], status.code),
        None => format!("{line} ({})", status.code),
    }
}

/// Returns the object that was read, or None if the API server says that it does not exist.
///
/// A 404 without the reason `NotFound` stays an error: it comes from a proxy, or from an API server that does not serve
/// the CustomResourceDefinition yet, and says nothing about the object.
pub fn found<T>(read: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match read {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if is_not_found(&status) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the API server says that the object of a request does not exist. See [`found`].
pub fn is_not_found(status: &Status) -> bool {
    status.code == 404 && status.reason == "NotFound"
}

/// Whether the API server says that an object would be too large for its storage, so that it refuses every retry too.
///
/// The API server passes on the error of etcd, or of its etcd client, with status 500; only the text names the cause.
pub fn is_too_large(error: &kube::Error) -> bool {
    const CAUSES: [&str; 3] = [
        "etcdserver: request is too large",
        "trying to send message larger than max",
        "received message larger than max",
    ];
    match error {
        kube::Error::Api(status) if status.code == 500 => CAUSES.iter().any(|cause| status.message.contains(cause)),
        kube::Error::Api(status) => status.code == 413,
        _ => false,
    }
}

/// Joins the texts of `error` and its causes, from the outermost to the innermost. Most errors repeat the text of their
/// cause at the end; these are left out.
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

/// Returns the API for the objects of a kind in one namespace, or (None) in all namespaces.
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
        let page = format!("<html>{}\n<body>", "é".repeat(1000));
        for (message, start) in [("", "the response has status 404 and no message"), (page.as_str(), "<html>éé")] {
            let shown = plain(&kube::Error::Api(Status::failure(message, "?").with_code(404).boxed()));
            assert!(shown.starts_with(start) && !shown.contains('\n') && shown.chars().count() < 320, "{shown}");
        }
        let closed = kube::Error::Service(io::Error::other("connection closed").into());
        assert_eq!(plain(&closed), "connection closed");
    }

    #[test]
    fn an_object_that_is_too_large_for_the_storage_is_distinguished_from_other_failures() {
        let failed = |message: &str, code| kube::Error::Api(Status::failure(message, "").with_code(code).boxed());
        let of_grpc =
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2097200 vs. 2097152)";
        for message in ["etcdserver: request is too large", of_grpc] {
            assert!(is_too_large(&failed(message, 500)), "{message}");
            assert!(!is_too_large(&failed(message, 422)), "{message}");
        }
        assert!(is_too_large(&failed("Request entity too large: limit is 3145728", 413)));
        assert!(!is_too_large(&failed("etcdserver: request timed out", 500)));
        assert!(!is_too_large(&kube::Error::Service(io::Error::other("request is too large").into())));
    }

    #[test]
    fn only_the_word_of_the_api_server_makes_an_object_not_found() {
        let failed =
            |reason, code| Err::<(), _>(kube::Error::Api(Status::failure("m", reason).with_code(code).boxed()));
        assert!(found(Ok(())).unwrap().is_some());
        assert!(found(failed("NotFound", 404)).unwrap().is_none());
        for (reason, code) in [("Failed to parse error data", 404), ("", 404), ("Forbidden", 403), ("NotFound", 500)] {
            assert!(found(failed(reason, code)).is_err(), "{reason} {code}");
        }
    }
}
