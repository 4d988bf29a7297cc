//! Makes all HTTP clients.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use rustls::{ClientConfig, client::Resumption};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use url::{Host, Url};

use super::{
    Dns, Fingerprint, Lookup, Observer, Policy, Proxy, SendError, Trust, TrustError, WeakMap,
    common::{CONNECT, IDLE_FOR, headers},
    dns::Share,
    error::{BoxError, Denied, broke_off, has_cause, sort},
    observer::Unobserved,
    proxy::{ProxyWait, Tunnels},
    resolver::AddressResolver,
    response::{Response, answer},
    reuse::{Connections, connecting, watched},
    stores::Stores,
};

/// The timeout of a lookup that only checks whether an address is allowed.
const CHECK: Duration = Duration::from_secs(5);
/// The maximum number of idle connections for each host: as many as four Subscribers with the default limit use
/// concurrently. Responses arrive in bursts, and requests beyond this number need a TLS handshake in the next burst.
const IDLE_PER_HOST: usize = 64;

/// A reused connection that breaks later than this after a request was not being closed when the request was sent.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The number of TLS sessions that a client stores for resumption.
const SESSIONS: usize = 32;

/// Makes clients that follow one egress policy, and shares them within a namespace among users of the same trust.
pub struct Egress {
    policy: Arc<Policy>,
    names: NameResolution,
    proxy: Option<Arc<Proxy>>,
    clients: Mutex<WeakMap<(String, Fingerprint), Client>>,
    /// The parts that clients of one trust share across namespaces.
    trusts: Mutex<WeakMap<Fingerprint, ClientConfig>>,
    stores: Stores,
    observer: Arc<dyn Observer>,
}

/// How names are resolved.
enum NameResolution {
    Dns { dns: Arc<Dns>, shares: Mutex<WeakMap<String, Share>> },
    Given(Arc<dyn Lookup>),
}

/// An HTTP client that connects only to allowed addresses, follows no redirects, uses no proxy of the environment and
/// does not decompress. It requests responses without a content encoding.
#[derive(Debug)]
pub struct Client {
    resolver: AddressResolver,
    proxy: Option<Arc<Proxy>>,
    http: Http,
    /// A client that opens a new connection for each request. Created on first use.
    fresh: OnceLock<Http>,
    /// Shared with the clients of this trust in other namespaces.
    trust: Arc<ClientConfig>,
    observer: Arc<dyn Observer>,
    /// The connection limit of each host with exchanges in flight.
    connecting: Mutex<WeakMap<String, Semaphore>>,
}

/// Sends requests on connections that it keeps for reuse.
#[derive(Debug)]
enum Http {
    /// On direct connections.
    Direct(reqwest::Client),
    /// Through the proxy.
    Proxied(Box<Tunnels>),
}

impl Egress {
    /// Makes an egress that follows `policy` and uses the name servers of the system.
    pub fn new(policy: Policy) -> Self {
        Self::with_dns(policy, Dns::default())
    }

    /// Makes an egress with these DNS settings.
    pub fn with_dns(policy: Policy, dns: Dns) -> Self {
        Self::of(policy, NameResolution::Dns { dns: Arc::new(dns), shares: Mutex::default() })
    }

    /// Makes an egress with another source of addresses. The policy applies to the addresses, whatever their source.
    pub fn with_lookup(policy: Policy, names: Arc<dyn Lookup>) -> Self {
        Self::of(policy, NameResolution::Given(names))
    }

    /// Sends all requests through this proxy.
    pub fn through(self, proxy: Proxy) -> Self {
        Self { proxy: Some(Arc::new(proxy)), ..self }
    }

    /// Reports to `observer` what happens. Call it before the first client is made.
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    fn of(policy: Policy, names: NameResolution) -> Self {
        Self {
            policy: Arc::new(policy),
            names,
            proxy: None,
            clients: Mutex::default(),
            trusts: Mutex::default(),
            stores: Stores::default(),
            observer: Arc::new(Unobserved),
        }
    }

    /// Returns the client of a namespace for a trust: the existing one or a new one. Namespaces share no connections,
    /// no TLS sessions and no lookup limits.
    pub fn client(&self, namespace: &str, trust: &Trust) -> Result<Arc<Client>, TrustError> {
        let key = (namespace.to_owned(), trust.fingerprint());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client);
        }
        let names = self.names.of_namespace(namespace, &self.observer);
        let resolver = AddressResolver { policy: self.policy.clone(), names };
        let (proxy, observer) = (self.proxy.clone(), self.observer.clone());
        let client = Arc::new(Client::new(resolver, proxy, self.trust(key.1, trust)?, observer)?);
        clients.insert(key, &client);
        Ok(client)
    }

    /// Returns the TLS configuration of a trust: the existing one or a new one.
    fn trust(&self, key: Fingerprint, trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
        let mut trusts = self.trusts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = trusts.get(&key) {
            return Ok(config);
        }
        let config = Arc::new(trust.config(self.stores.with(&trust.authorities)?)?);
        trusts.insert(key, &config);
        Ok(config)
    }
}

