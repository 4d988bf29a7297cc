//! Connections: connections without a waiting attempt, and idle connections that the other side closes; direct ones and
//! tunnels through a proxy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use testkit::{Authority, RawServer, endpoints::read_request};
use tidings_api::AttemptReason;
use tidings_delivery::webhook::Verdict;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, sleep},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    sending::{PATIENCE, Sender, allowing},
    token_sources::trusting,
};

const OK: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

async fn senders(authority: &Authority) -> [Sender; 2] {
    Sender::both(allowing("127.0.0.1"), &trusting(authority)).await
}

/// A server that completes only its first TLS handshake, and counts the open connections.
async fn stalling(authority: &Authority, open: &Arc<AtomicUsize>) -> RawServer {
    let (tls, first, open) =
        (TlsAcceptor::from(authority.server_config(&[])), Arc::new(Mutex::new(true)), open.clone());
    let script = move |mut stream: TcpStream| {
        let (tls, first, open) = (tls.clone(), first.clone(), open.clone());
        async move {
            open.fetch_add(1, Ordering::Relaxed);
            if std::mem::take(&mut *first.lock().await) {
                let mut stream = tls.accept(stream).await.unwrap();
                // Slow enough for the next request to start before the response.
                while !read_request(&mut stream).await.is_empty() {
                    sleep(Duration::from_millis(5)).await;
                    stream.write_all(OK).await.unwrap();
                }
            } else {
                while stream.read_u8().await.is_ok() {}
            }
            open.fetch_sub(1, Ordering::Relaxed);
        }
    };
    RawServer::tcp(script).await.unwrap()
}

#[tokio::test]
async fn s19_a_connection_without_a_waiting_attempt_ends_by_itself() {
    const DELIVERIES: usize = 300;
    let authority = Authority::new();
    for sender in senders(&authority).await {
        let open = Arc::new(AtomicUsize::new(0));
        let server = stalling(&authority, &open).await;
        let url = server.url("/");
        // Each time, one request finds the connection busy, opens a second one, and uses the first when it becomes free.
        for _ in 0..DELIVERIES / 2 {
            let (one, other) = tokio::join!(sender.post(&url, PATIENCE), sender.post(&url, PATIENCE));
            assert_eq!((one.verdict, other.verdict), (Verdict::Delivered, Verdict::Delivered));
        }
        assert!(
            server.connections() > DELIVERIES / 4,
            "no request opened a second connection: {}",
            server.connections()
        );
        let deadline = Instant::now() + PATIENCE;
        while open.load(Ordering::Relaxed) > 1 {
            assert!(Instant::now() < deadline, "{} connections are open", open.load(Ordering::Relaxed));
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A server that answers the first request on each connection with 204, and calls `then` when the next request arrives.
async fn keeping<F: Future<Output = ()> + Send + 'static>(
    authority: &Authority,
    then: impl Fn(usize, TlsStream<TcpStream>) -> F + Send + Sync + 'static,
) -> RawServer {
    let (then, connections) = (Arc::new(then), Arc::new(AtomicUsize::new(0)));
    let script = move |mut stream: TlsStream<TcpStream>| {
        let (then, number) = (then.clone(), connections.fetch_add(1, Ordering::Relaxed));
        async move {
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            if !read_request(&mut stream).await.is_empty() {
                then(number, stream).await;
            }
        }
    };
    RawServer::tls(authority.server_config(&[]), script).await.unwrap()
}

#[tokio::test]
async fn field_09_a_reused_connection_that_closes_under_a_request_costs_no_attempt() {
    let authority = Authority::new();
    for sender in senders(&authority).await {
        let server = keeping(&authority, async |_, stream| drop(stream)).await;
        let url = server.url("/");
        for request in 1..=4 {
            assert_eq!(sender.post(&url, PATIENCE).await.verdict, Verdict::Delivered, "request {request}");
        }
        assert!(server.connections() >= 3, "{} connections: no connection was reused", server.connections());
        sender.assert_proxied(server.connections());
    }
}

#[tokio::test]
async fn a_request_that_fails_later_or_on_a_new_connection_is_not_repeated() {
    let authority = Authority::new();
    for sender in senders(&authority).await {
        let late = keeping(&authority, async |_, stream| {
            sleep(Duration::from_millis(1500)).await;
            drop(stream);
        });
        let server = late.await;
        let url = server.url("/");
        assert_eq!(sender.post(&url, PATIENCE).await.verdict, Verdict::Delivered);
        assert_eq!(
            sender.post(&url, PATIENCE).await.reason,
            AttemptReason::ConnectionFailed,
            "the connection did not close immediately"
        );
        assert_eq!(server.connections(), 1);

        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let silent = RawServer::tls(authority.server_config(&[]), move |mut stream: TlsStream<TcpStream>| {
            let counted = counted.clone();
            async move {
                read_request(&mut stream).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let server = silent.await.unwrap();
        assert_eq!(sender.post(&server.url("/"), PATIENCE).await.reason, AttemptReason::ConnectionFailed);
        assert_eq!(requests.load(Ordering::Relaxed), 1, "a request on a new connection is not repeated");
    }
}

#[tokio::test]
async fn a_request_on_a_kept_connection_is_repeated_once_within_its_timeout() {
    let authority = Authority::new();
    for sender in senders(&authority).await {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        // The first connection is kept; every later one closes under its first request.
        let server = RawServer::tls(authority.server_config(&[]), move |mut stream: TlsStream<TcpStream>| {
            let counted = counted.clone();
            async move {
                read_request(&mut stream).await;
                if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                    stream.write_all(OK).await.unwrap();
                    read_request(&mut stream).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let server = server.await.unwrap();
        let url = server.url("/");
        assert_eq!(sender.post(&url, PATIENCE).await.verdict, Verdict::Delivered);
        assert_eq!(sender.post(&url, PATIENCE).await.reason, AttemptReason::ConnectionFailed);
        assert_eq!((requests.load(Ordering::Relaxed), server.connections()), (3, 2));

        // A repeated request that is not answered ends when the attempt times out.
        let connections = Arc::new(AtomicUsize::new(0));
        let server = RawServer::tls(authority.server_config(&[]), move |mut stream: TlsStream<TcpStream>| {
            let is_first = connections.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                read_request(&mut stream).await;
                if is_first {
                    stream.write_all(OK).await.unwrap();
                }
                read_request(&mut stream).await;
            }
        });
        let server = server.await.unwrap();
        let url = server.url("/");
        assert_eq!(sender.post(&url, PATIENCE).await.verdict, Verdict::Delivered);
        assert_eq!(sender.post(&url, Duration::from_secs(1)).await.reason, AttemptReason::Timeout);
        assert_eq!(server.connections(), 2);
    }
}
