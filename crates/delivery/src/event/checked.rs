//! Checks an event in the JSON event format (CloudEvents 1.0.2, JSON event format, sections 2 and 3).

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::value::RawValue;
use tidings_api::is_json;

/// The maximum number of members, attributes and data together, as the API server enforces it.
const MOST_MEMBERS: usize = 64;
/// The longest name of an attribute. CloudEvents says that names should not exceed 20 characters (section 3), and events
/// in use do.
const LONGEST_NAME: usize = 64;
/// The maximum canonical text of an attribute, in bytes, as the API server enforces it. In binary mode the text becomes
/// a header of up to three times that length.
const MAX_ATTRIBUTE: usize = 4096;

/// The defaults for attributes that an event does not set.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    /// The id of the Notification.
    pub id: &'a str,
    /// The creation of the Notification, RFC 3339 in UTC.
    pub time: &'a str,
}

/// A CloudEvent 1.0 that can be encoded: every required attribute is present, and every attribute is well formed.
#[derive(Clone, Debug)]
pub struct CheckedEvent {
    /// Attributes as canonical text (CloudEvents, section 3.1.1), without `specversion`, by name.
    pub(super) attributes: BTreeMap<String, String>,
    /// All members verbatim, with defaults, `data` and `data_base64`: the structured form.
    pub(super) members: BTreeMap<String, Box<RawValue>>,
    pub(super) data: Data,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    None,
    /// JSON text, as written.
    Json,
    /// Text under a content type that is not JSON.
    Text(String),
    Bytes(Vec<u8>),
}

/// The reason why an event cannot be sent: the attribute and its fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event{}{attribute}: {fault}", if attribute.is_empty() { "" } else { "." })]
pub struct InvalidEvent {
    /// The attribute, or member of the JSON object.
    pub attribute: String,
    /// The fault.
    pub fault: &'static str,
}

impl CheckedEvent {
    /// Reads an event in the JSON event format and checks every attribute.
    pub fn parse(json: &str, defaults: Defaults<'_>) -> Result<Self, InvalidEvent> {
        let mut members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(json).map_err(|_error| invalid("", "not a JSON object"))?;
        if members.len() > MOST_MEMBERS {
            return Err(invalid("", "has more than 64 attributes"));
        }
        // An attribute that is null counts as absent (JSON event format, section 2.2); null data is data.
        members.retain(|name, value| name == "data" || value.get() != "null");
        for (name, default) in [("specversion", "1.0"), ("id", defaults.id), ("time", defaults.time)] {
            if !members.contains_key(name) {
                let value =
                    serde_json::value::to_raw_value(default).map_err(|_error| invalid(name, "cannot be written"))?;
                members.insert(name.to_owned(), value);
            }
        }
        let mut attributes = BTreeMap::new();
        for (name, value) in &members {
            if name != "data" && name != "data_base64" {
                attributes.insert(name.clone(), attribute(name, value)?);
            }
        }
        check_required(&attributes)?;
        let data = data(&members, attributes.get("datacontenttype"))?;
        Ok(Self { attributes, members, data })
    }

    /// The event's id, the same in every attempt.
    pub fn id(&self) -> &str {
        self.attribute("id").unwrap_or_default()
    }

    /// An attribute in its canonical text (CloudEvents, section 3.1.1), if the event has it.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

fn invalid(attribute: &str, fault: &'static str) -> InvalidEvent {
    // The name is shown to people and may contain anything, so control characters are escaped.
    let attribute = attribute.chars().flat_map(char::escape_debug).take(64).collect();
    InvalidEvent { attribute, fault }
}

/// Returns the canonical text of an attribute, by the type system of CloudEvents (section 3.1): string, boolean or
/// integer.
fn attribute(name: &str, value: &RawValue) -> Result<String, InvalidEvent> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        return Err(invalid(name, "an attribute name must have 1 to 64 lower-case letters and digits"));
    }
    let text = match serde_json::from_str(value.get()) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Bool(flag)) if !is_core(name) => flag.to_string(),
        Ok(serde_json::Value::Number(n)) if !is_core(name) => match n.as_i64().map(i32::try_from) {
            Some(Ok(integer)) => integer.to_string(),
            _ => return Err(invalid(name, "a number must be a 32-bit integer")),
        },
        _ if is_core(name) => return Err(invalid(name, "must be a string")),
        _ => return Err(invalid(name, "must be a string, a boolean or a 32-bit integer")),
    };
    if text.len() > MAX_ATTRIBUTE {
        return Err(invalid(name, "must have at most 4096 bytes: shorten the value or move it into data"));
    }
    if text.chars().any(|c| c.is_control() || is_noncharacter(c)) {
        return Err(invalid(name, "must not contain control characters"));
    }
    Ok(text)
}

