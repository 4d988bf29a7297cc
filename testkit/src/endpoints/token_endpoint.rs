//! Answers the requests to the token service.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};

use crate::endpoints::exchange::{Answer, Reply, Request};
use crate::endpoints::https::Endpoint;
use crate::endpoints::script::{Behaviour, Scripts};
use crate::endpoints::token_book::TokenBook;
use crate::endpoints::token_client::{Client, Proof};
use crate::endpoints::token_request::{self, Credentials, Fields, Refusal, TokenRequest};

/// The state of the token service: its clients, its scripts and the requests so far.
#[derive(Default)]
pub(crate) struct TokenEndpoint {
    pub(crate) clients: Mutex<HashMap<String, Client>>,
    /// The header that the gateway in front requires, if there is one.
    pub(crate) gateway: Mutex<Option<(HeaderName, HeaderValue)>>,
    pub(crate) expires_in: Mutex<Option<Duration>>,
    pub(crate) book: TokenBook,
    pub(crate) scripts: Scripts,
    pub(crate) requests: Mutex<Vec<TokenRequest>>,
    /// The assertions so far: each is accepted once (RFC 7523, section 3).
    assertions: Mutex<HashSet<String>>,
}

impl Endpoint for TokenEndpoint {
    async fn answer(&self, request: Request) -> Answer {
        let fields = token_request::fields(&request);
        let credentials = token_request::credentials(&request, &fields);
        let named = credentials.as_ref().ok();
        let mut record = TokenRequest {
            arrived: request.arrived,
            arrived_at: request.arrived_at,
            path: request.path.clone(),
            client_id: named.map(|who| who.id.clone()).or_else(|| fields.get("client_id").map(str::to_owned)),
            authentication: named.map(|who| who.method),
            headers: request.headers.clone(),
            fields,
            answered: None,
            error: None,
        };
        let behaviour = match self.scripts.take(&request.path) {
            Some(behaviour) => behaviour,
            None if self.is_stopped_by_gateway(&request) => {
                // As Azure API Management answers without its subscription key.
                let body = json!({"statusCode": 401, "message": "Access denied due to an invalid subscription key."});
                Behaviour::reply(Reply::status(401).body(body.to_string()))
            }
            None => {
                let outcome = self.token(&request, &record.fields, credentials).await;
                record.error = outcome.as_ref().err().map(|refusal| refusal.code);
                Behaviour::reply(reply(&request.method, outcome))
            }
        };
        record.answered = behaviour.immediate_status();
        let number = {
            let mut requests = self.requests.lock().unwrap();
            requests.push(record);
            requests.len() - 1
        };
        behaviour.perform(|status| self.requests.lock().unwrap()[number].answered = status).await
    }
}

impl TokenEndpoint {
    fn is_stopped_by_gateway(&self, request: &Request) -> bool {
        let gateway = self.gateway.lock().unwrap().clone();
        gateway.is_some_and(|(name, value)| request.headers.get(&name) != Some(&value))
    }

    async fn token(
        &self,
        request: &Request,
        fields: &Fields,
        credentials: Result<Credentials, Refusal>,
    ) -> Result<Value, Refusal> {
        if request.method != Method::POST {
            return Err(Refusal::new("invalid_request", "the method is not POST"));
        }
        token_request::check_form(request, fields)?;
        let client = self.authenticate(&credentials?).await?;
        token_request::check_grant(fields)?;
        let scopes = token_request::scopes(fields, &client.scopes)?;
        let life = *self.expires_in.lock().unwrap();
        let mut token = Map::new();
        token.insert("access_token".into(), self.book.issue(&client.id, &scopes, life).into());
        token.insert("token_type".into(), "Bearer".into());
        token.extend(life.map(|life| ("expires_in".into(), life.as_secs().into())));
        token.insert("scope".into(), scopes.join(" ").into());
        Ok(token.into())
    }

    async fn authenticate(&self, credentials: &Credentials) -> Result<Client, Refusal> {
        let client = self.clients.lock().unwrap().get(&credentials.id).cloned();
        let unknown = || Refusal::new("invalid_client", "unknown client or wrong secret");
        let client = client.ok_or_else(unknown)?;
        let is_proven = match (&client.proof, &credentials.proof) {
            (Proof::ServiceAccount(reviewer), Proof::Assertion(jwt)) => {
                let is_new = self.assertions.lock().unwrap().insert(jwt.clone());
                is_new && reviewer.accepts(jwt).await
            }
            (registered, given) => registered == given,
        };
        if is_proven { Ok(client) } else { Err(unknown()) }
    }
}

/// Builds the response of RFC 6749, sections 5.1 and 5.2.
fn reply(method: &Method, outcome: Result<Value, Refusal>) -> Reply {
    let (reply, body) = match outcome {
        Ok(token) => (Reply::status(200), token),
        Err(Refusal { code, description }) => {
            let reply = match code {
                _ if method != Method::POST => Reply::status(405).header("allow", "POST"),
                "invalid_client" => Reply::status(401).header("www-authenticate", r#"Basic realm="token service""#),
                _ => Reply::status(400),
            };
            (reply, json!({"error": code, "error_description": description}))
        }
    };
    let reply = reply.header("content-type", "application/json").header("cache-control", "no-store");
    reply.header("pragma", "no-cache").body(body.to_string())
}
