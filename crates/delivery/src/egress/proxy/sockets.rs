//! Makes the connectors that open TCP connections.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use futures::future::{BoxFuture, ready};
use hyper_util::client::legacy::connect::{HttpConnector, dns::Name};
use tower::Service;

use crate::egress::{Lookup, common::CONNECT, error::NameNotFound};

// These are the values of direct connections, which reqwest sets.

/// Probes keep a connection open in NAT devices while a slow server works on a response, and find a dead peer.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 3;
/// The system gives up a connection whose data the peer does not acknowledge for this long, even after it was closed.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The addresses of a connector. For a literal address, the connector does not ask.
#[derive(Clone, Debug)]
pub(super) enum Addresses {
    /// These, whatever the name.
    Known(Vec<IpAddr>),
    /// Those of the name; the egress policy does not judge them.
    Of(Arc<dyn Lookup>),
}

/// Connects to one of these addresses.
pub(super) fn to(addresses: Vec<IpAddr>) -> HttpConnector<Addresses> {
    connector(Addresses::Known(addresses))
}

/// Connects to any address of a name. Only for the egress proxy, whose address the egress policy does not judge.
pub(super) fn by_name(names: Arc<dyn Lookup>) -> HttpConnector<Addresses> {
    connector(Addresses::Of(names))
}

fn connector(addresses: Addresses) -> HttpConnector<Addresses> {
    let mut connector = HttpConnector::new_with_resolver(addresses);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    connector
}

impl Service<Name> for Addresses {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        // The connector replaces 0 with the port of the URL.
        let sockets = |addresses: Vec<IpAddr>| {
            addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect::<Vec<_>>().into_iter()
        };
        match self {
            Self::Known(addresses) => Box::pin(ready(Ok(sockets(std::mem::take(addresses))))),
            Self::Of(names) => {
                let found = names.lookup(name.as_str());
                Box::pin(async move { found.await.map(sockets).map_err(|error| io::Error::other(NameNotFound(error))) })
            }
        }
    }
}
