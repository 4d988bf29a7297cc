//! The DNS domain of the cluster: decides which names are inside the cluster. Pure.

use std::{fmt, str::FromStr};

use super::host::{dns_name, is_below, without_root};

/// The DNS domain of the cluster: `cluster.local` unless the kubelets are configured with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDomain(String);

/// The text is not a cluster domain.
#[derive(Debug, thiserror::Error)]
#[error("not a DNS name: use the domain of the cluster, for example cluster.local")]
pub struct ClusterDomainError;

impl Default for ClusterDomain {
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl FromStr for ClusterDomain {
    type Err = ClusterDomainError;

    fn from_str(text: &str) -> Result<Self, ClusterDomainError> {
        dns_name(text).map(Self).ok_or(ClusterDomainError)
    }
}

impl fmt::Display for ClusterDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClusterDomain {
    /// Returns the absolute name of a host in a URL: in lower case, with the root dot, and with the cluster domain for
    /// the name of a Service (`name.namespace.svc`).
    pub(super) fn qualified(&self, host: &str) -> String {
        let host = without_root(host).to_ascii_lowercase();
        if is_below(&host, "svc") { format!("{host}.{}.", self.0) } else { format!("{host}.") }
    }

    /// Whether `host` is a name inside the cluster: below its domain, or the short name of a Service or a Pod.
    pub(super) fn holds(&self, host: &str) -> bool {
        let host = without_root(host).to_ascii_lowercase();
        host == self.0 || [self.0.as_str(), "svc", "pod"].iter().any(|domain| is_below(&host, domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_becomes_an_absolute_name_and_a_service_is_below_the_clusters_domain() {
        let cases = [
            ("hooks.example.com", "hooks.example.com."),
            ("Hooks.Example.COM.", "hooks.example.com."),
            ("acme.dev", "acme.dev."),
            ("intranet", "intranet."),
            ("hooks.shop.svc", "hooks.shop.svc.corp.internal."),
            ("hooks.shop.svc.", "hooks.shop.svc.corp.internal."),
            ("hooks.shop.svc.corp.internal", "hooks.shop.svc.corp.internal."),
            ("0.hooks.shop.SVC", "0.hooks.shop.svc.corp.internal."),
            ("svc", "svc."),
            ("example.mysvc", "example.mysvc."),
        ];
        let domain: ClusterDomain = "corp.internal.".parse().unwrap();
        for (host, qualified) in cases {
            assert_eq!(domain.qualified(host), qualified, "{host}");
        }
    }

    #[test]
    fn names_of_services_and_pods_are_inside_the_cluster_and_others_are_not() {
        let domain = ClusterDomain::default();
        for inside in [
            "a.b.svc",
            "a.b.SVC.",
            "a.b.svc.cluster.local",
            "a.b.svc.Cluster.Local.",
            "10-0-0-1.b.pod",
            "10-0-0-1.b.pod.cluster.local",
            "cluster.local",
            "anything.cluster.local",
        ] {
            assert!(domain.holds(inside), "{inside}");
        }
        for outside in ["a.example.com", "svc", "a.mysvc", "mycluster.local", "svc.example.com", "a.b.svc.example.com"]
        {
            assert!(!domain.holds(outside), "{outside}");
        }
    }

    #[test]
    fn what_is_no_dns_name_is_refused() {
        for text in ["", ".", "a b", "*.example.com", "10.0.0.1", "a..b", "https://a"] {
            assert!(text.parse::<ClusterDomain>().is_err(), "{text:?}");
        }
        assert_eq!("Corp.Internal".parse::<ClusterDomain>().unwrap().to_string(), "corp.internal");
    }
}
