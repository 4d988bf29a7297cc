//! The Subscribers of a campaign, and how their webhooks behave.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::endpoints::Reply;
use testkit::{Behaviour, Receiver};

use crate::credentials::SECRET;
use crate::random::Random;
use crate::spaces;

/// At most this many deliveries are under way at once, for each Subscriber.
pub(crate) const IN_FLIGHT: usize = 4;
/// Every nth Notification has a TTL and is deleted after it finishes.
const WITH_TTL: u64 = 25;
/// The longest text that `data_base64` may hold.
const LARGEST: u64 = 1024 * 1024;

/// A Subscriber with its webhook.
pub(crate) struct Webhook {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
    /// Its share of the Notifications; none: only faults create Notifications for it.
    pub(crate) share: usize,
    /// What its `spec.delivery` has besides.
    delivery: &'static [(&'static str, u64)],
    /// `expireAfterSeconds` of a Notification.
    expires: fn(&mut Random) -> Option<u64>,
    /// The length of the event's data.
    size: fn(&mut Random) -> u64,
    /// How old a Notification is made after its creation, in seconds; younger where it is less than nothing.
    pub(crate) age: fn(&mut Random) -> Option<i64>,
    answer: fn(&mut Random) -> Behaviour,
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// One with which nothing is wrong.
const SOUND: Webhook = Webhook {
    name: "",
    namespace: spaces::CORE,
    share: 1,
    delivery: &[],
    expires: |_| None,
    size: |_| 0,
    age: |_| None,
    answer: |_| Behaviour::status(204),
};

/// All of them but the many ([`super::many`]).
pub(crate) const WEBHOOKS: [Webhook; 19] = [
    Webhook { name: "swift", share: 2, ..SOUND },
    Webhook { name: "slow", share: 2, answer: |random| Behaviour::status(202).after(random.time(50..900)), ..SOUND },
    Webhook { name: "flaky", share: 2, answer: flaky, ..SOUND },
    Webhook { name: "pausing", share: 2, answer: pausing, ..SOUND },
    Webhook {
        name: "strict",
        share: 2,
        answer: |random| Behaviour::status(if random.percent(80) { 200 } else { *random.pick(&[400, 415, 422, 302]) }),
        ..SOUND
    },
    Webhook {
        name: "failing",
        share: 2,
        delivery: &[("maxAttempts", 3)],
        // Not 5xx: it should use attempts up, not open the circuit.
        answer: |random| Behaviour::status(if random.percent(30) { 204 } else { 404 }),
        ..SOUND
    },
    Webhook {
        name: "hurried",
        share: 2,
        expires: |_| Some(8),
        answer: |random| Behaviour::status(if random.percent(60) { 204 } else { 404 }),
        ..SOUND
    },
    Webhook {
        name: "leaving",
        share: 2,
        answer: |random| Behaviour::status(if random.percent(97) { 204 } else { 410 }),
        ..SOUND
    },
    Webhook {
        name: "limited",
        share: 2,
        delivery: &[("rateLimitPerMinute", 1200)],
        answer: |random| Behaviour::status(204).after(random.time(1..50)),
        ..SOUND
    },
    // Its Notifications look days old, and live for a week: a day is not enough to end one.
    Webhook {
        name: "aged",
        namespace: spaces::OLD,
        share: 2,
        delivery: &[("expireAfterSeconds", 7 * 24 * 3600)],
        age: aged,
        answer: |random| Behaviour::status(if random.percent(20) { 204 } else { 404 }),
        ..SOUND
    },
    Webhook { name: "bulky", namespace: spaces::LARGE, size: bulky, ..SOUND },
    // Its token service hangs, until the faults end.
    Webhook {
        name: "stuck",
        namespace: spaces::HANGING,
        expires: |random| random.percent(60).then(|| 3 + random.below(20)),
        ..SOUND
    },
    // It is suspended every other while, longer than most of its Notifications live.
    Webhook {
        name: "napping",
        namespace: spaces::NAPPING,
        share: 2,
        expires: |random| random.percent(80).then(|| 2 + random.below(6)),
        ..SOUND
    },
    Webhook { name: "barred", namespace: spaces::BARRED, ..SOUND },
    Webhook { name: "doomed", namespace: spaces::DOOMED, ..SOUND },
    // What faults create for these piles up in the operator's queue, or expires while no operator runs.
    Webhook { name: "queued", namespace: spaces::QUEUED, share: 0, delivery: &[("rateLimitPerMinute", 240)], ..SOUND },
    Webhook { name: "fleeting", namespace: spaces::FLEETING, share: 0, expires: |_| Some(4), ..SOUND },
    Webhook { name: "calm", namespace: spaces::CALM, ..SOUND },
    Webhook { name: "calmer", namespace: spaces::CALM, delivery: &[("expireAfterSeconds", 60)], ..SOUND },
];

