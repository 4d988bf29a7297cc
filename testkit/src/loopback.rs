//! Helpers for programs that listen on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Result};

/// Returns a loopback address whose port was free a moment ago. Another program may take the port before it is used.
///
/// # Errors
/// When the system has no free port.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Sends a GET over plain HTTP and returns the status and the body. Meant for the operator's admin address.
///
/// # Errors
/// When there is no complete response within `limit`.
pub async fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<(u16, String)> {
    request(address, "GET", path, &[], "", limit).await
}

/// Sends a POST over plain HTTP and returns the status and the body. Meant for the administration API of a server that
/// the kit has started.
///
/// # Errors
/// When there is no complete response within `limit`.
pub async fn post(
    address: SocketAddr,
    path: &str,
    content_type: &str,
    body: &str,
    limit: Duration,
) -> Result<(u16, String)> {
    request(address, "POST", path, &[("Content-Type", content_type)], body, limit).await
}

/// Sends a request with these headers over plain HTTP and returns the status and the body. Meant for the administration
/// API of a server that the kit has started.
///
/// # Errors
/// When there is no complete response within `limit`.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    limit: Duration,
) -> Result<(u16, String)> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // With HTTP/1.0, the response ends with the connection and is never chunked.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer =
        timeout(limit, exchange).await.map_err(|_error| Error::new(format!("no response within {limit:?}")))??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| Error::new(format!("not an HTTP response: {head:?}")))?;
    Ok((status, body.to_owned()))
}
