//! The way to the API server, for everything that kube does: one HTTP/2 connection for each client, HTTP/1.1 where a
//! proxy in between speaks nothing newer.
//!
//! kube's own client speaks HTTP/1.1 only: a connection for each request that is under way, and a third more work for
//! the API server.

use std::{sync::Arc, time::Duration};

use hyper_rustls::HttpsConnector;
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{ClientBuilder, ConfigExt, retry::RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

/// No connection within this: the try has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch ends after 45 s at the latest: a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// So often the other side of an HTTP/2 connection is asked whether it is there,
const PING_EVERY: Duration = Duration::from_secs(15);
/// and so long it has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that repeats a request which the API server asks to repeat (429, 503, 504): for reading.
///
/// # Errors
/// When the certificates or credentials of the configuration cannot be read.
pub fn reader(config: &Config) -> kube::Result<Client> {
    build(config, Some(RetryPolicy::server_retry()))
}

/// A client that tries each request once: for whoever knows better when to repeat, and when not to.
///
/// # Errors
/// As [`reader`].
pub fn single_try(config: &Config) -> kube::Result<Client> {
    build(config, None)
}

fn build(config: &Config, retry: Option<RetryPolicy>) -> kube::Result<Client> {
    let mut tls = config.rustls_client_config()?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let mut connector = TimeoutConnector::new(HttpsConnector::from((tcp, Arc::new(tls))));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_reset_reader_on_write(true);
    let http = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry.map(RetryLayer::new))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}
