//! Checks the prerequisites of a delivery in order: each step needs the result of the previous step.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tidings_api::{AbuseProtection, SubscriberReason as Reason, SubscriberSpec};
use tidings_delivery::webhook::{NoValidationResponse, ValidationResponse, request_validation};

use super::{
    pass::Pass,
    prerequisites::Prerequisites,
    resolve::TargetResolver,
    status::Finding,
    step::Step,
    times::full_seconds,
    unresolved::Unresolved,
    validation::{RecordedValidation, Validation, ValidationDecision},
};
use crate::{contract::Route, metrics::Metrics, ownership::Mandate};

/// How long until the next check of what no watch reports, such as a DNS change that satisfies the egress policy.
const CHECK_AGAIN: Duration = Duration::from_secs(300);

/// The same for a ServiceAccount: the operator may not watch ServiceAccounts.
const CHECK_ACCOUNT_AGAIN: Duration = Duration::from_secs(60);

/// How long a pass that has a token waits for the response to new credentials.
const ACCEPTANCE_WAIT: Duration = Duration::from_secs(2);

/// Checks the prerequisites of Subscribers.
pub(super) struct Checker {
    resolver: TargetResolver,
    mandate: Mandate,
    metrics: Metrics,
}

impl Checker {
    /// `metrics` learns when what a Subscriber uses expires.
    pub(super) fn new(resolver: TargetResolver, mandate: Mandate, metrics: Metrics) -> Self {
        Self { resolver, mandate, metrics }
    }

    /// Checks step by step until a step fails or all have passed. Returns None if the operator may no longer send
    /// requests.
    pub(super) async fn check(
        &self,
        pass: &Pass<'_>,
        spec: &SubscriberSpec,
    ) -> Result<Option<Prerequisites>, Unresolved> {
        // Step 1: Secrets and ConfigMaps, from the API server.
        pass.enter(Step::Secret);
        let resolved = self.resolver.route(&pass.key().namespace, pass.version().clone(), spec).await;
        let expiries = resolved.as_ref().map(|(_, expiries)| *expiries).unwrap_or_default();
        self.metrics.subscriber_expires(pass.key(), expiries);
        let route = match resolved {
            Ok((route, _)) => route,
            Err(Unresolved::Subscriber { reason, message, of_credentials }) => {
                let again = check_again(reason);
                let why = Finding::no(reason, message);
                let token = of_credentials.then(|| why.clone());
                let blocked = Prerequisites::blocked(Step::Secret, why);
                return Ok(Some(Prerequisites { token, again: Some(again), ..blocked }));
            }
            Err(error) => return Err(error),
        };
        // Step 2: a token, from the token service.
        let tokens = &route.target.tokens;
        let previous = pass.keep(tokens.clone());
        tokens.follow(previous.as_deref(), pass.had_token()).await;
        if pass.is_forced() {
            tokens.forget_failure().await;
        }
        pass.enter(Step::Token);
        let sent = tokens.outline();
        match self.mandate.unless_stopping(tokens.token()).await {
            Some(Ok(_)) => {}
            Some(Err(no_token)) => {
                return Ok(Some(Prerequisites::without_token(pass.status(), pass.generation(), no_token, sent)));
            }
            None => return Ok(None),
        }
        let Some(acceptance) = self.mandate.unless_stopping(tokens.acceptance(ACCEPTANCE_WAIT)).await else {
            return Ok(None);
        };
        // Step 3: the webhook's validation response.
        let validation = self.validate(pass, &spec.abuse_protection, &route).await;
        Ok(validation.map(|validation| Prerequisites::with_token(route, validation, acceptance, sent)))
    }

    /// Sends the webhook a validation request if one is due. Returns None if the operator may no longer send requests.
    async fn validate(&self, pass: &Pass<'_>, settings: &AbuseProtection, route: &Route) -> Option<Validation> {
        let policy = settings.policy;
        let origin = route.target.origin.to_str().unwrap_or_default();
        let known = RecordedValidation::read(pass.status(), pass.generation(), origin);
        let now = (Instant::now(), Timestamp::now());
        Some(
            match ValidationDecision::of(policy, known, pass.failed_validation(), pass.is_forced(), pass.silence(), now)
            {
                ValidationDecision::NotRequired => Validation::not_required(),
                ValidationDecision::Keep(known, again) => Validation::kept(known, again),
                ValidationDecision::Wait(failed_validation, again) => {
                    Validation::pending(failed_validation.error, policy, again)
                }
                ValidationDecision::Paused(again) => {
                    Validation::pending("the webhook requested a pause until status.pausedUntilTime", policy, again)
                }
                ValidationDecision::Ask(known) => match (self.request(pass, settings, route).await?, known) {
                    (Ok(response), _) => {
                        pass.note_answer();
                        Validation::answer(response, policy, origin, full_seconds(Timestamp::now()))
                    }
                    (Err(error), Some(known)) => Validation::kept(known, pass.note_no_answer(error)),
                    (Err(error), None) => {
                        let wait = pass.note_no_answer(error.clone());
                        Validation::pending(error, policy, wait)
                    }
                },
            },
        )
    }

    /// Returns the webhook's validation response, or None if the operator may no longer send requests.
    async fn request(
        &self,
        pass: &Pass<'_>,
        settings: &AbuseProtection,
        route: &Route,
    ) -> Option<Result<ValidationResponse, NoValidationResponse>> {
        if !self.mandate.leads(pass.key()) {
            return None;
        }
        pass.enter(Step::Handshake);
        self.mandate.unless_stopping(request_validation(&route.target, settings.request_rate_per_minute)).await
    }
}

/// How long until the next check of a Subscriber that has this reason.
fn check_again(reason: Reason) -> Duration {
    match reason {
        Reason::ServiceAccountNotFound | Reason::ServiceAccountNotPermitted | Reason::TokenRequestDenied => {
            CHECK_ACCOUNT_AGAIN
        }
        _ => CHECK_AGAIN,
    }
}
