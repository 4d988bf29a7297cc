//! Events of the CloudEvents SDK as Notifications and back (feature `cloudevents` of `tidings-api`), with the events of
//! the conformance tests.

use cloudevents::{AttributesReader, Data, Event, event::ExtensionValue};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use tidings_api::Notification;
use tidings_delivery::{event::Encoding, webhook::Verdict};

use crate::{
    cluster::config,
    delivery::conformance::{Exchange, STRUCTURED, event, read_by_the_sdk},
    world::{CLIENT, World, path},
};

/// The events of the conformance tests, as members beside id, source and type.
fn events() -> Vec<Value> {
    vec![
        json!({}),
        json!({"data": 1}),
        json!({"data": {}}),
        json!({"data_base64": "AA=="}),
        json!({"subject": "x", "ext": 7, "data": {"n": [1, null]}}),
        json!({"datacontenttype": "application/vnd.x+json", "subject": "x", "flag": true, "data": {"n": 1}}),
        json!({"subject": "a \"ü\" 100%~", "data": 1}),
        json!({"data": {"text": "{\"not\": \"parsed\"}"}}),
        json!({"data_base64": "/wA="}),
        json!({"datacontenttype": "image/png", "data_base64": "/wD+"}),
        json!({"datacontenttype": "text/plain", "data": "say \"hi\"\n"}),
        json!({"data": "quoted"}),
        json!({"data": 1, "a1": "text", "b2": false, "c3": -2_147_483_648_i64}),
        json!({"dataschema": "https://example.com/schemas/order.json", "time": "2026-10-01T10:02:00.5Z"}),
        json!({"source": "https://example.com/shop", "id": "€.1", "type": "com.example.order.paid"}),
    ]
}

/// The Notification with this event, as the API server would return it.
fn notification(event: &Value) -> Notification {
    serde_json::from_value(json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
        "metadata": {"name": "n", "uid": "uid-1", "creationTimestamp": "2026-10-01T10:02:00Z"},
        "spec": {"subscriberRef": {"name": "shop"}, "event": event},
    }))
    .unwrap()
}

/// An event without what the SDK loses when it reads a request: it reads JSON in base64 as JSON.
fn as_read(event: &Event) -> Event {
    let mut event = event.clone();
    let json = match event.data() {
        Some(Data::Binary(bytes)) if event.datacontenttype().unwrap_or("application/json").ends_with("json") => {
            serde_json::from_slice::<Value>(bytes).ok()
        }
        _ => None,
    };
    if let Some(json) = json {
        event.set_data_unchecked(json);
    }
    event
}

#[tokio::test]
async fn the_event_of_a_notification_is_the_one_that_a_receiver_reads_from_the_request() {
    for more in events() {
        let event = event(more);
        let exchange = Exchange::new(STRUCTURED).await;
        assert_eq!(exchange.deliver(&event).await.verdict, Verdict::Delivered);
        let converted = Event::try_from(&notification(&event)).unwrap();
        assert_eq!(as_read(&converted), read_by_the_sdk(&exchange.received()[0]), "{event}");
    }
}

#[tokio::test]
async fn an_event_of_the_sdk_is_sent_as_the_sdk_prints_it() {
    for more in events() {
        let made: Event = serde_json::from_value(with_specversion(event(more))).unwrap();
        let notification = Notification::from_cloudevent("n", "shop", made.clone()).unwrap();
        let member = serde_json::to_value(&notification.spec.event).unwrap();
        let exchange = Exchange::new(STRUCTURED).await;
        assert_eq!(exchange.deliver(&member).await.verdict, Verdict::Delivered);
        let mut printed = serde_json::to_value(&made).unwrap();
        // The time of the Notification is the default.
        printed["time"] = printed["time"].as_str().unwrap_or("2026-10-01T10:02:00Z").into();
        assert_eq!(exchange.received()[0].json().unwrap(), printed);

        let exchange = Exchange::new(Encoding::Binary).await;
        assert_eq!(exchange.deliver(&member).await.verdict, Verdict::Delivered);
        let received = exchange.received().remove(0);
        assert_eq!(received.event_id().as_deref(), Some(made.id()));
        if received.is_binary() {
            let body = match made.data().cloned().unwrap() {
                Data::Json(json) => json.to_string().into_bytes(),
                Data::String(text) => text.into_bytes(),
                Data::Binary(bytes) => bytes,
            };
            assert_eq!(received.body, body);
        }
    }
}

fn with_specversion(mut event: Value) -> Value {
    event["specversion"] = "1.0".into();
    event
}

#[tokio::test]
async fn an_event_of_the_sdk_comes_back_from_the_api_server_as_it_was() {
    let world = World::new("sdk").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |_| ()).await;
    let client = kube::Client::try_from(config(world.plane.admin_kubeconfig()).await).unwrap();
    let api = Api::<Notification>::namespaced(client, &world.namespace);
    let _operator = world.operator().await;
    let mut made = Vec::new();
    for (number, more) in events().into_iter().enumerate() {
        let mut event: Event = serde_json::from_value(with_specversion(event(more))).unwrap();
        // The API server stores 2.0 as 2, and no other number of these events changes.
        event.set_extension("number", ExtensionValue::Integer(i64::try_from(number).unwrap()));
        let name = format!("n-{number}");
        let notification = Notification::from_cloudevent(&name, "shop", event.clone()).unwrap();
        api.create(&PostParams::default(), &notification).await.unwrap();
        made.push((name, event));
    }
    world.until_delivered(made.len()).await;
    for (name, mut event) in made {
        let stored = api.get(&name).await.unwrap();
        let converted = Event::try_from(&stored).unwrap();
        if event.time().is_none() {
            cloudevents::AttributesWriter::set_time(&mut event, converted.time().copied());
        }
        assert_eq!(converted, event, "{name}");
    }
    assert_eq!(world.posts(&path("shop")).len(), events().len());
}
