//! The ways to the API server, and the request that writes an outcome: both as the operator has them, written down a
//! second time, so that what they can do alone is measured without the operator's code.

use http::{
    Request,
    header::{ACCEPT, CONTENT_TYPE},
};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Config,
    client::{ClientBuilder, ConfigExt},
    core::{ApiResource, Object},
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use tidings_api::{Notification, NotificationStatus};
use tower::{BoxError, ServiceBuilder};

/// Selects the Notifications that are not finished.
pub const SELECTOR: &str = "status.phase!=Delivered,status.phase!=Failed";

/// A Notification that is not finished, as it is read.
pub type Pending = Object<Spec, Status>;

/// What is read of its spec.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Spec {
    /// The event, as it was written.
    pub event: Box<RawValue>,
}

/// What is read of its status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Status {
    phase: String,
    attempts: u32,
}

/// A client over HTTP/2, for many requests at once.
pub fn http2(config: &Config) -> Client {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config().unwrap());
    let http = legacy::Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(tls.https_or_http().enable_http2().wrap_connector(tcp));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().unwrap())
        .layer(config.extra_headers_layer().unwrap())
        .map_err(BoxError::from)
        .service(http);
    ClientBuilder::new(service, config.default_namespace.clone()).build()
}

/// The Notifications of a namespace.
pub fn notifications(client: Client, namespace: &str) -> Api<Pending> {
    Api::namespaced_with(client, namespace, &ApiResource::erase::<Notification>(&()))
}

/// The path of a namespace's Notifications.
pub fn path(namespace: &str) -> String {
    format!("/apis/tidings.dev/v1alpha1/namespaces/{namespace}/notifications")
}

/// The request that puts `status` in the place of what `read` holds.
pub fn outcome(read: &Pending, status: &NotificationStatus) -> Request<Vec<u8>> {
    let ObjectMeta { namespace, name, uid, .. } = &read.metadata;
    let stored = read.status.as_ref().unwrap();
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/status/phase", "value": stored.phase},
        {"op": "test", "path": "/status/attempts", "value": stored.attempts},
        {"op": "test", "path": "/status/lastHandledReplay", "value": null},
        {"op": "add", "path": "/status", "value": status},
    ]);
    let path = path(namespace.as_deref().unwrap());
    Request::patch(format!("{path}/{}/status?fieldManager=tidings", name.as_deref().unwrap()))
        .header(CONTENT_TYPE, "application/json-patch+json")
        // Of the answer the metadata alone.
        .header(ACCEPT, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;q=0.9")
        .body(patch.to_string().into_bytes())
        .unwrap()
}
