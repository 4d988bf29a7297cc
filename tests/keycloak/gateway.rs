//! A gateway in front of Keycloak that holds each request until the assertion in it has expired.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use testkit::{
    Authority,
    endpoints::{Answer, Endpoint, HttpsServer, Reply, Request},
    loopback,
};

use crate::keys;

pub struct SlowGateway {
    /// The plain HTTP port of Keycloak.
    keycloak: SocketAddr,
    answers: Mutex<Vec<String>>,
}

impl SlowGateway {
    pub async fn start(authority: &Authority, keycloak: SocketAddr) -> HttpsServer<Self> {
        HttpsServer::start(Arc::new(Self { keycloak, answers: Mutex::default() }), authority.server_config(&[]))
            .await
            .unwrap()
    }

    /// What Keycloak answered, for checks of the cause: the operator does not show an `error_description`.
    pub fn answers(&self) -> Vec<String> {
        self.answers.lock().unwrap().clone()
    }
}

impl Endpoint for SlowGateway {
    async fn answer(&self, request: Request) -> Answer {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        let mut fields = url::form_urlencoded::parse(body.as_bytes());
        let (_, assertion) = fields.find(|(name, _)| name == "client_assertion").unwrap();
        let expires = Duration::from_secs(keys::parts(&assertion).claims["exp"].as_u64().unwrap());
        // Keycloak counts in whole seconds.
        let expired = SystemTime::UNIX_EPOCH + expires + Duration::from_secs(1);
        while let Ok(left) = expired.duration_since(SystemTime::now()) {
            tokio::time::sleep(left).await;
        }
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let limit = Duration::from_secs(30);
        let answer = loopback::request(self.keycloak, "POST", &request.path, &headers, &body, limit).await;
        let (status, body) = answer.unwrap();
        self.answers.lock().unwrap().push(body.clone());
        Answer::Reply(Reply::status(status).header("content-type", "application/json").body(body))
    }
}
