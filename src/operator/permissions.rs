//! Checks each permission of the operator.

use kube::Client;

use super::Error;
use crate::cluster::permission::Permission;

/// An API group, a resource, a subresource, and the verbs that the operator needs for them.
type Rule = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// What the operator does in the namespaces that it watches. The chart grants the same.
const IN_NAMESPACE: &[Rule] = &[
    (tidings_api::GROUP, "subscribers", "", &["get", "list", "watch"]),
    (tidings_api::GROUP, "notifications", "", &["get", "list", "watch", "delete"]),
    (tidings_api::GROUP, "subscribers", "status", &["patch"]),
    (tidings_api::GROUP, "notifications", "status", &["patch"]),
    ("", "secrets", "", &["get", "list", "watch"]),
    ("", "configmaps", "", &["get", "list", "watch"]),
    ("events.k8s.io", "events", "", &["create", "patch"]),
];

/// Checks each permission of the operator in these namespaces (None: in all), and for the Lease in this namespace and of
/// this name. The error lists what is missing.
pub(super) async fn check(
    client: &Client,
    namespaces: &[Option<String>],
    lease: Option<(&str, &str)>,
) -> Result<(), Error> {
    let mut missing = Vec::new();
    for permission in needed(namespaces, lease) {
        if !permission.is_granted(client).await.map_err(Error::Api)? {
            missing.push(permission.to_string());
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Permissions { missing: missing.join(", ") }) }
}

fn needed<'a>(namespaces: &'a [Option<String>], lease: Option<(&'a str, &'a str)>) -> Vec<Permission<'a>> {
    let mut needed = Vec::new();
    for namespace in namespaces.iter().map(Option::as_deref) {
        for (group, resource, subresource, verbs) in IN_NAMESPACE {
            let of = |verb| Permission { namespace, group, resource, subresource, name: None, verb };
            needed.extend(verbs.iter().copied().map(of));
        }
    }
    if let Some((namespace, name)) = lease {
        let (group, resource) = ("coordination.k8s.io", "leases");
        let of = |verb, name| Permission { namespace: Some(namespace), group, resource, subresource: "", name, verb };
        // A Lease has no name yet when it is created.
        needed.extend([of("create", None), of("get", Some(name)), of("update", Some(name))]);
    }
    needed
}
