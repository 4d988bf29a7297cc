//! Runs Keycloak, an OAuth 2.0 token server that is not part of this project.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::binaries;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::loopback::{free_address, get, request};
use crate::pki::Authority;
use crate::process::{Process, Program};

/// The realm that the clients belong to.
const REALM: &str = "shop";
/// The client that introspects tokens, and the administrator of this server, which lives as long as a test.
const RECEIVER: (&str, &str) = ("receiver", "of-the-receiver");
const ADMIN: (&str, &str) = ("admin", "of-the-administrator");

/// On two busy cores, a start takes two minutes.
const START_LIMIT: Duration = Duration::from_secs(300);
/// The time limit of a request to the server.
const LIMIT: Duration = Duration::from_secs(30);

/// A running Keycloak with one realm, which keeps its data in memory. It is killed when it is dropped or when this
/// process ends.
#[derive(Debug)]
pub struct Keycloak {
    process: Process,
    version: String,
    public: SocketAddr,
    admin: SocketAddr,
    _folder: Folder,
}

/// Queries a Keycloak about tokens (RFC 7662).
#[derive(Clone, Copy, Debug)]
pub struct KeycloakIntrospection(SocketAddr);

impl Keycloak {
    /// Starts Keycloak in its production mode and waits until it is ready. Its HTTPS port has a certificate of `server`
    /// and requests client certificates, which it accepts if they are of `clients`.
    ///
    /// The realm has one client scope, `scope`. A token with it is for `audience`.
    ///
    /// # Errors
    /// When the program is missing (the error says how to install it) or not ready in time (the error contains the
    /// log).
    pub async fn start(server: &Authority, clients: &Authority, scope: &str, audience: &str) -> Result<Self> {
        let program = binaries::tool_of("make keycloak", "keycloak", "TIDINGS_KEYCLOAK")?;
        let home = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        let version = fs::read_to_string(home.join("version.txt"))?;
        let version = version.trim().trim_start_matches("Keycloak - Version ").to_owned();
        let folder = Folder::new("keycloak")?;
        let (public, admin) = (free_address()?, free_address()?);
        let identity = server.server_identity(&[]);
        let certificate = folder.write("server.crt", &identity.certificate_pem)?;
        let key = folder.write("server.key", &identity.key_pem)?;
        let trusted = folder.write("clients.crt", clients.ca_pem())?;
        let transactions = folder.path().join("transactions");
        let program = Program::new("keycloak", program, folder.path().join("keycloak.log"))
            .args(["start", "--optimized", "--http-enabled=true"])
            .args([
                format!("--http-host={}", public.ip()),
                format!("--https-port={}", public.port()),
                format!("--http-port={}", admin.port()),
                // The issuer is the same at both ports.
                format!("--hostname=https://{public}"),
                format!("--https-certificate-file={}", certificate.display()),
                format!("--https-certificate-key-file={}", key.display()),
                format!("--https-trust-store-file={}", trusted.display()),
                format!("-Dquarkus.transaction-manager.object-store.directory={}", transactions.display()),
            ])
            .env("KC_BOOTSTRAP_ADMIN_CLIENT_ID", ADMIN.0)
            .env("KC_BOOTSTRAP_ADMIN_CLIENT_SECRET", ADMIN.1);
        let keycloak = Self { process: Process::start(program).await?, version, public, admin, _folder: folder };
        keycloak.ready().await?;
        keycloak.create_realm(scope, audience).await?;
        Ok(keycloak)
    }

    async fn ready(&self) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        loop {
            let answer = get(self.admin, "/realms/master", Duration::from_secs(10)).await;
            if matches!(answer, Ok((200, _))) {
                return Ok(());
            }
            if self.process.exit_code().is_some() || Instant::now() > end {
                return Err(Error::new(format!("keycloak is not ready: {answer:?}\n{}", self.process.log_tail(15))));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn create_realm(&self, scope: &str, audience: &str) -> Result<()> {
        let mapper = |name: &str, audience: &str, value: &str| {
            json!({
                "name": name, "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
                "config": {audience: value, "access.token.claim": "true", "introspection.token.claim": "true"},
            })
        };
        // Keycloak describes a token only to a client in its audience.
        let mappers = [
            mapper("webhook", "included.custom.audience", audience),
            mapper("receiver", "included.client.audience", RECEIVER.0),
        ];
        let attributes = json!({"include.in.token.scope": "true"});
        let scope =
            json!({"name": scope, "protocol": "openid-connect", "attributes": attributes, "protocolMappers": mappers});
        let realm = json!({"realm": REALM, "enabled": true, "clientScopes": [scope]});
        self.administer("POST", "/admin/realms", &realm).await?;
        let receiver =
            json!({"clientId": RECEIVER.0, "secret": RECEIVER.1, "publicClient": false, "standardFlowEnabled": false});
        self.administer("POST", &format!("/admin/realms/{REALM}/clients"), &receiver).await.map(drop)
    }

    /// The version of Keycloak.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The issuer: the URL of the realm.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("https://{}/realms/{REALM}", self.public)
    }

    /// The URL of the token endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/protocol/openid-connect/token", self.issuer())
    }

