//! The chain that every event depends on: what the Subscriber names, a token, the webhook's consent. Each step needs the
//! one before it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tidings_api::{AbuseProtection, ConditionType, SubscriberReason as Reason, SubscriberSpec, SubscriberStatus};
use tidings_delivery::{
    oauth::{NoToken, TokenError},
    webhook::ask_consent,
};
use tokio::time::Instant;

use super::{
    Subscribers,
    handshake::{Answered, Duty, Finding, Unanswered},
    page::Page,
    reconcile::Visit,
    resolve::Unresolved,
    status::Word,
};
use crate::contract::{Route, pause};

/// What nobody tells us about (an egress policy that a DNS change satisfies) is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// A step of the chain; the last one is taken by deliveries and by a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The Secrets and ConfigMaps that the spec names are read, and the host names are resolved.
    Secret,
    /// The token service is asked for a token.
    Token,
    /// The webhook is asked for its consent.
    Handshake,
    /// An event is sent.
    Delivery,
}

impl Step {
    /// Its number of four, and its name.
    pub(super) fn number_and_name(self) -> (u8, &'static str) {
        match self {
            Self::Secret => (1, "Secret"),
            Self::Token => (2, "token"),
            Self::Handshake => (3, "handshake"),
            Self::Delivery => (4, "delivery"),
        }
    }
}

/// Where the chain ended before a delivery could begin.
pub(super) struct Stop {
    /// The step that failed.
    pub(super) step: Step,
    /// How.
    pub(super) why: Word,
    /// What that means for Ready.
    pub(super) ready: Word,
}

/// What the chain found.
pub(super) struct Chain {
    /// For the condition TokenAvailable.
    pub(super) token: Option<Word>,
    /// The webhook's consent.
    pub(super) consent: Option<Finding>,
    /// The way, if all of it is open.
    pub(super) end: Result<Arc<Route>, Stop>,
    /// Look again after this.
    pub(super) again: Option<Duration>,
}

impl Chain {
    /// It ended at a step that nobody can pass for now.
    pub(super) fn stopped(step: Step, why: Word) -> Self {
        let end = Err(Stop { step, ready: why.clone(), why });
        Self { token: None, consent: None, end, again: None }
    }
}

impl Subscribers {
    /// Goes through the chain as far as it leads.
    pub(super) async fn examine(&self, visit: &Visit<'_>, spec: &SubscriberSpec) -> Result<Chain, Unresolved> {
        self.at_step(visit, Step::Secret);
        let route = match self.resolver.route(&visit.key.namespace, visit.spec.clone(), spec).await {
            Ok(route) => route,
            Err(Unresolved::Subscriber { reason, message, of_credentials }) => {
                let why = Word::no(reason, message);
                let token = of_credentials.then(|| why.clone());
                return Ok(Chain { token, again: Some(LOOK_AGAIN), ..Chain::stopped(Step::Secret, why) });
            }
            Err(error) => return Err(error),
        };
        let tokens = &route.target.tokens;
        self.registry.holds(&visit.key, &visit.spec.uid, tokens.clone());
        if visit.requested || visit.test.is_some() {
            tokens.forget_failure().await;
        }
        self.at_step(visit, Step::Token);
        if let Err(no_token) = self.unless_stopping(tokens.token()).await? {
            return Ok(without_token(&visit.status, visit.generation(), no_token));
        }
        let token = Some(Word::yes(Reason::TokenIssued, "the token service issued a token"));
        let consent = self.consent(visit, &spec.abuse_protection, &route).await?;
        let again = consent.again;
        let end = match &consent.blocked {
            Some(why) => Err(Stop { step: Step::Handshake, ready: why.clone(), why: why.clone() }),
            None => Ok(Arc::new(route.bounded_by(consent.rate))),
        };
        Ok(Chain { token, consent: Some(consent), end, again })
    }

