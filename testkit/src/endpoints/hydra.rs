//! Runs Ory Hydra, an OAuth 2.0 token server that is not part of this project.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::binaries;
use crate::endpoints::token_client::{AuthMethod, Client};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::loopback::{free_address, get, post};
use crate::pki::Authority;
use crate::process::{Process, Program};

const START_LIMIT: Duration = Duration::from_secs(30);
/// The time limit of a request to the administration API.
const LIMIT: Duration = Duration::from_secs(10);
/// The number of attempts to start: another program may take a free port first.
const TRIES: u32 = 3;

/// A running Hydra that keeps its data in memory. It is killed when it is dropped or when this process ends.
#[derive(Debug)]
pub struct Hydra {
    process: Process,
    public: SocketAddr,
    admin: SocketAddr,
    _folder: Folder,
}

/// Queries a Hydra about tokens (RFC 7662).
#[derive(Clone, Copy, Debug)]
pub struct Introspection(SocketAddr);

impl Hydra {
    /// Starts Hydra with a certificate of this authority and waits until it is ready.
    ///
    /// # Errors
    /// When the program is missing (the error says how to install it) or not ready in time (the error contains the
    /// log).
    pub async fn start(authority: &Authority) -> Result<Self> {
        let mut tries = 1;
        loop {
            match Self::try_start(authority).await {
                Err(error) if tries < TRIES && error.to_string().contains("address already in use") => tries += 1,
                result => return result,
            }
        }
    }

    async fn try_start(authority: &Authority) -> Result<Self> {
        let folder = Folder::new("hydra")?;
        let (public, admin) = (free_address()?, free_address()?);
        let config = folder.write("hydra.json", &config(&folder, authority, public, admin)?.to_string())?;
        let program =
            Program::new("hydra", binaries::tool("bin/hydra", "TIDINGS_HYDRA")?, folder.path().join("hydra.log"))
                .args(["serve", "all", "--config"])
                .args([config]);
        let hydra = Self { process: Process::start(program).await?, public, admin, _folder: folder };
        hydra.ready().await?;
        Ok(hydra)
    }

    async fn ready(&self) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        loop {
            let answer = get(self.admin, "/health/ready", Duration::from_secs(2)).await;
            if matches!(answer, Ok((200, _))) {
                return Ok(());
            }
            if self.process.exit_code().is_some() || Instant::now() > end {
                return Err(Error::new(format!("hydra is not ready: {answer:?}\n{}", self.process.log_tail(15))));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The URL of the token endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}/oauth2/token", self.public)
    }

    /// Registers a client that may use only this authentication method and these audiences.
    ///
    /// # Errors
    /// When Hydra refuses the client, with its response.
    pub async fn register(&self, client: &Client, authentication: AuthMethod, audiences: &[&str]) -> Result<()> {
        self.create(&json!({
            "client_id": client.id,
            "client_secret": client.secret(),
            "grant_types": ["client_credentials"],
            "scope": client.scopes.join(" "),
            "audience": audiences,
            "token_endpoint_auth_method": match authentication {
                AuthMethod::Basic => "client_secret_basic",
                AuthMethod::Post => "client_secret_post",
                AuthMethod::Assertion => "private_key_jwt",
                // Hydra answers that it does not support the method.
                AuthMethod::Tls => "tls_client_auth",
            },
        }))
        .await
    }

    /// Registers a client that may use only assertions of these public keys (JWKs, RFC 7517) with this algorithm.
    ///
    /// # Errors
    /// When Hydra refuses the client, with its response.
    pub async fn register_keys(&self, id: &str, keys: &[Value], algorithm: &str, audiences: &[&str]) -> Result<()> {
        self.create(&json!({
            "client_id": id,
            "grant_types": ["client_credentials"],
            "scope": "events.write",
            "audience": audiences,
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": algorithm,
            "jwks": {"keys": keys},
        }))
        .await
    }

    async fn create(&self, registration: &Value) -> Result<()> {
        match post(self.admin, "/admin/clients", "application/json", &registration.to_string(), LIMIT).await? {
            (201, _) => Ok(()),
            (status, body) => Err(Error::new(format!("hydra answered {status} when a client was registered: {body}"))),
        }
    }

    /// Returns the introspection of this Hydra's tokens. It may outlive the `Hydra`.
    #[must_use]
    pub fn introspection(&self) -> Introspection {
        Introspection(self.admin)
    }
}

impl Introspection {
    /// Returns the introspection response for an access token (RFC 7662, section 2.2), or None if the token is not
    /// active.
    ///
    /// # Errors
    /// When there is no usable response.
    pub async fn introspect(&self, token: &str) -> Result<Option<Value>> {
        let form: String = form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
        let (path, content_type) = ("/admin/oauth2/introspect", "application/x-www-form-urlencoded");
        let (status, body) = post(self.0, path, content_type, &form, LIMIT).await?;
        let answer: Option<Value> = serde_json::from_str(&body).ok().filter(|_| status == 200);
        let answer = answer
            .ok_or_else(|| Error::new(format!("hydra answered {status} when a token was introspected: {body}")))?;
        Ok((answer["active"] == true).then_some(answer))
    }
}

/// The configuration as JSON, which is valid YAML.
fn config(folder: &Folder, authority: &Authority, public: SocketAddr, admin: SocketAddr) -> Result<Value> {
    let identity = authority.server_identity(&[]);
    let certificate = folder.write("server.crt", &identity.certificate_pem)?;
    let key = folder.write("server.key", &identity.key_pem)?;
    let tls = json!({"enabled": true, "cert": {"path": certificate}, "key": {"path": key}});
    Ok(json!({
        "dsn": "memory",
        "log": {"level": "warn"},
        "secrets": {"system": ["of-a-server-that-lives-as-long-as-a-test"]},
        "serve": {
            "public": {"host": public.ip(), "port": public.port(), "tls": tls},
            "admin": {"host": admin.ip(), "port": admin.port(), "tls": {"enabled": false}},
        },
        // No telemetry.
        "sqa": {"opt_out": true},
        "urls": {"self": {"issuer": format!("https://{public}/")}},
    }))
}
