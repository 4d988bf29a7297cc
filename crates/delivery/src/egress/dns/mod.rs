//! Resolves host names with the name servers, without a thread for each lookup.
//!
//! [`files`] reads the system's files about name servers and hosts. [`share`] limits the concurrent lookups of a
//! namespace and looks each name up once, however many attempts wait for it.

mod files;
mod share;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RecordType},
    },
};
use tokio::time::timeout;
use tracing::warn;

use self::files::{Files, Hosts, PORT, servers};
pub(super) use self::share::Share;
use super::ClusterDomain;

/// The timeout of one query to one name server; the query is then repeated once.
const QUESTION: Duration = Duration::from_secs(3);
/// The timeout of a lookup.
const NAME: Duration = Duration::from_secs(8);
/// How long to wait for the addresses of one family after the addresses of the other have arrived.
const OTHER_FAMILY: Duration = Duration::from_millis(500);
/// The maximum time that a result is used, whatever its TTL.
const LONGEST: Duration = Duration::from_secs(30);
/// How often the system's files are read again: `hosts` and `resolv.conf` of a Pod may be replaced while it runs.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// The maximum number of addresses of a name.
const MOST_ADDRESSES: usize = 16;
/// The maximum number of concurrent queries on a TCP connection, which is used for long responses: as many as there may
/// be attempts.
const TCP_QUESTIONS: usize = 1024;

/// Resolves absolute names: with the system's `hosts` file, then with its name servers or the given ones.
pub struct Dns {
    given: Vec<SocketAddr>,
    cluster_domain: ClusterDomain,
    files: Files,
    system: Mutex<Option<System>>,
}

/// The content of the system's files.
struct System {
    read_at: Instant,
    servers: Vec<SocketAddr>,
    resolver: Option<Arc<TokioResolver>>,
    hosts: Arc<Hosts>,
}

/// The addresses of a name, and until when they may be used.
pub(super) struct ResolvedName {
    addresses: Arc<[IpAddr]>,
    until: Instant,
}

/// Why there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LookupError {
    /// The name servers report that there are none.
    #[error("the name does not exist or has no address")]
    Nonexistent,
    /// The name servers did not respond, or failed.
    #[error("the name servers do not respond")]
    Unanswered,
    /// There is no name server.
    #[error("no name server is configured")]
    Unconfigured,
}

impl Default for Dns {
    fn default() -> Self {
        Self::new(Vec::new(), ClusterDomain::default())
    }
}

impl Dns {
    /// Uses these name servers, or the ones in `/etc/resolv.conf` if there are none. A name that ends in `.svc` is
    /// looked up below the cluster domain.
    pub fn new(servers: Vec<SocketAddr>, cluster_domain: ClusterDomain) -> Self {
        Self { given: servers, cluster_domain, files: Files::default(), system: Mutex::default() }
    }

    /// Uses other files than `/etc/resolv.conf` and `/etc/hosts`.
    pub fn with_files(self, resolv_conf: impl Into<std::path::PathBuf>, hosts: impl Into<std::path::PathBuf>) -> Self {
        Self { files: Files { resolv_conf: resolv_conf.into(), hosts: hosts.into() }, ..self }
    }

    /// Looks up the addresses of a host, without a cache.
    async fn ask(&self, host: &str) -> Result<ResolvedName, LookupError> {
        let (resolver, hosts) = self.system();
        let name = self.cluster_domain.qualified(host);
        let of_file = hosts.addresses(&host.to_ascii_lowercase()).or_else(|| hosts.addresses(&name));
        if let Some(addresses) = of_file {
            return Ok(ResolvedName { addresses: addresses.into(), until: Instant::now() + READ_AGAIN });
        }
        let resolver = resolver.ok_or(LookupError::Unconfigured)?;
        let name = Name::from_ascii(&name).map_err(|_error| LookupError::Nonexistent)?;
        timeout(NAME, both_families(&resolver, name)).await.unwrap_or(Err(LookupError::Unanswered))
    }

