//! The one maker of HTTP clients.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Url};

use super::{
    Fingerprint, Lookup, Policy, SendError, Trust, TrustError,
    error::{Denied, has_cause, sort},
    resolver::{Resolver, System},
    stores::Stores,
};

/// An answer with more headers than this is none.
const HEADER_LIMIT: usize = 32 * 1024;
/// A look-up that only tells whether an address is allowed gives up after this.
const CHECK: Duration = Duration::from_secs(5);
/// Idle connections kept for each host: as many as four Subscribers with the default limit have busy at once. Answers come in
/// bursts, and whatever is above this pays for a TLS handshake in the next one.
const IDLE_PER_HOST: usize = 64;
/// None is used that was idle for longer, and it is closed within twice that. Servers keep theirs for longer (5 s in Node.js and
/// Apache): a request on a connection that the other side is just closing fails. This bounds them over all hosts, too.
const IDLE_FOR: Duration = Duration::from_secs(4);

/// Makes clients that obey one policy, and shares them between users of the same trust.
#[derive(Debug)]
pub struct Egress {
    resolver: Resolver,
    clients: Mutex<HashMap<Fingerprint, Weak<Client>>>,
    stores: Stores,
}

/// An HTTP client that dials allowed addresses only, follows no redirect, uses no proxy and never decompresses.
#[derive(Debug)]
pub struct Client {
    resolver: Resolver,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    /// The body, as far as limit and time allowed.
    pub body: Vec<u8>,
    /// Whether that is the whole body.
    pub complete: bool,
}

impl Egress {
    /// An egress that obeys `policy`; names are resolved as the system does.
    pub fn new(policy: Policy) -> Self {
        Self::with_lookup(policy, Arc::new(System))
    }

    /// The same with names from elsewhere. The policy judges the addresses, wherever they come from.
    pub fn with_lookup(policy: Policy, names: Arc<dyn Lookup>) -> Self {
        Self {
            resolver: Resolver { policy: Arc::new(policy), names },
            clients: Mutex::default(),
            stores: Stores::default(),
        }
    }

    /// The client for a trust: the one that others of the same trust use, or a new one.
    pub fn client(&self, trust: &Trust) -> Result<Arc<Client>, TrustError> {
        let key = trust.fingerprint();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(self.make(trust)?);
        clients.retain(|_, client| client.strong_count() > 0);
        clients.insert(key, Arc::downgrade(&client));
        Ok(client)
    }

    fn make(&self, trust: &Trust) -> Result<Client, TrustError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.config(self.stores.with(trust.roots_pem.as_deref())?)?)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_FOR)
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(self.resolver.clone()))
            .build()
            .map_err(|_| TrustError::Unsupported)?;
        Ok(Client { resolver: self.resolver.clone(), http })
    }
}

impl Client {
    /// Sends one request and reads at most `body_limit` bytes of the answer's body, all within `timeout`.
    ///
    /// Once the status is known there is an answer: a body that is too long, too slow or broken only leaves it
    /// incomplete, and its connection is not used again.
    pub async fn send(
        &self,
        request: http::Request<Bytes>,
        body_limit: usize,
        timeout: Duration,
    ) -> Result<Answer, SendError> {
        let request = reqwest::Request::try_from(request).map_err(|_| SendError::Broken)?;
        self.check_literal(request.url())?;
        let deadline = Instant::now() + timeout;
        let exchange = timeout_at(deadline, self.http.execute(request)).await.map_err(|_| SendError::Timeout)?;
        let mut response = exchange.map_err(|error| sort(&error))?;
        let headers: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if headers > HEADER_LIMIT {
            return Err(SendError::Broken);
        }
        let mut body = Vec::new();
        let complete = timeout_at(deadline, read(&mut response, &mut body, body_limit)).await.unwrap_or(false);
        Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body, complete })
    }

    /// Whether the policy allows an address of the URL's host, without dialling it.
    pub async fn check(&self, url: &Url) -> Result<(), SendError> {
        self.check_literal(url)?;
        match url.host() {
            Some(Host::Domain(name)) => match timeout(CHECK, self.resolver.addresses(name)).await {
                Ok(Err(error)) if has_cause::<Denied>(&error) => Err(SendError::Denied),
                Ok(Err(_)) => Err(SendError::Dns),
                Ok(Ok(_)) | Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A literal address never reaches the resolver, so it is checked here.
    fn check_literal(&self, url: &Url) -> Result<(), SendError> {
        let address = match url.host() {
            Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
            Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
            _ => return Ok(()),
        };
        if self.resolver.policy.allows(None, address) { Ok(()) } else { Err(SendError::Denied) }
    }
}

async fn read(response: &mut reqwest::Response, body: &mut Vec<u8>, limit: usize) -> bool {
    while let Ok(chunk) = response.chunk().await {
        let Some(chunk) = chunk else {
            return true;
        };
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::SocketAddr};

    use testkit::{
        Authority,
        exchange::{Answer, Reply, Request},
        https::{Endpoint, HttpsServer},
    };
    use tokio::{sync::Barrier, time::sleep};

    use super::*;

    fn trusting(authority: &Authority) -> Trust {
        Trust { roots_pem: Some(authority.ca_pem().into()), identity: None }
    }

    #[test]
    fn a_thousand_subscribers_without_trust_of_their_own_share_one_client() {
        let egress = Egress::new(Policy::default());
        let clients: Vec<_> = (0..1000).map(|_| egress.client(&Trust::default()).unwrap()).collect();
        assert!(clients.iter().all(|client| Arc::ptr_eq(client, &clients[0])));
        assert_eq!(egress.clients.lock().unwrap().len(), 1);
    }

    #[test]
    fn each_trust_has_a_client_of_its_own_for_as_long_as_somebody_uses_it() {
        let egress = Egress::new(Policy::default());
        let (one, other) = (trusting(&Authority::new()), trusting(&Authority::new()));
        let client = egress.client(&one).unwrap();
        assert!(Arc::ptr_eq(&client, &egress.client(&one.clone()).unwrap()));
        for stranger in [&other, &Trust::default()] {
            assert!(!Arc::ptr_eq(&client, &egress.client(stranger).unwrap()));
        }
        let unused = Arc::downgrade(&client);
        drop(client);
        assert!(unused.upgrade().is_none(), "nobody holds it");
        let _next = egress.client(&other).unwrap();
        assert_eq!(egress.clients.lock().unwrap().len(), 1, "what is not used is forgotten");
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
        let server = Arc::new(Burst { all: Barrier::new(size), connections: Mutex::default() });
        let serving = HttpsServer::start(server.clone(), authority.server_config(&[])).await.unwrap();
        let egress = Egress::new(Policy::allowing(vec!["127.0.0.1".parse().unwrap()]));
        let client = egress.client(&trusting(&authority)).unwrap();
        let url = format!("https://{}/", serving.address());
        // How many connections a burst of requests makes.
        let made = async || {
            let before = server.connections.lock().unwrap().len();
            let request = || http::Request::get(&url).body(Bytes::new()).unwrap();
            let sent = (0..size).map(|_| client.send(request(), 0, Duration::from_secs(30)));
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
