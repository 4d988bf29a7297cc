//! Parses and checks a token request (RFC 6749), with the error codes of section 5.2.

use std::time::{Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};

use crate::endpoints::exchange::Request;
use crate::endpoints::token_client::{AuthMethod, Proof};

/// The type of an assertion that is a JWT (RFC 7523, section 2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The fields of a form, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

/// A token request, and the status of its answer.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// When it arrived.
    pub arrived: Instant,
    /// The same as a wall-clock time.
    pub arrived_at: SystemTime,
    /// The path of the request.
    pub path: String,
    /// The client id it names, if any.
    pub client_id: Option<String>,
    /// Its method of client authentication, if it can be recognized.
    pub authentication: Option<AuthMethod>,
    /// All headers, including the client secret in HTTP Basic.
    pub headers: HeaderMap,
    /// All form fields, including the client secret.
    pub fields: Fields,
    /// The status of the answer, set when the answer is passed to the connection; None before that (delay, hang,
    /// reset).
    pub answered: Option<u16>,
    /// The OAuth error code of the answer, if this service chose it (not a script).
    pub error: Option<&'static str>,
}

/// An error code of RFC 6749, section 5.2, with the text of `error_description`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) description: String,
}

/// The credentials that the client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) id: String,
    pub(crate) proof: Proof,
    pub(crate) method: AuthMethod,
}

impl Fields {
    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

impl TokenRequest {
    /// The requested scopes, separated by spaces.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.fields.get("scope")
    }

    /// The requested audience.
    #[must_use]
    pub fn audience(&self) -> Option<&str> {
        self.fields.get("audience")
    }
}

impl Refusal {
    pub(crate) fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self { code, description: description.into() }
    }

    fn invalid_request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }
}

/// The fields of the body. A field without a value counts as absent (section 3.2).
pub(crate) fn fields(request: &Request) -> Fields {
    let pairs = form_urlencoded::parse(&request.body).into_owned();
    Fields(pairs.filter(|(_, value)| !value.is_empty()).collect())
}

/// Checks the form of the request: content type, and no field more than once (section 3.2) except `resource` (RFC 8707,
/// section 2).
pub(crate) fn check_form(request: &Request, fields: &Fields) -> Result<(), Refusal> {
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Refusal::invalid_request(format!("the content type is {content_type:?}")));
    }
    if request.query.is_some() {
        return Err(Refusal::invalid_request("parameters belong in the body, not in the URL"));
    }
    for (number, (name, _)) in fields.0.iter().enumerate() {
        if name != "resource" && fields.0[..number].iter().any(|(earlier, _)| earlier == name) {
            return Err(Refusal::invalid_request(format!("{name} is given more than once")));
        }
    }
    Ok(())
}

/// Reads the client's credentials from HTTP Basic or the body, but not both (section 2.3), an assertion in the body (RFC
/// 7523, section 2.2), or the connection (RFC 8705, section 2).
pub(crate) fn credentials(request: &Request, fields: &Fields) -> Result<Credentials, Refusal> {
    let header = request.headers.get(AUTHORIZATION);
    match (header, fields.get("client_secret")) {
        (Some(_), Some(_)) => Err(Refusal::invalid_request("more than one method of client authentication")),
        (Some(header), None) => {
            let basic = header.to_str().ok().and_then(basic);
            let basic = basic.ok_or_else(|| Refusal::new("invalid_client", "the Authorization header is not Basic"))?;
            match fields.get("client_id") {
                Some(id) if id != basic.id => Err(Refusal::invalid_request("two different client ids")),
                _ => Ok(basic),
            }
        }
        (None, Some(secret)) => {
            let id = fields.get("client_id").ok_or_else(|| Refusal::invalid_request("there is no client_id"))?;
            let (id, secret) = (id.to_owned(), secret.to_owned());
            Ok(Credentials { id, proof: Proof::Secret(secret), method: AuthMethod::Post })
        }
        (None, None) if let (Some(id), Some(jwt)) = (fields.get("client_id"), fields.get("client_assertion")) => {
            if fields.get("client_assertion_type") != Some(JWT_BEARER) {
                return Err(Refusal::invalid_request("the assertion has another type than a JWT"));
            }
            Ok(Credentials {
                id: id.to_owned(),
                proof: Proof::Assertion(jwt.to_owned()),
                method: AuthMethod::Assertion,
            })
        }
        (None, None) if let (Some(id), Some(certificate)) = (fields.get("client_id"), &request.certificate) => {
            let proof = Proof::Certificate(certificate.to_vec());
            Ok(Credentials { id: id.to_owned(), proof, method: AuthMethod::Tls })
        }
        (None, None) => Err(Refusal::new("invalid_client", "there is no client authentication")),
    }
}

/// Decodes the id and the secret, which are each form-urlencoded before they become Basic's user and password (section
/// 2.3.1).
fn basic(header: &str) -> Option<Credentials> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let proof = Proof::Secret(form_decoded(secret));
    Some(Credentials { id: form_decoded(id), proof, method: AuthMethod::Basic })
}

fn form_decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// Checks the grant type: this service supports only client_credentials (section 4.4).
pub(crate) fn check_grant(fields: &Fields) -> Result<(), Refusal> {
    match fields.get("grant_type") {
        Some("client_credentials") => Ok(()),
        Some(other) => Err(Refusal::new("unsupported_grant_type", format!("{other:?} is not supported"))),
        None => Err(Refusal::invalid_request("there is no grant_type")),
    }
}

/// Returns the scopes to grant: the requested scopes if all of them are allowed, or all allowed scopes if none is
/// requested (section 3.3).
pub(crate) fn scopes(fields: &Fields, allowed: &[String]) -> Result<Vec<String>, Refusal> {
    let Some(requested) = fields.get("scope") else { return Ok(allowed.to_vec()) };
    let is_scope = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E));
    match requested.split(' ').find(|scope| !is_scope(scope) || !allowed.iter().any(|a| a == scope)) {
        Some(scope) => Err(Refusal::new("invalid_scope", format!("{scope:?} is not allowed"))),
        None => Ok(requested.split(' ').map(str::to_owned).collect()),
    }
}
