//! What the API server lets this account do (SelfSubjectAccessReview).

use std::fmt;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

use super::call::in_time;

/// One verb on one resource.
#[derive(Clone, Copy, Debug)]
pub struct Permission<'a> {
    /// The namespace; None: all namespaces.
    pub namespace: Option<&'a str>,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The name of the object; None: every object.
    pub name: Option<&'a str>,
    /// The verb.
    pub verb: &'a str,
}

impl Permission<'_> {
    /// Asks the API server whether this account has the permission.
    pub async fn is_granted(&self, client: &Client) -> kube::Result<bool> {
        let attributes = ResourceAttributes {
            namespace: self.namespace.map(str::to_owned),
            group: Some(self.group.to_owned()),
            resource: Some(self.resource.to_owned()),
            subresource: Some(self.subresource.to_owned()).filter(|subresource| !subresource.is_empty()),
            name: self.name.map(str::to_owned),
            verb: Some(self.verb.to_owned()),
            ..Default::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let answer = in_time(Api::all(client.clone()).create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

/// For example `patch subscribers/status in namespace shop`.
impl fmt::Display for Permission<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        match self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}
