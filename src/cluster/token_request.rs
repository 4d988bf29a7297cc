//! Requests tokens of ServiceAccounts (TokenRequest).

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Resource, api::PostParams, core::Request};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::SingleTry;

/// A token of a ServiceAccount. It has no Debug.
#[derive(Deserialize)]
pub struct IssuedToken {
    spec: IssuedSpec,
    status: IssuedStatus,
}

#[derive(Deserialize)]
struct IssuedSpec {
    #[serde(default)]
    audiences: Vec<String>,
}

#[derive(Deserialize)]
struct IssuedStatus {
    #[serde(deserialize_with = "secret")]
    token: SecretString,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

impl IssuedToken {
    /// The audiences of the token, and the token.
    pub fn into_parts(self) -> (Vec<String>, SecretString) {
        (self.spec.audiences, self.status.token)
    }
}

/// Requests a token of a ServiceAccount that is valid for `seconds`. None: for the audiences of the API server. The name
/// must be a valid object name.
pub async fn request_token(
    client: &SingleTry,
    (namespace, name): (&str, &str),
    audience: Option<&str>,
    seconds: u32,
) -> kube::Result<IssuedToken> {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": audience.into_iter().collect::<Vec<_>>(), "expirationSeconds": seconds},
    });
    let request = Request::new(ServiceAccount::url_path(&(), Some(namespace)));
    let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
    let request = request.create_subresource("token", name, &PostParams::default(), body);
    client.request(request.map_err(kube::Error::BuildRequest)?).await
}
