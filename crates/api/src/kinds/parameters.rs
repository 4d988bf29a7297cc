//! Checks the names in `tokenService.parameters`.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Parameter names that are reserved for one reason, and the alternative.
pub struct Reserved {
    /// The names, in lower case.
    pub names: &'static [&'static str],
    /// What to write instead.
    pub instead: &'static str,
}

/// Parameters of a token request that users may not add. Case-insensitive, because some token services ignore case.
///
/// - Parameters that the operator sends itself, because a parameter must not be sent twice (RFC 6749, section 3.2):
///   `grant_type`, `scope` (section 4.4.2), `client_id`, `client_secret` (section 2.3.1) and `audience`.
/// - Parameters of another client authentication (RFC 7521, section 4.2).
/// - Parameters of another grant, because most of their values are credentials, which do not belong in a Subscriber:
///   RFC 6749, sections 4.1.1, 4.1.3, 4.3.2 and 6; RFC 7521, section 4.1 (RFC 7522, 7523); RFC 7636, section 4; RFC
///   8628, section 3.4; RFC 8693, section 2.1.
pub const RESERVED_TOKEN_PARAMETERS: &[Reserved] = &[
    Reserved { names: &["grant_type"], instead: "it is always client_credentials" },
    Reserved {
        names: &["client_id", "client_secret"],
        instead: "set tokenService.clientID, or put the client ID and the client secret into the Secret that tokenService.credentialsSecretRef names",
    },
    Reserved {
        names: &["client_assertion", "client_assertion_type"],
        instead: "set tokenService.clientAuthentication to PrivateKeyJWT or ServiceAccountToken",
    },
    Reserved { names: &["scope"], instead: "list scopes in tokenService.scopes" },
    Reserved { names: &["audience"], instead: "set tokenService.audience" },
    Reserved {
        names: &[
            "code",
            "redirect_uri",
            "code_verifier",
            "code_challenge",
            "code_challenge_method",
            "response_type",
            "state",
            "username",
            "password",
            "refresh_token",
            "assertion",
            "device_code",
            "subject_token",
            "subject_token_type",
            "actor_token",
            "actor_token_type",
        ],
        instead: "remove it, because it belongs to another OAuth grant than client_credentials",
    },
];

const NAME_FAULT: &str = "a parameter name must have 1 to 128 printable ASCII characters";

impl Reserved {
    fn fault(&self) -> String {
        format!("must not set {}: {}", self.names.join(", "), self.instead)
    }
}

/// Returns what is wrong with the name of a parameter. The API server checks the same rules.
pub fn token_parameter_fault(name: &str) -> Option<String> {
    if !(1..=128).contains(&name.len()) || !name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Some(NAME_FAULT.into());
    }
    let name = name.to_ascii_lowercase();
    RESERVED_TOKEN_PARAMETERS.iter().find(|reserved| reserved.names.contains(&name.as_str())).map(Reserved::fault)
}

/// The schema of `tokenService.parameters`.
pub(super) fn token_parameters(_: &mut SchemaGenerator) -> Schema {
    let name = ("self.all(name, name.matches('^[ -~]{1,128}$'))".to_owned(), NAME_FAULT.to_owned());
    let reserved = RESERVED_TOKEN_PARAMETERS.iter().map(|reserved| {
        let names = reserved.names.join("', '");
        (format!("self.all(name, !(name.lowerAscii() in ['{names}']))"), reserved.fault())
    });
    let rules: Vec<_> = [name]
        .into_iter()
        .chain(reserved)
        .map(|(rule, message)| serde_json::json!({ "rule": rule, "message": message }))
        .collect();
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "minLength": 1, "maxLength": 2048 },
        "x-kubernetes-validations": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_name_is_refused_in_any_case_and_says_what_to_write_instead() {
        let cases = [
            ("scope", "list scopes in tokenService.scopes"),
            ("AUDIENCE", "set tokenService.audience"),
            ("Client_Secret", "the Secret that tokenService.credentialsSecretRef names"),
            ("grant_type", "it is always client_credentials"),
            ("client_assertion", "tokenService.clientAuthentication"),
            ("password", "remove it"),
            ("subject_token", "remove it"),
        ];
        for (name, instead) in cases {
            let fault = token_parameter_fault(name).unwrap_or_default();
            assert!(fault.contains(instead) && fault.contains(&name.to_lowercase()), "{name}: {fault}");
        }
    }

    #[test]
    fn other_names_are_accepted_if_they_are_printable_ascii() {
        for name in ["resource", "authorization_details", "x", "scopes", "tenant id", &"n".repeat(128)] {
            assert_eq!(token_parameter_fault(name), None, "{name}");
        }
        for name in ["", "é", "a\nb", "a\0", &"n".repeat(129)] {
            assert_eq!(token_parameter_fault(name).as_deref(), Some(NAME_FAULT), "{name:?}");
        }
    }
}
