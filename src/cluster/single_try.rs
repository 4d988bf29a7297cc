//! A client that never retries a request by itself.

use kube::{Api, Client, Resource, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

/// A client that sends each request once. The status writers and the candidate for the Lease require this type: they
/// know when a request must not be retried, and a client that retries by itself does not.
#[derive(Clone)]
pub struct SingleTry(Client);

impl SingleTry {
    /// Wraps `client`, which must not retry requests by itself.
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Returns the API for the objects of a kind in one namespace.
    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.0.clone(), namespace)
    }

    /// Sends a request and reads the response.
    pub async fn request<T: DeserializeOwned>(&self, request: http::Request<Vec<u8>>) -> kube::Result<T> {
        self.0.request(request).await
    }
}

/// For calls that accept any client, for example to list.
impl From<SingleTry> for Client {
    fn from(SingleTry(client): SingleTry) -> Self {
        client
    }
}
