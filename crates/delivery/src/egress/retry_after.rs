//! Parses the Retry-After header (RFC 9110, section 10.2.3). Pure.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};

/// Returns the requested pause: seconds, or until an HTTP date. Returns None without a usable value: absent, invalid,
/// zero or past.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large means a very long pause.
        Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX)))
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).ok()?
    };
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(value: &str) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000); // Sun, 09 Sep 2001 01:46:40 GMT
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
        retry_after(&headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_the_three_forms_of_a_date_are_understood() {
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(" 7 "), Some(7));
        assert_eq!(read("Sun, 09 Sep 2001 01:47:40 GMT"), Some(60));
        assert_eq!(read("Sunday, 09-Sep-01 01:47:40 GMT"), Some(60));
        assert_eq!(read("Sun Sep  9 01:47:40 2001"), Some(60));
    }

    #[test]
    fn what_is_past_zero_negative_or_garbage_is_no_value_and_what_is_huge_is_long() {
        for value in ["", "0", "-5", "1.5", "soon", "Sun, 09 Sep 2001 01:45:40 GMT", "+5", "5 s"] {
            assert_eq!(read(value), None, "{value:?}");
        }
        assert_eq!(read("99999999999999999999999999"), Some(u64::from(u32::MAX)));
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::now()), None);
    }
}
