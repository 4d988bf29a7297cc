//! The clients of the API server: kube's own client for reads, and an HTTP/2 client for the many writes.
//!
//! kube's client speaks HTTP/1.1, with one connection for each request in flight. This is right for watches and the
//! Lease: no request waits for the streams, the window or the failure of another request's connection. It is wrong for
//! outcomes: their many connections cost the API server, whose CPU limits the rate, a third more than one HTTP/2
//! connection does.

use std::{sync::Arc, time::Duration};

use http::Request;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
};
use tokio::sync::Semaphore;
use tower::{BoxError, ServiceBuilder, service_fn};
use tracing::info;

use super::SingleTry;

/// A connection attempt that takes longer than this has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch ends after 45 s at the latest, so a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// After this much silence, the client sends a PING on an HTTP/2 connection.
const PING_AFTER: Duration = Duration::from_secs(5);
/// The response to a PING must arrive within this time.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Each check whether the API server speaks HTTP/2 takes at most this long.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
/// One failure may be temporary: the client checks up to this many times, with a wait in between.
const PROBES: usize = 3;
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// Makes a client for lists, watches and reads. The client retries when the API server requests that (429, 503, 504).
///
/// # Errors
/// When the certificates or credentials in the configuration cannot be read, or the configuration names a proxy.
pub fn reader(config: &Config) -> kube::Result<Client> {
    http1(config, true)
}

/// Makes a client that sends each request once.
///
/// # Errors
/// As [`reader`].
pub fn single_try(config: &Config) -> kube::Result<SingleTry> {
    http1(config, false).map(SingleTry::new)
}

/// Makes a client for many concurrent requests, which sends each request once. The client speaks HTTP/2 if the API
/// server does at the time of this call, and is a [`single_try`] otherwise: some proxies speak only HTTP/1.1.
///
/// # Errors
/// As [`reader`].
pub async fn writer(config: &Config) -> kube::Result<SingleTry> {
    let old = single_try(config)?;
    let new = http2(config)?;
    for _ in 0..PROBES {
        let probe = new.send(Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?);
        if let Ok(Ok(_)) = tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            return Ok(SingleTry::new(new));
        }
        tokio::time::sleep(PROBE_AGAIN).await;
    }
    info!(
        "the API server, or a proxy in front of it, does not speak HTTP/2; the operator writes outcomes over HTTP/1.1 until it restarts, which costs the API server more"
    );
    Ok(old)
}

/// Makes a client like `client` that sends at most `at_once` requests concurrently. Other requests wait in order of
/// arrival.
pub fn bounded(client: &Client, at_once: usize) -> Client {
    let (client, slots) = (client.clone(), Arc::new(Semaphore::new(at_once)));
    let namespace = client.default_namespace().to_owned();
    let send = move |request: Request<Body>| {
        let (client, slots) = (client.clone(), slots.clone());
        async move {
            // The semaphore is never closed.
            let _slot = slots.acquire().await;
            client.send(request).await
        }
    };
    Client::new(service_fn(send), namespace)
}

/// Makes kube's own client.
fn http1(config: &Config, retry: bool) -> kube::Result<Client> {
    let mut config = config.clone();
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    config.default_retry = retry;
    Client::try_from(config)
}

/// Puts kube's layers on a client with one HTTP/2 connection.
fn http2(config: &Config) -> kube::Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let mut https = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone().and_then(|name| name.try_into().ok()) {
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let mut connector = TimeoutConnector::new(https.enable_http2().wrap_connector(tcp));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let http = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(true)
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

#[cfg(test)]
mod tests {
    use http::Version;
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use testkit::{
        Authority, ControlPlane,
        endpoints::{Answer, Endpoint, HttpsServer, Reply, Request as Arrived},
    };

    use super::*;

    async fn config(kubeconfig: Kubeconfig) -> Config {
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }

    #[tokio::test]
    async fn outcomes_are_written_in_http_2() {
        let plane = ControlPlane::shared().await.unwrap();
        let config = config(Kubeconfig::read_from(plane.admin_kubeconfig()).unwrap()).await;
        let version = async |client: Client| client.send(version_request()).await.unwrap().version();
        assert_eq!(version(writer(&config).await.unwrap().into()).await, Version::HTTP_2);
        // Each watch has its own connection.
        assert_eq!(version(reader(&config).unwrap()).await, Version::HTTP_11);
    }

    /// A proxy in front of the API server that offers only HTTP/1.1.
    struct Old;

    impl Endpoint for Old {
        async fn answer(&self, request: Arrived) -> Answer {
            let authorized = request.headers.get("authorization").is_some_and(|value| value == "Bearer t0ken");
            Answer::Reply(Reply::status(if authorized { 204 } else { 401 }))
        }
    }

    #[tokio::test]
    async fn a_proxy_that_speaks_only_http_1_1_is_used_with_http_1_1() {
        let authority = Authority::new();
        let server = HttpsServer::start(Arc::new(Old), authority.server_config(&[])).await.unwrap();
        let kubeconfig = serde_json::from_value(serde_json::json!({
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", server.address()),
                "certificate-authority-data": base64(authority.ca_pem()),
            }}],
            "users": [{"name": "u", "user": {"token": "t0ken"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }));
        let config = config(kubeconfig.unwrap()).await;
        let client = Client::from(writer(&config).await.unwrap());
        let answer = client.send(version_request()).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (204, Version::HTTP_11));
    }

    fn version_request() -> Request<Body> {
        Request::get("/version").body(Body::empty()).unwrap()
    }

    fn base64(text: &str) -> String {
        use ::base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.encode(text)
    }
}
