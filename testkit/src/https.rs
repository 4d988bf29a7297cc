//! A small HTTPS server that can also misbehave.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::error::{Error, Result};
use crate::exchange::{Answer, Reply, Request};

/// What a server does with the requests that arrive.
pub trait Endpoint: Send + Sync + 'static {
    /// Decides on one request, after as much time as it likes.
    fn answer(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

/// An HTTPS server on a loopback port. Dropping it closes the port and all connections.
pub struct HttpsServer<E> {
    endpoint: Arc<E>,
    tls: Arc<ServerConfig>,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
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

    /// Where it listens, also while it is stopped.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it serves.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<E> {
        &self.endpoint
    }

    /// Listens again, on the same port. Nothing happens if it does already.
    ///
    /// # Errors
    /// When somebody else has taken the port.
    pub async fn resume(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let (stop, stopped) = oneshot::channel();
        let (bound_to, bound) = oneshot::channel();
        let (endpoint, tls, address) = (Arc::clone(&self.endpoint), Arc::clone(&self.tls), self.address);
        // A thread with a runtime of its own: the server may outlive the runtime of the test that started it, and a
        // busy test does not slow it down.
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = listen(address, bound_to, endpoint, tls) => {}
                    _ = stopped => {}
                }
            });
        });
        self.address = bound.await.map_err(|_| Error::new("the server thread ended"))??;
        self.running = Some(Running { stop, thread });
        Ok(())
    }
}

impl<E> HttpsServer<E> {
    /// Stops listening and closes all connections: from now on a connection is refused.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // The thread is gone already if its runtime failed; nothing to stop then.
            let _ = running.stop.send(());
            let _ = running.thread.join();
        }
    }
}

impl<E> Drop for HttpsServer<E> {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn listen<E: Endpoint>(
    address: SocketAddr,
    bound_to: oneshot::Sender<Result<SocketAddr>>,
    endpoint: Arc<E>,
    tls: Arc<ServerConfig>,
) {
    let bound = TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let listener = match bound {
        Ok((address, listener)) => {
            let _ = bound_to.send(Ok(address));
            listener
        }
        Err(error) => {
            let _ = bound_to.send(Err(Error::new(format!("cannot listen on {address}: {error}"))));
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(serve(stream, peer, Arc::clone(&endpoint), TlsAcceptor::from(Arc::clone(&tls))));
            }
            // Out of file descriptors, or a client that is gone already: the next one may do better.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve<E: Endpoint>(stream: TcpStream, peer: SocketAddr, endpoint: Arc<E>, tls: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    // A handshake that fails is the client's finding, and shows on its side.
    let Ok(stream) = tls.accept(stream).await else { return };
    let reset = Notify::new();
    let service = service_fn(|request: http::Request<Incoming>| {
        let (endpoint, reset) = (Arc::clone(&endpoint), &reset);
        async move {
            let answer = match receive(request, peer).await {
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
        // How a connection ends is the client's to tell.
        _ = &mut connection => {}
        () = reset.notified() => {
            let stream = connection.into_parts().io.into_inner();
            // Closed without lingering, TCP sends a reset in place of an end.
            let _ = stream.get_ref().0.set_zero_linger();
        }
    }
}

/// The whole request, or nothing when the client goes away before its end.
async fn receive(request: http::Request<Incoming>, peer: SocketAddr) -> Option<Request> {
    let (arrived, arrived_at) = (Instant::now(), SystemTime::now());
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(str::to_owned));
    Some(Request { arrived, arrived_at, peer, method: head.method, path, query, headers: head.headers, body })
}

fn response(reply: Reply) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}
