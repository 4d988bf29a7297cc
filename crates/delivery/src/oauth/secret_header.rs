//! Secret header values.

use bytes::Bytes;
use http::{HeaderValue, header::InvalidHeaderValue};
use secrecy::zeroize::Zeroizing;

/// Makes a header value from `text` that is hidden in logs and whose memory is wiped with its last copy.
pub(super) fn secret_header(text: Zeroizing<String>) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s10_a_secret_header_is_itself_on_the_wire_and_nothing_in_a_log() {
        let value = secret_header(Zeroizing::new("Bearer canary".into())).unwrap();
        assert_eq!(value, "Bearer canary");
        assert!(value.is_sensitive() && value.clone().is_sensitive());
        assert!(!format!("{value:?}").contains("canary"));
        assert!(secret_header(Zeroizing::new("two\nlines".into())).is_err());
    }
}
