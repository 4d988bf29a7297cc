//! Fuzzes the check of `spec.event` and its encoding as a request.
#![no_main]

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use cloudevents::{AttributesReader, Data, event::ExtensionValue};
use http::{HeaderMap, header::CONTENT_TYPE};
use libfuzzer_sys::{Corpus, fuzz_target};
use percent_encoding::percent_decode_str;
use serde_json::{Value, value::RawValue};
use tidings_delivery::event::{CheckedEvent, Defaults, Encoding, encode};

const DEFAULTS: Defaults<'_> = Defaults { id: "uid-1", time: "2026-10-01T10:02:00Z" };
const MEDIA_TYPES: [&str; 2] = [Encoding::CLOUDEVENTS_JSON, "application/json"];
/// The most bytes that the three defaults may add, including their names.
const MOST_ADDED: usize = 100;

type Members = BTreeMap<String, Box<RawValue>>;

// An event in the JSON event format.
fuzz_target!(|json: &str| -> Corpus {
    let event = match CheckedEvent::parse(json, DEFAULTS) {
        Ok(event) => event,
        Err(fault) => {
            // The fault is written to a status and a log line.
            let text = fault.to_string();
            assert!(text.len() < 500 && !text.contains(char::is_control), "{text:?}");
            return Corpus::Keep;
        }
    };
    let members: Members = serde_json::from_str(json).unwrap();
    for media_type in MEDIA_TYPES {
        let (headers, body) = encode(&event, Encoding::Structured(media_type)).unwrap();
        assert_eq!((headers.len(), headers[CONTENT_TYPE].as_bytes()), (1, media_type.as_bytes()));
        check_structured(json, &members, &body);
    }
    let (headers, body) = encode(&event, Encoding::Binary).unwrap();
    if headers.len() == 1 {
        assert_eq!(headers[CONTENT_TYPE], Encoding::CLOUDEVENTS_JSON);
        check_structured(json, &members, &body);
    } else {
        check_binary(&members, headers, &body);
    }
    Corpus::Keep
});

/// Checks that each member is sent unchanged, that null members are omitted, that missing members have their defaults,
/// and that nothing else is sent.
fn check_structured(json: &str, members: &Members, body: &[u8]) {
    assert!(body.len() <= json.len() + MOST_ADDED, "{} of {}", body.len(), json.len());
    let mut sent: Members = serde_json::from_slice(body).unwrap();
    for (name, value) in members.iter().filter(|(name, value)| *name == "data" || value.get() != "null") {
        assert_eq!(sent.remove(name).unwrap().get(), value.get(), "{name}");
    }
    for (name, value) in sent {
        let default = match name.as_str() {
            "id" => DEFAULTS.id,
            "time" => DEFAULTS.time,
            "specversion" => "1.0",
            _ => panic!("{name} is neither in the event nor a default"),
        };
        assert_eq!(serde_json::from_str::<String>(value.get()).unwrap(), default);
    }
    // The event as a receiver reads it with the SDK. Skipped for numbers and depths that the SDK's JSON parser does not
    // support, and for media types that the SDK classifies differently.
    if let Ok(value) = serde_json::from_slice::<Value>(body)
        && is_json_to_the_sdk(&value) == is_json(&value)
    {
        let event: cloudevents::Event = serde_json::from_slice(body).unwrap();
        check_attributes(&event, &value, |text| text.to_owned());
        let data = match event.data() {
            None => Value::Null,
            Some(Data::Json(data)) => data.clone(),
            Some(Data::String(text)) => text.as_str().into(),
            Some(Data::Binary(bytes)) => bytes.as_slice().into(),
        };
        assert_eq!(data, expected_data(&value, matches!(event.data(), Some(Data::Json(_)))));
    }
}

/// Whether the media type of the data declares JSON (JSON event format, section 3.1).
fn is_json(event: &Value) -> bool {
    let essence = event["datacontenttype"].as_str().map(|text| text.split(';').next().unwrap().trim().to_lowercase());
    essence.is_none_or(|essence| essence.ends_with("/json") || essence.ends_with("+json"))
}

