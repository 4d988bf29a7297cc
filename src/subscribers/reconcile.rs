//! Reconciles a Subscriber: checks what its events depend on, opens or closes it, and says so in its status.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tidings_api::{SubscriberReason as Reason, SubscriberStatus};
use tidings_queue::Gate;

use super::{
    check::Checker,
    pass::Pass,
    prerequisites::Prerequisites,
    resolve::references,
    roster::Roster,
    status::{Finding, Findings},
    status_store::{StatusStore, StatusWrite},
    step::Step,
    stored_subscriber::StoredSubscriber,
    test_event::test,
    unresolved::Unresolved,
    validation::{Validation, describe},
};
use crate::{contract::Route, ownership::Mandate};

/// How a pass over a Subscriber ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With what it found; the next pass is due after this.
    Done(Option<Duration>),
    /// Before its end: the operator does not lead, or is to end.
    Interrupted,
}

/// Why a pass failed; it is repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    /// The API server did not do its part.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The status could not be written.
    #[error("writing the status: {0}")]
    Write(#[source] kube::Error),
}

/// Reconciles Subscribers.
pub(super) struct Reconciler {
    roster: Arc<Roster>,
    statuses: Arc<StatusStore>,
    checker: Checker,
    mandate: Mandate,
    origin: String,
}

impl Reconciler {
    /// `origin` is what the operator calls itself to webhooks.
    pub(super) fn new(
        roster: Arc<Roster>,
        statuses: Arc<StatusStore>,
        checker: Checker,
        mandate: Mandate,
        origin: String,
    ) -> Self {
        Self { roster, statuses, checker, mandate, origin }
    }

    /// 1. Begins: puts the spec in force (no client).
    /// 2. Checks the prerequisites (clients: the API server, the token service, the webhook).
    /// 3. Sends a test event, if an annotation requests one (client: the webhook).
    /// 4. Concludes what all of that means for the status (no client).
    /// 5. Publishes the way, or the gate that closes it, to the engine (no client).
    /// 6. Writes the status (client: the API server).
    pub(super) async fn reconcile(&self, subscriber: &StoredSubscriber) -> Result<Ended, ReconcileError> {
        if !self.mandate.leads(&subscriber.key()) {
            return Ok(Ended::Interrupted);
        }
        let Some(pass) = Pass::begin(subscriber, &self.roster) else { return Ok(Ended::Done(None)) };
        pass.put_in_force(subscriber.spec.as_deref().map(references).unwrap_or_default());
        let (prerequisites, tested) = match self.check_and_test(&pass).await {
            Ok(Some(found)) => found,
            unfinished => {
                // What it has found so far may be a pause. If that cannot be written now, the next pass writes it.
                drop(self.write(&pass).await);
                return Ok(unfinished.map(|_| Ended::Interrupted)?);
            }
        };
        let result = PassResult::of(&pass, prerequisites, tested);
        pass.conclude(|status| result.put_into(status, &pass, &self.origin));
        pass.publish(result.route_or_gate);
        Ok(match self.write(&pass).await.map_err(ReconcileError::Write)? {
            StatusWrite::Yes => Ended::Done(result.again),
            StatusWrite::NotLeading => Ended::Interrupted,
        })
    }

    /// What the prerequisites are, and how the test went, if one is requested. None: the operator may not send requests any
    /// more.
    async fn check_and_test(&self, pass: &Pass<'_>) -> Result<Option<(Prerequisites, Option<Finding>)>, Unresolved> {
        let Some(prerequisites) = self.check(pass).await? else { return Ok(None) };
        let Some(value) = pass.test() else { return Ok(Some((prerequisites, None))) };
        let tested = test(&self.mandate, pass, &prerequisites, value).await;
        Ok(tested.map(|tested| (prerequisites, Some(tested))))
    }

    /// Sends no request to an endpoint of a Subscriber that is gone, suspended or cannot be read.
    async fn check(&self, pass: &Pass<'_>) -> Result<Option<Prerequisites>, Unresolved> {
        if pass.is_gone() {
            return Ok(Some(Prerequisites::blocked(Step::Delivery, Finding::gone())));
        }
        if pass.is_suspended() && pass.test().is_none() {
            return Ok(Some(Prerequisites::blocked(Step::Delivery, suspended())));
        }
        match &pass.subscriber().spec {
            Ok(spec) => self.checker.check(pass, spec).await,
            Err(fault) => {
                Ok(Some(Prerequisites::blocked(Step::Secret, Finding::no(Reason::InvalidSpec, &fault.message))))
            }
        }
    }

