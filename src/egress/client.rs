//! The one maker of HTTP clients.

use std::{
    collections::HashMap,
    error::Error as StdError,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Url};

use super::Policy;

/// An answer with more headers than this is none.
const HEADER_LIMIT: usize = 32 * 1024;
/// A look-up that only tells whether an address is allowed gives up after this.
const CHECK: Duration = Duration::from_secs(5);
/// Idle connections kept for each host, and for how long.
const IDLE_PER_HOST: usize = 16;
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Makes clients that obey one policy, and shares them between users of the same trust.
#[derive(Debug)]
pub struct Egress {
    policy: Arc<Policy>,
    clients: Mutex<HashMap<Vec<u8>, Weak<Client>>>,
}

/// Why a bundle of certificates cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// There is no certificate in the text.
    #[error("no PEM certificate in it")]
    Empty,
    /// A certificate in it is malformed, or the TLS library refuses it.
    #[error("not a valid PEM certificate")]
    Invalid(#[source] reqwest::Error),
}

/// An HTTP client that dials allowed addresses only, follows no redirect, uses no proxy and never decompresses.
#[derive(Debug)]
pub struct Client {
    policy: Arc<Policy>,
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

/// Why no answer came. None of these carries an address or anything the other side sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The egress policy denies every address of the host; nothing was dialled.
    #[error(
        "the operator's egress policy denies the address of this host; an administrator can open its range with --egress-allow-cidr (the chart's egress.allowCIDRs)"
    )]
    Denied,
    /// The host name does not resolve.
    #[error("the host name does not resolve: check the URL and the DNS")]
    Dns,
    /// No connection: refused, reset or unreachable.
    #[error("no connection: check the URL, the network between and that the other side is up")]
    Connection,
    /// The TLS handshake failed, most often for a certificate that is not trusted.
    #[error("the TLS handshake failed: check the certificate, and tls.caRef for a private certificate authority")]
    Tls,
    /// The exchange took longer than it may.
    #[error("no complete answer in time")]
    Timeout,
    /// The connection broke, or what came is not HTTP.
    #[error("the connection broke before a complete answer")]
    Broken,
}

impl Egress {
    /// An egress that obeys `policy`.
    pub fn new(policy: Policy) -> Self {
        Self { policy: Arc::new(policy), clients: Mutex::default() }
    }

    /// A client that trusts the system's certificate authorities and, in addition, those of a PEM bundle.
    pub fn client(&self, extra_roots_pem: Option<&[u8]>) -> Result<Arc<Client>, TrustError> {
        let key = extra_roots_pem.unwrap_or_default();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(key).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(self.make(extra_roots_pem)?);
        clients.retain(|_, client| client.strong_count() > 0);
        clients.insert(key.to_vec(), Arc::downgrade(&client));
        Ok(client)
    }

    fn make(&self, extra_roots_pem: Option<&[u8]>) -> Result<Client, TrustError> {
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_FOR)
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(GuardedResolver(self.policy.clone())));
        if let Some(pem) = extra_roots_pem {
            let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(TrustError::Invalid)?;
            if roots.is_empty() {
                return Err(TrustError::Empty);
            }
            builder = builder.tls_certs_merge(roots);
        }
        Ok(Client { policy: self.policy.clone(), http: builder.build().map_err(TrustError::Invalid)? })
    }
}

impl Client {
    /// Sends one request and reads at most `body_limit` bytes of the answer's body, all within `timeout`.
    ///
    /// Once the status is known there is an answer: a body that is too long, too slow or broken only leaves it
    /// incomplete, and its connection is not used again.
    pub async fn send(
        &self,
        request: http::Request<Vec<u8>>,
        body_limit: usize,
        timeout: Duration,
    ) -> Result<Answer, SendError> {
        let request = reqwest::Request::try_from(request).map_err(|_| SendError::Broken)?;
        self.check_literal(request.url())?;
        let deadline = Instant::now() + timeout;
        let mut response =
            timeout_at(deadline, self.http.execute(request)).await.map_err(|_| SendError::Timeout)?.map_err(sort)?;
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
            Some(Host::Domain(name)) => timeout(CHECK, resolve(&self.policy, name))
                .await
                .unwrap_or_else(|_| Ok(Vec::new()))
                .map(drop)
                .map_err(|e| if is_denied(&e) { SendError::Denied } else { SendError::Dns }),
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
        if self.policy.allows(address) { Ok(()) } else { Err(SendError::Denied) }
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

/// Resolves a name once and hands on only the addresses that the policy allows, so those are what is dialled.
struct GuardedResolver(Arc<Policy>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let addresses = resolve(&policy, name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

async fn resolve(policy: &Policy, name: &str) -> io::Result<Vec<std::net::SocketAddr>> {
    let mut addresses: Vec<_> =
        tokio::net::lookup_host((name, 0)).await.map_err(|e| io::Error::other(Unresolved(e)))?.collect();
    let found = addresses.len();
    addresses.retain(|address| policy.allows(address.ip()));
    if addresses.is_empty() && found > 0 {
        return Err(io::Error::other(Denied));
    }
    Ok(addresses)
}

#[derive(Debug, thiserror::Error)]
#[error("denied by the egress policy")]
struct Denied;

#[derive(Debug, thiserror::Error)]
#[error("the host name does not resolve")]
struct Unresolved(#[source] io::Error);

fn is_denied(error: &(dyn StdError + 'static)) -> bool {
    has_cause::<Denied>(error)
}

/// Sorts a failure by the types in its chain of causes, never by their texts.
fn sort(error: reqwest::Error) -> SendError {
    if is_denied(&error) {
        SendError::Denied
    } else if has_cause::<Unresolved>(&error) {
        SendError::Dns
    } else if error.is_timeout() {
        SendError::Timeout
    } else if has_cause::<rustls::Error>(&error) {
        SendError::Tls
    } else if error.is_connect() {
        SendError::Connection
    } else {
        SendError::Broken
    }
}

fn has_cause<T: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<T>() {
            return true;
        }
        // An io::Error's source() is the source of what it wraps: look at the wrapped error itself first.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && has_cause::<T>(inner)
        {
            return true;
        }
        next = error.source();
    }
    false
}
