//! Checks that the API server serves the CustomResourceDefinitions of this version.

use kube::{Api, Client, api::ListParams, core::PartialObjectMeta};
use tidings_api::Subscriber;
use tracing::warn;

use super::Error;
use crate::{
    cluster::call::in_namespace,
    notifications::wire::{SELECTOR, Unfinished},
};

/// Lists by the selectable field, which only the right CustomResourceDefinitions serve. One namespace that responds is
/// enough; where the operator may not list, this function tries the next namespace.
pub(super) async fn check(client: &Client, namespaces: &[Option<String>]) -> Result<(), Error> {
    let mut refused = None;
    for namespace in namespaces {
        let first = ListParams::default().limit(1);
        let notifications: Api<Unfinished> = in_namespace(client, namespace.as_deref());
        let subscribers: Api<PartialObjectMeta<Subscriber>> = in_namespace(client, namespace.as_deref());
        let answered = match served(notifications.list(&first.clone().fields(SELECTOR)).await) {
            Ok(()) => served(subscribers.list(&first).await),
            error => error,
        };
        match answered {
            Err(Error::Api(kube::Error::Api(status))) if status.code == 403 => {
                let namespace = namespace.as_deref().unwrap_or("(all)");
                warn!(
                    namespace,
                    "the operator may not list Subscribers and Notifications in this namespace and does not serve it: grant it the chart's Role there, or remove the namespace from --watch-namespace"
                );
                refused = Some(Error::Api(kube::Error::Api(status)));
            }
            answered => return answered,
        }
    }
    refused.map_or(Ok(()), Err)
}

fn served<T>(listed: Result<T, kube::Error>) -> Result<(), Error> {
    match listed {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => {
            Err(Error::Crds { source: kube::Error::Api(status) })
        }
        Err(error) => Err(Error::Api(error)),
    }
}
