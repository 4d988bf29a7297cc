//! What an administrator decides.

use std::net::SocketAddr;

use http::HeaderValue;
use tidings_delivery::egress::{Cidr, ClusterDomain, Dns, Egress, HostPattern, Nat64Prefix, Policy};
use tidings_queue::Bounds;

/// What an administrator decides: the flags of `tidings run`.
#[derive(Debug)]
pub struct Settings {
    /// The namespaces to watch; none means all.
    pub watch_namespaces: Vec<String>,
    /// Ranges of addresses that may be dialled besides the public ones.
    pub egress_allow_cidrs: Vec<Cidr>,
    /// Hosts that may be dialled wherever their names lead.
    pub egress_allow_hosts: Vec<HostPattern>,
    /// Ranges of addresses that are never dialled.
    pub egress_deny_cidrs: Vec<Cidr>,
    /// The ports that may be dialled; none means all.
    pub egress_allow_ports: Vec<u16>,
    /// Below these prefixes, NAT64 translators of this network put IPv4 addresses.
    pub egress_nat64_prefixes: Vec<Nat64Prefix>,
    /// The DNS domain of the cluster.
    pub cluster_domain: ClusterDomain,
    /// The name servers to ask; none means those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// The value of `WebHook-Request-Origin`.
    pub origin: HeaderValue,
    /// Whether a Secret's values are sent only to hosts that its annotation allows.
    pub require_secret_consent: bool,
    /// The namespace and name of the Lease that the operator has to hold; none: it is alone.
    pub lease: Option<(String, String)>,
    /// Seconds that finished Notifications made with generateName are kept for; 0: for good.
    pub generated_ttl: u32,
    /// Where the metrics are served.
    pub admin_addr: SocketAddr,
    /// Where health and readiness are served.
    pub health_addr: SocketAddr,
    /// Attempts under way at once, over all Subscribers.
    pub max_in_flight: usize,
    /// Bytes of events in memory: half for those that are sent, half for untried ones.
    pub event_bytes: usize,
}

impl Settings {
    /// The bounds of the queue: half of the memory is for events that are sent, half for untried ones that are kept.
    pub(super) fn bounds(&self) -> Bounds {
        let bytes = self.event_bytes / 2;
        Bounds { in_flight: self.max_in_flight, bytes_in_flight: bytes, bytes_kept: bytes }
    }

    /// What to watch: each of the namespaces once, or all (None).
    pub(super) fn namespaces(&self) -> Vec<Option<String>> {
        let mut namespaces = self.watch_namespaces.clone();
        namespaces.sort();
        namespaces.dedup();
        if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() }
    }

    /// The way out to webhooks and token services.
    pub(super) fn egress(&self) -> Egress {
        let policy = Policy::allowing(self.egress_allow_cidrs.clone())
            .allowing_hosts(self.egress_allow_hosts.clone())
            .denying(self.egress_deny_cidrs.clone())
            .allowing_ports(self.egress_allow_ports.clone())
            .translating(self.egress_nat64_prefixes.clone())
            .in_cluster(self.cluster_domain.clone());
        Egress::with_dns(policy, Dns::new(self.dns_servers.clone(), self.cluster_domain.clone()))
    }
}
