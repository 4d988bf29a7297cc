//! The prerequisites of every event: the objects that the Subscriber names, a token, and the webhook's validation
//! response.

use std::{sync::Arc, time::Duration};

use tidings_api::{ConditionType, SubscriberReason as Reason, SubscriberStatus};
use tidings_delivery::oauth::{Acceptance, NoToken, RequestOutline};
use tokio::time::Instant;

use super::{status::Finding, step::Step, token_hint::hint, validation::Validation};
use crate::contract::Route;

/// The failed step that blocks deliveries.
pub(super) struct Blocked {
    pub(super) step: Step,
    /// The finding for the failed step.
    pub(super) why: Finding,
    /// The finding for the condition Ready.
    pub(super) ready: Finding,
}

/// The result of a check of the prerequisites.
pub(super) struct Prerequisites {
    /// The finding for the condition TokenAvailable.
    pub(super) token: Option<Finding>,
    /// What is known of the webhook's validation.
    pub(super) validation: Option<Validation>,
    /// The route if all prerequisites are met, otherwise the step that blocks it.
    pub(super) route_or_gate: Result<Arc<Route>, Blocked>,
    /// How long until the next check.
    pub(super) again: Option<Duration>,
}

impl Prerequisites {
    /// This step failed, and nothing else is known.
    pub(super) fn blocked(step: Step, why: Finding) -> Self {
        let route_or_gate = Err(Blocked { step, ready: why.clone(), why });
        Self { token: None, validation: None, route_or_gate, again: None }
    }

    /// There is a token, and this is known of the client credentials and of the webhook's validation.
    ///
    /// A token that was issued before stays in use while the token service does not accept the credentials:
    /// TokenAvailable is False, and Ready does not depend on it. `sent`: what the token request had.
    pub(super) fn with_token(
        route: Route,
        validation: Validation,
        acceptance: Acceptance,
        sent: RequestOutline,
    ) -> Self {
        let mut token = Finding::yes(Reason::TokenIssued, "the token service issued a token");
        let mut again = validation.again;
        match acceptance {
            Acceptance::Accepted => {}
            Acceptance::Pending(wait) => again = earlier(again, wait),
            Acceptance::Failed(NoToken { error, ask_again }) => {
                let (reason, hint) = hint(&error, sent);
                token = Finding::no(
                    reason,
                    format!("{error}{hint}; until the previous token expires, events are sent with it"),
                );
                again = earlier(again, until(ask_again));
            }
        }
        let route_or_gate = match &validation.blocked {
            Some(why) => Err(Blocked { step: Step::Handshake, ready: why.clone(), why: why.clone() }),
            None => Ok(Arc::new(route.bounded_by(validation.rate))),
        };
        Self { token: Some(token), again, validation: Some(validation), route_or_gate }
    }

    /// The next check follows within this time (None: whenever it is due).
    pub(super) fn checked_again_within(self, wait: Option<Duration>) -> Self {
        let again = wait.map_or(self.again, |wait| earlier(self.again, wait));
        Self { again, ..self }
    }

    /// There is no token. Until the first success, the Subscriber is not ready. After that, only TokenAvailable is
    /// False, unless a user must act. `sent`: what the token request had.
    pub(super) fn without_token(
        status: &SubscriberStatus,
        generation: Option<i64>,
        no_token: NoToken,
        sent: RequestOutline,
    ) -> Self {
        let NoToken { error, ask_again } = no_token;
        let (reason, hint) = hint(&error, sent);
        let why = Finding::no(reason, format!("{error}{hint}"));
        let had_token = status.observed_generation == generation
            && status.condition(ConditionType::Ready).is_some_and(|c| c.reason == Reason::Operational.as_str());
        let ready = if had_token && reason == Reason::TokenUnavailable {
            Finding::yes(Reason::Operational, "Notifications wait for a token: see the condition TokenAvailable")
        } else {
            why.clone()
        };
        let again = until(ask_again);
        let token = Some(why.clone());
        Self {
            token,
            validation: None,
            route_or_gate: Err(Blocked { step: Step::Token, why, ready }),
            again: Some(again),
        }
    }
}

fn earlier(again: Option<Duration>, wait: Duration) -> Option<Duration> {
    Some(again.map_or(wait, |again| again.min(wait)))
}

/// How long until the next token request.
fn until(ask_again: Instant) -> Duration {
    ask_again.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use tidings_delivery::oauth::{ClientProof, TokenError};
    use tidings_queue::SpecVersion;

    use super::*;
    use crate::contract::testing::route;

    const SENT: RequestOutline =
        RequestOutline { proof: ClientProof::Basic { is_changed: false }, has_scopes: true, has_audience: false };

    fn with_token(acceptance: Acceptance) -> Prerequisites {
        let route = Arc::into_inner(route(SpecVersion::new("uid", 1))).unwrap();
        Prerequisites::with_token(route, Validation::not_required(), acceptance, SENT)
    }

    #[test]
    fn while_an_earlier_token_serves_only_token_available_is_false() {
        for (error, reason) in [
            (TokenError::NotAcceptedYet(Some("invalid_client")), Reason::TokenUnavailable),
            (TokenError::Rejected("invalid_client"), Reason::TokenRejected),
        ] {
            let ask_again = Instant::now() + Duration::from_secs(7);
            let found = with_token(Acceptance::Failed(NoToken { error, ask_again }));
            let token = found.token.unwrap();
            assert_eq!((token.holds, token.reason), (false, reason));
            assert!(token.message.contains("invalid_client") && token.message.ends_with("events are sent with it"));
            assert!(found.route_or_gate.is_ok());
            assert!(found.again.unwrap() <= Duration::from_secs(7), "the next pass asks again");
        }
    }

    #[test]
    fn a_pass_follows_the_response_to_new_credentials_that_has_not_arrived() {
        let wait = Duration::from_secs(5);
        let pending = with_token(Acceptance::Pending(wait));
        assert_eq!((pending.token.unwrap().reason, pending.again), (Reason::TokenIssued, Some(wait)));
        assert_eq!(with_token(Acceptance::Accepted).again, None);
    }

    #[test]
    fn the_next_check_is_never_later_than_required() {
        let (soon, wait, late) = (Duration::from_secs(5), Duration::from_secs(50), Duration::from_secs(500));
        let again =
            |again, wait| Prerequisites { again, ..with_token(Acceptance::Accepted) }.checked_again_within(wait).again;
        assert_eq!(
            again(None, Some(wait)),
            Some(wait),
            "without it, a Subscriber for which all is well is not checked"
        );
        assert_eq!((again(Some(soon), Some(wait)), again(Some(late), Some(wait))), (Some(soon), Some(wait)));
        assert_eq!((again(Some(soon), None), again(None, None)), (Some(soon), None));
    }
}
