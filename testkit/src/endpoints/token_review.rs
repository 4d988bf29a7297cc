//! Has the API server review the token of a ServiceAccount (TokenReview), as a token service does that trusts a cluster.

use serde_json::{Value, json};

use crate::control_plane::Kubectl;

/// The ServiceAccount that a client is, and who reviews its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenReviewer {
    kubectl: Kubectl,
    audience: String,
    username: String,
}

impl TokenReviewer {
    /// Accepts the tokens for `audience` of the ServiceAccount with this user name, by the API server of `kubectl`.
    pub(crate) fn new(kubectl: &Kubectl, audience: &str, username: &str) -> Self {
        Self { kubectl: kubectl.clone(), audience: audience.to_owned(), username: username.to_owned() }
    }

    /// Whether the API server says that `token` is a valid token of the ServiceAccount for the audience.
    ///
    /// # Panics
    /// When the API server cannot be asked.
    pub(crate) async fn accepts(&self, token: &str) -> bool {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.audience]},
        });
        let args = ["create", "-f", "-", "-o", "json"];
        let reviewed = self.kubectl.run_with_input(&args, &review.to_string()).await.unwrap().ok().unwrap();
        let status = serde_json::from_str::<Value>(&reviewed).unwrap()["status"].take();
        let audiences = status["audiences"].as_array().is_some_and(|all| all.contains(&self.audience.as_str().into()));
        status["authenticated"] == true && audiences && status["user"]["username"] == self.username.as_str()
    }
}
