//! Token responses with a content encoding that the operator did not request. `docs/field.md` lists the tests.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::HeaderValue;
use testkit::{Authority, Behaviour, RawServer, TokenService, endpoints::Reply};
use tidings_delivery::{
    egress::{Egress, Policy},
    oauth::{AuthMethod, TokenCache, TokenError},
};

use crate::{
    sending::{Sender, WAYS, allowing},
    token_sources::{source_in, trusting},
};

const TOKEN: &str = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A token service, and what the operator reads of its responses.
struct Service {
    service: TokenService,
    http: std::sync::Arc<tidings_delivery::egress::Client>,
}

impl Service {
    async fn new() -> Self {
        let authority = Authority::new();
        let service = TokenService::start(&authority).await.unwrap();
        let egress = Egress::new(Policy::allowing(vec!["127.0.0.0/8".parse().unwrap()]));
        Self { service, http: egress.client("test", &trusting(&authority)).unwrap() }
    }

    /// The token, or the error, of a response with this status, Content-Encoding and body.
    async fn read(&self, status: u16, encoding: &[&str], body: &[u8]) -> Result<HeaderValue, TokenError> {
        let reply = Reply::status(status).header("content-type", "application/json").body(body.to_vec());
        let reply = encoding.iter().fold(reply, |reply, value| reply.header("content-encoding", value));
        self.service.answer_always(Behaviour::reply(reply));
        let source =
            source_in(&TokenCache::default(), &self.service.url(), self.http.clone(), AuthMethod::Basic, |_| ());
        source.token().await.map_err(|no_token| no_token.error)
    }
}

#[tokio::test]
async fn field_14_every_request_has_accept_encoding_identity_and_a_gzip_token_response_is_read_anyway() {
    let authority = Authority::new();
    let (server, mut received) = RawServer::recording(authority.server_config(&[])).await.unwrap();
    let sender = Sender::new(allowing("127.0.0.1"), &trusting(&authority)).await;
    for way in WAYS {
        let _ = sender.answer(way, &server.url("/events")).await;
        let request = received.recv().await.unwrap();
        let asks: Vec<_> = request.lines().filter(|line| line.starts_with("Accept-Encoding:")).collect();
        assert_eq!(asks, ["Accept-Encoding: identity"], "{way:?}: {request}");
    }

    let service = Service::new().await;
    let packed = gzip(TOKEN.as_bytes());
    let cases: [(&[&str], Vec<u8>); 9] = [
        (&["gzip"], packed.clone()),
        (&["x-gzip"], packed.clone()),
        (&["GZIP"], packed.clone()),
        (&["gzip, gzip"], gzip(&packed)),
        (&["gzip", "gzip"], gzip(&packed)),
        (&["identity, gzip"], packed.clone()),
        // Gateways that pack without the header, or unpack and keep the header.
        (&[], packed.clone()),
        (&["gzip"], TOKEN.into()),
        (&["br"], TOKEN.into()),
    ];
    for (encoding, body) in cases {
        assert_eq!(service.read(200, encoding, &body).await.unwrap(), "Bearer t", "{encoding:?}");
    }
    // What follows the stream is no part of it, and a checksum that is cut off is not missed.
    assert!(service.read(200, &["gzip"], &[&packed[..], b"\0\0garbage"].concat()).await.is_ok());
    assert!(service.read(200, &["gzip"], &packed[..packed.len() - 4]).await.is_ok());
}

#[tokio::test]
async fn field_14_a_response_that_cannot_be_unpacked_says_why_and_an_error_code_in_gzip_is_read() {
    let service = Service::new().await;
    let packed = gzip(TOKEN.as_bytes());
    let mut damaged = packed.clone();
    let checksum = damaged.len() - 5;
    damaged[checksum] ^= 1;
    let long = gzip(format!(r#"{{"access_token":"canary","pad":"{}"}}"#, "x".repeat(20 << 20)).as_bytes());
    assert!(long.len() < 64 * 1024);
    for (encoding, body, why) in [
        ("gzip", &packed[..packed.len() / 2], "the body is too long or incomplete"),
        ("gzip", &long, "the body is too long or incomplete"),
        ("gzip", &damaged, "compressed with gzip and damaged"),
        ("gzip", b"canary", "not a JSON object"),
        ("br", b"\x8b\x1e\x80canary\x03", "the content encoding br"),
        ("zstd", b"\x28\xb5\x2f\xfdcanary", "the content encoding zstd"),
        ("gzip, deflate", b"\x78\x9ccanary", "the content encoding deflate"),
        ("canary", b"canary", "an unknown content encoding"),
    ] {
        let error = service.read(200, &[encoding], body).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(why) && !shown.contains("canary"), "{encoding}: {shown}");
    }

    let refusal = gzip(br#"{"error":"invalid_scope","error_description":"canary"}"#);
    assert_eq!(service.read(400, &["gzip"], &refusal).await, Err(TokenError::Rejected("invalid_scope")));
    for encoding in ["gzip", "br"] {
        assert_eq!(service.read(401, &[encoding], b"\x1f\x8bcanary").await, Err(TokenError::Unauthorized));
    }
    let error = service.read(400, &["br"], b"canary").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token service answered 400 Bad Request, with the content encoding br, which the operator cannot read"
    );
    let error = service.read(503, &["gzip"], &refusal).await.unwrap_err();
    assert_eq!(error.to_string(), "the token service answered 503 Service Unavailable");
}
