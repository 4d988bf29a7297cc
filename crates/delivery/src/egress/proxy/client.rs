//! Sends requests through the proxy.

use std::sync::Arc;

use http::HeaderMap;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;

use super::{Proxy, ProxyWait, connector::Connector, way::Router};
use crate::egress::{
    common::{IDLE_FOR, headers},
    error::BoxError,
    resolver::AddressResolver,
    reuse::Connections,
};

/// An HTTP client whose connections are tunnels through the proxy, or direct ones to hosts that need no proxy. It has the
/// connection pool and the settings of the client for direct requests.
#[derive(Debug)]
pub(in crate::egress) struct Tunnels {
    router: Router,
    pool: Client<Connector, reqwest::Body>,
    /// The headers of each request that does not set them itself.
    headers: HeaderMap,
}

impl Tunnels {
    /// Makes a client that keeps `idle` connections for each host.
    pub(in crate::egress) fn new(
        resolver: AddressResolver,
        proxy: Arc<Proxy>,
        tls: ClientConfig,
        connections: Connections,
        idle: usize,
    ) -> Self {
        let router = Router { resolver, proxy };
        let connector = Connector { router: router.clone(), tls: Arc::new(tls), connections };
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(idle)
            .pool_idle_timeout(IDLE_FOR)
            // The reasons are those of direct requests.
            .http1_title_case_headers(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .build(connector);
        Self { router, pool, headers: headers() }
    }

    /// Sends a request once, and notes whether the exchange waits for the proxy.
    pub(in crate::egress) async fn execute(
        &self,
        request: reqwest::Request,
        wait: &ProxyWait,
    ) -> Result<reqwest::Response, BoxError> {
        let mut request = http::Request::<reqwest::Body>::try_from(request)?;
        for (name, value) in &self.headers {
            request.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        let response = wait.watch(self.pool.request(request)).await?;
        Ok(response.map(reqwest::Body::wrap).into())
    }

    /// Checks whether there is a permitted way to the host of this name.
    pub(in crate::egress) async fn check(&self, name: &str, port: u16) -> std::io::Result<()> {
        self.router.way(name, port).await.map(drop)
    }
}
