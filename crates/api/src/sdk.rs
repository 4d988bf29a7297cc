//! Converts between [`Notification`] and the events of the CloudEvents SDK for Rust.
//!
//! An event becomes what the SDK prints as JSON, and the other way round.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use cloudevents::{
    AttributesReader, AttributesWriter, Data, Event as SdkEvent,
    event::{ExtensionValue, TryIntoTime, TryIntoUrl},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{Event, Notification, NotificationSpec, SubscriberRef, is_json};

/// The only supported version of CloudEvents.
const SPECVERSION: &str = "1.0";
/// The other members of the JSON event format: no extension attribute may have their names.
const OTHER_MEMBERS: [&str; 9] =
    ["data", "datacontenttype", "dataschema", "id", "source", "specversion", "subject", "time", "type"];
/// The maximum length of the name of an extension attribute.
const LONGEST_NAME: usize = 64;

/// Why an event cannot be converted: an attribute, or the data, and its fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventConversionError {
    attribute: String,
    fault: &'static str,
}

impl EventConversionError {
    /// The name of the attribute, or `data`, as in the JSON event format.
    pub fn attribute(&self) -> &str {
        &self.attribute
    }
}

impl fmt::Display for EventConversionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name may contain anything, so control characters are escaped.
        let attribute: String = self.attribute.chars().flat_map(char::escape_debug).take(64).collect();
        write!(f, "event.{attribute}: {}", self.fault)
    }
}

impl std::error::Error for EventConversionError {}

fn fault(attribute: &str, fault: &'static str) -> EventConversionError {
    EventConversionError { attribute: attribute.into(), fault }
}

impl Notification {
    /// Makes a Notification with the object name `name` that sends `event` to the Subscriber `subscriber`.
    ///
    /// The namespace and the optional fields of the spec can be set afterwards. The API server checks the lengths and
    /// forms of attributes when the object is created.
    ///
    /// # Errors
    /// If a Notification cannot carry the event: `specversion` is not 1.0, `id`, `source` or `type` is empty, the name
    /// of an extension attribute is not 1 to 64 lower-case letters and digits, an integer has more than 32 bits, the
    /// year of `time` has more than four digits, or the data is JSON and `datacontenttype` is not, or is JSON null.
    pub fn from_cloudevent(name: &str, subscriber: &str, event: SdkEvent) -> Result<Self, EventConversionError> {
        let spec = NotificationSpec {
            subscriber_ref: SubscriberRef { name: subscriber.into() },
            event: event.try_into()?,
            expire_after_seconds: None,
            ttl_seconds_after_finished: None,
        };
        Ok(Self::new(name, spec))
    }
}

/// Makes the event as the operator sends it: an event without an id has the Notification's `metadata.uid`, and an event
/// without a time has its `metadata.creationTimestamp`.
impl TryFrom<&Notification> for SdkEvent {
    type Error = EventConversionError;

    fn try_from(notification: &Notification) -> Result<Self, Self::Error> {
        let mut event = notification.spec.event.clone();
        event.id = event.id.or_else(|| notification.uid());
        event.time = event.time.or_else(|| Some(notification.creation_timestamp()?.0.to_string()));
        event.try_into()
    }
}

/// Makes what the SDK prints as JSON: a string is a JSON string if `datacontenttype` is JSON, otherwise text; bytes are
/// base64.
impl TryFrom<SdkEvent> for Event {
    type Error = EventConversionError;

