//! The Subscribers of a campaign, and how their webhooks behave.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::install::SECRET;
use super::random::Random;
use crate::exchange::Reply;
use crate::receiver::Receiver;
use crate::script::Behaviour;

/// At most so many deliveries are under way at once, for each Subscriber.
const IN_FLIGHT: usize = 4;
/// Every so many-th Notification deletes itself after it is finished.
const WITH_TTL: u64 = 25;

/// At most so many deliveries are under way at once, over all Subscribers.
pub(crate) const ALL_IN_FLIGHT: usize = IN_FLIGHT * WEBHOOKS.len();

/// A Subscriber with its webhook.
pub(crate) struct Webhook {
    pub(crate) name: &'static str,
    /// What its `spec.delivery` has besides.
    delivery: &'static [(&'static str, u64)],
    /// `expireAfterSeconds` of its Notifications.
    expires: Option<u64>,
    answer: fn(&mut Random) -> Behaviour,
}

/// All of them.
pub(crate) const WEBHOOKS: [Webhook; 9] = [
    Webhook { name: "swift", delivery: &[], expires: None, answer: |_| Behaviour::status(204) },
    Webhook {
        name: "slow",
        delivery: &[],
        expires: None,
        answer: |random| Behaviour::status(202).after(random.time(50..900)),
    },
    Webhook { name: "flaky", delivery: &[], expires: None, answer: flaky },
    Webhook { name: "pausing", delivery: &[], expires: None, answer: pausing },
    Webhook {
        name: "strict",
        delivery: &[],
        expires: None,
        answer: |random| Behaviour::status(if random.percent(80) { 200 } else { *random.pick(&[400, 415, 422, 302]) }),
    },
    Webhook {
        name: "failing",
        delivery: &[("maxAttempts", 3)],
        expires: None,
        // Not 5xx: it should use attempts up, not open the circuit.
        answer: |random| Behaviour::status(if random.percent(30) { 204 } else { 404 }),
    },
    Webhook {
        name: "hurried",
        delivery: &[],
        expires: Some(8),
        answer: |random| Behaviour::status(if random.percent(60) { 204 } else { 404 }),
    },
    Webhook {
        name: "leaving",
        delivery: &[],
        expires: None,
        answer: |random| Behaviour::status(if random.percent(97) { 204 } else { 410 }),
    },
    Webhook {
        name: "limited",
        delivery: &[("rateLimitPerMinute", 1200)],
        expires: None,
        answer: |random| Behaviour::status(204).after(random.time(1..50)),
    },
];

fn flaky(random: &mut Random) -> Behaviour {
    match random.below(100) {
        0..72 => Behaviour::status(204).after(random.time(1..100)),
        72..76 => Behaviour::hang(),
        76..82 => Behaviour::reset(),
        82..86 => Behaviour::reset().after(random.time(1..100)),
        _ => Behaviour::status(*random.pick(&[401, 403, 404, 408, 500, 502, 503])),
    }
}

fn pausing(random: &mut Random) -> Behaviour {
    // Now and then so long that a change of leader falls into it.
    let seconds = (3 + random.below(5) + if random.percent(20) { 15 } else { 0 }).to_string();
    match random.below(100) {
        0..90 => Behaviour::status(204).after(random.time(1..100)),
        90..94 => Behaviour::reply(Reply::status(429).header("retry-after", &seconds)),
        94..98 => Behaviour::reply(Reply::status(503).header("retry-after", &seconds)),
        _ => Behaviour::status(429),
    }
}

impl Webhook {
    /// Its Subscriber, for a webhook and a token service at these URLs.
    pub(crate) fn subscriber(&self, webhook: &str, token: &str) -> Value {
        let tls = json!({"caRef": {"kind": "ConfigMap", "name": "test-ca"}});
        let mut delivery = json!({"maxInFlight": IN_FLIGHT, "backoff": {"initialSeconds": 1, "maxSeconds": 4}});
        for (field, value) in self.delivery {
            delivery[field] = (*value).into();
        }
        json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": self.name},
            "spec": {
                "webhook": {"url": format!("{webhook}/{}", self.name), "tls": tls, "timeoutSeconds": 3},
                "tokenService": {
                    "url": token, "tls": tls, "scopes": ["events.write"], "timeoutSeconds": 3,
                    "credentialsSecretRef": {"name": SECRET},
                },
                "delivery": delivery,
            },
        })
    }

    /// The Notification of this number, named as its event is.
    pub(crate) fn notification(&self, number: u64) -> (String, Value) {
        let name = format!("{}-{number}", self.name);
        let event = json!({"id": name, "source": "/chaos", "type": "dev.tidings.chaos", "data": {"number": number}});
        let mut spec = json!({"subscriberRef": {"name": self.name}, "event": event});
        if let Some(seconds) = self.expires {
            spec["expireAfterSeconds"] = seconds.into();
        }
        if number.is_multiple_of(WITH_TTL) {
            spec["ttlSecondsAfterFinished"] = 5.into();
        }
        let notification = json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
            "metadata": {"name": name}, "spec": spec});
        (name, notification)
    }
}

/// Has each webhook behave as it should: by the seed, the event, and how often that event has arrived.
pub(crate) fn behave(receiver: &Receiver, seed: u64) {
    for webhook in WEBHOOKS {
        let arrived: Mutex<HashMap<String, u64>> = Mutex::default();
        receiver.answer_by(&format!("/{}", webhook.name), move |request| {
            let event: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            let mut arrived = arrived.lock().unwrap();
            let times = arrived.entry(id.clone()).or_default();
            *times += 1;
            (webhook.answer)(&mut Random::of(seed, &id, *times))
        });
    }
}

/// From now on each takes everything.
pub(crate) fn calm(receiver: &Receiver) {
    for webhook in WEBHOOKS {
        receiver.behave(&format!("/{}", webhook.name));
    }
}

/// So long from one Notification to the next, for so many a second.
pub(crate) fn every(rate: u32) -> Duration {
    Duration::from_secs(1) / rate.max(1)
}
