//! Breaks one thing at a time.

use serde_json::{Value, json};
use testkit::endpoints::Reply;
use testkit::{Behaviour, Result, chart};

use crate::prometheus::Firing;
use crate::rules::STORED_LIMIT;
use crate::world::{CORE, HELD, MISSING, SECRET, World, days_from_now};

/// Any Subscriber that is not suspended.
const ANY: &str = "*";

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    WrongSecret,
    ServerErrors,
    Rejections,
    LostName,
    Pause,
    Certificate,
    Credentials,
    Stored,
    NoSubscriber,
    StatusWrites,
    Namespace,
    Receiver,
    Lease,
}

impl Fault {
    pub(crate) const ALL: [Self; 13] = [
        Self::WrongSecret,
        Self::ServerErrors,
        Self::Rejections,
        Self::LostName,
        Self::Pause,
        Self::Certificate,
        Self::Credentials,
        Self::Stored,
        Self::NoSubscriber,
        Self::StatusWrites,
        Self::Namespace,
        Self::Receiver,
        Self::Lease,
    ];

    /// Those of a single Subscriber or of stored objects, which can be broken at the same time.
    pub(crate) fn is_local(self) -> bool {
        !matches!(self, Self::StatusWrites | Self::Namespace | Self::Receiver | Self::Lease)
    }

    /// What is broken, for the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::WrongSecret => {
                "the token service has replaced the client secret of billing/partner, and the Secret still has the old one"
            }
            Self::ServerErrors => "the webhook of shop/acme answers 503",
            Self::Rejections => "the webhook of shop/gateway answers 400 to every event",
            Self::LostName => "the host name of the webhook of shop/named does not resolve",
            Self::Pause => "the webhook of shop/calm answers 429 with Retry-After: 3600",
            Self::Certificate => "the client certificate of billing/bank expires in 3 days",
            Self::Credentials => "the annotation tidings.dev/expires of the Secret of billing/ledger is in 5 days",
            Self::Stored => "thousands of finished Notifications have no TTL",
            Self::NoSubscriber => "a Notification names shop/missing, a Subscriber that does not exist",
            Self::StatusWrites => "an admission policy refuses the status of Notifications",
            Self::Namespace => {
                "the RoleBinding of the operator in the namespace billing is missing, and the operators restart"
            }
            Self::Receiver => "the webhooks of all Subscribers refuse connections",
            Self::Lease => "the Role that lets the operators renew the Lease is missing",
        }
    }

    /// The alerts that must fire: the name, and the Subscriber where the alert names one.
    pub(crate) fn alerts(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::WrongSecret => &[("TidingsTokenRejected", "partner"), ("TidingsSubscriberStalled", "partner")],
            Self::ServerErrors => &[("TidingsCircuitOpen", "acme")],
            Self::Rejections => &[("TidingsRejectsAll", "gateway")],
            Self::LostName => &[("TidingsCircuitOpen", "named")],
            Self::Pause => &[("TidingsOldestPendingTooOld", "calm")],
            Self::Certificate => &[("TidingsCertificateExpiresSoon", "bank")],
            Self::Credentials => &[("TidingsCredentialsExpireSoon", "ledger")],
            Self::Stored => &[("TidingsStoredNotificationsGrow", "")],
            Self::NoSubscriber => &[("TidingsSubscriberNotFound", "")],
            Self::StatusWrites => &[("TidingsStatusWritesFailing", "")],
            Self::Namespace => &[("TidingsNamespaceRefused", "")],
            Self::Receiver => &[("TidingsNothingDelivered", "")],
            Self::Lease => &[("TidingsLeaderMissing", "")],
        }
    }

    /// The alerts that may fire as well, as [`Self::alerts`].
    fn consequences(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // An alert of the token service, without a Subscriber. Events wait.
            Self::WrongSecret => &[("TidingsTokenRejected", ""), ("TidingsOldestPendingTooOld", "partner")],
            Self::ServerErrors => &[("TidingsOldestPendingTooOld", "acme")],
            Self::Rejections => &[("TidingsOldestPendingTooOld", "gateway")],
            Self::LostName => &[("TidingsOldestPendingTooOld", "named")],
            // The operators restart.
            Self::Namespace => &[("TidingsLeaderMissing", "")],
            Self::Receiver => &[("TidingsCircuitOpen", ANY)],
            Self::Lease => &[("TidingsNothingDelivered", "")],
            _ => &[],
        }
    }

    /// Whether the fault explains that this alert fires.
    pub(crate) fn explains(self, alert: &Firing) -> bool {
        let subscriber = alert.labels["subscriber"].as_str().unwrap_or_default();
        self.alerts().iter().chain(self.consequences()).any(|(name, of)| {
            alert.name == *name && (subscriber == *of || *of == ANY && !["", HELD.1].contains(&subscriber))
        })
    }

    pub(crate) async fn inject(self, world: &mut World) -> Result<()> {
        let kubectl = world.stage.kubectl().clone();
        match self {
            Self::WrongSecret => world.client_secret("partner", "replaced"),
            Self::ServerErrors => world.receiver.answer_always("/shop/acme", Behaviour::status(503)),
            Self::Rejections => world.receiver.answer_always("/shop/gateway", Behaviour::status(400)),
            Self::LostName => {
                world.resolves(false);
                // A connection that is open needs no name.
                world.receiver.answer_next("/shop/named", 2, &Behaviour::reset());
            }
            Self::Pause => {
                let reply = Reply::status(429).header("retry-after", "3600");
                world.receiver.answer_always("/shop/calm", Behaviour::reply(reply));
            }
            Self::Certificate => world.certificate(3).await?,
            Self::Credentials => world.credentials("ledger", Some(days_from_now(5))).await?,
            Self::Stored => world.store(STORED_LIMIT * 9 / 10).await?,
            Self::NoSubscriber => world.orphan().await?,
            Self::StatusWrites => {
                kubectl.apply(&policy().to_string(), &[]).await?;
            }
            Self::Namespace => {
                kubectl.run(&["delete", "rolebinding", "tidings", "-n", "billing"]).await?.ok()?;
                world.restart().await?;
            }
            Self::Receiver => world.receiver.stop(),
            Self::Lease => {
                kubectl.run(&["delete", "role", "tidings-lease", "-n", CORE]).await?.ok()?;
            }
        }
        Ok(())
    }

    pub(crate) async fn mend(self, world: &mut World) -> Result<()> {
        let kubectl = world.stage.kubectl().clone();
        match self {
            Self::WrongSecret => world.client_secret("partner", SECRET),
            Self::ServerErrors => world.receiver.behave("/shop/acme"),
            Self::Rejections => world.receiver.behave("/shop/gateway"),
            Self::LostName => world.resolves(true),
            Self::Pause => {
                world.receiver.behave("/shop/calm");
                // An event that was tried waits as long as the webhook requested, even after the pause of its Subscriber.
                world.delete("calm").await?;
            }
            Self::Certificate => world.certificate(300).await?,
            Self::Credentials => world.credentials("ledger", Some(days_from_now(200))).await?,
            Self::Stored => {
                world.delete("parcels").await?;
                // An operator counts what other programs deleted when it starts.
                world.restart().await?;
            }
            Self::NoSubscriber => world.delete(MISSING).await?,
            Self::StatusWrites => {
                let kinds = "validatingadmissionpolicy,validatingadmissionpolicybinding";
                kubectl.run(&["delete", kinds, "no-status"]).await?.ok()?;
            }
            Self::Namespace | Self::Lease => {
                let watched: Vec<_> = world.stage.namespaces().iter().map(String::as_str).collect();
                chart::install(world.stage.plane(), CORE, &watched).await?;
                // An operator that found no Lease may have exited: the kubelet would start it again.
                for operator in &mut world.operators {
                    if operator.process().exit_code().is_some() {
                        operator.restart().await?;
                    }
                }
            }
            Self::Receiver => world.receiver.resume().await?,
        }
        Ok(())
    }
}