    /// The address of the same endpoints over plain HTTP.
    #[must_use]
    pub fn plain_address(&self) -> SocketAddr {
        self.admin
    }

    /// Registers a client with a service account, which may request `scope`. `settings` adds or replaces members of
    /// Keycloak's ClientRepresentation: the client authenticator, the secret, the attributes.
    ///
    /// # Errors
    /// When Keycloak refuses the client, with its response.
    pub async fn register(&self, id: &str, scope: &str, settings: &Value) -> Result<()> {
        let mut client = json!({
            "clientId": id, "publicClient": false, "serviceAccountsEnabled": true, "standardFlowEnabled": false,
            "defaultClientScopes": [], "optionalClientScopes": [scope],
        });
        merge(&mut client, settings);
        self.administer("POST", &format!("/admin/realms/{REALM}/clients"), &client).await.map(drop)
    }

    /// Changes members of a client's ClientRepresentation.
    ///
    /// # Errors
    /// When there is no such client, or Keycloak refuses the change, with its response.
    pub async fn change(&self, id: &str, settings: &Value) -> Result<()> {
        let clients = format!("/admin/realms/{REALM}/clients");
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("clientId", id).finish();
        let found = self.administer("GET", &format!("{clients}?{query}"), &Value::Null).await?;
        let found: Value = serde_json::from_str(&found).unwrap_or_default();
        let mut client = found[0].clone();
        let uid = client["id"].as_str().ok_or_else(|| Error::new(format!("keycloak has no client {id}")))?.to_owned();
        merge(&mut client, settings);
        self.administer("PUT", &format!("{clients}/{uid}"), &client).await.map(drop)
    }

    /// Sends a request to the administration API, with a token of its own: such a token lives for a minute.
    async fn administer(&self, method: &str, path: &str, body: &Value) -> Result<String> {
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", ADMIN.0)
            .append_pair("client_secret", ADMIN.1)
            .finish();
        let endpoint = "/realms/master/protocol/openid-connect/token";
        let answer = request(self.admin, "POST", endpoint, &[FORM], &form, LIMIT).await?;
        let token: Value = serde_json::from_str(&answer.1).unwrap_or_default();
        let authorization = format!("Bearer {}", token["access_token"].as_str().unwrap_or_default());
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        match request(self.admin, method, path, &headers, &body, LIMIT).await? {
            (200..=204, body) => Ok(body),
            (status, body) => Err(Error::new(format!("keycloak answered {status} to {method} {path}: {body}"))),
        }
    }

    /// Returns the introspection of this Keycloak's tokens. It may outlive the `Keycloak`.
    #[must_use]
    pub fn introspection(&self) -> KeycloakIntrospection {
        KeycloakIntrospection(self.admin)
    }
}

/// The header of a form.
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

impl KeycloakIntrospection {
    /// Returns the introspection response for an access token (RFC 7662, section 2.2), or None if the token is not
    /// active.
    ///
    /// # Errors
    /// When there is no usable response.
    pub async fn introspect(&self, token: &str) -> Result<Option<Value>> {
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token)
            .append_pair("client_id", RECEIVER.0)
            .append_pair("client_secret", RECEIVER.1)
            .finish();
        let path = format!("/realms/{REALM}/protocol/openid-connect/token/introspect");
        let (status, body) = request(self.0, "POST", &path, &[FORM], &form, LIMIT).await?;
        let answer: Option<Value> = serde_json::from_str(&body).ok().filter(|_| status == 200);
        let answer = answer
            .ok_or_else(|| Error::new(format!("keycloak answered {status} when a token was introspected: {body}")))?;
        Ok((answer["active"] == true).then_some(answer))
    }
}

/// Adds the members of `change` to `object`, and those of its objects to the objects of the same name.
fn merge(object: &mut Value, change: &Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (name, value) in change {
                merge(object.entry(name).or_insert(Value::Null), value);
            }
        }
        (object, change) => *object = change.clone(),
    }
}
