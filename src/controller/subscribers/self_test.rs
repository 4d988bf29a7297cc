//! A test that somebody asked for: one event through all of the chain, and what came of it.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::{
    Subscribers,
    examine::{Chain, Step, Stop},
    reconcile::Visit,
    status::Word,
};
use crate::{
    api::{GROUP, SubscriberReason as Reason, VERSION},
    cloudevent::{Defaults, Event},
    controller::{attempt::pause, resolve::Route},
    webhook::{Delivery, Outcome, Verdict},
};

/// The type of the event that a test sends.
const TYPE: &str = "dev.tidings.test";

/// How a test ended, and what its answer says of the Subscriber as a whole.
pub(super) struct Tested {
    /// For the condition Tested.
    pub(super) word: Word,
    /// The webhook asks to be left alone until then.
    pub(super) pause: Option<Timestamp>,
    /// The webhook answered 410.
    pub(super) gone: bool,
}

impl Subscribers {
    /// Takes the last step of the chain with an event of its own, unless the chain ended before. The same value asked for
    /// makes the same event id, so a receiver can drop what a crash repeats.
    pub(super) async fn test(&self, visit: &Visit<'_>, chain: &Chain, value: &str) -> Tested {
        let route = match &chain.end {
            Err(Stop { step, why, .. }) => return Tested::failed(*step, format!("{}: {}", why.reason, why.message)),
            Ok(_) if !visit.silence().is_zero() => {
                let message =
                    "Paused: the webhook asked to be left alone: see status.pausedUntilTime; test again after it";
                return Tested::failed(Step::Delivery, message.into());
            }
            Ok(route) => route,
        };
        match post(visit, route, value).await {
            Ok(outcome) if outcome.verdict == Verdict::Delivered => Tested {
                word: Word::yes(
                    Reason::TestPassed,
                    format!("the webhook took the test event {}", event_id(visit, value)),
                ),
                pause: None,
                gone: false,
            },
            Ok(outcome) => {
                let asked = match outcome.verdict {
                    Verdict::Pause(asked) => Some(asked.unwrap_or(route.backoff.initial).min(route.expire_after)),
                    _ => None,
                };
                Tested {
                    pause: asked.map(|asked| pause(asked, Timestamp::now()).0),
                    gone: outcome.verdict == Verdict::Gone,
                    ..Tested::failed(Step::Delivery, format!("{}: {}", outcome.reason, outcome.message))
                }
            }
            Err(why) => Tested::failed(Step::Delivery, why),
        }
    }
}

impl Tested {
    fn failed(step: Step, why: String) -> Self {
        let (number, name, reason) = match step {
            Step::Secret => (1, "Secret", Reason::SecretTestFailed),
            Step::Token => (2, "token", Reason::TokenTestFailed),
            Step::Handshake => (3, "handshake", Reason::HandshakeTestFailed),
            Step::Delivery => (4, "delivery", Reason::DeliveryTestFailed),
        };
        Self { word: Word::no(reason, format!("step {number} of 4, {name}: {why}")), pause: None, gone: false }
    }
}

async fn post(visit: &Visit<'_>, route: &Arc<Route>, value: &str) -> Result<Outcome, String> {
    let id = event_id(visit, value);
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("/apis/{GROUP}/{VERSION}/namespaces/{}/subscribers/{}", visit.key.namespace, visit.key.name),
        "type": TYPE,
        "time": Timestamp::now().to_string(),
        "datacontenttype": "application/json",
        "data": {"message": "a test that somebody asked for: tidings.dev/test-requested-at"},
    });
    let event = Event::parse(&event.to_string(), Defaults { id: &id, time: "" }).map_err(|fault| fault.to_string())?;
    let delivery = Delivery::prepare(&route.target, &event).map_err(|fault| fault.to_string())?;
    let authorized = delivery.authorize().await.map_err(|no_token| no_token.to_string())?;
    Ok(authorized.send().await)
}

fn event_id(visit: &Visit<'_>, value: &str) -> String {
    format!("test-{}-{value}", visit.spec.0)
}
