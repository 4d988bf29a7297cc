//! Opens connections for requests through the proxy: directly to an allowed address or through the proxy, with TLS to
//! the host.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::Uri;
use hyper::{
    rt::{Read, ReadBufCursor, Write},
    upgrade::Upgraded,
};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tower::{Layer, Service};

use super::{
    sockets,
    wait::{at_proxy, is_at_proxy},
    way::{Router, Way},
};
use crate::egress::{
    ProxyFault,
    common::CONNECT,
    error::{BoxError, ConnectTimeout},
    reuse::Connections,
};

/// The port of https.
const HTTPS: u16 = 443;
/// The maximum number of addresses of a host that are requested from the proxy. They share the time to connect.
const MOST_TARGETS: usize = 4;

/// Makes connections for one client.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) router: Router,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) connections: Connections,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Stream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    /// The HTTP client calls this in the task of the exchange, and may continue in another task.
    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut https = HttpsConnector::from((Dialer(self.router.clone()), self.tls.clone()));
        https.enforce_https();
        let connected = self.connections.layer(https).call(uri);
        Box::pin(async move {
            match timeout(CONNECT, connected).await {
                Ok(connected) => connected,
                Err(_) if is_at_proxy() => Err(ProxyFault::Timeout.into()),
                Err(_) => Err(ConnectTimeout.into()),
            }
        })
    }
}

/// Opens the connection below TLS.
#[derive(Clone)]
struct Dialer(Router);

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let port = uri.port_u16().unwrap_or(HTTPS);
            let targets = |addresses: Vec<IpAddr>| {
                addresses.into_iter().map(|address| SocketAddr::new(address, port).to_string()).collect()
            };
            match dialer.0.way(uri.host().unwrap_or_default(), port).await? {
                Way::Direct(addresses) => Ok(Stream::Direct(sockets::to(addresses).call(uri).await?)),
                Way::Proxy(addresses) => dialer.tunnel(targets(addresses)).await,
                Way::ProxyByName(name) => dialer.tunnel(vec![format!("{name}:{port}")]).await,
            }
        })
    }
}

impl Dialer {
    /// Opens a tunnel to the first of these targets to which the proxy connects.
    async fn tunnel(&self, mut targets: Vec<String>) -> Result<Stream, BoxError> {
        targets.truncate(MOST_TARGETS);
        let (ends, last) = (Instant::now() + CONNECT, targets.len().saturating_sub(1));
        let mut result = Err(ProxyFault::Connection);
        for (number, target) in targets.into_iter().enumerate() {
            // Half of the time that is left, so that a slow proxy can open the first tunnel.
            let left = ends.saturating_duration_since(Instant::now());
            let wait = if number == last { left } else { left / 2 };
            let opened = at_proxy(timeout(wait, self.0.proxy.open(&target, &self.0.resolver.names))).await;
            result = opened.unwrap_or(Err(ProxyFault::Timeout));
            if !result.as_ref().is_err_and(|fault| fault.is_of_address()) {
                break;
            }
        }
        Ok(Stream::Tunnel(result?))
    }
}

/// A connection below TLS.
pub(super) enum Stream {
    Direct(TokioIo<TcpStream>),
    Tunnel(Upgraded),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Direct(stream) => stream.connected(),
            Self::Tunnel(_) => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_flush(context),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Direct(stream) => stream.is_write_vectored(),
            Self::Tunnel(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tunnel(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }
}
