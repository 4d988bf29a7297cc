//! `spec.tokenService.serviceAccountToken`: a token of a ServiceAccount as the assertion of the client.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema::{object_name, token_audience};

/// A token of a ServiceAccount that authenticates the client (RFC 7523, section 2.2). The operator requests a new token
/// from the API server (TokenRequest) for each token request to the token service.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountToken {
    /// Name of the ServiceAccount, in this namespace. Its annotation tidings.dev/allowed-token-requests must name the
    /// audience and the host of tokenService.url, and the operator must have permission to create its tokens.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// Audience of the token (aud), as the token service expects it, for example api://AzureADTokenExchange. Audiences
    /// that the API server of this cluster accepts itself are refused.
    #[schemars(schema_with = "token_audience")]
    pub audience: String,
    /// How long a token is valid, in seconds (exp). The API server issues no token for less than 600 seconds. Default:
    /// 600.
    #[serde(default = "default_expiration")]
    #[schemars(range(min = 600, max = 3600))]
    pub expiration_seconds: u32,
}

fn default_expiration() -> u32 {
    600
}