    fn try_from(mut event: SdkEvent) -> Result<Self, Self::Error> {
        if event.specversion().as_str() != SPECVERSION {
            return Err(fault("specversion", "must be 1.0: convert the event with EventBuilderV10::from"));
        }
        let extensions = event.iter_extensions().map(|(name, value)| Ok((name.to_owned(), extension(name, value)?)));
        let extensions = extensions.collect::<Result<BTreeMap<_, _>, _>>()?;
        let time = event.time().map(|time| match serde_json::to_value(time) {
            Ok(Value::String(time)) if time.starts_with(|c: char| c.is_ascii_digit()) => Ok(time),
            _ => Err(fault("time", "must have a year of four digits")),
        });
        let time = time.transpose()?;
        let (datacontenttype, dataschema, data) = event.take_data();
        let (data, data_base64) = match data {
            Some(Data::Binary(bytes)) => (None, Some(BASE64_STANDARD.encode(bytes))),
            Some(Data::String(text)) => (Some(text.into()), None),
            Some(Data::Json(json)) => (Some(json), None),
            None => (None, None),
        };
        let event = Self {
            specversion: SPECVERSION.into(),
            id: Some(event.id().into()),
            source: event.source().into(),
            type_: event.ty().into(),
            subject: event.subject().map(Into::into),
            time,
            datacontenttype,
            dataschema: dataschema.map(Into::into),
            data,
            data_base64,
            extensions,
        };
        check(&event)?;
        Ok(event)
    }
}

/// Makes an event of the SDK, which keeps `time` in UTC and `dataschema` as a normalized URL.
impl TryFrom<Event> for SdkEvent {
    type Error = EventConversionError;

    fn try_from(event: Event) -> Result<Self, Self::Error> {
        check(&event)?;
        let Event { specversion, id, source, type_, subject, time, datacontenttype, dataschema, .. } = &event;
        let id = id.as_ref().ok_or_else(|| {
            fault("id", "is missing: set it (the operator uses metadata.uid, which an object has once it is created)")
        })?;
        // The SDK's default event looks up the name of the host, which is not needed here.
        let least = json!({"specversion": specversion, "id": id, "source": source, "type": type_});
        let mut made: Self = serde_json::from_value(least).map_err(|_error| fault("specversion", "must be 1.0"))?;
        let time = time.as_deref().map(TryIntoTime::into_time).transpose();
        made.set_time(
            time.map_err(|_error| fault("time", "must be an RFC 3339 time, for example 2026-10-01T10:02:00Z"))?,
        );
        let dataschema = dataschema.as_deref().map(TryIntoUrl::into_url).transpose();
        made.set_dataschema(dataschema.map_err(|_error| fault("dataschema", "must be an absolute URI"))?);
        made.set_subject(subject.as_deref());
        made.set_datacontenttype(datacontenttype.as_deref());
        let is_json = is_json(datacontenttype.as_deref());
        match (event.data, event.data_base64) {
            (Some(Value::String(text)), _) if !is_json => drop(made.set_data_unchecked(text)),
            (Some(json), _) => drop(made.set_data_unchecked(json)),
            (None, Some(text)) => {
                let bytes = BASE64_STANDARD.decode(text);
                let bytes = bytes.map_err(|_error| fault("data_base64", "must be base64 (RFC 4648, section 4)"))?;
                drop(made.set_data_unchecked(bytes));
            }
            (None, None) => {}
        }
        for (name, value) in event.extensions {
            let value = match value {
                // An attribute that is null counts as absent (JSON event format, section 2.2).
                Value::Null => continue,
                Value::String(text) => ExtensionValue::String(text),
                Value::Bool(flag) => ExtensionValue::Boolean(flag),
                Value::Number(number) => {
                    let integer = number.as_i64().filter(|integer| i32::try_from(*integer).is_ok());
                    ExtensionValue::Integer(integer.ok_or_else(|| fault(&name, "a number must be a 32-bit integer"))?)
                }
                _ => return Err(fault(&name, "must be a string, a boolean or a 32-bit integer")),
            };
            made.set_extension(&name, value);
        }
        Ok(made)
    }
}

fn extension(name: &str, value: &ExtensionValue) -> Result<Value, EventConversionError> {
    Ok(match value {
        ExtensionValue::String(text) => text.as_str().into(),
        ExtensionValue::Boolean(flag) => (*flag).into(),
        ExtensionValue::Integer(integer) => {
            let integer = i32::try_from(*integer);
            integer
                .map_err(|_error| fault(name, "must be a 32-bit integer: use a string or move the value into data"))?
                .into()
        }
    })
}

