//! A test that somebody asked for: one event through all of the chain, and what came of it.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tidings_api::{GROUP, SubscriberReason as Reason, VERSION};
use tidings_delivery::{
    event::{Defaults, Event, InvalidEvent},
    webhook::{Clearance, Delivery, NotCleared, Outcome, Unauthorized, Verdict},
};

use super::{
    Subscribers,
    examine::{Chain, Step, Stop},
    reconcile::Visit,
    resolve::Unresolved,
    standing::Held,
    status::Word,
};
use crate::contract::Route;

/// The type of the event that a test sends.
const TYPE: &str = "dev.tidings.test";

impl Subscribers {
    /// Takes the last step of the chain with an event of its own, unless the chain ended before, and says how that went. The
    /// same value asked for makes the same event id, so a receiver can drop what a crash repeats.
    pub(super) async fn test(&self, visit: &Visit<'_>, chain: &Chain, value: &str) -> Result<Word, Unresolved> {
        let route = match &chain.end {
            Err(Stop { step, why, .. }) => return Ok(failed(*step, format!("{}: {}", why.reason, why.message))),
            Ok(route) => route,
        };
        let outcome = match self.post(visit, route, value).await? {
            Ok(outcome) => outcome,
            Err(why) => return Ok(failed(Step::Delivery, why)),
        };
        match outcome.verdict {
            Verdict::Delivered => {
                let message = format!("the webhook took the test event {}", event_id(visit, value));
                return Ok(Word::yes(Reason::TestPassed, message));
            }
            Verdict::Pause(asked) => self.pause(visit, asked.unwrap_or(route.backoff.initial)),
            Verdict::Gone => self.registry.mark_gone(&visit.key, &visit.spec),
            Verdict::Failed | Verdict::Retry => {}
        }
        Ok(failed(Step::Delivery, format!("{}: {}", outcome.reason, outcome.message)))
    }

    /// Sends the event, unless something forbids it now; an error of the inner kind says what, or how the event cannot be sent.
    async fn post(
        &self,
        visit: &Visit<'_>,
        route: &Arc<Route>,
        value: &str,
    ) -> Result<Result<Outcome, String>, Unresolved> {
        let delivery = match event(visit, value).and_then(|event| Delivery::prepare(&route.target, &event)) {
            Ok(delivery) => delivery,
            Err(fault) => return Ok(Err(fault.to_string())),
        };
        self.at_step(visit, Step::Delivery);
        let clearance = Cleared { subscribers: self, visit };
        let authorized = match delivery.authorize(&clearance).await {
            Ok(authorized) => authorized,
            Err(Unauthorized::NoToken(no_token)) => return Ok(Err(no_token.to_string())),
            Err(Unauthorized::Stopping) => return Err(Unresolved::Stopping),
        };
        match authorized.send(&clearance).await {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(NotCleared) => self.forbidden(visit).map(Err),
        }
    }

    /// Why the test event was not sent.
    fn forbidden(&self, visit: &Visit<'_>) -> Result<String, Unresolved> {
        if !self.leadership.holds(&visit.key) {
            return Err(Unresolved::NotLeading);
        }
        if self.is_stopping() {
            return Err(Unresolved::Stopping);
        }
        let held = self.registry.held(&visit.key, &visit.spec);
        if held == Some(Held::Gone) {
            let Word { reason, message, .. } = Word::gone();
            return Ok(format!("{reason}: {message}"));
        }
        if held == Some(Held::Paused) {
            return Ok(
                "Paused: the webhook asked to be left alone: see status.pausedUntilTime; test again after it".into()
            );
        }
        Ok("the Subscriber changed before the test event was sent; test again".into())
    }
}

/// What allows a test to go on: what allows a delivery, but that the way need not be open.
struct Cleared<'a> {
    subscribers: &'a Subscribers,
    visit: &'a Visit<'a>,
}

impl Clearance for Cleared<'_> {
    fn may_send(&self) -> bool {
        let Self { subscribers, visit } = self;
        let held = subscribers.registry.held(&visit.key, &visit.spec);
        subscribers.leadership.holds(&visit.key)
            && !subscribers.is_stopping()
            && held.is_none_or(|held| held == Held::Closed)
    }

    async fn stopping(&self) {
        self.subscribers.stopped().await;
    }
}

fn failed(step: Step, why: String) -> Word {
    let reason = match step {
        Step::Secret => Reason::SecretTestFailed,
        Step::Token => Reason::TokenTestFailed,
        Step::Handshake => Reason::HandshakeTestFailed,
        Step::Delivery => Reason::DeliveryTestFailed,
    };
    let (number, name) = step.number_and_name();
    Word::no(reason, format!("step {number} of 4, {name}: {why}"))
}

fn event(visit: &Visit<'_>, value: &str) -> Result<Event, InvalidEvent> {
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
    Event::parse(&event.to_string(), Defaults { id: &id, time: "" })
}

fn event_id(visit: &Visit<'_>, value: &str) -> String {
    format!("test-{}-{value}", visit.spec.uid)
}
