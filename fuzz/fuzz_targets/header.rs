//! Fuzzes the headers that a user adds, in the spec or through a Secret.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use tidings_delivery::webhook::extra_header;

/// Headers that Tidings sets itself, or that HTTP reserves for the connection.
const OWNED: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const OWNED_FAMILIES: &[&str] = &["ce-", "content-", "proxy-", "webhook-"];

// A name, a line break, and the value.
fuzz_target!(|input: &[u8]| -> Corpus {
    let (name, value) = match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &b"value"[..]),
    };
    let Ok(name) = str::from_utf8(name) else { return Corpus::Reject };
    let (parsed, kept) = match extra_header(name, value) {
        Ok(header) => header,
        Err(fault) => {
            // The fault must not contain the value, which may be a secret.
            assert!(fault.to_string().len() < 100);
            return Corpus::Keep;
        }
    };
    let lower = name.to_ascii_lowercase();
    assert!(!OWNED.contains(&&*lower) && !OWNED_FAMILIES.iter().any(|family| lower.starts_with(family)), "{name:?}");
    assert!(kept.is_sensitive());
    assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0 | 0x7f..)), "{value:?}");

    // On the wire, it is a single header with this name and this value.
    let wire = [b"GET / HTTP/1.1\r\n", parsed.as_str().as_bytes(), b": ", kept.as_bytes(), b"\r\n\r\n"].concat();
    let mut headers = [httparse::EMPTY_HEADER; 4];
    let mut request = httparse::Request::new(&mut headers);
    assert_eq!(request.parse(&wire), Ok(httparse::Status::Complete(wire.len())), "{name:?} {value:?}");
    let read: Vec<_> = request.headers.iter().map(|header| (header.name, header.value)).collect();
    assert_eq!(read, [(&*lower, value)]);
    Corpus::Keep
});
