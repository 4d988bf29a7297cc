//! The page that the run writes.

use std::{fmt::Write, fs, path::Path};

const PAGE: &str = "docs/keycloak.md";

/// What the run has shown. A row is added after its checks.
#[derive(Default)]
pub struct Report {
    accepted: Vec<String>,
    settings: Vec<String>,
    refused: Vec<String>,
}

impl Report {
    /// A client authentication with which events were delivered, before and after a rotation.
    pub fn accepted(&mut self, how: &str, at_keycloak: &str, rotation: &str) {
        self.accepted.push(format!("| {} | {at_keycloak} | delivered | delivered: {rotation} |", shown(how)));
    }

    /// What Keycloak makes of a setting.
    pub fn setting(&mut self, setting: &str, effect: &str) {
        self.settings.push(format!("| {setting} | {effect} |"));
    }

    /// A refusal that the operator reported with this reason, and with a message that contains these parts.
    pub fn refused(&mut self, how: &str, fault: &str, reason: &str, says: &[&str]) {
        self.refused.push(format!("| {} | {fault} | `{reason}` | {} |", shown(how), says.join(" … ")));
    }

    /// Writes the page.
    pub fn write(&self, version: &str) {
        let (accepted, settings, refused) = (&self.accepted, &self.settings, &self.refused);
        let mut page = format!(
            "<!-- Written by make keycloak: do not edit. -->\n\n\
             # Test report: Keycloak {version}\n\n\
             `make keycloak` runs the operator on a real API server with Keycloak {version} as the token service, over TLS, and\n\
             writes this page. The webhook of the test checks each token with Keycloak (RFC 7662): client, scope and audience.\n\
             [token-services.md](token-services.md#keycloak) says how to set up Keycloak and a Subscriber.\n\n\
             The run checked {} client authentications, {} settings and {} refusals. Every row was as this page says.\n",
            accepted.len(),
            settings.len(),
            refused.len(),
        );
        let sections = [
            (
                "What Keycloak accepts",
                "The second event was sent after the secret, the key or the certificate had been replaced.",
                "| `clientAuthentication` | client authenticator at Keycloak | first event | event after a rotation |\n|---|---|---|---|",
                accepted,
            ),
            ("Settings", "", "| setting | effect |\n|---|---|", settings),
            (
                "What Keycloak refuses",
                "Each row is a Subscriber that differs in one point from a Subscriber that works.",
                "| `clientAuthentication` | fault | reason | the message contains |\n|---|---|---|---|",
                refused,
            ),
        ];
        for (heading, text, head, rows) in sections {
            let text = if text.is_empty() { String::new() } else { format!("{text}\n\n") };
            write!(page, "\n## {heading}\n\n{text}{head}\n{}\n", rows.join("\n")).unwrap();
        }
        page.push_str(
            "\nTokens for clients with *X509 Certificate* can be bound to the certificate (*OAuth 2.0 Mutual TLS Certificate Bound\n\
             Access Tokens Enabled*): in the first table, they were, and each token named the certificate with which it was requested\n\
             (RFC 8705, section 3). A webhook that checks the binding needs the same certificate in\n\
             `webhook.tls.clientCertificateSecretRef`.\n",
        );
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE), page).unwrap();
    }
}

/// The `clientAuthentication`, with the algorithm of an assertion.
fn shown(how: &str) -> String {
    match how {
        "RS256" | "PS256" | "ES256" | "EdDSA" => format!("`PrivateKeyJWT`, {how}"),
        _ => format!("`{how}`"),
    }
}