fn is_core(name: &str) -> bool {
    matches!(name, "specversion" | "id" | "source" | "type" | "subject" | "time" | "datacontenttype" | "dataschema")
}

fn is_noncharacter(c: char) -> bool {
    matches!(c as u32, 0xfdd0..=0xfdef) || (c as u32) & 0xfffe == 0xfffe
}

fn check_required(attributes: &BTreeMap<String, String>) -> Result<(), InvalidEvent> {
    let get = |name: &str| attributes.get(name).map(String::as_str);
    if get("specversion") != Some("1.0") {
        return Err(invalid("specversion", "must be 1.0"));
    }
    for name in ["id", "source", "type"] {
        if get(name).is_none_or(str::is_empty) {
            return Err(invalid(name, "is required and must not be empty"));
        }
    }
    for name in ["subject", "datacontenttype", "dataschema"] {
        if get(name) == Some("") {
            return Err(invalid(name, "must not be empty"));
        }
    }
    if get("source").is_some_and(|source| !is_uri_reference(source)) {
        return Err(invalid("source", "must be a URI-reference, for example /shop/orders"));
    }
    if get("dataschema").is_some_and(|schema| !is_uri_reference(schema) || url::Url::parse(schema).is_err()) {
        return Err(invalid("dataschema", "must be an absolute URI"));
    }
    if get("time").is_some_and(|time| !is_rfc3339(time)) {
        return Err(invalid("time", "must be an RFC 3339 time, for example 2026-10-01T10:02:00Z"));
    }
    if get("datacontenttype").is_some_and(|media_type| !is_media_type(media_type)) {
        return Err(invalid("datacontenttype", "must be a media type, for example application/json"));
    }
    Ok(())
}

/// Whether `text` has only characters of RFC 3986, and `%` only before two hexadecimal digits.
fn is_uri_reference(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(i, byte)| match byte {
        b'%' => bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(byte),
    })
}

/// Whether `time` follows RFC 3339, section 5.6. The library also accepts other forms of ISO 8601.
fn is_rfc3339(time: &str) -> bool {
    let Some((to_the_second, rest)) = time.as_bytes().split_at_checked("2026-10-01T10:02:00".len()) else {
        return false;
    };
    let offset = match rest {
        [b'.', fraction @ ..] => match fraction.iter().position(|byte| !byte.is_ascii_digit()) {
            Some(digits @ 1..) => &fraction[digits..],
            _ => return false,
        },
        rest => rest,
    };
    let is_hours = [b"+00:00", b"-00:00"].iter().any(|form| has_form(offset, *form)) && offset[1..3] <= b"23"[..];
    has_form(to_the_second, b"0000-00-00T00:00:00")
        && (offset.eq_ignore_ascii_case(b"Z") || is_hours)
        && time.parse::<jiff::Timestamp>().is_ok()
}

