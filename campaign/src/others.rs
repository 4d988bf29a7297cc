//! The other clients: those who create Notifications, and those who touch what is stored.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::client::{Form, until};
use crate::many::{self, BUSY};
use crate::random::Random;
use crate::spaces;
use crate::stage::Stage;
use crate::webhooks::{WEBHOOKS, Webhook, every, named, namespace_of, namespace_of_notification, notification};

const KIND: &str = "notifications";
/// What is not deleted or heard by then is a finding.
const UNHEARD_LIMIT: Duration = Duration::from_secs(75);
/// Other programs change one of this many newest Notifications.
const NEWEST: usize = 300;

/// Creates `rate` Notifications a second for `duration`, and goes on until the API server has confirmed each.
pub(crate) async fn create(stage: Arc<Stage>, rate: u32, duration: Duration) {
    let (mut creating, mut ticks, began) = (JoinSet::new(), interval(every(rate)), Instant::now());
    let (shares, mut number) = (shares(), 0);
    while began.elapsed() < duration {
        ticks.tick().await;
        let mut random = Random::of(stage.seed, "create", number);
        let which = *random.pick(&shares);
        let (name, object) = match which {
            Some(webhook) => webhook.notification(number, &mut random),
            None => notification(&many::name(random.below(BUSY)), number),
        };
        let age = which.and_then(|webhook| (webhook.age)(&mut random));
        number += 1;
        let stage = Arc::clone(&stage);
        creating.spawn(async move {
            create_one(&stage, &name, &object).await;
            if let Some(seconds) = age {
                make_older(&stage, &name, seconds).await;
            }
        });
    }
    while creating.join_next().await.is_some() {}
}

/// Each webhook as often as its share says, and the many.
fn shares() -> Vec<Option<&'static Webhook>> {
    let shares = WEBHOOKS.iter().flat_map(|webhook| std::iter::repeat_n(Some(webhook), webhook.share));
    shares.chain([None, None]).collect()
}

/// Creates one Notification for a Subscriber of the many.
pub(crate) async fn create_for(stage: &Arc<Stage>, subscriber: &str, number: u64) {
    let (name, object) = notification(subscriber, number);
    create_one(stage, &name, &object).await;
}

/// Creates `count` Notifications for a webhook at once, with numbers from `first` on.
pub(crate) async fn burst(stage: &Arc<Stage>, webhook: &'static str, first: u64, count: u64) {
    let Some(webhook) = named(webhook) else { return };
    let mut creating = JoinSet::new();
    for start in 0..8 {
        let stage = Arc::clone(stage);
        creating.spawn(async move {
            for number in (first + start..first + count).step_by(8) {
                let (name, object) = webhook.notification(number, &mut Random::of(stage.seed, "burst", number));
                create_one(&stage, &name, &object).await;
            }
        });
    }
    while creating.join_next().await.is_some() {}
}

async fn create_one(stage: &Stage, name: &str, object: &Value) {
    let namespace = namespace_of_notification(name);
    // If it exists already, a request whose response was lost created it.
    until(&[201, 409], || stage.client.create(namespace, KIND, object)).await;
    stage.record.lock().unwrap().accepted.insert(name.to_owned(), Timestamp::now());
}

/// Makes a Notification that was not tried yet look as if it had been replayed that many seconds ago, and tried once.
async fn make_older(stage: &Stage, name: &str, seconds: i64) {
    let began = Timestamp::now() - SignedDuration::from_secs(seconds);
    let began = Timestamp::from_second(began.as_second()).unwrap_or(began);
    let test = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
    let add = |path: &str, value: Value| json!({"op": "add", "path": path, "value": value});
    let patch = json!([
        test("/status/phase", "Pending".into()),
        test("/status/attempts", 0.into()),
        add("/status/attempts", 1.into()),
        add("/status/replayTime", began.to_string().into()),
    ]);
    stage.record.lock().unwrap().recounted.insert(name.to_owned());
    let namespace = namespace_of_notification(name);
    // 422: another writer was faster.
    until(&[200, 404, 422], || stage.client.patch(namespace, KIND, name, "/status", Form::Json, &patch)).await;
}

/// Suspends a Subscriber and resumes it, again and again.
pub(crate) async fn nap(stage: Arc<Stage>) {
    let mut random = Random::of(stage.seed, "nap", 0);
    for number in 1_u64.. {
        sleep(random.time(5_000..9_000)).await;
        suspend(&stage, number % 2 == 1).await;
    }
}

/// Suspends the Subscriber that naps, or resumes it.
pub(crate) async fn suspend(stage: &Stage, suspended: bool) {
    let patch = json!({"spec": {"suspend": suspended}});
    until(&[200], || stage.client.patch(spaces::NAPPING, "subscribers", "napping", "", Form::Merge, &patch)).await;
}

/// What others do all the time: a label here and there, a replay, a deletion, and asking for a webhook that is gone.
pub(crate) async fn meddle(stage: Arc<Stage>) {
    let mut random = Random::of(stage.seed, "meddle", 0);
    let mut tasks = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(100));
    let mut replayed = HashSet::new();
    for tick in 0_u64.. {
        ticks.tick().await;
        while tasks.try_join_next().is_some() {}
        let Some(name) = stage.some(&mut random, usize::MAX) else { continue };
        match tick % 60 {
            0 => drop(tasks.spawn(open(Arc::clone(&stage), "leaving"))),
            30 => drop(tasks.spawn(delete(Arc::clone(&stage), name))),
            at if at % 6 == 3 && replayed.insert(name.clone()) => {
                drop(tasks.spawn(replay(Arc::clone(&stage), name, tick)))
            }
            _ => drop(tasks.spawn(label(Arc::clone(&stage), name, tick))),
        }
    }
}