/// Mostly some days, less than a week; now and then more than that; now and then a time in the future.
fn aged(random: &mut Random) -> Option<i64> {
    let (chance, hours) = (random.below(100), i64::try_from(random.below(96)).unwrap_or_default());
    Some(match chance {
        0..80 => 30 * HOUR + hours * HOUR,
        80..90 => 8 * DAY + hours * HOUR,
        _ => -3 * DAY,
    })
}

/// Mostly small, some of tens or hundreds of KiB, a few as large as can be.
fn bulky(random: &mut Random) -> u64 {
    match random.below(100) {
        0..50 => random.below(2_000),
        50..85 => random.below(LARGEST / 8),
        85..93 => random.below(LARGEST),
        _ => LARGEST,
    }
}

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
        98 => Behaviour::reply(Reply::status(500).header("retry-after", &seconds)),
        _ => Behaviour::status(429),
    }
}

/// A Subscriber of this name, for a webhook and a token service at these URLs.
pub(crate) fn subscriber(name: &str, webhook: &str, token: &str) -> Value {
    let tls = json!({"caRef": {"kind": "ConfigMap", "name": "test-ca"}});
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": name},
        "spec": {
            "webhook": {"url": format!("{webhook}/{name}"), "tls": tls, "timeoutSeconds": 3},
            "tokenService": {
                "url": token, "tls": tls, "scopes": ["events.write"], "timeoutSeconds": 3,
                "credentialsSecretRef": {"name": SECRET},
            },
            "delivery": {"maxInFlight": IN_FLIGHT, "backoff": {"initialSeconds": 1, "maxSeconds": 4}},
        },
    })
}

/// A Notification for a Subscriber, named as its event is: after the Subscriber, with this number.
pub(crate) fn notification(subscriber: &str, number: u64) -> (String, Value) {
    let name = format!("{subscriber}-{number}");
    let event = json!({"id": name, "source": "/chaos", "type": "dev.tidings.chaos", "data": {"number": number}});
    let mut spec = json!({"subscriberRef": {"name": subscriber}, "event": event});
    if number.is_multiple_of(WITH_TTL) {
        spec["ttlSecondsAfterFinished"] = 5.into();
    }
    let notification = json!({"apiVersion": "tidings.dev/v1alpha1", "kind": "Notification",
        "metadata": {"name": name}, "spec": spec});
    (name, notification)
}

impl Webhook {
    /// Its Subscriber, for a webhook and a token service at these URLs.
    pub(crate) fn subscriber(&self, webhook: &str, token: &str) -> Value {
        let mut subscriber = subscriber(self.name, webhook, token);
        for (field, value) in self.delivery {
            subscriber["spec"]["delivery"][field] = (*value).into();
        }
        subscriber
    }

    /// The Notification of this number.
    pub(crate) fn notification(&self, number: u64, random: &mut Random) -> (String, Value) {
        let (name, mut notification) = notification(self.name, number);
        if let Some(seconds) = (self.expires)(random) {
            notification["spec"]["expireAfterSeconds"] = seconds.into();
        }
        if let Ok(size @ 1..) = usize::try_from((self.size)(random)) {
            let event = &mut notification["spec"]["event"];
            event.as_object_mut().map(|event| event.remove("data"));
            event["data_base64"] = "A".repeat(size / 4 * 4).into();
        }
        (name, notification)
    }
}

/// The one of this name, but for the many.
pub(crate) fn named(name: &str) -> Option<&'static Webhook> {
    WEBHOOKS.iter().find(|webhook| webhook.name == name)
}

/// The namespace of a Subscriber.
pub(crate) fn namespace_of(subscriber: &str) -> &'static str {
    named(subscriber).map_or(spaces::MANY, |webhook| webhook.namespace)
}

/// The namespace of a Notification, which is named after its Subscriber.
pub(crate) fn namespace_of_notification(name: &str) -> &'static str {
    namespace_of(name.rsplit_once('-').map_or(name, |(subscriber, _)| subscriber))
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

/// The interval between Notifications at this rate per second.
pub(crate) fn every(rate: u32) -> Duration {
    Duration::from_secs(1) / rate.max(1)
}