/// Whether `text` has a digit wherever `form` has a 0, and equals `form` elsewhere, without regard to case.
fn has_form(text: &[u8], form: &[u8]) -> bool {
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte.eq_ignore_ascii_case(form),
    };
    text.len() == form.len() && text.iter().zip(form).all(fits)
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
        && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn data(members: &BTreeMap<String, Box<RawValue>>, content_type: Option<&String>) -> Result<Data, InvalidEvent> {
    match (members.get("data"), members.get("data_base64")) {
        (Some(_), Some(_)) => Err(invalid("data_base64", "must not be set together with data: remove one of them")),
        (None, None) => Ok(Data::None),
        (Some(_), None) if is_json(content_type.map(String::as_str)) => Ok(Data::Json),
        (Some(text), None) => serde_json::from_str(text.get()).map(Data::Text).map_err(|_error| {
            invalid("data", "must be a string if datacontenttype is not JSON; use data_base64 for bytes")
        }),
        (None, Some(text)) => serde_json::from_str::<String>(text.get())
            .ok()
            .and_then(|text| BASE64_STANDARD.decode(text).ok())
            .map(Data::Bytes)
            .ok_or_else(|| invalid("data_base64", "must be a string of base64 (RFC 4648, section 4)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults<'_> = Defaults { id: "uid-1", time: "2026-10-01T10:02:00Z" };

    fn fault(json: &str) -> String {
        CheckedEvent::parse(json, DEFAULTS).expect_err(json).to_string()
    }

    #[test]
    fn what_an_event_does_not_say_is_filled_in() {
        let event = CheckedEvent::parse(r#"{"source":"/s","type":"t","subject":null}"#, DEFAULTS).unwrap();
        assert_eq!(event.id(), "uid-1");
        assert_eq!(event.attributes["time"], "2026-10-01T10:02:00Z");
        assert_eq!(event.attributes["specversion"], "1.0");
        assert!(!event.attributes.contains_key("subject"));
    }

    #[test]
    fn a_faulty_event_is_refused_with_the_attributes_name() {
        for (json, expected) in [
            (r#"[]"#, "event: not a JSON object"),
            (r#"{"type":"t"}"#, "event.source: is required"),
            (r#"{"source":"/s","type":""}"#, "event.type: is required"),
            (r#"{"source":"/s","type":"t","id":""}"#, "event.id: is required"),
            (r#"{"source":"/s","type":"t","specversion":"0.3"}"#, "event.specversion: must be 1.0"),
            (r#"{"source":"a b","type":"t"}"#, "event.source: must be a URI-reference"),
            (r#"{"source":"%2","type":"t"}"#, "event.source: must be a URI-reference"),
            (r#"{"source":"/s","type":"t","time":"2026-10-01"}"#, "event.time: must be an RFC 3339"),
            (r#"{"source":"/s","type":"t","time":"yesterday"}"#, "event.time: must be an RFC 3339"),
            (r#"{"source":"/s","type":"t","dataschema":"schema"}"#, "event.dataschema: must be an absolute URI"),
            (r#"{"source":"/s","type":"t","datacontenttype":"json"}"#, "event.datacontenttype: must be a media type"),
            (
                r#"{"source":"/s","type":"t","datacontenttype":"a/b\n"}"#,
                "event.datacontenttype: must not contain control",
            ),
            (r#"{"source":"/s","type":"t","Bad":"x"}"#, "event.Bad: an attribute name must have"),
            (r#"{"source":"/s","type":"t","ext":1.5}"#, "event.ext: a number must be a 32-bit integer"),
            (r#"{"source":"/s","type":"t","ext":2147483648}"#, "event.ext: a number must be a 32-bit integer"),
            (r#"{"source":"/s","type":"t","ext":{}}"#, "event.ext: must be a string, a boolean"),
            (r#"{"source":"/s","type":1}"#, "event.type: must be a string"),
            (
                r#"{"source":"/s","type":"t","data":1,"data_base64":"AA=="}"#,
                "event.data_base64: must not be set together with data",
            ),
            (r#"{"source":"/s","type":"t","data_base64":"?"}"#, "event.data_base64: must be a string of base64"),
            (r#"{"source":"/s","type":"t","datacontenttype":"text/plain","data":{}}"#, "event.data: must be a string"),
        ] {
            let fault = fault(json);
            assert!(fault.starts_with(expected), "{json}: {fault}");
        }
    }

    #[test]
    fn an_attribute_has_at_most_4096_bytes() {
        let parse =
            |text: &str| CheckedEvent::parse(&format!(r#"{{"source":"/s","type":"t","ext":"{text}"}}"#), DEFAULTS);
        assert!(parse(&"x".repeat(4096)).is_ok());
        for text in ["x".repeat(4097), "\u{20ac}".repeat(1366)] {
            assert_eq!(parse(&text).unwrap_err().attribute, "ext");
        }
    }

    #[test]
    fn a_name_that_a_terminal_would_obey_is_shown_written_out() {
        let name = format!("\\u001b[2J\\n\u{202e}{}", "x".repeat(100));
        let fault = fault(&format!(r#"{{"source":"/s","type":"t","{name}":1}}"#));
        assert!(fault.starts_with(r"event.\u{1b}[2J\n\u{202e}xxx") && fault.len() < 200, "{fault}");
    }

    #[test]
    fn rfc_3339_times_are_taken_and_other_iso_8601_forms_are_not() {
        for time in ["2026-10-01T10:02:00Z", "2026-10-01t10:02:00.123456z", "2026-10-01T10:02:00+02:00"] {
            assert!(is_rfc3339(time), "{time}");
        }
        for time in [
            "2026-10-01 10:02:00Z",
            "2026-10-01T10:02Z",
            "20261001T100200Z",
            "2026-13-01T10:02:00Z",
            "2026-10-01T10:02:00",
            "2026-10-01T10:02:00,5Z",
            "2026-10-01T10:02:00.Z",
            "2026-10-01T10:02:00+02",
            "2026-10-01T10:02:00+0200",
            "2026-10-01T10:02:00+02:00:30",
            "2026-10-01T10:02:00+24:00",
            "2026-10-01T10:02:00Z[UTC]",
            "+002026-10-01T10:02:00Z",
        ] {
            assert!(!is_rfc3339(time), "{time}");
        }
    }
}
