//! Advice about a token request that failed: what to try next, from the error and from what was sent. Pure.
//!
//! Every text is one of this file: nothing that a token service sends is repeated.

use std::borrow::Cow;

use tidings_api::SubscriberReason as Reason;
use tidings_delivery::oauth::{ClientProof, RequestOutline, TokenError};

/// Returns the reason of the condition TokenAvailable, and the end of its message.
pub(super) fn hint(error: &TokenError, sent: RequestOutline) -> (Reason, String) {
    let advice: Cow<'_, str> = match error {
        TokenError::Unauthorized => format!("check tokenService.url and {}", proof(sent)).into(),
        TokenError::Rejected(code) => match *code {
            "invalid_client" => format!("check {}", proof(sent)).into(),
            "unauthorized_client" => unauthorized(sent),
            "unsupported_grant_type" => {
                "check that tokenService.url is the token endpoint, and that the token service supports the client credentials grant".into()
            }
            "invalid_grant" => {
                "check that tokenService.url is the endpoint for the client credentials grant, and that the client is enabled at the token service".into()
            }
            "invalid_scope" if sent.has_scopes => {
                "check tokenService.scopes: the client may not use one of these scopes, or the token service expects another form".into()
            }
            "invalid_scope" => "set tokenService.scopes: the token service requires a scope".into(),
            "invalid_request" => format!("{}{}", missing_fields(sent), other_places(sent)).into(),
            "invalid_resource" => {
                "check tokenService.scopes and tokenService.audience: the token service does not know the API that they name".into()
            }
            "invalid_target" if sent.has_audience => {
                "check tokenService.audience and tokenService.resources".into()
            }
            "invalid_target" => {
                "set tokenService.audience or tokenService.resources: the token service requires a target".into()
            }
            "access_denied" if sent.has_audience => {
                "check at the token service that this client may use tokenService.audience and tokenService.scopes".into()
            }
            "access_denied" => {
                "check the permissions of this client at the token service; if it issues tokens for one API at a time, set tokenService.audience".into()
            }
            "invalid_authorization_details" => {
                "check the parameter authorization_details in tokenService.parameters".into()
            }
            "invalid_dpop_proof" | "use_dpop_nonce" => {
                "the token service requires proofs of possession (DPoP), which the operator does not support: turn DPoP off for this client at the token service".into()
            }
            _ => "check tokenService and the client's registration at the token service".into(),
        },
        TokenError::NotAcceptedYet(_) => {
            return (
                Reason::TokenUnavailable,
                "; the operator tries again: some token services need minutes until they accept new client credentials".into(),
            );
        }
        TokenError::NoAssertion(none) if none.reason != Reason::TokenUnavailable => {
            return (none.reason, String::new());
        }
        _ => return (Reason::TokenUnavailable, "; the operator tries again".into()),
    };
    (Reason::TokenRejected, format!(": {advice}"))
}

/// What to check when the client may not use the grant. Keycloak answers the same to a wrong secret.
fn unauthorized(sent: RequestOutline) -> Cow<'static, str> {
    let grant = "enable the client credentials grant for this client at the token service";
    match sent.proof {
        ClientProof::Basic { .. } | ClientProof::BasicUnencoded | ClientProof::Post => {
            format!("{grant}; some token services answer this to a wrong secret: check {}", proof(sent)).into()
        }
        ClientProof::Certificate | ClientProof::Assertion | ClientProof::IssuedAssertion => grant.into(),
    }
}

