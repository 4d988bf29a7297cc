//! The settings of the operator.

use std::{collections::BTreeSet, net::SocketAddr};

use http::HeaderValue;
use tidings_delivery::egress::{
    Cidr, ClusterDomain, Dns, Egress, HostPattern, InvalidProxy, Nat64Prefix, Policy, Proxy, ProxySettings,
};
use tidings_queue::Bounds;
use tracing::{info, warn};

/// The settings of the operator: the flags of `tidings run`.
#[derive(Debug)]
pub struct Settings {
    /// The namespaces to watch; none means all.
    pub watch_namespaces: Vec<String>,
    /// Ranges of addresses that the operator may connect to, in addition to public addresses.
    pub egress_allow_cidrs: Vec<Cidr>,
    /// Hosts that the operator may connect to whatever addresses their names have.
    pub egress_allow_hosts: Vec<HostPattern>,
    /// Ranges of addresses that the operator never connects to.
    pub egress_deny_cidrs: Vec<Cidr>,
    /// The ports that the operator may connect to; none means all.
    pub egress_allow_ports: Vec<u16>,
    /// The prefixes under which NAT64 translators of this network embed IPv4 addresses.
    pub egress_nat64_prefixes: Vec<Nat64Prefix>,
    /// The proxy of all requests to webhooks and token services.
    pub egress_proxy: ProxySettings,
    /// The DNS domain of the cluster.
    pub cluster_domain: ClusterDomain,
    /// The name servers to query; none means the name servers of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// The value of `WebHook-Request-Origin`.
    pub origin: HeaderValue,
    /// Whether a Secret's values are sent only to hosts that its annotation allows.
    pub require_secret_consent: bool,
    /// The namespace and name of the leader-election Lease; none: no leader election.
    pub lease: Option<(String, String)>,
    /// How long finished Notifications that were created with generateName are kept, in seconds; 0: forever.
    pub generated_ttl: u32,
    /// The address that serves metrics.
    pub admin_addr: SocketAddr,
    /// The number of Subscribers with metrics of their own; none: no Subscriber has its own.
    pub subscriber_metrics: Option<usize>,
    /// The address that serves health and readiness.
    pub health_addr: SocketAddr,
    /// The maximum number of concurrent attempts, over all Subscribers.
    pub max_in_flight: usize,
    /// Bytes of events in memory: half for events in flight, half for untried events.
    pub event_bytes: usize,
}

impl Settings {
    /// Returns the bounds of the queue: half of the memory is for events in flight, half for untried events.
    pub(super) fn bounds(&self) -> Bounds {
        let bytes = self.event_bytes / 2;
        Bounds { in_flight: self.max_in_flight, bytes_in_flight: bytes, bytes_kept: bytes }
    }

    /// Makes the egress to webhooks and token services.
    pub(super) fn egress(&self) -> Result<Egress, InvalidProxy> {
        let policy = Policy::allowing(self.egress_allow_cidrs.clone())
            .allowing_hosts(self.egress_allow_hosts.clone())
            .denying(self.egress_deny_cidrs.clone())
            .allowing_ports(self.egress_allow_ports.clone())
            .translating(self.egress_nat64_prefixes.clone())
            .in_cluster(self.cluster_domain.clone());
        let egress = Egress::with_dns(policy, Dns::new(self.dns_servers.clone(), self.cluster_domain.clone()));
        let Some(proxy) = Proxy::configured(self.egress_proxy.clone())? else {
            return Ok(egress);
        };
        if self.egress_proxy.resolves {
            warn!(
                "--egress-proxy-resolves is set: the egress policy judges names and literal addresses, but no address to which the proxy resolves a name"
            );
        }
        info!("requests to webhooks and token services go through the egress proxy");
        Ok(egress.through(proxy))
    }
}

/// Returns what to watch: each of these namespaces once, or all (None) if there is none.
pub(super) fn watched(namespaces: &[String]) -> Vec<Option<String>> {
    let named: BTreeSet<_> = namespaces.iter().cloned().collect();
    if named.is_empty() { vec![None] } else { named.into_iter().map(Some).collect() }
}
