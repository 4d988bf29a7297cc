use std::time::Duration;

use tidings_testkit::{Authority, RawServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::connect;

#[tokio::test]
async fn a_script_runs_once_for_each_connection_with_or_without_tls() {
    let authority = Authority::new();
    let over_tls = RawServer::tls(authority.server_config(&[]), |mut stream| async move {
        stream.write_all(b"not HTTP").await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await
    .unwrap();
    let plain = RawServer::tcp(|mut stream| async move { stream.write_all(b"not TLS").await.unwrap() }).await.unwrap();
    for count in 1..=2 {
        let (mut secret, mut open) = (String::new(), String::new());
        connect(&authority, &over_tls.url("/")).await.unwrap().read_to_string(&mut secret).await.unwrap();
        TcpStream::connect(plain.address()).await.unwrap().read_to_string(&mut open).await.unwrap();
        assert_eq!((secret.as_str(), open.as_str()), ("not HTTP", "not TLS"));
        assert_eq!((over_tls.connections(), plain.connections()), (count, count));
    }
    let address = plain.address();
    drop(plain);
    assert!(TcpStream::connect(address).await.is_err(), "the port is still open");
}

#[tokio::test]
async fn each_request_is_answered_with_the_same_bytes_after_it_is_complete() {
    let authority = Authority::new();
    let server = RawServer::answering(authority.server_config(&[]), "any bytes").await.unwrap();
    for request in ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"] {
        let mut stream = connect(&authority, &server.url("/")).await.unwrap();
        let (all_but_the_last, last) = request.split_at(request.len() - 1);
        stream.write_all(all_but_the_last.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let early = timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(early.is_err(), "an answer before the end of {request:?}");
        stream.write_all(last.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "any bytes");
    }
}
