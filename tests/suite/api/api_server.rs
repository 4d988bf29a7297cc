//! The way to the API server.

use std::sync::Arc;

use http::{Request, Version};
use kube::{Client, Config, client::Body, config::KubeConfigOptions};
use testkit::{
    Authority,
    endpoints::{Answer, Endpoint, HttpsServer, Reply, Request as Arrived},
};

use tidings::cluster as api_server;

use crate::cluster::{cluster, config};

#[tokio::test]
async fn outcomes_are_written_in_http_2() {
    let config = config(cluster().await.admin_kubeconfig()).await;
    let version = async |client: Client| client.send(version_request()).await.unwrap().version();
    assert_eq!(version(api_server::writer(&config).await.unwrap()).await, Version::HTTP_2);
    // Each watch has a connection of its own.
    assert_eq!(version(api_server::reader(&config).unwrap()).await, Version::HTTP_11);
}

/// A server before which an API server may stand: it offers HTTP/1.1 alone.
struct Old;

impl Endpoint for Old {
    async fn answer(&self, request: Arrived) -> Answer {
        let authorized = request.headers.get("authorization").is_some_and(|value| value == "Bearer t0ken");
        Answer::Reply(Reply::status(if authorized { 204 } else { 401 }))
    }
}

#[tokio::test]
async fn a_proxy_that_speaks_http_1_1_alone_is_spoken_to_in_that() {
    let authority = Authority::new();
    let server = HttpsServer::start(Arc::new(Old), authority.server_config(&[])).await.unwrap();
    let kubeconfig = serde_yaml::from_value(
        serde_yaml::to_value(serde_json::json!({
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", server.address()),
                "certificate-authority-data": base64(authority.ca_pem()),
            }}],
            "users": [{"name": "u", "user": {"token": "t0ken"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }))
        .unwrap(),
    );
    let config = Config::from_custom_kubeconfig(kubeconfig.unwrap(), &KubeConfigOptions::default()).await.unwrap();
    let answer = api_server::writer(&config).await.unwrap().send(version_request()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (204, Version::HTTP_11));
}

fn version_request() -> Request<Body> {
    Request::get("/version").body(Body::empty()).unwrap()
}

fn base64(text: &str) -> String {
    use ::base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}