/// Whether the SDK considers the media type of the data to be JSON.
fn is_json_to_the_sdk(event: &Value) -> bool {
    let is_json =
        |text: &str| text.starts_with("application/json") || text.starts_with("text/json") || text.ends_with("+json");
    event["datacontenttype"].as_str().is_none_or(is_json)
}

/// Checks binary mode: attributes as headers, data as the body.
fn check_binary(members: &Members, mut headers: HeaderMap, body: &[u8]) {
    // A receiver distinguishes the modes only by the content type.
    let content_type = headers[CONTENT_TYPE].to_str().unwrap().to_ascii_lowercase();
    assert!(!content_type.starts_with("application/cloudevents"), "{content_type}");
    for (name, value) in &headers {
        assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)), "{name}: {value:?}");
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let mut sent: serde_json::Map<_, _> = members
        .iter()
        .filter(|(name, _)| !name.starts_with("data_") && *name != "data")
        .map(|(name, value)| (name.clone(), serde_json::from_str(value.get()).unwrap()))
        .collect();
    // Checked here: the SDK parses the URI before it decodes the header, and fails if the host contains a percent sign.
    let schema = headers.remove("ce-dataschema").map(|value| decoded(value.to_str().unwrap()).into());
    assert_eq!(schema, sent.remove("dataschema").filter(|schema: &Value| !schema.is_null()));
    let event = cloudevents::binding::http::to_event(&headers, body.to_vec()).unwrap();
    check_attributes(&event, &sent.into(), decoded);
    let text = |name| members.get(name).map(|value| serde_json::from_str::<String>(value.get()));
    match (members.get("data"), text("data_base64")) {
        (_, Some(Ok(base64))) => assert_eq!(BASE64_STANDARD.decode(base64).unwrap(), body),
        // The JSON unchanged, or only the text of a JSON string.
        (Some(data), _) => assert!(data.get().as_bytes() == body || text("data").unwrap().unwrap().as_bytes() == body),
        _ => panic!("there is no data"),
    }
}

/// Checks that the SDK has read the attributes of the event. `decoded` decodes them from their form in the request.
fn check_attributes(read: &cloudevents::Event, event: &Value, decoded: impl Fn(&str) -> String) {
    let decoded = |text: Option<&str>| text.map(&decoded);
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    assert_eq!(decoded(Some(read.id())), Some(text("id").unwrap_or_else(|| DEFAULTS.id.into())));
    assert_eq!(decoded(Some(read.source())), text("source"));
    assert_eq!(decoded(Some(read.ty())), text("type"));
    assert_eq!(decoded(read.subject()), text("subject"));
    assert!(read.time().is_some());
    assert_eq!(read.dataschema().is_some(), !event["dataschema"].is_null());
    if let Some(content_type) = event["datacontenttype"].as_str() {
        assert_eq!(read.datacontenttype(), Some(content_type));
    }
    const CORE: [&str; 10] = [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "data",
        "data_base64",
    ];
    let extensions =
        event.as_object().unwrap().iter().filter(|(name, value)| !CORE.contains(&name.as_str()) && !value.is_null());
    let mut count = 0;
    for (name, value) in extensions {
        count += 1;
        let expected = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let read = match read.extension(name) {
            Some(ExtensionValue::String(text)) => decoded(Some(text)),
            other => other.map(ToString::to_string),
        };
        assert_eq!(read, Some(expected), "{name}");
    }
    assert_eq!(read.iter_extensions().count(), count);
}

/// The data as the SDK reads it. With a JSON content type, the SDK also parses the JSON inside `data_base64`.
fn expected_data(event: &Value, as_json: bool) -> Value {
    match event["data_base64"].as_str().map(|text| BASE64_STANDARD.decode(text).unwrap()) {
        Some(bytes) if as_json => serde_json::from_slice(&bytes).unwrap(),
        Some(bytes) => bytes.into(),
        None => event["data"].clone(),
    }
}
