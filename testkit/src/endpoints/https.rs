//! Runs a small HTTPS server that can also misbehave.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::background::Background;
use crate::endpoints::exchange::{Answer, Reply, Request};
use crate::error::Result;

/// The logic of a server: answers the requests that arrive.
pub trait Endpoint: Send + Sync + 'static {
    /// Answers one request, after any time.
    fn answer(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

/// An HTTPS server on a loopback port. Dropping it closes the port and all connections.
pub struct HttpsServer<E> {
    endpoint: Arc<E>,
    tls: Arc<ServerConfig>,
    address: SocketAddr,
    running: Option<Background>,
}

impl<E: Endpoint> HttpsServer<E> {
    /// Starts a server on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(endpoint: Arc<E>, tls: Arc<ServerConfig>) -> Result<Self> {
        let mut server = Self { endpoint, tls, address: (Ipv4Addr::LOCALHOST, 0).into(), running: None };
        server.resume().await?;
        Ok(server)
    }

    /// The address that it listens on, also while it is stopped.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The logic of the server.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<E> {
        &self.endpoint
    }

    /// Listens again on the same port. Does nothing if it is listening already.
    ///
    /// # Errors
    /// When another program has taken the port.
    pub async fn resume(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let (endpoint, tls) = (Arc::clone(&self.endpoint), TlsAcceptor::from(Arc::clone(&self.tls)));
        let serve = move |stream, peer| serve(stream, peer, Arc::clone(&endpoint), tls.clone());
        let (running, address) = Background::listen(self.address, serve).await?;
        (self.running, self.address) = (Some(running), address);
        Ok(())
    }
}

impl<E> HttpsServer<E> {
    /// Stops listening and closes all connections. From now on, connections are refused.
    pub fn stop(&mut self) {
        self.running = None;
    }
}

async fn serve<E: Endpoint>(stream: TcpStream, peer: SocketAddr, endpoint: Arc<E>, tls: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    // The client reports a handshake that fails.
    let Ok(stream) = tls.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
    let reset = Notify::new();
    let service = service_fn(|request: http::Request<Incoming>| {
        let (endpoint, reset, certificate) = (Arc::clone(&endpoint), &reset, certificate.clone());
        async move {
            let answer = match receive(request, peer, certificate).await {
                Some(request) => endpoint.answer(request).await,
                None => Answer::Reset,
            };
            match answer {
                Answer::Reply(reply) => return Ok::<_, Infallible>(response(reply)),
                Answer::Hang => {}
                Answer::Reset => reset.notify_one(),
            }
            std::future::pending().await
        }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // The client reports how a connection ends.
        _ = &mut connection => {}
        () = reset.notified() => {
            let stream = connection.into_parts().io.into_inner();
            // With zero linger, TCP closes the connection with a reset.
            let _ = stream.get_ref().0.set_zero_linger();
        }
    }
}

/// Reads the whole request. Returns None if the client disconnects before the end.
async fn receive(
    request: http::Request<Incoming>,
    peer: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
) -> Option<Request> {
    let (arrived, arrived_at) = (Instant::now(), SystemTime::now());
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(str::to_owned));
    let (method, headers) = (head.method, head.headers);
    Some(Request { arrived, arrived_at, peer, certificate, method, path, query, headers, body })
}

fn response(reply: Reply) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}
