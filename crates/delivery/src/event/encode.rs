//! Encodes events into requests (CloudEvents HTTP protocol binding, section 3).

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

use super::checked::{CheckedEvent, Data, InvalidEvent};

/// How an event is encoded into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The whole event as one JSON object with this media type (section 3.2).
    Structured(&'static str),
    /// Attributes as headers, data as the body (section 3.1). Two kinds of events are sent in structured mode anyway:
    /// an event without data, because a web hook request always has a body; and an event whose data is a CloudEvent,
    /// because a receiver would confuse the data with the event (section 3).
    Binary,
}

impl Encoding {
    /// The media type of the JSON event format.
    pub const CLOUDEVENTS_JSON: &'static str = "application/cloudevents+json";
}

/// Returns the headers of the event, including Content-Type, and the body.
pub fn encode(event: &CheckedEvent, encoding: Encoding) -> Result<(HeaderMap, Vec<u8>), InvalidEvent> {
    match encoding {
        Encoding::Structured(media_type) => structured(event, media_type),
        Encoding::Binary if matches!(event.data, Data::None) || holds_an_event(event) => {
            structured(event, Encoding::CLOUDEVENTS_JSON)
        }
        Encoding::Binary => binary(event),
    }
}

fn structured(event: &CheckedEvent, media_type: &'static str) -> Result<(HeaderMap, Vec<u8>), InvalidEvent> {
    let body = serde_json::to_vec(&event.members).map_err(|_error| fault("", "cannot be written as JSON"))?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok((headers, body))
}

fn binary(event: &CheckedEvent) -> Result<(HeaderMap, Vec<u8>), InvalidEvent> {
    let mut headers = HeaderMap::new();
    let content_type = event.attributes.get("datacontenttype");
    for (name, value) in &event.attributes {
        if name != "datacontenttype" {
            let header = HeaderName::try_from(format!("ce-{name}"));
            let value = HeaderValue::try_from(percent_encoded(value));
            let (Ok(header), Ok(value)) = (header, value) else {
                return Err(fault(name, "is invalid in a header"));
            };
            headers.insert(header, value);
        }
    }
    let media_type = match content_type {
        Some(media_type) => {
            HeaderValue::from_str(media_type).map_err(|_error| fault("datacontenttype", "is invalid in a header"))?
        }
        None => HeaderValue::from_static("application/json"),
    };
    headers.insert(CONTENT_TYPE, media_type);
    let body = match &event.data {
        Data::None => Vec::new(),
        Data::Json => event.members.get("data").map_or_else(Vec::new, |json| json.get().into()),
        Data::Text(text) => text.clone().into_bytes(),
        Data::Bytes(bytes) => bytes.clone(),
    };
    Ok((headers, body))
}

/// Whether the media type of the data starts like the media type of an event.
fn holds_an_event(event: &CheckedEvent) -> bool {
    let media_type = event.attributes.get("datacontenttype").map(|media_type| media_type.to_ascii_lowercase());
    media_type.is_some_and(|media_type| media_type.starts_with("application/cloudevents"))
}

/// Encodes a header value: space, double quote, percent and everything outside printable ASCII as `%XX` of its UTF-8
/// bytes (section 3.1.3.2).
pub(crate) fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'"' | b'%' => drop(write!(out, "%{byte:02X}")),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

fn fault(attribute: &str, fault: &'static str) -> InvalidEvent {
    InvalidEvent { attribute: attribute.into(), fault }
}

#[cfg(test)]
mod tests {
    use super::super::Defaults;
    use super::*;

    fn event(json: &str) -> CheckedEvent {
        let defaults = Defaults { id: "uid-1", time: "2026-10-01T10:02:00Z" };
        CheckedEvent::parse(json, defaults).unwrap()
    }

    fn encoded(json: &str, encoding: Encoding) -> (HeaderMap, String) {
        let (headers, body) = encode(&event(json), encoding).unwrap();
        (headers, String::from_utf8(body).unwrap())
    }

    #[test]
    fn structured_keeps_every_member_as_it_was_written() {
        let (headers, body) = encoded(
            r#"{"source":"/s","type":"t","id":"1","time":"2026-10-01T10:02:00Z","ext":7,"data":{"n":1.0,"big":12345678901234567890}}"#,
            Encoding::Structured(Encoding::CLOUDEVENTS_JSON),
        );
        assert_eq!(headers[CONTENT_TYPE], "application/cloudevents+json");
        assert_eq!(
            body,
            r#"{"data":{"n":1.0,"big":12345678901234567890},"ext":7,"id":"1","source":"/s","specversion":"1.0","time":"2026-10-01T10:02:00Z","type":"t"}"#
        );
    }

    #[test]
    fn binary_puts_attributes_into_percent_encoded_headers_and_data_into_the_body() {
        let (headers, body) = encoded(
            r#"{"source":"/s","type":"t","subject":"Euro € \"100%\"","flag":true,"data":{"a": 1}}"#,
            Encoding::Binary,
        );
        assert_eq!(headers["ce-subject"], "Euro%20%E2%82%AC%20%22100%25%22");
        assert_eq!(headers["ce-flag"], "true");
        assert_eq!(headers["ce-id"], "uid-1");
        assert_eq!(headers["ce-specversion"], "1.0");
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert!(!headers.contains_key("ce-datacontenttype") && !headers.contains_key("ce-data"));
        assert_eq!(body, r#"{"a": 1}"#);
    }

    #[test]
    fn binary_sends_text_as_text_and_base64_as_its_bytes() {
        let text = r#"{"source":"/s","type":"t","datacontenttype":"text/plain","data":"hi \"you\""}"#;
        let (headers, body) = encoded(text, Encoding::Binary);
        assert_eq!((headers[CONTENT_TYPE].to_str().unwrap(), body.as_str()), ("text/plain", "hi \"you\""));
        let bytes = r#"{"source":"/s","type":"t","datacontenttype":"application/json","data_base64":"eyJhIjoxLjB9"}"#;
        assert_eq!(encoded(bytes, Encoding::Binary).1, r#"{"a":1.0}"#);
    }

    #[test]
    fn an_event_that_carries_an_event_goes_structured_even_in_binary_mode() {
        for media_type in ["application/cloudevents+json", "Application/CloudEvents-batch+json; charset=utf-8"] {
            let json = format!(r#"{{"source":"/s","type":"t","datacontenttype":"{media_type}","data":{{"id":"2"}}}}"#);
            let (headers, body) = encoded(&json, Encoding::Binary);
            assert_eq!(headers[CONTENT_TYPE], "application/cloudevents+json");
            assert!(headers.len() == 1 && body.contains(r#""id":"uid-1""#), "{media_type}: {body}");
        }
    }

    #[test]
    fn an_event_without_data_goes_structured_even_in_binary_mode() {
        let (headers, body) = encoded(r#"{"source":"/s","type":"t"}"#, Encoding::Binary);
        assert_eq!(headers[CONTENT_TYPE], "application/cloudevents+json");
        assert!(body.contains(r#""id":"uid-1""#), "{body}");
    }
}
