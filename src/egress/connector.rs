//! New connections: TCP and TLS, within a time-out, and what each has been used for.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tower::Service;

use super::resolver::Resolver;

/// A connection that is not up after this is given up: name, TCP and TLS together. TCP shares it among the addresses of
/// a family. An attempt may end earlier; this also ends a connection that no attempt waits for any more.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// A connection that carries nothing is probed after this, and as often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A connection is closed when so many probes are not acknowledged.
const PROBES: u32 = 3;
/// A connection is closed when what was sent is not acknowledged for this long.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Makes connections to allowed addresses.
#[derive(Clone, Debug)]
pub(super) struct Connector(HttpsConnector<HttpConnector<Resolver>>);

impl Connector {
    pub(super) fn new(resolver: Resolver, tls: Arc<ClientConfig>) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(PROBES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        Self(HttpsConnector::new(tcp, tls, true, Arc::new(DefaultServerNameResolver::default())))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Watched>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let connected = timeout(CONNECT, connecting).await;
            let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(TokioIo::new(Watched { stream: TokioIo::new(stream), usage: Usage::default() }))
        })
    }
}

/// What a connection has carried, as far as it matters whether a request may be repeated.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage(Arc<UsageFlags>);

#[derive(Debug, Default)]
struct UsageFlags {
    /// It had answered an earlier request when the last one was written.
    kept: AtomicBool,
    /// Something was read since.
    answered: AtomicBool,
}

impl Usage {
    /// Whether the last request went out on a connection that had answered another one before, and nothing came back.
    pub(super) fn is_kept_and_silent(&self) -> bool {
        self.0.kept.load(Ordering::Acquire) && !self.0.answered.load(Ordering::Acquire)
    }

    fn wrote(&self) {
        if self.0.answered.swap(false, Ordering::AcqRel) {
            self.0.kept.store(true, Ordering::Release);
        }
    }

    fn read(&self) {
        self.0.answered.store(true, Ordering::Release);
    }
}

/// A connection that notes its usage.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TokioIo<Stream>,
    usage: Usage,
}

impl Connection for Watched {
    fn connected(&self) -> Connected {
        self.stream.inner().connected().extra(self.usage.clone())
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.usage.read();
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.usage.wrote();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.usage.wrote();
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_that_answered_before_and_is_silent_now_lets_its_request_be_repeated() {
        let usage = Usage::default();
        usage.wrote();
        assert!(!usage.is_kept_and_silent(), "a new connection");
        usage.read();
        assert!(!usage.is_kept_and_silent(), "it has answered");
        usage.wrote();
        usage.wrote();
        assert!(usage.is_kept_and_silent(), "the second request, in two writes");
        usage.read();
        assert!(!usage.is_kept_and_silent(), "one byte of an answer");
    }
}
