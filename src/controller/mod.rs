//! Where Kubernetes meets the rest: watches go in, statuses go out.
//!
//! [`notifications`] owns the queue of unfinished Notifications and starts each [`attempt`]; [`subscribers`] resolves
//! each Subscriber to a target and tells the queue through the [`registry`].

mod attempt;
mod clearance;
mod consent;
mod event_memory;
mod expiry;
mod handled;
mod index;
mod lease;
mod listings;
mod marks;
mod news;
mod notification_status;
mod notifications;
mod page;
mod pager;
mod patch;
mod referrers;
mod registry;
mod replay;
mod resolve;
mod retention;
mod secrets;
mod status;
mod stored;
mod stored_subscriber;
mod subscribers;
mod unfinished;

pub use attempt::Attempts;
pub use handled::HandledReplays;
pub use lease::{Candidate, Leadership};
pub use notifications::{Inputs, Notifications};
pub use pager::PAGE;
pub use registry::{Change, Registry};
pub use replay::Replays;
pub use resolve::{Resolver, Route};
pub use retention::{Retention, RetentionHandle, Stock};
pub use status::{StatusWriter, outcome_request};
pub use subscribers::{Announcer, Subscribers};
pub use unfinished::{SELECTOR, Unfinished};

use std::time::Duration;

use kube::{Api, Client, Resource, api::ObjectMeta, core::NamespaceResourceScope};

/// A call to the API server that takes longer has failed.
const API_TIMEOUT: Duration = Duration::from_secs(15);
/// The API server is asked to end each watch after this, so that a half-open connection does not go unnoticed.
const WATCH_SECONDS: u32 = 45;

/// The resourceVersion as a number; the API server promises that they can be compared (0 if there is none).
fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// An answer that takes longer than `limit` is a failure.
async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
}

/// An answer that takes longer than [`API_TIMEOUT`] is a failure.
async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    within(API_TIMEOUT, call).await
}

/// An error of the API server in plain words, without anything of an object that could not be read.
fn plain(error: &kube::Error) -> String {
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
