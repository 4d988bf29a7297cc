//! Fuzzes the Retry-After header.
#![no_main]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
use libfuzzer_sys::{Corpus, fuzz_target};
use tidings_delivery::egress::retry_after;

const SECOND: Duration = Duration::from_secs(1);
/// The end of the year 9999, after which there is no HTTP date.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_799);

fn read(value: &[u8], now: SystemTime) -> Option<Duration> {
    let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_bytes(value).unwrap())]);
    retry_after(&headers, now)
}

// The header's value.
fuzz_target!(|value: &[u8]| -> Corpus {
    if HeaderValue::from_bytes(value).is_err() {
        return Corpus::Reject;
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000); // Sun, 09 Sep 2001 01:46:40 GMT
    let wait = read(value, now);
    let text = value.trim_ascii();
    if !text.is_empty() && text.iter().all(u8::is_ascii_digit) {
        let most = u64::from(u32::MAX);
        let seconds = text.iter().fold(0, |sum: u64, digit| (sum * 10 + u64::from(digit - b'0')).min(most));
        assert_eq!(wait, (seconds > 0).then(|| Duration::from_secs(seconds)));
    } else if let Some(wait) = wait {
        assert!(!wait.is_zero());
        let date = now + wait;
        assert!(date <= SystemTime::UNIX_EPOCH + END_OF_DATES);
        // Only a complete date is accepted, and each form of the date results in the same wait.
        assert!(text.len() >= 24 && text.iter().filter(|byte| **byte == b':').count() == 2, "{text:?}");
        assert_eq!(read(httpdate::fmt_http_date(date).as_bytes(), now), Some(wait));
        // One second later, the wait is one second shorter.
        assert_eq!(read(value, now + SECOND), Some(wait - SECOND).filter(|wait| !wait.is_zero()));
    }
    // Surrounding white space makes no difference.
    assert_eq!(read(&[b" \t", value, b" "].concat(), now), wait);
    Corpus::Keep
});
