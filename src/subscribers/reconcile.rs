//! Reconciles a Subscriber: checks what its events depend on, opens or closes its lane, and writes the result into its
//! status.

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
use crate::{cluster::call::plain, contract::Route, ownership::Mandate};

/// How a pass over a Subscriber ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The pass completed. The next pass is due after this time (None: no next pass is planned).
    Done(Option<Duration>),
    /// The pass stopped early: the operator does not lead, or is stopping.
    Interrupted,
}

/// Why a pass failed. The pass is repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    /// A request to the API server failed.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The status could not be written.
    #[error("cannot write the status: {}", plain(.0))]
    Write(#[source] kube::Error),
}

/// Makes passes over Subscribers.
pub(super) struct Reconciler {
    roster: Arc<Roster>,
    statuses: Arc<StatusStore>,
    checker: Checker,
    mandate: Mandate,
    origin: String,
}

impl Reconciler {
    /// `origin` is the operator's name in WebHook-Request-Origin.
    pub(super) fn new(
        roster: Arc<Roster>,
        statuses: Arc<StatusStore>,
        checker: Checker,
        mandate: Mandate,
        origin: String,
    ) -> Self {
        Self { roster, statuses, checker, mandate, origin }
    }

    /// Makes one pass over a Subscriber:
    ///
    /// 1. Starts: puts the spec in force (no client).
    /// 2. Checks the prerequisites (clients: the API server, the token service, the webhook).
    /// 3. Sends a test event, if an annotation requests one (client: the webhook).
    /// 4. Derives the conditions of the status (no client).
    /// 5. Sends the route, or the gate that closes the lane, to the engine (no client).
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
                // The pass may have found a pause. If it cannot be written now, the next pass writes it.
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

    /// Returns the prerequisites and the result of the test, if one is requested. Returns None if the operator may no
    /// longer send requests.
    async fn check_and_test(&self, pass: &Pass<'_>) -> Result<Option<(Prerequisites, Option<Finding>)>, Unresolved> {
        let Some(prerequisites) = self.check(pass).await? else { return Ok(None) };
        let Some(value) = pass.test() else { return Ok(Some((prerequisites, None))) };
        let tested = test(&self.mandate, pass, &prerequisites, value).await;
        Ok(tested.map(|tested| (prerequisites, Some(tested))))
    }

    /// Checks the prerequisites. Sends no request for a Subscriber whose webhook is gone, that is suspended, or whose
    /// spec cannot be read.
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

/// The result of a pass.
struct PassResult {
    findings: Findings,
    validation: Option<Validation>,
    route_or_gate: Result<Arc<Route>, Gate>,
    again: Option<Duration>,
}

impl PassResult {
    /// A suspension takes precedence over a 410, and both take precedence over the findings of the steps.
    fn of(pass: &Pass<'_>, prerequisites: Prerequisites, tested: Option<Finding>) -> Self {
        let Prerequisites { token, validation, route_or_gate, again } = prerequisites;
        let (ready, route_or_gate) = match route_or_gate {
            _ if pass.is_suspended() => (suspended(), Err(Gate::Suspended)),
            _ if pass.is_gone() => (Finding::gone(), Err(Gate::EndpointGone)),
            Ok(route) => (Finding::yes(Reason::Operational, "Notifications are sent"), Ok(route)),
            Err(blocked) => (blocked.ready, Err(Gate::SubscriberNotReady)),
        };
        let validated = validation.as_ref().and_then(|validation| validation.validated.clone());
        Self { findings: Findings { ready, token, validated, tested }, validation, route_or_gate, again }
    }

    fn put_into(&self, status: &mut SubscriberStatus, pass: &Pass<'_>, origin: &str) {
        self.findings.put_into(status, pass.generation(), Timestamp::now());
        describe(status, &pass.subscriber().webhook_host(), origin, self.validation.as_ref());
    }
}

fn suspended() -> Finding {
    Finding::yes(
        Reason::Suspended,
        "spec.suspend is true; Notifications are held: set spec.suspend to false to resume delivery",
    )
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

    /// The result of a pass with these prerequisites: the reason of Ready, and the gate.
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
    fn a_suspension_takes_precedence_over_a_410_and_a_410_over_the_findings_of_the_steps() {
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
