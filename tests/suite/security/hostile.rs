//! What a hostile webhook or token service can do to the operator (S12): be called off, and no more.

use std::{future::Future, sync::Arc, time::Duration};

use testkit::{Authority, RawServer, endpoints::read_request};
use tidings_api::AttemptReason;
use tidings_delivery::{
    egress::{Response, SendError},
    oauth::TokenError,
    webhook::{Outcome, Verdict},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    sending::{BODY_LIMIT, PATIENCE, Sender, WAYS, allowing},
    token_sources::trusting,
};

/// More than the operator reads and the kernel holds of one answer. A reader without bounds takes more within moments.
const PUSHED: usize = 16 << 20;
/// The deadline where nothing else can end an exchange.
const SHORT: Duration = Duration::from_millis(300);

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// What is said until the client hangs up.
#[derive(Clone)]
struct Attack {
    name: &'static str,
    /// Once.
    first: String,
    /// Over and over.
    then: Vec<u8>,
    /// The wait between two of them.
    pause: Duration,
}

impl Attack {
    fn new(name: &'static str, first: impl Into<String>, then: impl Into<Vec<u8>>) -> Self {
        Self { name, first: first.into(), then: then.into(), pause: Duration::ZERO }
    }

    /// The same, a little at a time.
    fn dripping(self) -> Self {
        Self { pause: Duration::from_millis(2), ..self }
    }

    /// Sends until the other side hangs up, and counts the bytes that went.
    async fn push(&self, stream: &mut (impl AsyncWrite + Unpin)) -> usize {
        let (mut pushed, mut next) = (0, self.first.as_bytes());
        while stream.write_all(next).await.is_ok() && stream.flush().await.is_ok() {
            pushed += next.len();
            next = &self.then;
            if !self.pause.is_zero() {
                sleep(self.pause).await;
            }
        }
        pushed
    }
}

/// A server whose answers are attacks, and a client for it.
struct Field {
    sender: Sender,
    server: RawServer,
    /// How many bytes of each attack went out before the client hung up.
    pushed: mpsc::UnboundedReceiver<usize>,
}

impl Field {
    async fn new(attack: &Attack) -> Self {
        let authority = Authority::new();
        let (report, pushed) = mpsc::unbounded_channel();
        let attack = Arc::new(attack.clone());
        let server = RawServer::tls(authority.server_config(&[]), move |mut stream| {
            let (attack, report) = (attack.clone(), report.clone());
            async move {
                read_request(&mut stream).await;
                let _ = report.send(attack.push(&mut stream).await);
            }
        });
        Self { server: server.await.unwrap(), sender: sender(&authority).await, pushed }
    }

    async fn post(&self, deadline: Duration) -> Outcome {
        soon(self.sender.post(&self.server.url("/"), deadline)).await
    }

    async fn options(&self, deadline: Duration) -> Result<Response, SendError> {
        soon(self.sender.options(&self.server.url("/"), deadline)).await
    }

    async fn token(&self, deadline: Duration) -> TokenError {
        soon(self.sender.token(&self.server.url("/"), deadline)).await.expect("no token")
    }

    /// How many bytes went out for each way before the client hung up.
    async fn pushed(&mut self) -> usize {
        let mut most = 0;
        for _ in WAYS {
            most = most.max(soon(self.pushed.recv()).await.unwrap());
        }
        most
    }
}

async fn sender(authority: &Authority) -> Sender {
    Sender::new(allowing("127.0.0.1"), &trusting(authority)).await
}

/// Waits for what must come by itself.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(2 * PATIENCE, future).await.expect("it comes to an end")
}

