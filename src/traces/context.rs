//! The trace context of an event: its extension attributes `traceparent` and `tracestate` (CloudEvents, distributed tracing
//! extension), which have the form of the headers of W3C Trace Context.

use std::collections::HashMap;

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    propagation::TextMapPropagator,
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The headers of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";
pub(super) const TRACESTATE: &str = "tracestate";

/// The length of `00-TRACE-SPAN-FLAGS` (W3C Trace Context, section 3.2.2).
const LENGTH: usize = 55;

/// The valid trace context of an event, as the event has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EventContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl EventContext {
    /// Returns the context, if `traceparent` is valid. A `tracestate` without it has no meaning.
    pub(super) fn of(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let traceparent = traceparent.filter(|text| is_traceparent(text))?.to_owned();
        let is_state = |text: &&str| !text.is_empty() && HeaderValue::from_str(text).is_ok();
        Some(Self { traceparent, tracestate: tracestate.filter(is_state).map(str::to_owned) })
    }

    /// The id of the trace, in hexadecimal digits.
    pub(super) fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }

    /// The context as a parent of spans.
    pub(super) fn parsed(&self) -> Option<SpanContext> {
        let pairs = [(TRACEPARENT, Some(&self.traceparent)), (TRACESTATE, self.tracestate.as_ref())];
        let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
        let context = TraceContextPropagator::new().extract(&pairs.collect::<HashMap<_, _>>());
        let parent = context.span().span_context().clone();
        parent.is_valid().then_some(parent)
    }

    /// Adds the headers, as the event has them.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        // A header of the Subscriber does not describe this event.
        headers.remove(TRACESTATE);
        for (name, value) in [(TRACEPARENT, Some(&self.traceparent)), (TRACESTATE, self.tracestate.as_ref())] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

/// Whether `text` is a valid `traceparent` (W3C Trace Context, section 3.2): of version 00 exactly, of a later version at
/// least the beginning that all versions share.
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| is_hex(part) && part.iter().any(|byte| *byte != b'0');
    let Some((form, rest)) = bytes.split_at_checked(LENGTH) else { return false };
    let ends = if form.starts_with(b"00") { rest.is_empty() } else { rest.is_empty() || rest.starts_with(b"-") };
    ends && is_hex(&form[..2])
        && !form.starts_with(b"ff")
        && [2, 35, 52].iter().all(|place| form[*place] == b'-')
        && is_id(&form[3..35])
        && is_id(&form[36..52])
        && is_hex(&form[53..])
        && HeaderValue::from_str(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_valid_in_the_form_of_w3c_trace_context_alone() {
        let later = format!("{VALID}-more").replacen("00", "01", 1);
        let flags = VALID.replace("-01", "-03");
        for valid in [VALID, &later, &flags] {
            let context = EventContext::of(Some(valid), None).expect(valid);
            assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
            assert!(context.parsed().is_some_and(|parent| parent.is_sampled() && parent.is_remote()), "{valid}");
        }
        for invalid in [
            "",
            "00-1-2-01",
            &VALID.to_uppercase(),
            &VALID.replacen("00", "ff", 1),
            &VALID[1..],
            &format!("{VALID}-more"),
            &format!(" {VALID}"),
            &VALID.replace('-', "_"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            &format!("{}\u{20ac}", &later[..56]),
        ] {
            // A later version may continue with what only it knows, if a header can hold that.
            let is_header = HeaderValue::from_str(invalid).is_ok() && invalid.starts_with("01");
            assert_eq!(EventContext::of(Some(invalid), None).is_some(), is_header, "{invalid}");
        }
        assert_eq!(EventContext::of(None, Some("a=1")), None);
    }

    #[test]
    fn the_headers_are_those_of_the_event_unchanged_and_replace_others() {
        let flags = VALID.replace("-01", "-03");
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("other"));
        headers.insert(TRACESTATE, HeaderValue::from_static("other=1"));
        EventContext::of(Some(&flags), Some("a=1, b=2")).unwrap().add_to(&mut headers);
        assert_eq!(headers[TRACEPARENT], &*flags);
        assert_eq!(headers[TRACESTATE], "a=1, b=2");
        EventContext::of(Some(VALID), Some("")).unwrap().add_to(&mut headers);
        assert_eq!(headers[TRACEPARENT], VALID);
        assert_eq!(headers.get(TRACESTATE), None);
    }
}
