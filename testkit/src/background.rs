//! Runs a TCP listener on its own thread.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::error::{Error, Result};

/// A TCP server on its own thread with its own runtime. It may outlive the runtime of the test that started it, and a
/// busy test does not slow it down. Dropping it closes its port and all connections.
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Listens on `address` and serves each connection in a task. Returns the address that it listens on.
    pub(crate) async fn listen<S, F>(address: SocketAddr, serve: S) -> Result<(Self, SocketAddr)>
    where
        S: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (bound_to, bound) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(address, bound_to, serve) => {}
                    _ = stopped => {}
                }
            });
        });
        let background = Self { stop: Some(stop), thread: Some(thread) };
        let address = bound.await.map_err(|_error| Error::new("the server thread stopped"))??;
        Ok((background, address))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // If the runtime failed, both have stopped already.
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept<S, F>(address: SocketAddr, bound_to: oneshot::Sender<Result<SocketAddr>>, serve: S)
where
    S: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
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
                tokio::spawn(serve(stream, peer));
            }
            // No file descriptors left, or the client has closed the connection: try the next connection.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}