/// Checks what an event must have in both forms.
fn check(event: &Event) -> Result<(), EventConversionError> {
    let Event { specversion, id, source, type_, datacontenttype, data, data_base64, extensions, .. } = event;
    if specversion != SPECVERSION {
        return Err(fault("specversion", "must be 1.0"));
    }
    for (name, value) in [("id", id.as_ref()), ("source", Some(source)), ("type", Some(type_))] {
        if value.is_some_and(String::is_empty) {
            return Err(fault(name, "must not be empty"));
        }
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    for name in extensions.keys() {
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
            return Err(fault(
                name,
                "an extension attribute must have 1 to 64 lower-case letters and digits as its name",
            ));
        }
        if OTHER_MEMBERS.contains(&name.as_str()) {
            return Err(fault(name, "no extension attribute may have this name: CloudEvents defines it"));
        }
    }
    match (data, data_base64) {
        (Some(_), Some(_)) => Err(fault("data_base64", "must not be set together with data: remove one of them")),
        (Some(Value::Null), None) => {
            Err(fault("data", "Kubernetes does not store JSON null: leave out the data, or use other data"))
        }
        (Some(data), None) if !data.is_string() && !is_json(datacontenttype.as_deref()) => {
            Err(fault("data", "must be a string or bytes if datacontenttype is not JSON"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cloudevents::{EventBuilder, EventBuilderV03, EventBuilderV10};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::{collection::btree_map, option, prelude::*};

    use super::*;

    fn sdk(change: impl FnOnce(EventBuilderV10) -> EventBuilderV10) -> SdkEvent {
        change(EventBuilderV10::new().id("1").source("/s").ty("t")).build().unwrap()
    }

    fn notification(event: SdkEvent) -> Result<Notification, EventConversionError> {
        Notification::from_cloudevent("n", "shop", event)
    }

    /// The Notification as the API server returns it.
    fn stored(event: Value) -> Notification {
        serde_json::from_value(json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
            "metadata": {"name": "n", "uid": "uid-1", "creationTimestamp": "2026-10-01T10:02:00Z"},
            "spec": {"subscriberRef": {"name": "shop"}, "event": event},
        }))
        .unwrap()
    }

    #[test]
    fn a_notification_carries_what_the_sdk_prints() {
        let event = sdk(|builder| {
            builder
                .subject("1042")
                .time("2026-10-01T12:02:00.5+02:00")
                .extension("flag", true)
                .extension("number", -7)
                .extension("traceparent", "00-1-2-01")
                .data_with_schema("application/json", "https://example.com/order.json", json!({"n": [1, null]}))
        });
        let made = notification(event.clone()).unwrap();
        assert_eq!(serde_json::to_value(&made.spec.event).unwrap(), serde_json::to_value(&event).unwrap());
        assert_eq!(
            serde_json::to_value(&made).unwrap(),
            json!({
                "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": "n"},
                "spec": {"subscriberRef": {"name": "shop"}, "event": {
                    "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "1042",
                    "time": "2026-10-01T10:02:00.500Z", "datacontenttype": "application/json",
                    "dataschema": "https://example.com/order.json", "data": {"n": [1, null]},
                    "flag": true, "number": -7, "traceparent": "00-1-2-01",
                }},
            })
        );
        assert_eq!(SdkEvent::try_from(&made).unwrap(), event);
    }

    #[test]
    fn data_is_json_text_or_bytes_as_its_media_type_says() {
        let json_string = Data::Json("text".into());
        for (media_type, data, member, value, back) in [
            ("application/json", json!({"a": 1}).into(), "data", json!({"a": 1}), json!({"a": 1}).into()),
            ("application/vnd.x+JSON; charset=utf-8", json!([1]).into(), "data", json!([1]), json!([1]).into()),
            ("application/json", Data::from("text"), "data", json!("text"), json_string),
            ("text/plain", Data::from("text"), "data", json!("text"), Data::from("text")),
            ("image/png", vec![0xff, 0].into(), "data_base64", json!("/wA="), vec![0xff, 0].into()),
            ("application/json", b"{}".to_vec().into(), "data_base64", json!("e30="), b"{}".to_vec().into()),
        ] {
            let made = notification(sdk(|builder| builder.data(media_type, data))).unwrap();
            assert_eq!(serde_json::to_value(&made.spec.event).unwrap()[member], value, "{media_type}");
            let event = SdkEvent::try_from(&made).unwrap();
            assert_eq!((event.datacontenttype(), event.data()), (Some(media_type), Some(&back)), "{media_type}");
        }
        let none = SdkEvent::try_from(&notification(sdk(|builder| builder)).unwrap()).unwrap();
        assert_eq!((none.datacontenttype(), none.data()), (None, None));
        // Without a media type, data is JSON.
        let event = SdkEvent::try_from(&stored(json!({"source": "/s", "type": "t", "data": "text"}))).unwrap();
        assert_eq!((event.datacontenttype(), event.data()), (None, Some(&Data::Json("text".into()))));
    }

    #[test]
    fn what_an_event_does_not_say_is_what_the_operator_fills_in() {
        let mut made = stored(json!({"source": "/s", "type": "t", "empty": null}));
        let event = SdkEvent::try_from(&made).unwrap();
        assert_eq!((event.id(), event.time().unwrap().to_string().as_str()), ("uid-1", "2026-10-01 10:02:00 UTC"));
        assert_eq!(event.iter_extensions().count(), 0);
        made.spec.event.id = Some("1".into());
        made.spec.event.time = Some("2026-10-02T00:00:00Z".into());
        let event = SdkEvent::try_from(&made).unwrap();
        assert_eq!((event.id(), event.time().unwrap().to_string().as_str()), ("1", "2026-10-02 00:00:00 UTC"));
        // A fraction of a second, which no API server stores, is no reason to fail.
        made.metadata.creation_timestamp = Some(Time("2026-10-01T10:02:00.25Z".parse().unwrap()));
        made.spec.event.time = None;
        assert!(SdkEvent::try_from(&made).unwrap().time().is_some());
        // An object that was not created yet has no uid.
        made.metadata = Default::default();
        assert_eq!(SdkEvent::try_from(&made).unwrap().time(), None);
        made.spec.event.id = None;
        let error = SdkEvent::try_from(&made).unwrap_err();
        assert!(error.attribute() == "id" && error.to_string().starts_with("event.id: is missing: set it"), "{error}");
    }

    #[test]
    fn an_event_of_the_sdk_that_a_notification_cannot_carry_is_refused_with_the_attributes_name() {
        let old = EventBuilderV03::new().id("1").source("/s").ty("t").build().unwrap();
        let with = |name: &str, value: ExtensionValue| sdk(|builder| builder.extension(name, value));
        let big = ExtensionValue::Integer(i64::from(i32::MAX) + 1);
        for (event, expected) in [
            (old, "event.specversion: must be 1.0: convert the event with EventBuilderV10::from"),
            (sdk(|builder| builder.id("")), "event.id: must not be empty"),
            (sdk(|builder| builder.ty("")), "event.type: must not be empty"),
            (with("Big-Name", true.into()), "event.Big-Name: an extension attribute must have 1 to 64 lower-case"),
            (with("", true.into()), "event.: an extension attribute must have 1 to 64"),
            (with(&"a".repeat(65), true.into()), "event.aaaa"),
            (with("\u{1b}[2J", true.into()), "event.\\u{1b}[2J: an extension attribute"),
            (with("data", true.into()), "event.data: no extension attribute may have this name"),
            (with("id", "2".into()), "event.id: no extension attribute may have this name"),
            (with("data_base64", "e30=".into()), "event.data_base64: an extension attribute must have"),
            (with("number", big), "event.number: must be a 32-bit integer"),
            (
                sdk(|builder| builder.data("application/json", Value::Null)),
                "event.data: Kubernetes does not store JSON null",
            ),
            (sdk(|builder| builder.data("text/plain", json!({}))), "event.data: must be a string or bytes"),
        ] {
            let error = notification(event).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = notification(sdk(|builder| builder.time("9999-12-31T23:30:00-01:00"))).unwrap_err();
        assert_eq!(error.to_string(), "event.time: must have a year of four digits");
    }

    #[test]
    fn an_event_of_a_notification_that_the_sdk_cannot_carry_is_refused_with_the_attributes_name() {
        for (member, value, expected) in [
            ("specversion", json!("0.3"), "event.specversion: must be 1.0"),
            ("source", json!(""), "event.source: must not be empty"),
            ("time", json!("yesterday"), "event.time: must be an RFC 3339 time"),
            ("dataschema", json!("schema"), "event.dataschema: must be an absolute URI"),
            ("data", json!(1), "event.data_base64: must not be set together with data"),
            ("data_base64", json!("?"), "event.data_base64: must be base64"),
            ("ext", json!(1.5), "event.ext: a number must be a 32-bit integer"),
            ("ext", json!(2_147_483_648_i64), "event.ext: a number must be a 32-bit integer"),
            ("ext", json!({}), "event.ext: must be a string, a boolean or a 32-bit integer"),
            ("Ext", json!("x"), "event.Ext: an extension attribute must have"),
        ] {
            let mut event = json!({"id": "1", "source": "/s", "type": "t", "data_base64": "e30="});
            event[member] = value;
            let error = SdkEvent::try_from(&stored(event)).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        let text = stored(json!({"source": "/s", "type": "t", "datacontenttype": "text/plain", "data": {}}));
        assert_eq!(SdkEvent::try_from(&text).unwrap_err().attribute(), "data");
    }

    /// JSON without numbers that a parser rounds.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i16>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map("\\PC{0,8}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_data() -> impl Strategy<Value = (&'static str, Data)> {
        let json =
            prop_oneof![Just("application/json"), Just("text/json; charset=utf-8"), Just("application/vnd.x+json")];
        let any_type = prop_oneof![Just("application/json"), Just("text/plain"), Just("image/png")];
        prop_oneof![
            (json, any_json().prop_filter("is stored", |json| !json.is_null()).prop_map(Data::Json)),
            (Just("text/csv"), "\\PC{0,20}".prop_map(Data::String)),
            (any_type, any::<Vec<u8>>().prop_map(Data::Binary)),
        ]
    }

    fn any_event() -> impl Strategy<Value = SdkEvent> {
        let text = || "\\PC{1,20}";
        let value = prop_oneof![
            "\\PC{0,20}".prop_map(ExtensionValue::String),
            any::<bool>().prop_map(ExtensionValue::Boolean),
            any::<i32>().prop_map(|number| ExtensionValue::Integer(number.into())),
        ];
        let name = "[a-z0-9]{1,64}".prop_filter("is free", |name| !OTHER_MEMBERS.contains(&name.as_str()));
        let time = "20[0-9]{2}-0[1-9]-[12][0-8]T[01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?([+-]0[0-9]:30|Z)";
        let attributes = (text(), text(), text(), option::of(text()), option::of(time));
        let schema = option::of("https://[a-z]{1,8}\\.example/[a-z/]{0,8}");
        (attributes, schema, option::of(any_data()), btree_map(name, value, 0..4)).prop_map(
            |((id, source, ty, subject, time), schema, data, extensions)| {
                let builder = EventBuilderV10::new().id(id).source(source).ty(ty);
                let mut event = builder.build().unwrap();
                event.set_subject(subject);
                event.set_time(time.map(|time| time.into_time().unwrap()));
                if let Some((media_type, data)) = data {
                    event.set_data(media_type, data);
                }
                event.set_dataschema(schema.map(|schema| schema.into_url().unwrap()));
                for (name, value) in extensions {
                    event.set_extension(&name, value);
                }
                event
            },
        )
    }

    proptest! {
        #[test]
        fn an_event_of_the_sdk_comes_back_from_a_stored_notification_as_it_was(event in any_event()) {
            let made = notification(event.clone()).unwrap();
            prop_assert_eq!(serde_json::to_value(&made.spec.event).unwrap(), serde_json::to_value(&event).unwrap());
            let kept: Notification = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
            prop_assert_eq!(&kept.spec.event, &made.spec.event);
            prop_assert_eq!(SdkEvent::try_from(&kept).unwrap(), event);
        }
    }
}
