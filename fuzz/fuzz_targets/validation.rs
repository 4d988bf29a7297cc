//! Fuzzes the validation response of a webhook: WebHook-Allowed-Origin and WebHook-Allowed-Rate.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};
use tidings_delivery::webhook::ValidationResponse;

const ORIGIN: HeaderValue = HeaderValue::from_static("notify.example.com");
/// The largest integer in the API.
const MOST: u32 = i32::MAX as u32;

// Each line is `o` and an allowed origin, or `r` and an allowed rate.
fuzz_target!(|input: &[u8]| -> Corpus {
    let (mut origins, mut rates, mut headers) = (Vec::new(), Vec::new(), HeaderMap::new());
    for line in input.split(|byte| *byte == b'\n').take(16) {
        let (kind, value) = match line {
            [b'o', value @ ..] => ("webhook-allowed-origin", value),
            [b'r', value @ ..] => ("webhook-allowed-rate", value),
            _ => return Corpus::Reject,
        };
        let Ok(header) = HeaderValue::from_bytes(value) else { return Corpus::Reject };
        headers.append(kind, header);
        if kind.ends_with("origin") {
            origins.push(value)
        } else {
            rates.push(value)
        };
    }
    let is_ours = origins.iter().any(|origin| *origin == b"notify.example.com" || *origin == b"*");
    for requested in [None, Some(1), Some(600), Some(MOST)] {
        match ValidationResponse::read(&headers, &ORIGIN, requested) {
            ValidationResponse::Silent => assert!(origins.is_empty()),
            ValidationResponse::Refused => assert!(!origins.is_empty() && !is_ours),
            ValidationResponse::Granted(rate) => {
                assert!(is_ours);
                assert!(rate.is_none_or(|rate| (1..=MOST).contains(&rate)));
                // The lowest rate in the response, or the requested rate if there is none.
                let named = rates.iter().filter_map(|rate| str::from_utf8(rate).ok()).filter_map(number);
                assert_eq!(rate, named.min_by_key(|rate| rate.map_or(u64::MAX, u64::from)).unwrap_or(requested));
            }
        }
    }
    Corpus::Keep
});

/// Parses a rate (`Some(None)`: no limit). Returns `None` if the text is not a rate.
fn number(text: &str) -> Option<Option<u32>> {
    if text == "*" {
        return Some(None);
    }
    let digits = text.trim_start_matches('0');
    let is_number = !digits.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    // With more than ten digits, the rate exceeds the largest integer in the API.
    is_number
        .then(|| Some(if digits.len() > 10 { MOST } else { digits.parse::<u64>().unwrap().min(MOST.into()) as u32 }))
}
