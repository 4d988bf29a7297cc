//! The other clients: those who create Notifications, and those who touch what is stored.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::client::{Form, until};
use super::random::Random;
use super::stage::Stage;
use super::webhooks::{WEBHOOKS, every};

const KIND: &str = "notifications";
/// Others touch one of the newest so many.
const NEWEST: usize = 300;

/// Creates `rate` Notifications a second for `duration`, and goes on until the API server has confirmed each.
pub(crate) async fn create(stage: Arc<Stage>, rate: u32, duration: Duration) {
    let (mut creating, mut ticks, began) = (JoinSet::new(), interval(every(rate)), Instant::now());
    let mut number = 0;
    while began.elapsed() < duration {
        ticks.tick().await;
        let mut random = Random::of(stage.seed, "create", number);
        let (name, notification) = random.pick(&WEBHOOKS).notification(number);
        number += 1;
        let stage = Arc::clone(&stage);
        creating.spawn(async move {
            // One that is there already was created by a try whose answer was lost.
            until(&[201, 409], || stage.client.create(KIND, &notification)).await;
            stage.record.lock().unwrap().accepted.insert(name, Timestamp::now());
        });
    }
    while creating.join_next().await.is_some() {}
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
    let _ = stage.client.patch(KIND, &name, "", Form::Merge, &patch).await;
}

async fn write_status(stage: Arc<Stage>, name: String, what: u64) {
    let test = |phase: &str| json!({"op": "test", "path": "/status/phase", "value": phase});
    let patch: Value = match what {
        0..60 => json!([{"op": "add", "path": "/status/message", "value": "somebody else was here"}]),
        60..90 => {
            stage.record.lock().unwrap().recounted.insert(name.clone());
            json!([test("Pending"), {"op": "add", "path": "/status/attempts", "value": what}])
        }
        _ => {
            stage.record.lock().unwrap().set_back.insert(name.clone());
            json!([test("Delivered"), {"op": "replace", "path": "/status/phase", "value": "Pending"}])
        }
    };
    let _ = stage.client.patch(KIND, &name, "/status", Form::Json, &patch).await;
}

async fn replay(stage: Arc<Stage>, name: String, number: u64) {
    let value = format!("r{number}");
    let patch = json!({"metadata": {"labels": {"tidings.dev/replay": value}}});
    let answer = until(&[200, 404], || stage.client.patch(KIND, &name, "", Form::Merge, &patch)).await;
    if answer == 200 {
        stage.record.lock().unwrap().replays.insert(name, (value, Timestamp::now()));
    }
}

async fn delete(stage: Arc<Stage>, name: String) {
    stage.record.lock().unwrap().deleted.insert(name.clone());
    until(&[200, 404], || stage.client.delete(KIND, &name)).await;
}

/// Asks for a Subscriber to be looked at again, which opens what is closed. Gives up when the API server is away.
pub(crate) async fn open(stage: Arc<Stage>, subscriber: &'static str) {
    let now = Timestamp::now();
    stage.record.lock().unwrap().openings.entry(subscriber.to_owned()).or_default().push(now);
    let patch = json!({"metadata": {"annotations": {"tidings.dev/reconcile-requested-at": now.to_string()}}});
    if stage.client.patch("subscribers", subscriber, "", Form::Merge, &patch).await.is_ok_and(|code| code != 200) {
        // Refused, so nothing was opened; of an answer that did not come, nobody knows.
        stage.record.lock().unwrap().openings.entry(subscriber.to_owned()).or_default().retain(|at| *at != now);
    }
}

/// The same for all Subscribers.
pub(crate) async fn open_all(stage: &Arc<Stage>) {
    for webhook in &WEBHOOKS {
        open(Arc::clone(stage), webhook.name).await;
    }
}

/// Waits until everything that was accepted is finished, and asks for all Subscribers every while. Returns what is
/// not finished after `limit`.
pub(crate) async fn settle(stage: &Arc<Stage>, limit: Duration, say: impl Fn(String)) -> Vec<String> {
    let began = Instant::now();
    for second in 0.. {
        let unfinished = stage.history.unfinished();
        if unfinished.is_empty() || began.elapsed() > limit {
            return unfinished;
        }
        if second % 15 == 0 {
            open_all(stage).await;
            say(format!("{} are not finished", unfinished.len()));
        }
        sleep(Duration::from_secs(1)).await;
    }
    Vec::new()
}

impl Stage {
    /// One of the newest so many that were accepted, if there is any.
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