impl NameResolution {
    fn of_namespace(&self, namespace: &str, observer: &Arc<dyn Observer>) -> Arc<dyn Lookup> {
        match self {
            Self::Given(names) => names.clone(),
            Self::Dns { dns, shares } => {
                let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
                shares.get(namespace).unwrap_or_else(|| {
                    let share = Arc::new(Share::new(dns.clone(), observer.clone()));
                    shares.insert(namespace.to_owned(), &share);
                    share
                })
            }
        }
    }
}

impl Client {
    fn new(
        resolver: AddressResolver,
        proxy: Option<Arc<Proxy>>,
        trust: Arc<ClientConfig>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, TrustError> {
        let http = Http::new(&resolver, proxy.as_ref(), &trust, &observer, IDLE_PER_HOST);
        let http = http.map_err(|_error| TrustError::Unsupported)?;
        Ok(Self { resolver, proxy, http, fresh: OnceLock::new(), trust, observer, connecting: Mutex::default() })
    }

    /// Receives the results of what is sent with this client.
    pub(crate) fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// Sends one request and reads at most `body_limit` bytes of the response body, within `timeout`.
    ///
    /// Once the status is known, there is a response. A body that is too long, too slow or broken makes the response
    /// incomplete, and its connection is not reused.
    ///
    /// The other side may close a reused connection just when a request is sent on it. If the connection breaks
    /// immediately and before a response, the request is sent once more on a new connection, if `may_repeat` allows
    /// that.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        body_limit: usize,
        timeout: Duration,
        may_repeat: &(dyn Fn() -> bool + Sync),
    ) -> Result<Response, SendError> {
        let request = self.checked(request)?;
        let (deadline, wait) = (Instant::now() + timeout, ProxyWait::default());
        let exchange = timeout_at(deadline, self.exchange(request, &wait, may_repeat)).await;
        let exchange = exchange.map_err(|_error| wait.late())?;
        answer(exchange.map_err(|error| sort(&*error))?, body_limit, deadline).await
    }

    /// Sends one request like [`Self::send`], but never more than once.
    pub async fn send_once(
        &self,
        request: Request<Bytes>,
        body_limit: usize,
        timeout: Duration,
    ) -> Result<Response, SendError> {
        let request = self.checked(request)?;
        let (deadline, wait) = (Instant::now() + timeout, ProxyWait::default());
        let exchange = watched(self.bound(request.url()), self.http.execute(request, &wait));
        let (exchange, _) = timeout_at(deadline, exchange).await.map_err(|_error| wait.late())?;
        answer(exchange.map_err(|error| sort(&*error))?, body_limit, deadline).await
    }