/// Writes labels, 50 times a second.
pub(crate) async fn label_storm(stage: &Arc<Stage>, time: Duration, mut random: Random) {
    storm(time, |number| {
        let name = stage.some(&mut random, NEWEST)?;
        Some(label(Arc::clone(stage), name, number))
    })
    .await;
}

/// Writes into statuses, 50 times a second, as a client would that means well and knows nothing.
pub(crate) async fn status_storm(stage: &Arc<Stage>, time: Duration, mut random: Random) {
    storm(time, |_| {
        let name = stage.some(&mut random, NEWEST)?;
        let what = random.below(100);
        Some(write_status(Arc::clone(stage), name, what))
    })
    .await;
}

async fn storm<F>(time: Duration, mut write: impl FnMut(u64) -> Option<F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut tasks, mut ticks, began) = (JoinSet::new(), interval(Duration::from_millis(20)), Instant::now());
    for number in 0.. {
        ticks.tick().await;
        while tasks.try_join_next().is_some() {}
        if began.elapsed() >= time {
            return;
        }
        if let Some(write) = write(number) {
            tasks.spawn(write);
        }
    }
}

async fn label(stage: Arc<Stage>, name: String, number: u64) {
    let patch = json!({"metadata": {"labels": {"example.com/touched": format!("v{number}")}}});
    // Whether it succeeds does not matter.
    let _ = stage.client.patch(namespace_of_notification(&name), KIND, &name, "", Form::Merge, &patch).await;
}

async fn write_status(stage: Arc<Stage>, name: String, what: u64) {
    let test = |phase: &str| json!({"op": "test", "path": "/status/phase", "value": phase});
    let patch: Value = match what {
        0..60 => json!([{"op": "add", "path": "/status/message", "value": "written by another program"}]),
        60..90 => {
            stage.record.lock().unwrap().recounted.insert(name.clone());
            json!([test("Pending"), {"op": "add", "path": "/status/attempts", "value": what}])
        }
        _ => {
            stage.record.lock().unwrap().set_back.insert(name.clone());
            json!([test("Delivered"), {"op": "replace", "path": "/status/phase", "value": "Pending"}])
        }
    };
    let _ = stage.client.patch(namespace_of_notification(&name), KIND, &name, "/status", Form::Json, &patch).await;
}

async fn replay(stage: Arc<Stage>, name: String, number: u64) {
    let value = format!("r{number}");
    let patch = json!({"metadata": {"labels": {"tidings.dev/replay": value}}});
    let answer = until(&[200, 404], || {
        stage.client.patch(namespace_of_notification(&name), KIND, &name, "", Form::Merge, &patch)
    })
    .await;
    if answer == 200 {
        stage.record.lock().unwrap().replays.insert(name, (value, Timestamp::now()));
    }
}

async fn delete(stage: Arc<Stage>, name: String) {
    stage.record.lock().unwrap().deleted.insert(name.clone());
    until(&[200, 404], || stage.client.delete(namespace_of_notification(&name), KIND, &name)).await;
}

/// Requests a reconcile of a Subscriber, which opens a closed circuit. Gives up when the API server is away.
pub(crate) async fn open(stage: Arc<Stage>, subscriber: &'static str) {
    let now = Timestamp::now();
    stage.record.lock().unwrap().openings.entry(subscriber.to_owned()).or_default().push(now);
    let patch = json!({"metadata": {"annotations": {"tidings.dev/reconcile-requested-at": now.to_string()}}});
    if stage
        .client
        .patch(namespace_of(subscriber), "subscribers", subscriber, "", Form::Merge, &patch)
        .await
        .is_ok_and(|code| code != 200)
    {
        // Refused, so nothing was opened. A missing response leaves it unknown.
        stage.record.lock().unwrap().openings.entry(subscriber.to_owned()).or_default().retain(|at| *at != now);
    }
}

/// The same for all Subscribers.
pub(crate) async fn open_all(stage: &Arc<Stage>) {
    for webhook in &WEBHOOKS {
        open(Arc::clone(stage), webhook.name).await;
    }
}

/// Waits until everything that was accepted is finished, what has a time to live is deleted, and every Subscriber's
/// status is about its spec; requests reconciles of the webhooks' Subscribers periodically. Returns what has not
/// settled after `limit`.
pub(crate) async fn settle(stage: &Arc<Stage>, limit: Duration, say: impl Fn(String)) -> Vec<String> {
    let began = Instant::now();
    for second in 0.. {
        let unfinished = stage.history.unfinished();
        let open = match began.elapsed() < limit.min(UNHEARD_LIMIT) {
            true => [unfinished, stage.history.kept(), stage.history.unheard()].concat(),
            // A minute is enough for both.
            false => unfinished,
        };
        if open.is_empty() || began.elapsed() > limit {
            return open;
        }
        if second % 15 == 0 {
            open_all(stage).await;
            say(format!("{} are not finished", open.len()));
        }
        sleep(Duration::from_secs(1)).await;
    }
    Vec::new()
}

impl Stage {
    /// Returns one of the newest accepted Notifications, if there is one.
    fn some(&self, random: &mut Random, newest: usize) -> Option<String> {
        let record = self.record.lock().unwrap();
        let newest = newest.min(record.accepted.len());
        if newest == 0 {
            return None;
        }
        let number = |name: &str| name.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
        // Names sort by their Subscriber, so the newest are found by their numbers.
        let oldest = record.accepted.keys().filter_map(|name| number(name)).max()?.saturating_sub(newest);
        let candidates: Vec<_> = record.accepted.keys().filter(|name| number(name) >= Some(oldest)).collect();
        (!candidates.is_empty()).then(|| (*random.pick(&candidates)).clone())
    }
}
