//! Runs a server that sends each client the bytes of a script, whether or not they are HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::background::Background;
use crate::error::Result;

/// A server on a loopback port that runs its script once for each connection, and closes the connection when the script
/// ends. Dropping the server closes its port and all connections.
pub struct RawServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _running: Background,
}

impl RawServer {
    /// Runs the script on each connection after the TLS handshake. A handshake that fails ends the connection.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn tls<S, F>(tls: Arc<ServerConfig>, script: S) -> Result<Self>
    where
        S: Fn(TlsStream<TcpStream>) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (tls, script) = (TlsAcceptor::from(tls), Arc::new(script));
        Self::tcp(move |stream| {
            let (tls, script) = (tls.clone(), Arc::clone(&script));
            async move {
                if let Ok(stream) = tls.accept(stream).await {
                    script(stream).await;
                }
            }
        })
        .await
    }

    /// Answers one request on each connection with these bytes, whatever the request, and closes the connection.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn answering(tls: Arc<ServerConfig>, answer: impl Into<Bytes>) -> Result<Self> {
        let answer = answer.into();
        let script = move |mut stream: TlsStream<TcpStream>| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await;
                // The client may have gone away.
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        };
        Self::tls(tls, script).await
    }

    /// Answers one request on each connection with 204, closes the connection, and sends the text of each request to the
    /// channel.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn recording(tls: Arc<ServerConfig>) -> Result<(Self, UnboundedReceiver<String>)> {
        let (requests, received) = unbounded_channel();
        let script = move |mut stream: TlsStream<TcpStream>| {
            let requests = requests.clone();
            async move {
                let request = String::from_utf8(read_request(&mut stream).await).expect("the request is text");
                // The test may have ended, or the client may have gone away.
                let _ = requests.send(request);
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        };
        Ok((Self::tls(tls, script).await?, received))
    }

    /// Runs the script on each TCP connection, without TLS unless the script speaks TLS itself.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn tcp<S, F>(script: S) -> Result<Self>
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::tcp_at((Ipv4Addr::LOCALHOST, 0).into(), script).await
    }

    /// The same on this address; port 0 means a free port.
    ///
    /// # Errors
    /// When another program has taken the port.
    pub async fn tcp_at<S, F>(address: SocketAddr, script: S) -> Result<Self>
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let serve = move |stream: TcpStream, _| {
            counter.fetch_add(1, Ordering::Relaxed);
            let _ = stream.set_nodelay(true);
            script(stream)
        };
        let (running, address) = Background::listen(address, serve).await?;
        Ok(Self { address, connections, _running: running })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which starts with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// The number of TCP connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Reads one HTTP request, head and body, and returns its bytes; fewer if the client stops early.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut request = Vec::new();
    while request.len() < length(&request) {
        if !stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
            break;
        }
    }
    request
}

/// The length of the request that starts with these bytes; `usize::MAX` while the head is incomplete.
fn length(request: &[u8]) -> usize {
    let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
        return usize::MAX;
    };
    let lines = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let body = lines.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    head + 4 + body.unwrap_or(0)
}