    /// Returns the limit of concurrent connection attempts to the host of this URL.
    fn bound(&self, url: &Url) -> Arc<Semaphore> {
        let host = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or_default());
        let mut bounds = self.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        bounds.get(&host).unwrap_or_else(|| {
            let bound = connecting();
            bounds.insert(host, &bound);
            bound
        })
    }

    async fn exchange(
        &self,
        request: reqwest::Request,
        wait: &ProxyWait,
        may_repeat: &(dyn Fn() -> bool + Sync),
    ) -> Result<reqwest::Response, BoxError> {
        let (again, began) = (request.try_clone(), Instant::now());
        let bound = self.bound(request.url());
        let (result, is_new) = watched(bound.clone(), self.http.execute(request, wait)).await;
        match (result, again) {
            (Err(error), Some(again)) if !is_new && began.elapsed() < AT_ONCE && broke_off(&*error) && may_repeat() => {
                watched(bound, self.fresh()?.execute(again, wait)).await.0
            }
            (result, _) => result,
        }
    }

    fn fresh(&self) -> Result<&Http, reqwest::Error> {
        if let Some(fresh) = self.fresh.get() {
            return Ok(fresh);
        }
        let made = Http::new(&self.resolver, self.proxy.as_ref(), &self.trust, &self.observer, 0)?;
        Ok(self.fresh.get_or_init(|| made))
    }

    /// Checks the URL of the request as this client parses it, so that the checked host is the one that is connected
    /// to.
    fn checked(&self, request: Request<Bytes>) -> Result<reqwest::Request, SendError> {
        let request = reqwest::Request::try_from(request).map_err(|_error| SendError::Broken)?;
        self.check_text(request.url())?;
        if request.url().scheme() == "https" { Ok(request) } else { Err(SendError::Broken) }
    }

    /// Checks whether the policy allows an address of the URL's host, without connecting.
    pub async fn check(&self, url: &Url) -> Result<(), SendError> {
        self.check_text(url)?;
        match url.host() {
            Some(Host::Domain(name)) => match timeout(CHECK, self.check_name(name, url)).await {
                Ok(Err(error)) if has_cause::<Denied>(&error) => Err(SendError::Denied),
                Ok(Err(_)) => Err(SendError::Dns),
                Ok(Ok(())) | Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn check_name(&self, name: &str, url: &Url) -> io::Result<()> {
        match &self.http {
            Http::Direct(_) => self.resolver.addresses(name).await.map(drop),
            Http::Proxied(tunnels) => tunnels.check(name, url.port_or_known_default().unwrap_or_default()).await,
        }
    }

    /// Checks the parts in the URL itself: the port and, if there is one, the literal address, which never reaches the
    /// resolver.
    fn check_text(&self, url: &Url) -> Result<(), SendError> {
        let policy = &self.resolver.policy;
        let address = match url.host() {
            Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
            Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
            _ => None,
        };
        let port = url.port_or_known_default().is_some_and(|port| policy.allows_port(port));
        let address = address.is_none_or(|address| policy.allows(None, address));
        if port && address { Ok(()) } else { Err(SendError::Denied) }
    }
}

impl Http {
    /// Makes the HTTP client, which keeps `idle` connections for each host.
    fn new(
        resolver: &AddressResolver,
        proxy: Option<&Arc<Proxy>>,
        trust: &ClientConfig,
        observer: &Arc<dyn Observer>,
        idle: usize,
    ) -> Result<Self, reqwest::Error> {
        let connections = Connections::observed_by(observer.clone());
        let mut tls = trust.clone();
        tls.resumption = Resumption::in_memory_sessions(SESSIONS);
        match proxy {
            None => direct(resolver, tls, connections, idle).map(Self::Direct),
            Some(proxy) => {
                let tunnels = Tunnels::new(resolver.clone(), proxy.clone(), tls, connections, idle);
                Ok(Self::Proxied(Box::new(tunnels)))
            }
        }
    }

    /// Sends a request once. A direct exchange never waits for the proxy.
    async fn execute(&self, request: reqwest::Request, wait: &ProxyWait) -> Result<reqwest::Response, BoxError> {
        match self {
            Self::Direct(http) => Ok(http.execute(request).await?),
            Self::Proxied(tunnels) => Box::pin(tunnels.execute(request, wait)).await,
        }
    }
}

/// Makes the HTTP client for direct connections.
fn direct(
    resolver: &AddressResolver,
    tls: ClientConfig,
    connections: Connections,
    idle: usize,
) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(idle)
        .pool_idle_timeout(IDLE_FOR)
        .default_headers(headers())
        .dns_resolver(Arc::new(resolver.clone()))
        .connector_layer(connections)
        // As Go, Java, curl and .NET send them: some receivers compare the bytes.
        .http1_title_case_headers()
        // A user agent unfolds header lines (RFC 9112, section 5.2) and ignores a space before the colon.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .build()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::SocketAddr};

    use testkit::{
        Authority, ForwardProxy, RawServer,
        endpoints::{Answer, Endpoint, HttpsServer, Reply, Request},
    };
    use tokio::{sync::Barrier, time::sleep};

    use super::*;
    use crate::egress::{Authorities, ProxySettings};

    fn trusting(authority: &Authority) -> Trust {
        Trust { authorities: Authorities::PublicAnd(authority.ca_pem().into()), identity: None }
    }

    #[test]
    fn a_thousand_subscribers_of_a_namespace_with_default_trust_share_one_client() {
        let egress = Egress::new(Policy::default());
        let clients: Vec<_> = (0..1000).map(|_| egress.client("a", &Trust::default()).unwrap()).collect();
        assert!(clients.iter().all(|client| Arc::ptr_eq(client, &clients[0])));
        assert_eq!(egress.clients.lock().unwrap().entries(), 1);
    }

    #[test]
    fn namespaces_share_no_client_but_the_trust_configuration() {
        let egress = Egress::new(Policy::default());
        let trust = trusting(&Authority::new());
        let [one, other] = ["a", "b"].map(|namespace| egress.client(namespace, &trust).unwrap());
        assert!(!Arc::ptr_eq(&one, &other) && Arc::ptr_eq(&one.trust, &other.trust));
        drop((one, other));
        assert_eq!(egress.trusts.lock().unwrap().held(), 0, "it is not held");
    }

    #[test]
    fn each_trust_has_its_own_client_while_it_is_in_use() {
        let egress = Egress::new(Policy::default());
        let (one, other) = (trusting(&Authority::new()), trusting(&Authority::new()));
        let client = egress.client("a", &one).unwrap();
        assert!(Arc::ptr_eq(&client, &egress.client("a", &one.clone()).unwrap()));
        for stranger in [&other, &Trust::default()] {
            assert!(!Arc::ptr_eq(&client, &egress.client("a", stranger).unwrap()));
        }
        let unused = Arc::downgrade(&client);
        drop(client);
        assert!(unused.upgrade().is_none(), "it is not held");
        let _next = egress.client("a", &other).unwrap();
        assert_eq!(egress.clients.lock().unwrap().held(), 1, "what is not used is forgotten");
    }

    /// A client for direct connections, and one for a proxy.
    async fn both(authority: &Authority) -> (ForwardProxy, [Arc<Client>; 2]) {
        let proxy = ForwardProxy::start(None).await.unwrap();
        let settings = ProxySettings { url: proxy.url(), ..ProxySettings::default() };
        let egress = || Egress::new(Policy::allowing(vec!["127.0.0.1".parse().unwrap()]));
        let through = egress().through(Proxy::configured(settings).unwrap().unwrap());
        (proxy, [egress(), through].map(|egress| egress.client("a", &trusting(authority)).unwrap()))
    }

    /// Answers when all requests of a burst are there, and notes their connections.
    struct Burst {
        all: Barrier,
        connections: Mutex<HashSet<SocketAddr>>,
    }

    impl Endpoint for Burst {
        async fn answer(&self, request: Request) -> Answer {
            self.connections.lock().unwrap().insert(request.peer);
            self.all.wait().await;
            Answer::Reply(Reply::status(204))
        }
    }

    #[tokio::test]
    async fn idle_connections_are_used_again_up_to_a_bound_and_for_some_seconds() {
        const MORE: usize = 16;
        let (authority, size) = (Authority::new(), IDLE_PER_HOST + MORE);
        let (_proxy, clients) = both(&authority).await;
        for client in clients {
            let server = Arc::new(Burst { all: Barrier::new(size), connections: Mutex::default() });
            let serving = HttpsServer::start(server.clone(), authority.server_config(&[])).await.unwrap();
            let url = format!("https://{}/", serving.address());
            // How many connections a burst of requests makes.
            let made = async || {
                let before = server.connections.lock().unwrap().len();
                let request = || http::Request::get(&url).body(Bytes::new()).unwrap();
                let sent = (0..size).map(|_| client.send(request(), 0, Duration::from_secs(30), &|| true));
                assert!(futures::future::join_all(sent).await.iter().all(Result::is_ok));
                server.connections.lock().unwrap().len() - before
            };
            assert_eq!(made().await, size);
            // Those that are not put aside yet when the next burst comes are replaced, too.
            for tries in 1.. {
                sleep(Duration::from_millis(10 * tries)).await;
                let made = made().await;
                assert!(made >= MORE, "only {made} are new: more were kept than should be");
                if made == MORE {
                    break;
                }
                assert!(tries < 20, "{made} are new: fewer were used again than should be");
            }
            sleep(IDLE_FOR + IDLE_FOR / 10).await;
            assert_eq!(made().await, size, "none was used after that");
        }
    }

    #[tokio::test]
    async fn a_server_that_completes_no_handshake_holds_a_bounded_number_of_connections() {
        let (authority, most) = (Authority::new(), connecting().available_permits());
        let (_proxy, clients) = both(&authority).await;
        for client in clients {
            let silent = RawServer::tcp(async |stream| {
                std::future::pending::<()>().await;
                drop(stream);
            });
            let silent = silent.await.unwrap();
            let request = || http::Request::get(silent.url("/")).body(Bytes::new()).unwrap();
            let sent = (0..most + 10).map(|_| client.send(request(), 0, Duration::from_secs(8), &|| true));
            let counted = async {
                let deadline = Instant::now() + Duration::from_secs(6);
                while silent.connections() < most && Instant::now() < deadline {
                    sleep(Duration::from_millis(20)).await;
                }
                // Others would follow immediately.
                sleep(Duration::from_millis(500)).await;
                silent.connections()
            };
            let (sent, connections) = tokio::join!(futures::future::join_all(sent), counted);
            assert_eq!(connections, most);
            assert!(sent.iter().all(|sent| sent.as_ref().err() == Some(&SendError::Timeout)));
        }
    }
}
