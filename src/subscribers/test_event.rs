//! Runs the test that an annotation requests: sends one event through all steps and reports the result.

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

/// The CloudEvents type of the test event.
const TYPE: &str = "dev.tidings.test";

/// Sends a test event, unless a previous step failed, and returns the result. The same `value` gives the same event id,
/// so that a receiver can drop an event that is repeated after a crash. Returns None if the operator may no longer send
/// requests.
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
    // An earlier token may serve, but the test is about the credentials of now.
    if let Some(why) = prerequisites.token.as_ref().filter(|token| !token.holds) {
        return Some(failed(Step::Token, format!("{}: {}", why.reason, why.message)));
    }
    let outcome = match post(mandate, pass, route, value).await? {
        Ok(outcome) => outcome,
        Err(why) => return Some(failed(Step::Delivery, why)),
    };
    match outcome.verdict {
        Verdict::Delivered => {
            let message = format!("the webhook accepted the test event {}", event_id(pass, value));
            return Some(Finding::yes(Reason::TestPassed, message));
        }
        Verdict::Pause(requested) => pass.pause(requested.unwrap_or(route.backoff.initial)),
        Verdict::RetryAfter(wait) => pass.pause(wait),
        Verdict::Gone => pass.note_gone(),
        Verdict::Failed | Verdict::Rejected | Verdict::Hold | Verdict::Defer | Verdict::Retry => {}
    }
    Some(failed(Step::Delivery, format!("{}: {}", outcome.reason, outcome.message)))
}

/// Sends the event. The error says what forbids sending it now, or why it cannot be sent. Returns None if the operator
/// may no longer send requests.
async fn post(mandate: &Mandate, pass: &Pass<'_>, route: &Route, value: &str) -> Option<Result<Outcome, String>> {
    let delivery = match event(pass, value).and_then(|event| Delivery::prepare(&route.target, &event)) {
        Ok(delivery) => delivery,
        Err(fault) => return Some(Err(fault.to_string())),
    };
    pass.enter(Step::Delivery);
    let clearance = TestClearance { mandate, pass };
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
            "Paused: the webhook requested a pause: wait until status.pausedUntilTime, then set the annotation tidings.dev/test-requested-at to a new value to test again".into()
        }
        _ => "the Subscriber changed before the test event was sent: set the annotation tidings.dev/test-requested-at to a new value to test again".into(),
    }
}

/// What allows a test to continue: the same as for a delivery, except that the lane may be closed.
struct TestClearance<'a> {
    mandate: &'a Mandate,
    pass: &'a Pass<'a>,
}

impl Clearance for TestClearance<'_> {
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
        "data": {"message": "a test event requested by the annotation tidings.dev/test-requested-at"},
    });
    CheckedEvent::parse(&event.to_string(), Defaults { id: &id, time: "" })
}

fn event_id(pass: &Pass<'_>, value: &str) -> String {
    format!("test-{}-{value}", pass.version().uid)
}