#[tokio::test]
async fn s12_an_endless_body_leaves_an_answer_that_is_cut_off() {
    let block = "x".repeat(16 * 1024);
    for attack in [
        Attack::new("until the connection closes", format!("{OK}\r\n"), block.as_str()),
        Attack::new("with a length", format!("{OK}content-length: 9000000000000000000\r\n\r\n"), block.as_str()),
        Attack::new("in chunks", format!("{OK}transfer-encoding: chunked\r\n\r\n"), format!("4000\r\n{block}\r\n")),
        Attack::new(
            "in one chunk",
            format!("{OK}transfer-encoding: chunked\r\n\r\nfffffffffffffff\r\n"),
            block.as_str(),
        ),
        Attack::new(
            "in chunks of one byte",
            format!("{OK}transfer-encoding: chunked\r\n\r\n"),
            "1\r\nx\r\n".repeat(1000),
        ),
        Attack::new("a chunk's extension", format!("{OK}transfer-encoding: chunked\r\n\r\n1;"), block.as_str()),
        Attack::new("trailers", format!("{OK}transfer-encoding: chunked\r\n\r\n0\r\n"), "x-more: y\r\n".repeat(1000)),
        Attack::new("one trailer", format!("{OK}transfer-encoding: chunked\r\n\r\n0\r\nx-more: "), block.as_str()),
    ] {
        let name = attack.name;
        let mut field = Field::new(&attack).await;
        let outcome = field.post(PATIENCE).await;
        assert_eq!((outcome.verdict, outcome.status.unwrap().as_u16()), (Verdict::Delivered, 200), "{name}");
        let answer = field.options(PATIENCE).await.unwrap();
        assert!(!answer.complete && answer.body.len() <= BODY_LIMIT, "{name}: {}", answer.body.len());
        assert!(matches!(field.token(PATIENCE).await, TokenError::Malformed(_)), "{name}");
        let pushed = field.pushed().await;
        assert!(pushed < PUSHED, "{name}: {pushed} bytes");
    }
}

#[tokio::test]
async fn s12_an_endless_head_is_no_answer() {
    for attack in [
        Attack::new("the version", "", "H".repeat(1000)),
        Attack::new("the status line", "HTTP/1.1 200 ", "x".repeat(1000)),
        Attack::new("empty lines", "", "\r\n".repeat(1000)),
        Attack::new("one header", format!("{OK}x-more: "), "x".repeat(1000)),
        Attack::new("the name of a header", OK, "x".repeat(1000)),
        Attack::new("many headers", OK, "x-more: y\r\n".repeat(100)),
        Attack::new("noise", "\u{7f}", (0..=255u8).collect::<Vec<_>>()),
    ] {
        let name = attack.name;
        let mut field = Field::new(&attack).await;
        assert_eq!(field.post(PATIENCE).await.reason, AttemptReason::ConnectionFailed, "{name}");
        assert_eq!(field.options(PATIENCE).await.err(), Some(SendError::Broken), "{name}");
        assert_eq!(field.token(PATIENCE).await, TokenError::Unreachable(SendError::Broken), "{name}");
        let pushed = field.pushed().await;
        assert!(pushed < PUSHED, "{name}: {pushed} bytes");
    }
}

