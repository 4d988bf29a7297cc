//! Checks the prerequisites of a delivery in order: each step needs the result of the previous step.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tidings_api::{
    AbuseProtection, ClientAuthentication, ConditionType, SubscriberReason as Reason, SubscriberSpec, SubscriberStatus,
};
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
use crate::{
    contract::Route,
    metrics::{ExpiryTimes, Metrics},
    ownership::Mandate,
};

/// How long until the next check of what no watch reports, such as a DNS change that satisfies the egress policy.
const CHECK_AGAIN: Duration = Duration::from_secs(300);

/// The same for a ServiceAccount, which the operator may not watch: the longest wait, so that consent that is withdrawn
/// has effect within this time. A random part of up to a third is taken off.
const CHECK_ACCOUNT: Duration = Duration::from_secs(300);
/// The wait for what a ServiceAccount lacks begins with this, and becomes as long as it has lacked it.
const FIRST_CHECK_ACCOUNT: Duration = Duration::from_secs(60);

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
        let route = match resolved {
            Ok((route, expiries)) => {
                self.metrics.subscriber_expires(pass.key(), expiries);
                route
            }
            Err(Unresolved::Subscriber { reason, message, of_credentials }) => {
                self.metrics.subscriber_expires(pass.key(), ExpiryTimes::default());
                let again = check_again(reason, lasts(pass.status(), reason, Timestamp::now()), rand::random());
                let why = Finding::no(reason, message);
                let token = of_credentials.then(|| why.clone());
                let blocked = Prerequisites::blocked(Step::Secret, why);
                return Ok(Some(Prerequisites { token, again: Some(again), ..blocked }));
            }
            // What is known still applies.
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
        let account = account_check(spec.token_service.client_authentication, rand::random());
        Ok(validation.map(|validation| {
            Prerequisites::with_token(route, validation, acceptance, sent).checked_again_within(account)
        }))
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

/// How long until the next check of a Subscriber that has had this reason for the time `lasts`. `chance` is a random
/// number in 0..1.
fn check_again(reason: Reason, lasts: Duration, chance: f64) -> Duration {
    match reason {
        Reason::ServiceAccountNotFound | Reason::ServiceAccountNotPermitted | Reason::TokenRequestDenied => {
            spread(lasts.clamp(FIRST_CHECK_ACCOUNT, CHECK_ACCOUNT), chance)
        }
        _ => CHECK_AGAIN,
    }
}

/// How long until the next check of a Subscriber that has a token (None: watches report all that can be withdrawn).
fn account_check(method: ClientAuthentication, chance: f64) -> Option<Duration> {
    (method == ClientAuthentication::ServiceAccountToken).then(|| spread(CHECK_ACCOUNT, chance))
}

/// Takes a random part of up to a third off, so that Subscribers that started together are not checked together.
fn spread(wait: Duration, chance: f64) -> Duration {
    wait.mul_f64(1.0 - chance / 3.0)
}

/// For how long the condition Ready has had this reason (zero: it has another reason).
fn lasts(status: &SubscriberStatus, reason: Reason, now: Timestamp) -> Duration {
    let ready = status.condition(ConditionType::Ready).filter(|ready| ready.reason == reason.as_str());
    ready
        .and_then(|ready| Duration::try_from(now.duration_since(ready.last_transition_time.0)).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::ToSpan;

    use super::{super::status::Findings, *};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_service_account_is_checked_again_within_five_minutes_although_all_is_well() {
        for method in [
            ClientAuthentication::Basic,
            ClientAuthentication::BasicUnencoded,
            ClientAuthentication::Post,
            ClientAuthentication::Tls,
            ClientAuthentication::PrivateKeyJwt,
        ] {
            assert_eq!(account_check(method, 0.5), None, "{method:?}");
        }
        let of_account = |chance| account_check(ClientAuthentication::ServiceAccountToken, chance).unwrap();
        assert_eq!((of_account(0.0), of_account(0.5), of_account(1.0)), (300 * SECOND, 250 * SECOND, 200 * SECOND));
    }

    #[test]
    fn what_a_service_account_lacks_is_checked_after_a_minute_and_then_less_often() {
        for reason in [Reason::ServiceAccountNotFound, Reason::ServiceAccountNotPermitted, Reason::TokenRequestDenied] {
            for (lasts, wait) in [(0, 60), (59, 60), (100, 100), (300, 300), (1_000_000, 300)] {
                assert_eq!(check_again(reason, lasts * SECOND, 0.0), wait * SECOND, "{reason} {lasts}");
            }
            assert_eq!(check_again(reason, Duration::ZERO, 1.0), 40 * SECOND);
        }
        assert_eq!(check_again(Reason::EgressDenied, Duration::ZERO, 0.5), CHECK_AGAIN);
    }

    #[test]
    fn a_reason_lasts_since_the_condition_has_it() {
        let (reason, now) = (Reason::ServiceAccountNotFound, Timestamp::UNIX_EPOCH + 1000.seconds());
        let mut status = SubscriberStatus::default();
        assert_eq!(lasts(&status, reason, now), Duration::ZERO);
        let findings = Findings { ready: Finding::no(reason, "m"), token: None, validated: None, tested: None };
        findings.put_into(&mut status, Some(1), now - 90.seconds());
        assert_eq!(lasts(&status, reason, now), 90 * SECOND);
        assert_eq!(lasts(&status, Reason::TokenRequestDenied, now), Duration::ZERO, "another reason is new");
        assert_eq!(lasts(&status, reason, now - 100.seconds()), Duration::ZERO, "the clock was set back");
    }
}
