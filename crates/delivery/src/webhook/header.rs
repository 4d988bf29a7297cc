//! Checks headers that users add. Pure.

use http::{HeaderName, HeaderValue};
use tidings_api::is_reserved_header;

/// The maximum length of a header value, in bytes.
pub const MAX_HEADER_VALUE: usize = 8 << 10;
/// The maximum length of names and values of all headers that a Subscriber adds, in bytes: most servers refuse longer
/// headers.
pub const MAX_HEADERS: usize = 32 << 10;

/// Why a header cannot be sent. The value is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// Not a field name (RFC 9110, section 5.1).
    #[error("not a valid HTTP header name")]
    Name,
    /// Tidings or HTTP sets this header.
    #[error("Tidings or HTTP sets this header: remove it")]
    Reserved,
    /// The value is empty.
    #[error("the value is empty: store the header value")]
    Empty,
    /// The value ends with a line break.
    #[error("the value ends with a line break: create the value with printf or kubectl --from-literal")]
    LineBreak,
    /// The value is longer than [`MAX_HEADER_VALUE`].
    #[error("the value is longer than {} KiB, the limit for a header: shorten the value", MAX_HEADER_VALUE >> 10)]
    TooLong,
    /// Not a field value (RFC 9110, section 5.5) of printable ASCII.
    #[error("the value has characters other than printable ASCII, or starts or ends with a space")]
    Value,
}

impl InvalidHeader {
    /// Whether the fault is in the name rather than the value.
    pub fn is_of_name(self) -> bool {
        matches!(self, Self::Name | Self::Reserved)
    }
}

/// Makes a header with this name and value. The value is marked sensitive, so that logs do not show it.
pub fn extra_header(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), InvalidHeader> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_error| InvalidHeader::Name)?;
    if is_reserved_header(parsed.as_str()) {
        return Err(InvalidHeader::Reserved);
    }
    match value {
        [] => return Err(InvalidHeader::Empty),
        _ if value.len() > MAX_HEADER_VALUE => return Err(InvalidHeader::TooLong),
        [.., b'\n' | b'\r'] => return Err(InvalidHeader::LineBreak),
        [b' ' | b'\t', ..] | [.., b' ' | b'\t'] => return Err(InvalidHeader::Value),
        _ if !value.iter().all(|b| matches!(b, b' '..=b'~' | b'\t')) => return Err(InvalidHeader::Value),
        _ => {}
    }
    let mut value = HeaderValue::from_bytes(value).map_err(|_error| InvalidHeader::Value)?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn s07_an_accepted_header_is_one_header_and_not_a_reserved_one(
            name in "[A-Za-z-]{1,12}|[ -~]{0,12}|\\PC{0,12}",
            value in prop_oneof![any::<Vec<u8>>(), "[ -~\t]{0,12}".prop_map(String::into_bytes)],
        ) {
            if let Ok((parsed, kept)) = extra_header(&name, &value) {
                let is_delimiter = |b: u8| b"\"(),/:;<=>?@[\\]{}".contains(&b);
                let is_token = parsed.as_str().bytes().all(|b| b.is_ascii_graphic() && !is_delimiter(b));
                prop_assert!(is_token, "{parsed}");
                prop_assert!(!is_reserved_header(&name));
                prop_assert_eq!(kept.as_bytes(), value.as_slice());
                prop_assert!(value.iter().all(|b| (b' '..=b'~').contains(b) || *b == b'\t'));
                prop_assert!(kept.is_sensitive());
            }
        }

        #[test]
        fn s07_no_value_adds_a_header_line(before in "[!-~]{0,8}", after in "[!-~]{0,8}", broken in "[\r\n\0\x7f]") {
            let value = format!("{before}{broken}{after}");
            prop_assert_eq!(extra_header("x-a", value.as_bytes()).ok(), None);
        }

        #[test]
        fn printable_values_are_taken(value in "[!-~]([ -~]{0,20}[!-~])?") {
            prop_assert!(extra_header("X-Tenant", value.as_bytes()).is_ok());
        }
    }

    #[test]
    fn s07_each_fault_is_named() {
        assert_eq!(extra_header("X Tenant", b"a").unwrap_err(), InvalidHeader::Name);
        assert_eq!(extra_header("cE-Id", b"a").unwrap_err(), InvalidHeader::Reserved);
        assert_eq!(extra_header("X-A", b"").unwrap_err(), InvalidHeader::Empty);
        assert_eq!(extra_header("X-A", b"a\n").unwrap_err(), InvalidHeader::LineBreak);
        assert_eq!(extra_header("X-A", " a".as_bytes()).unwrap_err(), InvalidHeader::Value);
        assert_eq!(extra_header("X-A", "ä".as_bytes()).unwrap_err(), InvalidHeader::Value);
    }

    #[test]
    fn s17_a_header_has_at_most_8_kib() {
        assert!(extra_header("X-A", &[b'a'; 8192]).is_ok());
        assert_eq!(extra_header("X-A", &[b'a'; 8193]).unwrap_err(), InvalidHeader::TooLong);
    }
}