/// What to check when the token service does not know the client, and what to try if it is correct.
fn proof(sent: RequestOutline) -> String {
    let secret = |other: &str| {
        format!("the client ID and client secret in the Secret that tokenService.credentialsSecretRef names; {other}")
    };
    match sent.proof {
        ClientProof::Basic { is_changed: true } => secret(
            "they have characters that clientAuthentication Basic encodes (RFC 6749, section 2.3.1): if the token service does not decode them, set tokenService.clientAuthentication to BasicUnencoded, or to Post if it reads them from the form",
        ),
        ClientProof::Basic { is_changed: false } => {
            secret("if they are correct, set tokenService.clientAuthentication to Post")
        }
        ClientProof::BasicUnencoded => {
            secret("if they are correct, set tokenService.clientAuthentication to Basic or Post")
        }
        ClientProof::Post => secret("if they are correct, set tokenService.clientAuthentication to Basic"),
        ClientProof::Certificate => {
            "the client ID, and whether the certificate in the Secret that tokenService.tls.clientCertificateSecretRef names is registered for the client at the token service".into()
        }
        ClientProof::Assertion => {
            "the client ID, and whether the token service has the public key of the client and accepts the algorithm, keyID and audience of tokenService.privateKeyJWT; if they are correct, compare the clocks of the operator and the token service, or set a longer tokenService.privateKeyJWT.lifetimeSeconds".into()
        }
        ClientProof::IssuedAssertion => {
            "the client ID, and whether the token service trusts the issuer of this cluster's ServiceAccount tokens and accepts the subject system:serviceaccount:NAMESPACE:NAME and the audience of tokenService.serviceAccountToken".into()
        }
    }
}

/// The fields that the token service may miss in the request.
fn missing_fields(sent: RequestOutline) -> &'static str {
    match (sent.has_scopes, sent.has_audience) {
        (true, true) => "check tokenService.scopes, tokenService.audience and tokenService.parameters",
        (true, false) => {
            "check tokenService.scopes; if the token service requires a target, set tokenService.audience or tokenService.resources"
        }
        (false, true) => {
            "check tokenService.audience and tokenService.parameters; if the token service requires a scope, set tokenService.scopes"
        }
        (false, false) => {
            "set what the token service requires: tokenService.scopes, tokenService.audience or tokenService.resources"
        }
    }
}

/// The other place for the credentials: some token services answer `invalid_request` if they miss them.
fn other_places(sent: RequestOutline) -> &'static str {
    match sent.proof {
        ClientProof::Basic { .. } | ClientProof::BasicUnencoded => {
            "; if it reads the credentials from the form, set tokenService.clientAuthentication to Post"
        }
        ClientProof::Post => {
            "; if it reads the credentials from the Authorization header, set tokenService.clientAuthentication to Basic"
        }
        ClientProof::Certificate | ClientProof::Assertion | ClientProof::IssuedAssertion => "",
    }
}

#[cfg(test)]
mod tests {
    use tidings_delivery::oauth::NoAssertion;

    use super::*;

    const NOTHING: RequestOutline =
        RequestOutline { proof: ClientProof::Basic { is_changed: false }, has_scopes: false, has_audience: false };

    fn rejected(code: &'static str, sent: RequestOutline) -> String {
        let (reason, hint) = hint(&TokenError::Rejected(code), sent);
        assert_eq!(reason, Reason::TokenRejected);
        hint
    }

    #[test]
    fn field_13_a_refusal_names_basic_unencoded_only_if_encoding_changes_the_credentials() {
        let encoded = RequestOutline { proof: ClientProof::Basic { is_changed: true }, ..NOTHING };
        for refusal in [TokenError::Rejected("invalid_client"), TokenError::Unauthorized] {
            assert!(hint(&refusal, encoded).1.contains("BasicUnencoded"));
            assert!(!hint(&refusal, NOTHING).1.contains("BasicUnencoded"));
        }
        // Keycloak answers so to a wrong secret.
        assert!(rejected("unauthorized_client", encoded).contains("BasicUnencoded"));
        assert!(!rejected("unauthorized_client", NOTHING).contains("BasicUnencoded"));
        assert!(!rejected("invalid_scope", encoded).contains("BasicUnencoded"));
    }

