//! Encodes a token request (RFC 6749, section 4.4.2). Pure.

use std::{cell::Cell, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request, header::AUTHORIZATION};
use oauth2::{AuthType, ClientId, ClientSecret, Scope, TokenUrl, basic::BasicClient};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use url::form_urlencoded::{Serializer, byte_serialize};

use super::{AuthMethod, Credentials, TokenRequest, secret_header::secret_header};

/// The type of an assertion that is a JWT (RFC 7523, section 2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Why a token request cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotEncoded {
    /// The URL cannot be the target of a request.
    #[error("the URL cannot be the target of a request")]
    Target,
    /// Client id and secret cannot be the value of a header.
    #[error("client id and secret cannot be the value of a header")]
    Credentials(#[from] http::Error),
    /// The client authenticates with an assertion, and there is none.
    #[error("there is no assertion")]
    NoAssertion,
}

/// Makes the HTTP request: the grant, and what authenticates the client. Fails if the URL cannot be the target of a
/// request.
///
/// `assertion`: the new client assertion, if the client authenticates with one.
pub(super) fn encode(request: &TokenRequest, assertion: Option<&str>) -> Result<Request<Bytes>, NotEncoded> {
    let Credentials { client_id, authentication } = &request.credentials;
    let (mut head, grant) = grant(request).ok_or(NotEncoded::Target)?.into_parts();
    head.headers.extend(request.headers.clone());
    let body = match authentication {
        AuthMethod::Basic(secret) => {
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect();
            head.headers.insert(AUTHORIZATION, basic(client_id, secret, encoded)?);
            Bytes::from(grant)
        }
        AuthMethod::BasicUnencoded(secret) => {
            head.headers.insert(AUTHORIZATION, basic(client_id, secret, str::to_owned)?);
            Bytes::from(grant)
        }
        AuthMethod::Post(secret) => with_fields(&grant, &[("client_secret", secret.expose_secret())]),
        AuthMethod::Tls => Bytes::from(grant),
        AuthMethod::PrivateKeyJwt(_) | AuthMethod::IssuedAssertion(_) => {
            let assertion = assertion.ok_or(NotEncoded::NoAssertion)?;
            with_fields(&grant, &[("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)])
        }
    };
    Ok(Request::from_parts(head, body))
}

/// The request of the client credentials grant, as the `oauth2` crate writes it, but without what proves the client's
/// identity: the crate would copy a secret into memory that nothing wipes. Returns None if the URL cannot be the target
/// of a request.
fn grant(request: &TokenRequest) -> Option<Request<String>> {
    let client = BasicClient::new(ClientId::new(request.credentials.client_id.clone()))
        .set_token_uri(TokenUrl::from_url(request.url.clone()));
    let client = match &request.credentials.authentication {
        // The crate leaves the client ID out of the form only for a client with a secret. `encode` replaces the header
        // that the crate makes of this empty one.
        AuthMethod::Basic(_) | AuthMethod::BasicUnencoded(_) => {
            client.set_client_secret(ClientSecret::new(String::new()))
        }
        AuthMethod::Post(_) | AuthMethod::Tls | AuthMethod::PrivateKeyJwt(_) | AuthMethod::IssuedAssertion(_) => {
            client.set_auth_type(AuthType::RequestBody)
        }
    };
    let audience = request.audience.iter().map(|audience| ("audience", audience));
    let resources = request.resources.iter().map(|resource| ("resource", resource));
    let parameters = request.parameters.iter().map(|(name, value)| (name.as_str(), value));
    let grant = client.exchange_client_credentials().add_scopes(request.scopes.iter().cloned().map(Scope::new));
    let grant = audience
        .chain(resources)
        .chain(parameters)
        .fold(grant, |grant, (name, value)| grant.add_extra_param(name, value));
    // The crate hands its request to an HTTP client alone. This one keeps the request and sends nothing.
    let prepared = Cell::new(None);
    let keep = |request| {
        prepared.set(Some(request));
        Err(fmt::Error)
    };
    let _never_sent = grant.request(&keep);
    let (head, form) = prepared.take()?.into_parts();
    Some(Request::from_parts(head, String::from_utf8(form).ok()?))
}

/// Encodes id and secret as user and password of HTTP Basic: form-encoded by RFC 6749, section 2.3.1, or as they are.
fn basic(client_id: &str, secret: &SecretString, encoded: fn(&str) -> String) -> Result<HeaderValue, http::Error> {
    let secret = Zeroizing::new(encoded(secret.expose_secret()));
    let pair = Zeroizing::new(format!("{}:{}", encoded(client_id), *secret));
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    Ok(secret_header(Zeroizing::new(format!("Basic {}", *encoded)))?)
}

/// Appends fields to a form (`application/x-www-form-urlencoded`; RFC 6749, appendix B).
///
/// The memory of the body is wiped with its last copy, because the fields may contain a secret.
fn with_fields(form: &str, fields: &[(&str, &str)]) -> Bytes {
    // Enough for every byte as %XX: a growing buffer would leave copies of the secret behind.
    let capacity: usize = fields.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut whole = String::with_capacity(form.len() + capacity);
    whole.push_str(form);
    Bytes::from_owner(Zeroizing::new(Serializer::new(whole).extend_pairs(fields).finish()))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, LazyLock},
        time::Duration,
    };

    use futures::future::BoxFuture;
    use http::{
        HeaderMap, Method,
        header::{ACCEPT, CONTENT_TYPE},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::egress::{Client, Egress, Policy};
    use crate::oauth::{AssertionIssuer, AssertionProvider, ClientProof, IssuedAssertions, KeyNames, NoAssertion};

    static HTTP: LazyLock<Arc<Client>> =
        LazyLock::new(|| Egress::new(Policy::default()).client("test", &crate::egress::Trust::default()).unwrap());

    /// Issues no assertions.
    struct Unused;

    impl AssertionProvider for Unused {
        fn assertion(&self) -> BoxFuture<'_, Result<SecretString, NoAssertion>> {
            unreachable!("the caller of encode gets the assertion")
        }
    }

    /// A way to send a client secret.
    type Way = fn(SecretString) -> AuthMethod;

    fn request(way: Way, id: &str, secret: &str) -> TokenRequest {
        TokenRequest {
            url: "https://login.example.com/token?tenant=acme".parse().unwrap(),
            credentials: Credentials { client_id: id.into(), authentication: way(secret.into()) },
            scopes: vec!["events.write".into(), "a&b".into()],
            audience: Some("https://hooks.example.com/?a=b".into()),
            resources: vec!["urn:acme".into(), "https://hooks.example.com/".into()],
            parameters: BTreeMap::from([("realm".into(), "acme".into()), ("é".into(), "ü+ ".into())]),
            headers: HeaderMap::from_iter([("x-api-key".parse().unwrap(), HeaderValue::from_static("key"))]),
            timeout: Duration::from_secs(1),
            http: HTTP.clone(),
        }
    }

    fn encoded(request: &TokenRequest) -> Request<Bytes> {
        encode(request, None).unwrap()
    }

    /// Decodes `application/x-www-form-urlencoded` by appendix B of RFC 6749, without a library.
    fn decoded(text: &[u8]) -> String {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap();
        let (mut bytes, mut rest) = (Vec::new(), text);
        while let [first, tail @ ..] = rest {
            (rest, _) = match (first, tail) {
                (b'%', [high, low, tail @ ..]) => (tail, bytes.push(hex(*high) << 4 | hex(*low))),
                (b'+', tail) => (tail, bytes.push(b' ')),
                (byte, tail) => (tail, bytes.push(*byte)),
            };
        }
        String::from_utf8(bytes).unwrap()
    }

    fn fields(body: &[u8]) -> Vec<(String, String)> {
        let pairs = body.split(|byte| *byte == b'&');
        pairs
            .map(|pair| {
                let at = pair.iter().position(|byte| *byte == b'=').unwrap();
                (decoded(&pair[..at]), decoded(&pair[at + 1..]))
            })
            .collect()
    }

    /// Returns user and password of a Basic header, still form-encoded: the parts before and after the first colon (RFC
    /// 7617).
    fn user_and_password(request: &Request<Bytes>) -> (Vec<u8>, Vec<u8>) {
        let header = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
        let pair = STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
        let colon = pair.iter().position(|byte| *byte == b':').unwrap();
        (pair[..colon].to_vec(), pair[colon + 1..].to_vec())
    }

    #[test]
    fn every_field_is_sent_once_and_the_credentials_one_way_alone() {
        let grant = [("grant_type", "client_credentials"), ("scope", "events.write a&b")];
        let target = [
            ("audience", "https://hooks.example.com/?a=b"),
            ("resource", "urn:acme"),
            ("resource", "https://hooks.example.com/"),
            ("realm", "acme"),
            ("é", "ü+ "),
        ];
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>()
        };
        let post = encoded(&request(AuthMethod::Post, "id", "s&=+%"));
        assert_eq!(post.uri(), "https://login.example.com/token?tenant=acme");
        assert_eq!((post.method(), &post.headers()[ACCEPT]), (&Method::POST, &"application/json".parse().unwrap()));
        assert_eq!(post.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
        assert!(post.headers().get(AUTHORIZATION).is_none());
        assert_eq!((&post.headers()["x-api-key"], post.headers().len()), (&"key".parse().unwrap(), 3));
        let post_fields = [&grant[..], &[("client_id", "id")], &target, &[("client_secret", "s&=+%")]].concat();
        assert_eq!(fields(post.body()), owned(&post_fields));
        let basic = encoded(&request(AuthMethod::Basic, "id", "secret"));
        assert_eq!(fields(basic.body()), owned(&[&grant[..], &target].concat()));
        let key = testkit::Authority::new().client_identity("shop").key_pem;
        let key = crate::oauth::ClientKey::from_pem(crate::oauth::JwsAlgorithm::Es256, key.as_bytes()).unwrap();
        let mut signed = request(|_secret| AuthMethod::Tls, "a&b", "secret");
        let issuer = AssertionIssuer::new(key, &KeyNames::default(), "aud".into(), Duration::from_secs(60));
        signed.credentials.authentication = AuthMethod::PrivateKeyJwt(issuer);
        assert!(encode(&signed, None).is_err());
        let signed = encode(&signed, Some("a.b.c+=")).unwrap();
        assert!(signed.headers().get(AUTHORIZATION).is_none());
        let mut sent = fields(signed.body());
        assert_eq!(sent.pop().unwrap(), ("client_assertion".to_owned(), "a.b.c+=".to_owned()));
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let with_id = [&grant[..], &[("client_id", "a&b")], &target].concat();
        assert_eq!(sent, owned(&[&with_id[..], &[("client_assertion_type", kind)]].concat()));
        let mut issued = request(|_secret| AuthMethod::Tls, "a&b", "secret");
        issued.credentials.authentication = AuthMethod::IssuedAssertion(IssuedAssertions::new(Arc::new(Unused), &[]));
        assert_eq!(encode(&issued, Some("a.b.c+=")).unwrap().body(), signed.body());
        let tls = encoded(&request(|_secret| AuthMethod::Tls, "a&b", "secret"));
        assert!(tls.headers().get(AUTHORIZATION).is_none());
        assert_eq!(fields(tls.body()), owned(&with_id));
    }

    #[test]
    fn the_basic_header_is_the_one_of_the_specification_and_sensitive() {
        // RFC 6749, section 2.3.1: the client s6BhdRkqt3 with the secret 7Fjfp0ZBr1KtDRbnfVdmIw.
        let sent = |id, secret| encoded(&request(AuthMethod::Basic, id, secret));
        let header = sent("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw").headers()[AUTHORIZATION].clone();
        assert_eq!(header, "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
        assert!(header.is_sensitive());
        let (user, password) = user_and_password(&sent("a:b", "1 +%&"));
        assert_eq!((user.as_slice(), password.as_slice()), (&b"a%3Ab"[..], &b"1+%2B%25%26"[..]));
    }

    #[test]
    fn field_13_basic_unencoded_sends_id_and_secret_as_they_are() {
        for (id, secret, is_changed) in [
            ("sb-x!b1|y!b2", "s ~+", true),
            ("plain-id_1.2*", "Secret-1", false),
            ("id", "100%", true),
            ("id", "a b", true),
            ("id", "sécret", true),
        ] {
            let unencoded = encoded(&request(AuthMethod::BasicUnencoded, id, secret));
            let pair = STANDARD.encode(format!("{id}:{secret}"));
            assert_eq!(unencoded.headers()[AUTHORIZATION], format!("Basic {pair}"));
            assert!(unencoded.headers()[AUTHORIZATION].is_sensitive());
            let basic = request(AuthMethod::Basic, id, secret);
            assert_eq!(basic.outline().proof, ClientProof::Basic { is_changed }, "{id} {secret}");
            assert_eq!(encoded(&basic).headers()[AUTHORIZATION] != unencoded.headers()[AUTHORIZATION], is_changed);
            let unencoded = request(AuthMethod::BasicUnencoded, id, secret);
            assert_eq!(unencoded.outline().proof, ClientProof::BasicUnencoded);
        }
    }

    #[test]
    fn scopes_and_audience_are_sent_only_where_there_are_any() {
        let mut request = request(AuthMethod::Basic, "id", "secret");
        (request.scopes, request.audience) = (Vec::new(), None);
        request.parameters.clear();
        request.resources.clear();
        assert_eq!(encoded(&request).body(), b"grant_type=client_credentials".as_slice());
    }

    #[test]
    fn the_outline_says_what_a_request_has_and_no_value() {
        let mut request = request(AuthMethod::Post, "id", "s &");
        let outline = request.outline();
        assert_eq!(outline.proof, ClientProof::Post);
        assert!(outline.has_scopes && outline.has_audience);
        request.audience = None;
        assert!(request.outline().has_audience, "resources");
        request.resources.clear();
        request.parameters = [("resource".to_owned(), "urn:a".to_owned())].into();
        assert!(request.outline().has_audience, "the parameter resource");
        request.parameters.clear();
        request.scopes.clear();
        assert!(!request.outline().has_audience && !request.outline().has_scopes);
    }

    proptest! {
        /// Appendix A.1 and A.2 of RFC 6749: an id and a secret are printable ASCII.
        #[test]
        fn any_id_and_secret_come_back_out_of_header_and_form(id in "[ -~]{0,40}", secret in "[ -~]{0,80}") {
            let basic = encoded(&request(AuthMethod::Basic, &id, &secret));
            let (user, password) = user_and_password(&basic);
            prop_assert_eq!((decoded(&user), decoded(&password)), (id.clone(), secret.clone()));
            let post = encoded(&request(AuthMethod::Post, &id, &secret));
            let fields = fields(post.body());
            prop_assert!(fields.contains(&("client_id".into(), id)) && fields.contains(&("client_secret".into(), secret)));
        }
    }
}
