//! Runs a TCP proxy in front of a server, which can inject faults. It works below TLS and does not interpret the bytes.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::background::Background;
use crate::error::Result;

/// How the proxy treats connections and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Everything passes.
    #[default]
    Pass,
    /// New connections are reset immediately; existing connections continue.
    Refuse,
    /// Nothing passes, as if packets were lost. When the link changes, the connections continue.
    Stall,
    /// Nothing passes. A connection that is used during this time is half open and never passes anything again.
    HalfOpen,
    /// Each chunk is passed on after this time.
    Delay(Duration),
    /// A connection is reset after this many bytes in both directions together.
    Cut(usize),
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("everything passes"),
            Self::Refuse => f.write_str("new connections are reset"),
            Self::Stall => f.write_str("stalled"),
            Self::HalfOpen => f.write_str("half open"),
            Self::Delay(time) => write!(f, "{} ms slower", time.as_millis()),
            Self::Cut(bytes) => write!(f, "cut after {bytes} bytes"),
        }
    }
}

/// A proxy on a loopback port. Dropping it closes its port and all connections.
pub struct TcpProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    _running: Background,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    link: Link,
    /// Connections of an earlier epoch are reset.
    epoch: u64,
}

/// One connection.
struct Passage {
    state: watch::Receiver<State>,
    /// The number of bytes that have passed while the link was [`Link::Cut`].
    passed: AtomicUsize,
}

impl TcpProxy {
    /// Starts a proxy to `target` on a free port of `127.0.0.1`, at first without a fault.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let state = watch::Sender::new(State::default());
        let link = state.clone();
        let serve = move |client, _| carry(client, target, link.subscribe());
        let (running, address) = Background::listen((Ipv4Addr::LOCALHOST, 0).into(), serve).await?;
        Ok(Self { address, state, _running: running })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the link from now on, also for existing connections.
    pub fn set(&self, link: Link) {
        self.state.send_modify(|state| state.link = link);
    }

    /// Resets every existing connection.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.epoch += 1);
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let State { link, epoch } = *state.borrow();
    let server = if link == Link::Refuse { None } else { TcpStream::connect(target).await.ok() };
    let Some(mut server) = server else { return abort(&client) };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let passage = Passage { state: state.clone(), passed: AtomicUsize::new(0) };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let both = async {
        tokio::try_join!(passage.pump(&mut from_client, &mut to_server), passage.pump(&mut from_server, &mut to_client))
    };
    let orderly = tokio::select! {
        ended = both => ended.is_ok(),
        _ = state.wait_for(|state| state.epoch != epoch) => false,
    };
    if !orderly {
        abort(&client);
        abort(&server);
    }
}

impl Passage {
    /// Passes on bytes until the sender closes its side. An error ends the connection.
    async fn pump(&self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            let may_pass = self.may_pass(read).await;
            to.write_all(&buffer[..may_pass]).await?;
            if may_pass < read {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if read == 0 {
                return to.shutdown().await;
            }
        }
    }

    /// Waits until the `read` bytes may pass, and returns how many of them pass.
    async fn may_pass(&self, read: usize) -> usize {
        let mut state = self.state.clone();
        // It fails only when the proxy stops, which also ends the connection.
        let changed = state.wait_for(|state| state.link != Link::Stall).await.map(|state| state.link);
        match changed {
            Ok(Link::HalfOpen) | Err(_) => pending().await,
            Ok(Link::Delay(time)) => sleep(time).await,
            Ok(Link::Cut(limit)) => {
                let before = self.passed.fetch_add(read, Ordering::Relaxed);
                return read.min(limit.saturating_sub(before));
            }
            Ok(Link::Pass | Link::Refuse | Link::Stall) => {}
        }
        read
    }
}

/// Makes TCP close the connection with a reset.
fn abort(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