    /// Returns the current resolver and hosts.
    fn system(&self) -> (Option<Arc<TokioResolver>>, Arc<Hosts>) {
        // Two small local files are read under the lock every few seconds.
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match system.take() {
            Some(current) if current.read_at.elapsed() < READ_AGAIN => current,
            last => self.read(last),
        };
        let current = system.insert(current);
        (current.resolver.clone(), current.hosts.clone())
    }

    /// Reads the files. If a file cannot be read, its last content stays in use.
    fn read(&self, last: Option<System>) -> System {
        let hosts = std::fs::read_to_string(&self.files.hosts).map(|text| Arc::new(Hosts::parse(&text)));
        let found = match &self.given[..] {
            [] => std::fs::read_to_string(&self.files.resolv_conf).map(|text| servers(&text)).unwrap_or_default(),
            given => given.to_vec(),
        };
        let (old_servers, resolver, old_hosts) =
            last.map_or_else(Default::default, |last| (last.servers, last.resolver, last.hosts));
        let hosts = hosts.unwrap_or(old_hosts);
        let read_at = Instant::now();
        if found == old_servers || (found.is_empty() && resolver.is_some()) {
            return System { read_at, servers: old_servers, resolver, hosts };
        }
        System { read_at, resolver: resolver_of(&found), servers: found, hosts }
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("given", &self.given).finish_non_exhaustive()
    }
}

/// Makes a resolver with only these name servers: no search domains, no files, no cache.
fn resolver_of(servers: &[SocketAddr]) -> Option<Arc<TokioResolver>> {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
    let mut options = ResolverOpts::default();
    options.timeout = QUESTION;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.max_active_requests = TCP_QUESTIONS;
    let built = Resolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build();
    built.map(Arc::new).map_err(|error| warn!(%error, "cannot use the name servers")).ok()
}

/// Looks up IPv4 and IPv6 addresses at the same time, and returns them in this order.
async fn both_families(resolver: &TokioResolver, name: Name) -> Result<ResolvedName, LookupError> {
    let v4 = pin!(resolver.lookup(name.clone(), RecordType::A));
    let v6 = pin!(resolver.lookup(name, RecordType::AAAA));
    let (v4, v6) = match select(v4, v6).await {
        Either::Left((v4, v6)) => {
            let v6 = after(&v4, v6).await;
            (v4, v6)
        }
        Either::Right((v6, v4)) => (after(&v6, v4).await, v6),
    };
    let now = Instant::now();
    let mut found = Vec::new();
    let mut until = now + LONGEST;
    for answer in [&v4, &v6].into_iter().flatten() {
        found.extend(answer.answers().iter().filter_map(|record| record.data.ip_addr()));
        until = until.min(answer.valid_until());
    }
    found.truncate(MOST_ADDRESSES);
    match (found.is_empty(), &v4, &v6) {
        (false, ..) => Ok(ResolvedName { addresses: found.into(), until }),
        (true, v4, v6) if is_negative(v4) && is_negative(v6) => Err(LookupError::Nonexistent),
        (true, Err(error), _) | (true, _, Err(error)) if error.is_nx_domain() => Err(LookupError::Nonexistent),
        _ => Err(LookupError::Unanswered),
    }
}

/// Returns the result of the second family, with a short wait if the first family has addresses.
async fn after(
    first: &Result<Lookup, NetError>,
    second: impl Future<Output = Result<Lookup, NetError>>,
) -> Result<Lookup, NetError> {
    if first.is_ok() { timeout(OTHER_FAMILY, second).await.unwrap_or(Err(NetError::Timeout)) } else { second.await }
}

/// Whether the name servers report that there is no such record.
fn is_negative(answer: &Result<Lookup, NetError>) -> bool {
    match answer {
        Ok(_) => true,
        Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))) => {
            matches!(response_code, ResponseCode::NoError | ResponseCode::NXDomain)
        }
        Err(_) => false,
    }
}

/// Parses a name server: an address with or without a port.
pub fn name_server(text: &str) -> Result<SocketAddr, &'static str> {
    let address = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT));
    address
        .or_else(|_| text.parse())
        .map_err(|_error| "not an address: use a form like 10.96.0.10, 10.96.0.10:53 or [fd00::a]:53")
}
