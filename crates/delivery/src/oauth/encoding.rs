//! Reads the content encoding of a token response (RFC 9110, section 8.4). Pure.
//!
//! A token request requests a response without a content encoding. Some gateways pack the response anyway.

use std::io::{ErrorKind, Read};

use flate2::bufread::GzDecoder;
use http::{HeaderMap, header::CONTENT_ENCODING};
use secrecy::zeroize::Zeroizing;

/// The maximum length of a token response, packed and unpacked. Of a longer response, this much is read.
pub(super) const ANSWER_LIMIT: usize = 64 * 1024;

/// The first bytes of a gzip member (RFC 1952, section 2.3.1). No JSON text starts with them.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// A gateway may pack a response that is packed already.
const MAX_LAYERS: usize = 2;
/// The maximum number of gzip members in a layer: each costs memory for a moment, even if it is empty.
const MAX_MEMBERS: usize = 16;

const TOO_LONG: &str = "the body is too long or incomplete";
const DAMAGED: &str = "the body is compressed with gzip and damaged";

/// The body of a response, without content encoding.
pub(super) struct UnpackedBody {
    /// At most [`ANSWER_LIMIT`] bytes.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Why the body is not complete (None: it is complete).
    pub(super) fault: Option<&'static str>,
}

impl UnpackedBody {
    /// Unpacks a body that gzip has packed, as its first bytes show. Any other body is the content.
    ///
    /// The limit of a body applies before and after. Bytes after the last gzip member are ignored, as by other clients.
    pub(super) fn unpack(body: Zeroizing<Vec<u8>>, complete: bool) -> Self {
        let mut content = Self { body, fault: (!complete).then_some(TOO_LONG) };
        for _ in 0..MAX_LAYERS {
            if !content.body.starts_with(GZIP) {
                break;
            }
            let unpacked = unpack(&content.body);
            content = Self { body: unpacked.body, fault: unpacked.fault.or(content.fault) };
        }
        content
    }
}

/// Unpacks one layer.
fn unpack(packed: &[u8]) -> UnpackedBody {
    // One byte more than the limit, to see whether there is more. The buffer never grows, so it leaves no copy behind.
    let mut body = Zeroizing::new(vec![0; ANSWER_LIMIT + 1]);
    let (mut length, mut rest, mut members, mut fault) = (0, packed, 0, None);
    while rest.starts_with(GZIP) && fault.is_none() {
        let mut member = GzDecoder::new(rest);
        fault = loop {
            match member.read(&mut body[length..]) {
                Ok(0) if length > ANSWER_LIMIT => break Some(TOO_LONG),
                Ok(0) => break None,
                Ok(more) => length += more,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break Some(TOO_LONG),
                Err(_) => break Some(DAMAGED),
            }
        };
        rest = member.into_inner();
        members += 1;
        if members == MAX_MEMBERS {
            fault = fault.or(rest.starts_with(GZIP).then_some(TOO_LONG));
        }
    }
    // What is damaged counts for nothing. What arrived before the end of a connection may be a complete JSON object.
    body.truncate(if fault == Some(DAMAGED) { 0 } else { length.min(ANSWER_LIMIT) });
    UnpackedBody { body, fault }
}