    /// Asks the webhook for its consent, if it is time to.
    async fn consent(
        &self,
        visit: &Visit<'_>,
        settings: &AbuseProtection,
        route: &Route,
    ) -> Result<Finding, Unresolved> {
        let policy = settings.policy;
        let origin = route.target.origin.to_str().unwrap_or_default();
        let known = Answered::read(&visit.status, visit.generation(), origin);
        let before = self.registry.unanswered(&visit.key, &visit.spec.uid);
        let forced = visit.requested || visit.test.is_some();
        let now = (std::time::Instant::now(), Timestamp::now());
        Ok(match Duty::of(policy, known, before, forced, self.silence(visit), now) {
            Duty::NotRequired => Finding::not_required(),
            Duty::Keep(known, again) => Finding::kept(known, again),
            Duty::Wait(unanswered, again) => Finding::pending(unanswered.error, policy, again),
            Duty::Hush(again) => Finding::pending("it asked to be left alone before it answered", policy, again),
            Duty::Ask(_) if !self.leadership.holds(&visit.key) => return Err(Unresolved::NotLeading),
            Duty::Ask(known) => {
                self.at_step(visit, Step::Handshake);
                let asked = ask_consent(&route.target, settings.request_rate_per_minute);
                let answer = self.unless_stopping(asked).await?;
                let error = match answer {
                    Ok(consent) => {
                        self.registry.asked(&visit.key, &visit.spec.uid, None);
                        return Ok(Finding::answer(consent, policy, origin, seconds_of(Timestamp::now())));
                    }
                    Err(error) => error,
                };
                let asked = std::time::Instant::now();
                let unanswered = Unanswered::after(before, error, asked, rand::random());
                self.registry.asked(&visit.key, &visit.spec.uid, Some(unanswered));
                let again = unanswered.ask_again.saturating_duration_since(asked);
                if let Some(asked) = error.retry_after() {
                    self.pause(visit, asked);
                }
                match known {
                    Some(known) => Finding::kept(known, again),
                    None => Finding::pending(error, policy, again),
                }
            }
        })
    }

    /// The look is at this step from now on.
    pub(super) fn at_step(&self, visit: &Visit<'_>, step: Step) {
        self.registry.at_step(&visit.key, &visit.spec.uid, Some(step));
    }

    /// How long the webhook is to be left alone, as of now.
    pub(super) fn silence(&self, visit: &Visit<'_>) -> Duration {
        let silence = |page: &mut Page| page.silence(visit.expire_after(), Timestamp::now());
        self.registry.page(&visit.key, &visit.spec.uid, silence).unwrap_or_default()
    }

    /// The webhook asks to be left alone for so long, from now on.
    pub(super) fn pause(&self, visit: &Visit<'_>, asked: Duration) {
        let (until, wait) = pause(asked.min(visit.expire_after()), Timestamp::now());
        self.registry.pause(&visit.key, &visit.spec, until, wait);
    }
}

/// The time in full seconds, as the API writes it.
pub(super) fn seconds_of(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// What a missing token means: until the first success the Subscriber is not ready; later only TokenAvailable says so,
/// unless somebody must act.
fn without_token(status: &SubscriberStatus, generation: Option<i64>, no_token: NoToken) -> Chain {
    let NoToken { error, ask_again } = no_token;
    let (reason, hint) = match error {
        TokenError::Rejected("invalid_client") => (
            Reason::TokenRejected,
            ": check client id and client secret in the Secret, and tokenService.clientAuthentication",
        ),
        TokenError::Rejected("invalid_scope") => (Reason::TokenRejected, ": check tokenService.scopes"),
        TokenError::Rejected(_) => {
            (Reason::TokenRejected, ": check tokenService and what the client is registered for")
        }
        _ => (Reason::TokenUnavailable, "; it will be asked again"),
    };
    let why = Word::no(reason, format!("{error}{hint}"));
    let had_token = status.observed_generation == generation
        && status.condition(ConditionType::Ready).is_some_and(|c| c.reason == Reason::Operational.as_str());
    let ready = if had_token && reason == Reason::TokenUnavailable {
        Word::yes(Reason::Operational, "Notifications wait for the token service: see TokenAvailable")
    } else {
        why.clone()
    };
    let again = ask_again.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let token = Some(why.clone());
    Chain { token, consent: None, end: Err(Stop { step: Step::Token, why, ready }), again: Some(again) }
}
