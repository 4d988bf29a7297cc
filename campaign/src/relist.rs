//! Makes the operators list many Subscribers again, page by page, while other programs change some of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::TcpProxy;
use testkit::proxies::{Call, Treatment};
use tokio::time::sleep;

use crate::client::{Form, until};
use crate::many::{BUSY, COUNT, KIND, name};
use crate::others;
use crate::random::Random;
use crate::spaces;
use crate::stage::Stage;
use crate::webhooks::subscriber;

/// Each further page of a listing comes this much later.
const PAGE: Duration = Duration::from_millis(1_500);
/// So long watches are too old, and pages late.
const RELIST: Duration = Duration::from_secs(6);

/// The operators must list all Subscribers again, the listing is slow, and other programs change some meanwhile: one is
/// suspended or resumed, another one has another URL, and there is a new one, which sorts first and has a Notification.
pub(crate) async fn relist(stage: &Arc<Stage>, number: u64, mut random: Random) {
    let slow = |call: &Call| match call.is_list_of(KIND) && call.query.contains("continue=") {
        true => Treatment::Slow(PAGE),
        false => Treatment::Pass,
    };
    let listed_anew = |call: &Call| match call.is_watch() && call.path.contains(spaces::MANY) {
        true => Treatment::Expire,
        false => Treatment::Pass,
    };
    let changes = async {
        stage.replicas.links().for_each(TcpProxy::reset);
        change(stage, number, &mut random).await;
        sleep(RELIST).await;
    };
    let expired = stage.rule(sleep(RELIST / 3), Box::new(listed_anew));
    tokio::join!(stage.rule(changes, Box::new(slow)), expired);
}

async fn change(stage: &Arc<Stage>, number: u64, random: &mut Random) {
    let (busy, idle) = (name(random.below(BUSY)), name(BUSY + random.below(COUNT / 2)));
    let new = format!("early-{number}");
    let moved = format!("{}/{busy}/{number}", stage.webhook_url());
    let object = subscriber(&new, &stage.webhook_url(), &stage.token_url());
    let moving = patch(stage, &busy, json!({"spec": {"webhook": {"url": moved}}}));
    let suspending = patch(stage, &idle, json!({"spec": {"suspend": random.percent(70)}}));
    let creating = until(&[201, 409], || stage.client.create(spaces::MANY, KIND, &object));
    tokio::join!(moving, suspending, creating);
    others::create_for(stage, &new, number).await;
}

async fn patch(stage: &Stage, name: &str, patch: Value) {
    until(&[200], || stage.client.patch(spaces::MANY, KIND, name, "", Form::Merge, &patch)).await;
}