/// Names the content encoding of a response whose body cannot be read, as part of a sentence (None: the headers name
/// none, or only one that the operator reads).
pub(super) fn unreadable(headers: &HeaderMap) -> Option<&'static str> {
    const NAMES: [(&str, &str); 6] = [
        ("br", "the content encoding br"),
        ("zstd", "the content encoding zstd"),
        ("deflate", "the content encoding deflate"),
        ("compress", "the content encoding compress"),
        ("dcb", "the content encoding dcb"),
        ("dcz", "the content encoding dcz"),
    ];
    let values = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let mut codings = values.flat_map(|value| value.split(',')).map(str::trim).filter(|coding| {
        let is_read = |known: &&str| coding.eq_ignore_ascii_case(known);
        !["", "identity", "gzip", "x-gzip"].iter().any(is_read)
    });
    let coding = codings.next()?;
    let known = NAMES.iter().find(|(name, _)| coding.eq_ignore_ascii_case(name));
    Some(known.map_or("an unknown content encoding", |(_, phrase)| phrase))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(body: &[u8]) -> (Vec<u8>, Option<&'static str>) {
        let UnpackedBody { body, fault } = UnpackedBody::unpack(Zeroizing::new(body.to_vec()), true);
        (body.to_vec(), fault)
    }

    const TOKEN: &[u8] = br#"{"access_token":"t"}"#;

    #[test]
    fn one_or_two_layers_of_gzip_are_unpacked() {
        assert_eq!(unpacked(TOKEN), (TOKEN.to_vec(), None));
        assert_eq!(unpacked(&gzip(TOKEN)), (TOKEN.to_vec(), None));
        assert_eq!(unpacked(&gzip(&gzip(TOKEN))), (TOKEN.to_vec(), None));
        let three = unpacked(&gzip(&gzip(&gzip(TOKEN))));
        assert_eq!(three, (gzip(TOKEN), None), "a third layer is not unpacked");
        // A member with a name and a comment, and a response in several members.
        let mut named = GzBuilder::new().filename("token.json").comment("x").write(Vec::new(), Compression::best());
        named.write_all(TOKEN).unwrap();
        assert_eq!(unpacked(&named.finish().unwrap()), (TOKEN.to_vec(), None));
        assert_eq!(unpacked(&[gzip(&TOKEN[..5]), gzip(b""), gzip(&TOKEN[5..])].concat()), (TOKEN.to_vec(), None));
        assert_eq!(unpacked(b""), (Vec::new(), None));
    }

    #[test]
    fn a_truncated_stream_is_incomplete_a_damaged_stream_is_nothing_and_garbage_after_it_is_ignored() {
        let packed = gzip(TOKEN);
        for length in 2..packed.len() {
            let (body, fault) = unpacked(&packed[..length]);
            assert_eq!(fault, Some(TOO_LONG), "{length}");
            assert!(TOKEN.starts_with(&body), "{length}");
        }
        // All but the checksum has arrived.
        assert_eq!(unpacked(&packed[..packed.len() - 8]).0, TOKEN);
        let mut damaged = packed.clone();
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        assert_eq!(unpacked(&damaged), (Vec::new(), Some(DAMAGED)));
        assert_eq!(unpacked(b"\x1f\x8bnot gzip at all"), (Vec::new(), Some(DAMAGED)));
        for garbage in [&b"\0\0\0"[..], b"garbage", b"\x1f", b"{}"] {
            assert_eq!(unpacked(&[&packed[..], garbage].concat()), (TOKEN.to_vec(), None), "{garbage:?}");
        }
        let cut = UnpackedBody::unpack(Zeroizing::new(packed), false);
        assert_eq!((&cut.body[..], cut.fault), (TOKEN, Some(TOO_LONG)));
    }

    #[test]
    fn the_limit_of_a_body_applies_to_what_is_unpacked() {
        assert_eq!(unpacked(&gzip(&[b' '; ANSWER_LIMIT])), (vec![b' '; ANSWER_LIMIT], None));
        for bomb in [gzip(&[b' '; ANSWER_LIMIT + 1]), gzip(&vec![b' '; 50 << 20]), gzip(&gzip(&vec![b' '; 50 << 20]))] {
            assert_eq!(unpacked(&bomb), (vec![b' '; ANSWER_LIMIT], Some(TOO_LONG)));
        }
        let (body, fault) = unpacked(&[gzip(TOKEN), gzip(b"").repeat(3000)].concat());
        assert_eq!((&body[..], fault), (TOKEN, Some(TOO_LONG)));
    }

    #[test]
    fn an_encoding_that_the_operator_cannot_read_is_named_and_nothing_else_is_repeated() {
        let named = |values: &[&str]| {
            let values = values.iter().map(|value| (CONTENT_ENCODING, value.parse().unwrap()));
            unreadable(&HeaderMap::from_iter(values))
        };
        for read in [&[][..], &["gzip"], &["GZIP, x-gzip"], &["identity"], &["gzip", "identity"], &[" , "]] {
            assert_eq!(named(read), None, "{read:?}");
        }
        assert_eq!(named(&["br"]), Some("the content encoding br"));
        assert_eq!(named(&["gzip, ZSTD"]), Some("the content encoding zstd"));
        assert_eq!(named(&["gzip", "deflate"]), Some("the content encoding deflate"));
        assert_eq!(named(&["canary"]), Some("an unknown content encoding"));
    }

    proptest! {
        #[test]
        fn whatever_is_packed_or_not_is_unpacked_within_the_limit(
            is_gzip: bool,
            content in proptest::collection::vec(any::<u8>(), 0..200),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut body = if is_gzip { gzip(&content) } else { content.clone() };
            if !body.is_empty() {
                for (at, by) in &flips {
                    let at = at.index(body.len());
                    body[at] ^= by;
                }
            }
            let (unpacked, _) = unpacked(&body);
            prop_assert!(unpacked.len() <= ANSWER_LIMIT);
            if is_gzip && flips.is_empty() && !content.starts_with(GZIP) {
                prop_assert_eq!(unpacked, content);
            }
        }
    }
}
