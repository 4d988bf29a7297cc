use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tidings_testkit::proxies::Link;
use tidings_testkit::{RawServer, TcpProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

/// A server that echoes, and a proxy in front of it.
async fn echo() -> (RawServer, TcpProxy) {
    let server = RawServer::tcp(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
    .unwrap();
    let proxy = TcpProxy::start(server.address()).await.unwrap();
    (server, proxy)
}

async fn connect(proxy: &TcpProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn exchange(stream: &mut TcpStream, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(sent).await?;
    let mut got = vec![0; sent.len()];
    stream.read_exact(&mut got).await?;
    Ok(got)
}

#[tokio::test]
async fn everything_passes_including_the_end_of_a_connection() {
    let (_server, proxy) = echo().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(exchange(&mut stream, b"one").await.unwrap(), b"one");
    stream.write_all(b"two").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "two");
}

#[tokio::test]
async fn only_new_connections_are_refused_and_existing_connections_are_reset() {
    let (server, proxy) = echo().await;
    let mut old = connect(&proxy).await;
    exchange(&mut old, b"up").await.unwrap();
    proxy.set(Link::Refuse);
    // The reset may arrive while the client is still connecting.
    let refused = async { exchange(&mut TcpStream::connect(proxy.address()).await?, b"new").await };
    assert!(refused.await.is_err());
    assert_eq!(exchange(&mut old, b"old").await.unwrap(), b"old");
    assert_eq!(server.connections(), 1);
    proxy.set(Link::Pass);
    proxy.reset();
    let error = exchange(&mut old, b"old").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    assert_eq!(exchange(&mut connect(&proxy).await, b"new").await.unwrap(), b"new");
}

#[tokio::test]
async fn a_stalled_connection_continues_and_a_half_open_connection_does_not() {
    for (link, goes_on) in [(Link::Stall, true), (Link::HalfOpen, false)] {
        let (_server, proxy) = echo().await;
        let mut used = connect(&proxy).await;
        let mut idle = connect(&proxy).await;
        exchange(&mut used, b"up").await.unwrap();
        exchange(&mut idle, b"up").await.unwrap();
        proxy.set(link);
        assert!(timeout(SHORT, exchange(&mut used, b"held")).await.is_err(), "{link:?} lets something pass");
        proxy.set(Link::Pass);
        let mut held = [0; 4];
        let got = timeout(if goes_on { LONG } else { SHORT }, used.read_exact(&mut held)).await;
        assert_eq!(got.is_ok(), goes_on, "{link:?}");
        assert_eq!(exchange(&mut idle, b"idle").await.unwrap(), b"idle", "{link:?}");
    }
}

#[tokio::test]
async fn each_direction_is_delayed() {
    let (_server, proxy) = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Link::Delay(SHORT));
    let began = Instant::now();
    exchange(&mut stream, b"x").await.unwrap();
    assert!(began.elapsed() >= 2 * SHORT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_is_cut_after_a_number_of_bytes_in_both_directions() {
    let (_server, proxy) = echo().await;
    proxy.set(Link::Cut(10));
    let mut stream = connect(&proxy).await;
    assert_eq!(exchange(&mut stream, b"four").await.unwrap(), b"four");
    assert!(timeout(LONG, exchange(&mut stream, b"four")).await.unwrap().is_err(), "more than ten bytes passed");
}
