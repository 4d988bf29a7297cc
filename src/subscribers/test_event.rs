//! A test that an annotation requests: one event through all of the steps, and what came of it.

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tidings_api::{GROUP, SubscriberReason as Reason, VERSION};
use tidings_delivery::{
    event::{CheckedEvent, Defaults, InvalidEvent},
    webhook::{Clearance, Delivery, NotCleared, Outcome, Unauthorized, Verdict},
};

use super::{
    member::HeldBack,
    pass::Pass,
    prerequisites::{Blocked, Prerequisites},
    status::Finding,
    step::Step,
};
use crate::{contract::Route, ownership::Mandate};

/// The type of the event that a test sends.
const TYPE: &str = "dev.tidings.test";

/// Takes the last step with an event of its own, unless a step before failed, and says how that went. The same value makes the
/// same event id, so a receiver can drop what a crash repeats. None: the operator may not send requests any more.
pub(super) async fn test(
    mandate: &Mandate,
    pass: &Pass<'_>,
    prerequisites: &Prerequisites,
    value: &str,
) -> Option<Finding> {
    let route = match &prerequisites.route_or_gate {
        Err(Blocked { step, why, .. }) => return Some(failed(*step, format!("{}: {}", why.reason, why.message))),
        Ok(route) => route,
    };
    let outcome = match post(mandate, pass, route, value).await? {
        Ok(outcome) => outcome,
        Err(why) => return Some(failed(Step::Delivery, why)),
    };
    match outcome.verdict {
        Verdict::Delivered => {
            let message = format!("the webhook took the test event {}", event_id(pass, value));
            return Some(Finding::yes(Reason::TestPassed, message));
        }
        Verdict::Pause(asked) => pass.pause(asked.unwrap_or(route.backoff.initial)),
        Verdict::Gone => pass.note_gone(),
        Verdict::Failed | Verdict::Retry => {}
    }
    Some(failed(Step::Delivery, format!("{}: {}", outcome.reason, outcome.message)))
}

/// Sends the event, unless something forbids it now; an error says what, or how the event cannot be sent.
async fn post(mandate: &Mandate, pass: &Pass<'_>, route: &Route, value: &str) -> Option<Result<Outcome, String>> {
    let delivery = match event(pass, value).and_then(|event| Delivery::prepare(&route.target, &event)) {
        Ok(delivery) => delivery,
        Err(fault) => return Some(Err(fault.to_string())),
    };
    pass.enter(Step::Delivery);
    let clearance = Cleared { mandate, pass };
    let authorized = match delivery.authorize(&clearance).await {
        Ok(authorized) => authorized,
        Err(Unauthorized::NoToken(no_token)) => return Some(Err(no_token.to_string())),
        Err(Unauthorized::Stopping) => return None,
    };
    match authorized.send(&clearance).await {
        Ok(outcome) => Some(Ok(outcome)),
        Err(NotCleared) => mandate.holds(pass.key()).then(|| Err(forbidden(pass))),
    }
}

/// Why the test event was not sent.
fn forbidden(pass: &Pass<'_>) -> String {
    match pass.held() {
        Some(HeldBack::Gone) => {
            let Finding { reason, message, .. } = Finding::gone();
            format!("{reason}: {message}")
        }
        Some(HeldBack::Paused) => {
            "Paused: the webhook asked to be left alone: see status.pausedUntilTime; test again after it".into()
        }
        _ => "the Subscriber changed before the test event was sent; test again".into(),
    }
}

/// What allows a test to go on: what allows a delivery, but that the way need not be open.
struct Cleared<'a> {
    mandate: &'a Mandate,
    pass: &'a Pass<'a>,
}

impl Clearance for Cleared<'_> {
    fn may_send(&self) -> bool {
        self.mandate.holds(self.pass.key()) && self.pass.held().is_none_or(|held| held == HeldBack::Closed)
    }

    async fn stopping(&self) {
        self.mandate.stopping().await;
    }
}

fn failed(step: Step, why: String) -> Finding {
    let reason = match step {
        Step::Secret => Reason::SecretTestFailed,
        Step::Token => Reason::TokenTestFailed,
        Step::Handshake => Reason::HandshakeTestFailed,
        Step::Delivery => Reason::DeliveryTestFailed,
    };
    let (number, name) = step.number_and_name();
    Finding::no(reason, format!("step {number} of 4, {name}: {why}"))
}

fn event(pass: &Pass<'_>, value: &str) -> Result<CheckedEvent, InvalidEvent> {
    let id = event_id(pass, value);
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("/apis/{GROUP}/{VERSION}/namespaces/{}/subscribers/{}", pass.key().namespace, pass.key().name),
        "type": TYPE,
        "time": Timestamp::now().to_string(),
        "datacontenttype": "application/json",
        "data": {"message": "a test that somebody asked for: tidings.dev/test-requested-at"},
    });
    CheckedEvent::parse(&event.to_string(), Defaults { id: &id, time: "" })
}

fn event_id(pass: &Pass<'_>, value: &str) -> String {
    format!("test-{}-{value}", pass.version().uid)
}
