//! What every event depends on: what the Subscriber names, a token, the webhook's consent.

use std::{sync::Arc, time::Duration};

use tidings_api::{ConditionType, SubscriberReason as Reason, SubscriberStatus};
use tidings_delivery::oauth::{NoToken, TokenError};
use tokio::time::Instant;

use super::{status::Finding, step::Step, validation::Validation};
use crate::contract::Route;

/// Where the steps ended before a delivery could begin.
pub(super) struct Blocked {
    /// The step that failed.
    pub(super) step: Step,
    /// How it failed.
    pub(super) why: Finding,
    /// What that means for Ready.
    pub(super) ready: Finding,
}

/// What a check of the prerequisites found.
pub(super) struct Prerequisites {
    /// For the condition TokenAvailable.
    pub(super) token: Option<Finding>,
    /// The webhook's consent.
    pub(super) consent: Option<Validation>,
    /// The way, if all of it is open.
    pub(super) route_or_gate: Result<Arc<Route>, Blocked>,
    /// Check again after this.
    pub(super) again: Option<Duration>,
}

impl Prerequisites {
    /// A step failed, and nothing else is known.
    pub(super) fn blocked(step: Step, why: Finding) -> Self {
        let route_or_gate = Err(Blocked { step, ready: why.clone(), why });
        Self { token: None, consent: None, route_or_gate, again: None }
    }

    /// There is a token, and this is known of the consent.
    pub(super) fn of_validation(route: Route, consent: Validation) -> Self {
        let token = Finding::yes(Reason::TokenIssued, "the token service issued a token");
        let route_or_gate = match &consent.blocked {
            Some(why) => Err(Blocked { step: Step::Handshake, ready: why.clone(), why: why.clone() }),
            None => Ok(Arc::new(route.bounded_by(consent.rate))),
        };
        Self { token: Some(token), again: consent.again, consent: Some(consent), route_or_gate }
    }

    /// There is no token: until the first success the Subscriber is not ready; later only TokenAvailable says so, unless
    /// a user must act.
    pub(super) fn without_token(status: &SubscriberStatus, generation: Option<i64>, no_token: NoToken) -> Self {
        let NoToken { error, ask_again } = no_token;
        let (reason, hint) = hint(&error);
        let why = Finding::no(reason, format!("{error}{hint}"));
        let had_token = status.observed_generation == generation
            && status.condition(ConditionType::Ready).is_some_and(|c| c.reason == Reason::Operational.as_str());
        let ready = if had_token && reason == Reason::TokenUnavailable {
            Finding::yes(Reason::Operational, "Notifications wait for the token service: see TokenAvailable")
        } else {
            why.clone()
        };
        let again = ask_again.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let token = Some(why.clone());
        Self { token, consent: None, route_or_gate: Err(Blocked { step: Step::Token, why, ready }), again: Some(again) }
    }
}

/// The reason, and what to do.
fn hint(error: &TokenError) -> (Reason, &'static str) {
    match error {
        TokenError::Rejected("invalid_client") => (
            Reason::TokenRejected,
            ": check client id and client secret in the Secret, and tokenService.clientAuthentication",
        ),
        TokenError::Rejected("invalid_scope") => (Reason::TokenRejected, ": check tokenService.scopes"),
        TokenError::Rejected(_) => {
            (Reason::TokenRejected, ": check tokenService and what the client is registered for")
        }
        _ => (Reason::TokenUnavailable, "; it will be asked again"),
    }
}
