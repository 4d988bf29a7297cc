//! Requests a tunnel from a proxy (CONNECT, RFC 9110, section 9.3.6).

use std::pin::pin;

use bytes::Bytes;
use futures::future::{Either, select};
use http::{
    HeaderValue, Request,
    header::{HOST, PROXY_AUTHORIZATION, USER_AGENT},
};
use http_body_util::Empty;
use hyper::{
    client::conn::http1,
    rt::{Read, Write},
    upgrade::{Upgraded, on},
};

use crate::egress::{ProxyFault, common::AGENT};

/// The maximum size of the proxy's response header section, in bytes.
const ANSWER: usize = 16 << 10;
/// The maximum number of headers in the proxy's response.
const ANSWER_HEADERS: usize = 64;

/// Requests a tunnel to `target`, a host and a port, over a connection to a proxy. Returns the tunnel. The body of a
/// response that refuses the tunnel is not read.
pub(super) async fn open<I>(io: I, target: &str, authorization: Option<HeaderValue>) -> Result<Upgraded, ProxyFault>
where
    I: Read + Write + Unpin + Send + 'static,
{
    let broken = |_error| ProxyFault::Broken;
    let mut client = http1::Builder::new();
    client.title_case_headers(true).max_buf_size(ANSWER).max_headers(ANSWER_HEADERS);
    let (mut requests, connection) = client.handshake(io).await.map_err(broken)?;
    let authorized = authorization.is_some();
    let request = request(target, authorization)?;
    let opened = async {
        let response = requests.send_request(request).await.map_err(broken)?;
        if !response.status().is_success() {
            return Err(ProxyFault::of_status(response.status(), authorized));
        }
        on(response).await.map_err(broken)
    };
    // The connection does the input and output, and ends when the tunnel is open.
    match select(pin!(opened), pin!(connection.with_upgrades())).await {
        Either::Left((opened, _)) => opened,
        Either::Right((_, opened)) => opened.await,
    }
}

fn request(target: &str, authorization: Option<HeaderValue>) -> Result<Request<Empty<Bytes>>, ProxyFault> {
    let mut request = Request::connect(target).header(HOST, target).header(USER_AGENT, AGENT);
    if let Some(authorization) = authorization {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    request.body(Empty::new()).map_err(|_error| ProxyFault::Broken)
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// What [`open`] returns if the proxy answers with these bytes, and the request that it got.
    async fn answered(
        answer: &[u8],
        authorization: Option<&str>,
    ) -> (Result<Upgraded, ProxyFault>, DuplexStream, String) {
        let (ours, mut of_proxy) = duplex(64 << 10);
        let authorization = authorization.map(|value| value.parse().unwrap());
        let asked = tokio::spawn(open(TokioIo::new(ours), "192.0.2.1:8443", authorization));
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            of_proxy.read_buf(&mut question).await.unwrap();
        }
        // The operator may close the connection before the end of a long answer.
        let _ = of_proxy.write_all(answer).await;
        if answer.is_empty() {
            of_proxy.shutdown().await.unwrap();
        }
        (asked.await.unwrap(), of_proxy, String::from_utf8(question).unwrap())
    }

    #[tokio::test]
    async fn a_tunnel_carries_bytes_in_both_directions_even_those_that_arrive_with_the_answer() {
        for answer in ["HTTP/1.1 200 Connection established\r\n\r\n", "HTTP/1.0 200 OK\r\nVia: x\r\n\r\nhello"] {
            let (tunnel, mut of_proxy, question) = answered(answer.as_bytes(), Some("Basic dTpw")).await;
            assert!(question.starts_with("CONNECT 192.0.2.1:8443 HTTP/1.1\r\n"), "{question}");
            for header in ["Host: 192.0.2.1:8443\r\n", "Proxy-Authorization: Basic dTpw\r\n", "User-Agent: tidings/"] {
                assert!(question.contains(header), "{question}");
            }
            let mut tunnel = TokioIo::new(tunnel.unwrap());
            let early = answer.split("\r\n\r\n").nth(1).unwrap();
            let mut read = vec![0; early.len()];
            tunnel.read_exact(&mut read).await.unwrap();
            assert_eq!(read, early.as_bytes());
            tunnel.write_all(b"ping").await.unwrap();
            tunnel.flush().await.unwrap();
            let mut read = [0; 4];
            of_proxy.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"ping");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_tunnel_is_a_fault_of_bounded_size() {
        let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), "X-Long: y\r\n".repeat(8000).as_bytes()].concat();
        let wide = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(60 << 10));
        let cases: [(&[u8], ProxyFault); 9] = [
            (
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 5\r\n\r\n",
                ProxyFault::CredentialsRequired,
            ),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99999\r\n\r\nno", ProxyFault::Refused(403)),
            (b"HTTP/1.1 302 Found\r\nLocation: http://login.example\r\n\r\n", ProxyFault::Refused(302)),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", ProxyFault::Unreachable(502)),
            (b"", ProxyFault::Broken),
            (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", ProxyFault::Broken),
            (b"HTTP/1.1 2000 OK\r\n\r\n", ProxyFault::Broken),
            (&endless, ProxyFault::Broken),
            (wide.as_bytes(), ProxyFault::Broken),
        ];
        for (answer, expected) in cases {
            let (tunnel, ..) = answered(answer, None).await;
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
            assert_eq!(tunnel.map(drop), Err(expected), "{shown}");
        }
        let (tunnel, ..) = answered(b"HTTP/1.1 407 No\r\n\r\n", Some("Basic dTpw")).await;
        assert_eq!(tunnel.map(drop), Err(ProxyFault::CredentialsRejected));
    }
}