    #[test]
    fn a_rejection_of_the_client_names_the_other_client_authentications() {
        for (proof, named, not_named) in [
            (NOTHING.proof, &["to Post"][..], &["Basic"][..]),
            (ClientProof::BasicUnencoded, &["to Basic or Post"], &["BasicUnencoded"]),
            (ClientProof::Post, &["to Basic"], &["Post"]),
        ] {
            let sent = RequestOutline { proof, ..NOTHING };
            let rejections = ["invalid_client", "unauthorized_client"].map(TokenError::Rejected);
            for refusal in rejections.into_iter().chain([TokenError::Unauthorized]) {
                let hint = hint(&refusal, sent).1;
                assert!(hint.contains("check ") && hint.contains("tokenService.credentialsSecretRef"), "{hint}");
                assert!(named.iter().all(|word| hint.contains(word)), "{proof:?}: {hint}");
                assert!(!not_named.iter().any(|word| hint.contains(word)), "{proof:?}: {hint}");
                assert_eq!(hint.contains("tokenService.url"), refusal == TokenError::Unauthorized);
            }
        }
    }

    #[test]
    fn a_rejection_of_a_client_without_a_secret_names_its_certificate_or_its_key() {
        for (proof, named) in [
            (ClientProof::Certificate, "tokenService.tls.clientCertificateSecretRef"),
            (ClientProof::Assertion, "tokenService.privateKeyJWT"),
            (ClientProof::IssuedAssertion, "tokenService.serviceAccountToken"),
        ] {
            for refusal in [TokenError::Rejected("invalid_client"), TokenError::Unauthorized] {
                let hint = hint(&refusal, RequestOutline { proof, ..NOTHING }).1;
                assert!(hint.contains(named) && !hint.contains("client secret"), "{hint}");
            }
            let hint = rejected("unauthorized_client", RequestOutline { proof, ..NOTHING });
            assert!(hint.contains("client credentials grant") && !hint.contains("client secret"), "{hint}");
        }
    }

    #[test]
    fn each_error_code_names_the_field_to_change_by_what_was_sent() {
        let scoped = RequestOutline { has_scopes: true, ..NOTHING };
        let targeted = RequestOutline { has_audience: true, ..NOTHING };
        for (code, sent, named) in [
            ("invalid_scope", scoped, ": check tokenService.scopes"),
            ("invalid_scope", NOTHING, ": set tokenService.scopes"),
            ("invalid_request", NOTHING, "tokenService.audience or tokenService.resources"),
            ("invalid_request", NOTHING, "clientAuthentication to Post"),
            ("invalid_request", scoped, "if the token service requires a target, set tokenService.audience"),
            ("invalid_request", targeted, "if the token service requires a scope, set tokenService.scopes"),
            ("invalid_target", targeted, ": check tokenService.audience"),
            ("invalid_target", NOTHING, ": set tokenService.audience"),
            ("access_denied", NOTHING, "set tokenService.audience"),
            ("access_denied", targeted, "may use tokenService.audience"),
            ("unauthorized_client", NOTHING, "enable the client credentials grant"),
            ("unsupported_grant_type", NOTHING, "check that tokenService.url is the token endpoint"),
            ("invalid_grant", NOTHING, "tokenService.url"),
            ("invalid_authorization_details", NOTHING, "authorization_details"),
            ("use_dpop_nonce", NOTHING, "DPoP"),
            ("another", NOTHING, "registration"),
        ] {
            let hint = rejected(code, sent);
            assert!(hint.contains(named), "{code}: {hint}");
        }
    }

    #[test]
    fn a_missing_assertion_has_the_reason_with_which_it_is_missing() {
        let none = |reason| TokenError::NoAssertion(NoAssertion { reason, message: "m".into() });
        let (reason, hint_of) = hint(&none(Reason::ServiceAccountNotPermitted), NOTHING);
        assert_eq!((reason, hint_of.as_str()), (Reason::ServiceAccountNotPermitted, ""));
        let (reason, hint_of) = hint(&none(Reason::TokenUnavailable), NOTHING);
        assert_eq!((reason, hint_of.as_str()), (Reason::TokenUnavailable, "; the operator tries again"));
    }

    #[test]
    fn a_temporary_failure_says_that_the_operator_tries_again() {
        for error in [TokenError::Internal, TokenError::Malformed("x"), TokenError::NotAcceptedYet(None)] {
            let (reason, hint) = hint(&error, NOTHING);
            assert_eq!(reason, Reason::TokenUnavailable);
            assert!(hint.starts_with("; the operator tries again"), "{hint}");
        }
    }
}
