use tidings_testkit::{Authority, RawServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::connect;

#[tokio::test]
async fn a_script_has_each_connection_to_itself_with_tls_or_without() {
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
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}
