//! The prerequisites of every event: the objects that the Subscriber names, a token, and the webhook's validation
//! response.

use std::{sync::Arc, time::Duration};

use tidings_api::{ConditionType, SubscriberReason as Reason, SubscriberStatus};
use tidings_delivery::oauth::{Acceptance, NoToken, TokenError};
use tokio::time::Instant;

use super::{status::Finding, step::Step, validation::Validation};
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
    /// TokenAvailable is False, and Ready does not depend on it. `is_encoded`: see [`Self::without_token`].
    pub(super) fn with_token(route: Route, validation: Validation, acceptance: Acceptance, is_encoded: bool) -> Self {
        let mut token = Finding::yes(Reason::TokenIssued, "the token service issued a token");
        let mut again = validation.again;
        match acceptance {
            Acceptance::Accepted => {}
            Acceptance::Pending(wait) => again = earlier(again, wait),
            Acceptance::Failed(NoToken { error, ask_again }) => {
                let (reason, hint) = hint(&error, is_encoded);
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

    /// There is no token. Until the first success, the Subscriber is not ready. After that, only TokenAvailable is
    /// False, unless a user must act. `is_encoded`: form-encoding changes the client ID or the client secret.
    pub(super) fn without_token(
        status: &SubscriberStatus,
        generation: Option<i64>,
        no_token: NoToken,
        is_encoded: bool,
    ) -> Self {
        let NoToken { error, ask_again } = no_token;
        let (reason, hint) = hint(&error, is_encoded);
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

/// The reason, and what to do, as the end of the message.
fn hint(error: &TokenError, is_encoded: bool) -> (Reason, &'static str) {
    match error {
        TokenError::Unauthorized if is_encoded => (
            Reason::TokenRejected,
            ": check tokenService.url and the client ID and client secret in the Secret that tokenService.credentialsSecretRef names; they have characters that clientAuthentication Basic encodes (RFC 6749, section 2.3.1): if the token service does not decode them, set tokenService.clientAuthentication to BasicUnencoded",
        ),
        TokenError::Unauthorized => (
            Reason::TokenRejected,
            ": check tokenService.url, the client ID and client secret in the Secret that tokenService.credentialsSecretRef names, and tokenService.clientAuthentication",
        ),
        TokenError::Rejected("invalid_client") if is_encoded => (
            Reason::TokenRejected,
            ": check the client ID and client secret in the Secret that tokenService.credentialsSecretRef names; they have characters that clientAuthentication Basic encodes (RFC 6749, section 2.3.1): if the token service does not decode them, set tokenService.clientAuthentication to BasicUnencoded",
        ),
        TokenError::Rejected("invalid_client") => (
            Reason::TokenRejected,
            ": check the client ID and client secret in the Secret that tokenService.credentialsSecretRef names, and tokenService.clientAuthentication",
        ),
        TokenError::Rejected("invalid_scope") => (Reason::TokenRejected, ": check tokenService.scopes"),
        TokenError::Rejected(_) => {
            (Reason::TokenRejected, ": check tokenService and the client's registration at the token service")
        }
        TokenError::NotAcceptedYet(_) => (
            Reason::TokenUnavailable,
            "; the operator tries again: some token services need minutes until they accept a new client secret",
        ),
        _ => (Reason::TokenUnavailable, "; the operator tries again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_13_a_refusal_names_basic_unencoded_only_if_encoding_changes_the_credentials() {
        let message = |error, is_encoded| {
            let no_token = NoToken { error, ask_again: Instant::now() };
            let status = SubscriberStatus::default();
            Prerequisites::without_token(&status, Some(1), no_token, is_encoded).token.unwrap().message
        };
        for refusal in [TokenError::Rejected("invalid_client"), TokenError::Unauthorized] {
            assert!(message(refusal.clone(), true).contains("BasicUnencoded"));
            assert!(!message(refusal, false).contains("BasicUnencoded"));
        }
        assert!(message(TokenError::Unauthorized, false).contains("tokenService.url"));
        assert!(!message(TokenError::Rejected("invalid_scope"), true).contains("BasicUnencoded"));
    }
}