#[tokio::test]
async fn s12_a_head_that_drips_is_called_off_at_the_deadline() {
    for attack in [
        Attack::new("the status line", "HTTP/1.1 200 ", "x").dripping(),
        Attack::new("a header", format!("{OK}x-more: "), "x").dripping(),
        Attack::new("headers", OK, "x:y\r\n").dripping(),
        Attack::new("answers that are none yet", "", "HTTP/1.1 100 Continue\r\n\r\n"),
        Attack::new("early hints", "", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"),
    ] {
        let name = attack.name;
        let mut field = Field::new(&attack).await;
        assert_eq!(field.post(SHORT).await.reason, AttemptReason::Timeout, "{name}");
        assert_eq!(field.options(SHORT).await.err(), Some(SendError::Timeout), "{name}");
        assert_eq!(field.token(SHORT).await, TokenError::Unreachable(SendError::Timeout), "{name}");
        field.pushed().await;
    }
}

#[tokio::test]
async fn s12_a_body_that_drips_is_cut_off_at_the_deadline() {
    for attack in [
        Attack::new("a body", format!("{OK}\r\n"), "x").dripping(),
        Attack::new("chunks", format!("{OK}transfer-encoding: chunked\r\n\r\n"), "1\r\nx\r\n").dripping(),
        Attack::new("the size of a chunk", format!("{OK}transfer-encoding: chunked\r\n\r\n"), "0").dripping(),
    ] {
        let name = attack.name;
        let mut field = Field::new(&attack).await;
        assert_eq!(field.post(SHORT).await.verdict, Verdict::Delivered, "{name}");
        let answer = field.options(SHORT).await.unwrap();
        assert!(!answer.complete && answer.body.len() < BODY_LIMIT, "{name}: {}", answer.body.len());
        assert!(matches!(field.token(SHORT).await, TokenError::Malformed(_)), "{name}");
        field.pushed().await;
    }
}

/// A gzip stream that unpacks to 160 times its size: one zero, then "258 more of these" (RFC 1951, section 3.2.6).
fn bomb(length: usize) -> Vec<u8> {
    let mut bits = String::from("110"); // the last block, with fixed codes
    bits += "00110000";
    while bits.len() < 8 * length {
        bits += "1100010100000";
    }
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | (bit - b'0'));
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    header.into_iter().chain(bits.as_bytes().chunks_exact(8).map(byte)).collect()
}

#[tokio::test]
async fn s12_a_bomb_is_not_unpacked() {
    let authority = Authority::new();
    for encoding in ["gzip", "x-gzip", "gzip, gzip"] {
        for (length, complete) in [(BODY_LIMIT / 2, true), (BODY_LIMIT * 2, false)] {
            let bomb = bomb(length);
            let head = format!("{OK}content-encoding: {encoding}\r\nconnection: close\r\n\r\n");
            let server = RawServer::answering(authority.server_config(&[]), [head.as_bytes(), &bomb].concat());
            let server = server.await.unwrap();
            let sender = sender(&authority).await;
            let answer = soon(sender.options(&server.url("/"), PATIENCE)).await.unwrap();
            assert_eq!((answer.complete, &answer.body[..]), (complete, &bomb[..bomb.len().min(BODY_LIMIT)]));
            assert_eq!(sender.post(&server.url("/"), PATIENCE).await.verdict, Verdict::Delivered);
            // A token response is unpacked up to the limit of its body.
            let error = sender.token(&server.url("/"), PATIENCE).await.unwrap();
            assert_eq!(error, TokenError::Malformed("the body is too long or incomplete"));
        }
    }
}