/// A policy as a cluster's administrator may install by mistake.
fn policy() -> Value {
    let meta = json!({"name": "no-status"});
    let rules = json!([{
        "apiGroups": ["tidings.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["notifications/status"],
    }]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": meta,
            "spec": {
                "matchConstraints": {"resourceRules": rules},
                "validations": [{"expression": "false", "message": "status is frozen"}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": meta, "spec": {"policyName": "no-status", "validationActions": ["Deny"]},
        },
    ]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firing(name: &str, labels: Value) -> Firing {
        Firing { name: name.to_owned(), labels, annotations: Value::Null }
    }

    #[test]
    fn a_fault_explains_its_alerts_for_its_subscriber_only() {
        let circuit = |subscriber: &str| firing("TidingsCircuitOpen", json!({"subscriber": subscriber}));
        assert!(Fault::ServerErrors.explains(&circuit("acme")));
        assert!(!Fault::ServerErrors.explains(&circuit("named")), "of another Subscriber");
        assert!(!Fault::ServerErrors.explains(&firing("TidingsCircuitOpen", json!({}))), "without a Subscriber");
        assert!(!Fault::ServerErrors.explains(&firing("TidingsRejectsAll", json!({"subscriber": "acme"}))));
        assert!(Fault::Receiver.explains(&circuit("acme")) && Fault::Receiver.explains(&circuit("named")));
        assert!(!Fault::Receiver.explains(&circuit(HELD.1)), "nothing is sent to it");
        assert!(Fault::WrongSecret.explains(&firing("TidingsTokenRejected", json!({}))));
        assert!(!Fault::WrongSecret.explains(&firing("TidingsTokenRejected", json!({"subscriber": "acme"}))));
        assert!(!Fault::Stored.explains(&firing("TidingsLeaderMissing", json!({}))));
    }

    #[test]
    fn each_fault_explains_each_alert_that_it_must_cause() {
        for fault in Fault::ALL {
            assert!(!fault.alerts().is_empty(), "{fault:?}");
            for (name, subscriber) in fault.alerts() {
                let labels = if subscriber.is_empty() { json!({}) } else { json!({"subscriber": subscriber}) };
                assert!(fault.explains(&firing(name, labels)), "{fault:?}: {name}");
            }
        }
    }
}
