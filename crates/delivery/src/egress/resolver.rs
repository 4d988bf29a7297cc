//! Host names into the addresses that may be dialled.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{
    Policy,
    error::{Denied, NameNotFound},
};

/// Where the addresses of host names come from.
pub trait Lookup: fmt::Debug + Send + Sync {
    /// All addresses of `name`, in the order in which to try them. The kind of the error is `NotFound` where the name does
    /// not exist, and another one where that is not known.
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Resolves a name once and hands on only the addresses that the policy allows, so those are what is dialled.
#[derive(Clone, Debug)]
pub(super) struct AddressResolver {
    pub(super) policy: Arc<Policy>,
    pub(super) names: Arc<dyn Lookup>,
}

impl AddressResolver {
    /// The addresses of `name` that may be dialled; [`Denied`] when it has some and none of them may.
    ///
    /// A name inside the cluster that the policy does not allow by name is denied also when it does not exist: else
    /// the answer would tell which Services other tenants have.
    pub(super) async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut addresses = match self.names.lookup(name).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.policy.conceals(name) => {
                return Err(io::Error::other(Denied));
            }
            found => found.map_err(|error| io::Error::other(NameNotFound(error)))?,
        };
        let found = addresses.len();
        addresses.retain(|address| self.policy.allows(Some(name), *address));
        if addresses.is_empty() && found > 0 {
            return Err(io::Error::other(Denied));
        }
        Ok(addresses)
    }
}

impl Resolve for AddressResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            // The HTTP client puts the URL's port in place of 0.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}