#[tokio::test]
async fn s12_invalid_and_broken_responses_are_reported_immediately() {
    use Verdict::{Delivered, Retry};
    let chunked = format!("{OK}transfer-encoding: chunked\r\n\r\n");
    let cases = [
        (String::new(), Retry),
        ("hello".into(), Retry),
        ("<html>HTTP/0.9 had no status</html>\n".into(), Retry),
        ("HTTP/1.1 200 O".into(), Retry),
        (OK.into(), Retry),
        ("HTTP/2.0 200 OK\r\n\r\n".into(), Retry),
        ("HTTP/1.1 99999 OK\r\n\r\n".into(), Retry),
        ("HTTP/1.1 2 OK\r\n\r\n".into(), Retry),
        ("HTTP/1.1 -200 OK\r\n\r\n".into(), Retry),
        (format!("{OK}no colon\r\n\r\n"), Retry),
        (format!("{OK}content-length: 2\r\ncontent-length: 3\r\n\r\nabc"), Retry),
        (format!("{OK}content-length: -1\r\n\r\nabc"), Retry),
        ("SSH-2.0-OpenSSH_9.9\r\n".into(), Retry),
        ("\x16\x03\x01\x02\x00\x01".into(), Retry),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Retry),
        (format!("{OK}content-length: 100\r\n\r\nhalf"), Delivered),
        (format!("{chunked}64\r\nhalf"), Delivered),
        (format!("{chunked}4\r\nhalf\r\n"), Delivered),
        (format!("{chunked}no size\r\nhalf\r\n"), Delivered),
        (format!("{chunked}fffffffffffffffffffff\r\nhalf"), Delivered),
    ];
    let authority = Authority::new();
    for (answer, verdict) in cases {
        let server = RawServer::answering(authority.server_config(&[]), answer.clone()).await.unwrap();
        let (sender, url) = (sender(&authority).await, server.url("/"));
        let outcome = soon(sender.post(&url, PATIENCE)).await;
        assert_eq!((outcome.verdict, outcome.status.is_some()), (verdict, verdict == Delivered), "{answer:?}");
        let options = soon(sender.options(&url, PATIENCE)).await;
        let token = soon(sender.token(&url, PATIENCE)).await.expect("no token");
        match options {
            Ok(options) => {
                assert!(verdict == Delivered && !options.complete, "{answer:?}: {}", options.status);
                assert!(matches!(token, TokenError::Malformed(_)), "{answer:?}: {token:?}");
            }
            Err(error) => {
                assert_eq!((error, verdict), (SendError::Broken, Retry), "{answer:?}");
                assert_eq!(token, TokenError::Unreachable(SendError::Broken), "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn s12_a_response_before_its_request_does_not_answer_another_request() {
    let authority = Authority::new();
    // Three answers at once, and never a byte read: the first may count, the others belong to no request.
    let server = RawServer::tls(authority.server_config(&[]), |mut stream| async move {
        let answers = format!("{OK}content-length: 0\r\n\r\n").repeat(3);
        let _ = stream.write_all(answers.as_bytes()).await;
        std::future::pending().await
    })
    .await
    .unwrap();
    let sender = sender(&authority).await;
    for number in 1..=4 {
        let outcome = soon(sender.post(&server.url("/"), PATIENCE)).await;
        assert!(matches!(outcome.reason, AttemptReason::Acknowledged | AttemptReason::ConnectionFailed), "{outcome:?}");
        assert_eq!(server.connections(), number, "each request has a connection of its own");
    }
}

/// A record of TLS 1.2 (RFC 5246, section 6.2.1).
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3], &length[..], content].concat()
}

#[tokio::test]
async fn s12_an_endless_handshake_is_called_off() {
    let certificate = [&[11, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat();
    for (attack, deadline, expected) in [
        (Attack::new("a message without an end", "", record(22, &certificate)), PATIENCE, AttemptReason::TLSFailed),
        (Attack::new("warnings", "", record(21, &[1, 90])), PATIENCE, AttemptReason::TLSFailed),
        (Attack::new("empty records", "", record(22, &[])), PATIENCE, AttemptReason::TLSFailed),
        (Attack::new("changes of cipher", "", record(20, &[1])), PATIENCE, AttemptReason::TLSFailed),
        (Attack::new("no TLS at all", "", "HTTP/1.1 400 Bad Request\r\n\r\n"), PATIENCE, AttemptReason::TLSFailed),
        (Attack::new("a record that drips", "\x16\x03\x03\x40\x00", [2]).dripping(), SHORT, AttemptReason::Timeout),
    ] {
        let (name, attack) = (attack.name, Arc::new(attack));
        let (report, mut reported) = mpsc::unbounded_channel();
        let server = RawServer::tcp(move |mut stream: TcpStream| {
            let (attack, report) = (attack.clone(), report.clone());
            async move {
                let _ = stream.read_u8().await; // the client has begun to say hello
                let _ = report.send(attack.push(&mut stream).await);
            }
        });
        let (server, sender) = (server.await.unwrap(), sender(&Authority::new()).await);
        let error = soon(sender.options(&server.url("/"), deadline)).await.err().unwrap();
        assert_eq!(Outcome::of_error(&error).reason, expected, "{name}");
        let pushed = soon(reported.recv()).await.unwrap();
        assert!(pushed < PUSHED, "{name}: {pushed} bytes");
    }
}
