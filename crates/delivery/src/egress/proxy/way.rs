//! Decides between the proxy and a direct connection.

use std::{io, net::IpAddr, sync::Arc};

use super::Proxy;
use crate::egress::{error::Denied, resolver::AddressResolver};

/// Decides how to connect to hosts.
#[derive(Clone, Debug)]
pub(super) struct Router {
    pub(super) resolver: AddressResolver,
    pub(super) proxy: Arc<Proxy>,
}

/// How to connect to a host. The policy allows every address in it.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// To one of these addresses.
    Direct(Vec<IpAddr>),
    /// Through the proxy, to one of these addresses.
    Proxy(Vec<IpAddr>),
    /// Through the proxy, which resolves this name.
    ProxyByName(String),
}

impl Router {
    /// Decides how to connect to `host`, the name or literal address in a URL.
    pub(super) async fn way(&self, host: &str, port: u16) -> io::Result<Way> {
        let (proxy, policy) = (&self.proxy, &self.resolver.policy);
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        if literal.is_none() && proxy.is_without(host, port) {
            return self.resolver.addresses(host).await.map(Way::Direct);
        }
        if literal.is_none() && proxy.resolves() {
            let name = policy.name_for_proxy(host).ok_or_else(|| io::Error::other(Denied))?;
            return Ok(Way::ProxyByName(name));
        }
        let allowed = match literal {
            None => self.resolver.addresses(host).await?,
            Some(address) if policy.allows(None, address) => vec![address],
            Some(_) => return Err(io::Error::other(Denied)),
        };
        let is_direct = |address: &IpAddr| proxy.is_without_address(policy.reached(*address), port);
        let direct: Vec<_> = allowed.iter().copied().filter(is_direct).collect();
        Ok(if direct.is_empty() { Way::Proxy(allowed) } else { Way::Direct(direct) })
    }
}