    async fn write(&self, pass: &Pass<'_>) -> Result<StatusWrite, kube::Error> {
        self.statuses.write(pass.key(), &pass.version().uid).await
    }
}

/// What a pass comes to.
struct PassResult {
    findings: Findings,
    consent: Option<Validation>,
    route_or_gate: Result<Arc<Route>, Gate>,
    again: Option<Duration>,
}

impl PassResult {
    /// A suspension counts more than a 410, and both more than what the steps found.
    fn of(pass: &Pass<'_>, prerequisites: Prerequisites, tested: Option<Finding>) -> Self {
        let Prerequisites { token, consent, route_or_gate, again } = prerequisites;
        let (ready, route_or_gate) = match route_or_gate {
            _ if pass.is_suspended() => (suspended(), Err(Gate::Suspended)),
            _ if pass.is_gone() => (Finding::gone(), Err(Gate::EndpointGone)),
            Ok(route) => (Finding::yes(Reason::Operational, "Notifications are sent"), Ok(route)),
            Err(blocked) => (blocked.ready, Err(Gate::SubscriberNotReady)),
        };
        let validated = consent.as_ref().and_then(|consent| consent.validated.clone());
        Self { findings: Findings { ready, token, validated, tested }, consent, route_or_gate, again }
    }

    fn put_into(&self, status: &mut SubscriberStatus, pass: &Pass<'_>, origin: &str) {
        self.findings.put_into(status, pass.generation(), Timestamp::now());
        describe(status, &pass.subscriber().webhook_host(), origin, self.consent.as_ref());
    }
}

fn suspended() -> Finding {
    Finding::yes(Reason::Suspended, "spec.suspend is true: Notifications are held")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::{super::member::ObservedSubscriber, *};
    use crate::contract::testing::route;

    fn subscriber(suspend: bool) -> StoredSubscriber {
        let webhook = json!({"url": "https://hooks.example.com/"});
        let service = json!({"url": "https://login.example.com/", "credentialsSecretRef": {"name": "oauth"}});
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "a", "uid": "u", "resourceVersion": "1", "generation": 1},
            "spec": {"webhook": webhook, "tokenService": service, "suspend": suspend},
        }))
        .unwrap()
    }

    /// What a pass comes to that found this way: the reason of Ready, and the gate.
    fn result(suspend: bool, is_gone: bool, found: Prerequisites) -> (Reason, Option<Gate>) {
        let subscriber = subscriber(suspend);
        let (updates, _engine) = mpsc::unbounded_channel();
        let roster = Roster::new(updates);
        let (spec, expire_after) = (subscriber.id(), subscriber.expire_after());
        roster.upsert(
            subscriber.key(),
            ObservedSubscriber { spec, expire_after, status: SubscriberStatus::default(), version: 1 },
        );
        let pass = Pass::begin(&subscriber, &roster).unwrap();
        if is_gone {
            pass.note_gone();
        }
        let result = PassResult::of(&pass, found, None);
        (result.findings.ready.reason, result.route_or_gate.err())
    }

    #[test]
    fn a_suspension_counts_more_than_a_410_and_a_410_more_than_what_the_steps_found() {
        let blocked = || Prerequisites::blocked(Step::Token, Finding::no(Reason::TokenRejected, ""));
        let open = || Prerequisites { route_or_gate: Ok(route(subscriber(false).id())), ..blocked() };
        assert_eq!(result(true, true, open()), (Reason::Suspended, Some(Gate::Suspended)));
        assert_eq!(result(true, false, blocked()), (Reason::Suspended, Some(Gate::Suspended)));
        assert_eq!(result(false, true, open()), (Reason::EndpointGone, Some(Gate::EndpointGone)));
        assert_eq!(result(false, true, blocked()), (Reason::EndpointGone, Some(Gate::EndpointGone)));
        assert_eq!(result(false, false, open()), (Reason::Operational, None));
        assert_eq!(result(false, false, blocked()), (Reason::TokenRejected, Some(Gate::SubscriberNotReady)));
    }
}
