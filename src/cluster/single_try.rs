//! A client that never repeats a request by itself.

use kube::{Api, Client, Resource, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

/// A client that sends each request once. The writers of status and the candidate for the Lease demand this type: they know
/// when a request must not be repeated, and a client that repeats requests does not.
#[derive(Clone)]
pub struct SingleTry(Client);

impl SingleTry {
    /// `client` must not repeat requests by itself.
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    /// The objects of a kind in one namespace.
    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.0.clone(), namespace)
    }

    /// Sends a request, and reads its answer.
    pub async fn request<T: DeserializeOwned>(&self, request: http::Request<Vec<u8>>) -> kube::Result<T> {
        self.0.request(request).await
    }
}

/// Where any client will do, for example to list, this one will.
impl From<SingleTry> for Client {
    fn from(SingleTry(client): SingleTry) -> Self {
        client
    }
}
