//! Runs a forward proxy that opens tunnels (CONNECT, RFC 9110, section 9.3.6), as networks without direct access have.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::background::Background;
use crate::error::Result;

/// The longest request header section that the proxy reads, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// How the proxy treats requests for tunnels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// It opens the tunnel. If it cannot connect, it answers 502.
    #[default]
    Open,
    /// It answers with these bytes and closes the connection.
    Answer(Vec<u8>),
    /// It never answers.
    Hang,
    /// It closes the connection without an answer.
    Close,
}

/// A request for a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The target of the request: a host and a port.
    pub target: String,
    /// All lines of the request.
    pub head: String,
    /// Whether the proxy opened the tunnel.
    pub opened: bool,
}

/// A forward proxy on a loopback port. Dropping it closes its port and all connections.
pub struct ForwardProxy {
    address: SocketAddr,
    is_https: bool,
    state: Arc<Mutex<State>>,
    _running: Background,
}

#[derive(Default)]
struct State {
    manner: Manner,
    /// The value of Proxy-Authorization that the proxy requires, if it requires one.
    required: Option<String>,
    /// Where the tunnels to these hosts lead.
    hosts: HashMap<String, Ipv4Addr>,
    asked: Vec<Asked>,
    connections: usize,
}

impl fmt::Debug for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ForwardProxy {
    /// Starts a proxy on a free port of `127.0.0.1`; with `tls`, clients connect to it with TLS.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let (is_https, tls) = (tls.is_some(), tls.map(TlsAcceptor::from));
        let of_connections = Arc::clone(&state);
        let serve = move |stream: TcpStream, _| {
            let (tls, state) = (tls.clone(), Arc::clone(&of_connections));
            lock(&state).connections += 1;
            let _ = stream.set_nodelay(true);
            async move {
                match tls {
                    None => serve(stream, &state).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, &state).await;
                        }
                    }
                }
            }
        };
        let (running, address) = Background::listen((Ipv4Addr::LOCALHOST, 0).into(), serve).await?;
        Ok(Self { address, is_https, state, _running: running })
    }

    /// The URL of the proxy.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.address)
    }

    /// Treats requests like this from now on.
    pub fn treat(&self, manner: Manner) {
        lock(&self.state).manner = manner;
    }

    /// Requires these credentials from now on: a user name, a colon and a password. Without them, it answers 407.
    pub fn require(&self, credentials: &str) {
        lock(&self.state).required = Some(format!("Basic {}", STANDARD.encode(credentials)));
    }

    /// Lets tunnels to `host`, a name or an address, lead to `address` from now on.
    pub fn lead(&self, host: &str, address: Ipv4Addr) {
        lock(&self.state).hosts.insert(host.to_owned(), address);
    }

    /// The requests for tunnels so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state).asked.clone()
    }

    /// The targets of the requests for tunnels so far.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.target).collect()
    }

    /// The number of TCP connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one client.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut client: S, state: &Mutex<State>) {
    let Some(head) = read_head(&mut client).await else { return };
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    let (manner, is_authorized, address) = {
        let mut state = lock(state);
        state.asked.push(Asked { target: target.clone(), head: head.clone(), opened: false });
        let sent = header(&head, "proxy-authorization");
        let is_authorized = state.required.as_deref().is_none_or(|required| sent == Some(required));
        (state.manner.clone(), is_authorized, address(&target, &state.hosts))
    };
    let mut server = match manner {
        Manner::Hang => pending().await,
        Manner::Close => return,
        Manner::Answer(answer) => return refuse(&mut client, &answer).await,
        Manner::Open if !is_authorized => {
            let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\n\
                           Content-Length: 0\r\nConnection: close\r\n\r\n";
            return refuse(&mut client, answer).await;
        }
        Manner::Open => match address {
            Some(address) => match TcpStream::connect(address).await {
                Ok(server) => server,
                Err(_) => return refuse(&mut client, b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await,
            },
            None => return refuse(&mut client, b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await,
        },
    };
    let _ = server.set_nodelay(true);
    if let Some(asked) = lock(state).asked.iter_mut().rev().find(|asked| asked.head == head && !asked.opened) {
        asked.opened = true;
    }
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        let _ = client.flush().await;
        // Either side may break the tunnel.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

async fn refuse<S: AsyncWrite + Unpin>(client: &mut S, answer: &[u8]) {
    // The client may have gone away.
    let _ = client.write_all(answer).await;
    let _ = client.shutdown().await;
}

/// Reads one header section. Returns None if the client stops early or never ends it.
async fn read_head<S: AsyncRead + Unpin>(client: &mut S) -> Option<String> {
    let mut head = Vec::new();
    // The client sends nothing after the header section until the tunnel is open.
    while !head.ends_with(b"\r\n\r\n") {
        let read = client.read_buf(&mut head).await.ok()?;
        if read == 0 || head.len() > LONGEST_HEAD {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name));
    head.lines().find_map(of_line).map(|(_, value)| value.trim())
}

/// Where a tunnel to `target` leads: to an address of 127.0.0.0/8 itself, and to any other host as `hosts` says.
fn address(target: &str, hosts: &HashMap<String, Ipv4Addr>) -> Option<SocketAddr> {
    let (host, port) = target.rsplit_once(':')?;
    let itself = || host.parse::<Ipv4Addr>().ok().filter(Ipv4Addr::is_loopback);
    Some((hosts.get(host).copied().or_else(itself)?, port.parse().ok()?).into())
}
