//! Resolves host names to the allowed addresses.

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

/// A source of addresses for host names.
pub trait Lookup: fmt::Debug + Send + Sync {
    /// Returns all addresses of `name`, in the order in which to try them. The kind of the error is `NotFound` if the
    /// name does not exist, and another kind if that is unknown.
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Resolves a name once and returns only the addresses that the policy allows, so that the client connects only to
/// these.
#[derive(Clone, Debug)]
pub(super) struct AddressResolver {
    pub(super) policy: Arc<Policy>,
    pub(super) names: Arc<dyn Lookup>,
}

impl AddressResolver {
    /// Returns the allowed addresses of `name`, or [`Denied`] if it has addresses and none is allowed.
    ///
    /// A name inside the cluster that the policy does not allow by name is also denied if it does not exist. Otherwise
    /// the error would reveal which Services other tenants have.
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
            // The HTTP client replaces 0 with the port of the URL.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}
