//! Encodes a token request (RFC 6749, section 4.4.2). Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use secrecy::{ExposeSecret, zeroize::Zeroizing};
use url::form_urlencoded::{Serializer, byte_serialize};

use super::{AuthMethod, Credentials, TokenRequest, secret_header::secret_header};

/// Makes the HTTP request. Fails if the URL cannot be the target of a request.
pub(super) fn encode(request: &TokenRequest) -> Result<Request<Bytes>, http::Error> {
    let Credentials { client_id, client_secret } = &request.credentials;
    let scope = request.scopes.join(" ");
    let mut fields = vec![("grant_type", "client_credentials")];
    if !scope.is_empty() {
        fields.push(("scope", &scope));
    }
    fields.extend(request.audience.as_deref().map(|audience| ("audience", audience)));
    fields.extend(request.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if request.authentication == AuthMethod::Post {
        fields.extend([("client_id", client_id.as_str()), ("client_secret", client_secret.expose_secret())]);
    }
    let mut encoded = Request::builder()
        .method(Method::POST)
        .uri(request.url.as_str())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form(&fields))?;
    let authorization = match request.authentication {
        AuthMethod::Basic => Some(basic(&request.credentials, |text| byte_serialize(text.as_bytes()).collect())?),
        AuthMethod::BasicUnencoded => Some(basic(&request.credentials, str::to_owned)?),
        AuthMethod::Post => None,
    };
    encoded.headers_mut().extend(authorization.map(|value| (AUTHORIZATION, value)));
    Ok(encoded)
}

/// Encodes id and secret as user and password of HTTP Basic: form-encoded by RFC 6749, section 2.3.1, or as they are.
fn basic(
    Credentials { client_id, client_secret }: &Credentials,
    encoded: fn(&str) -> String,
) -> Result<HeaderValue, http::Error> {
    let secret = Zeroizing::new(encoded(client_secret.expose_secret()));
    let pair = Zeroizing::new(format!("{}:{}", encoded(client_id), *secret));
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    Ok(secret_header(Zeroizing::new(format!("Basic {}", *encoded)))?)
}

/// Encodes the fields as `application/x-www-form-urlencoded` (RFC 6749, appendix B).
///
/// The memory of the body is wiped with its last copy, because the body may contain the client secret.
fn form(fields: &[(&str, &str)]) -> Bytes {
    // Enough for every byte as %XX: a growing buffer would leave copies of the secret behind.
    let capacity = fields.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let form = Serializer::new(String::with_capacity(capacity)).extend_pairs(fields).finish();
    Bytes::from_owner(Zeroizing::new(form))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, LazyLock},
        time::Duration,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::egress::{Client, Egress, Policy};

    static HTTP: LazyLock<Arc<Client>> =
        LazyLock::new(|| Egress::new(Policy::default()).client("test", &crate::egress::Trust::default()).unwrap());

    fn request(authentication: AuthMethod, id: &str, secret: &str) -> TokenRequest {
        TokenRequest {
            url: "https://login.example.com/token?tenant=acme".parse().unwrap(),
            credentials: Credentials { client_id: id.into(), client_secret: secret.into() },
            authentication,
            scopes: vec!["events.write".into(), "a&b".into()],
            audience: Some("https://hooks.example.com/?a=b".into()),
            parameters: BTreeMap::from([("resource".into(), "urn:acme".into()), ("é".into(), "ü+ ".into())]),
            timeout: Duration::from_secs(1),
            http: HTTP.clone(),
        }
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
        let common = [
            ("grant_type", "client_credentials"),
            ("scope", "events.write a&b"),
            ("audience", "https://hooks.example.com/?a=b"),
            ("resource", "urn:acme"),
            ("é", "ü+ "),
        ];
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>()
        };
        let post = encode(&request(AuthMethod::Post, "id", "s&=+%")).unwrap();
        assert_eq!(post.uri(), "https://login.example.com/token?tenant=acme");
        assert_eq!((post.method(), &post.headers()[ACCEPT]), (&Method::POST, &"application/json".parse().unwrap()));
        assert_eq!(post.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
        assert!(post.headers().get(AUTHORIZATION).is_none());
        assert_eq!(
            fields(post.body()),
            owned(&[&common[..], &[("client_id", "id"), ("client_secret", "s&=+%")]].concat())
        );
        let basic = encode(&request(AuthMethod::Basic, "id", "secret")).unwrap();
        assert_eq!(fields(basic.body()), owned(&common));
    }

    #[test]
    fn the_basic_header_is_the_one_of_the_specification_and_sensitive() {
        // RFC 6749, section 2.3.1: the client s6BhdRkqt3 with the secret 7Fjfp0ZBr1KtDRbnfVdmIw.
        let encoded = |id, secret| encode(&request(AuthMethod::Basic, id, secret)).unwrap();
        let header = encoded("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw").headers()[AUTHORIZATION].clone();
        assert_eq!(header, "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
        assert!(header.is_sensitive());
        let (user, password) = user_and_password(&encoded("a:b", "1 +%&"));
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
            let unencoded = encode(&request(AuthMethod::BasicUnencoded, id, secret)).unwrap();
            let pair = STANDARD.encode(format!("{id}:{secret}"));
            assert_eq!(unencoded.headers()[AUTHORIZATION], format!("Basic {pair}"));
            assert!(unencoded.headers()[AUTHORIZATION].is_sensitive());
            let basic = request(AuthMethod::Basic, id, secret);
            assert_eq!(basic.changes_credentials(), is_changed, "{id} {secret}");
            assert_eq!(
                encode(&basic).unwrap().headers()[AUTHORIZATION] != unencoded.headers()[AUTHORIZATION],
                is_changed
            );
            assert!(!request(AuthMethod::BasicUnencoded, id, secret).changes_credentials());
        }
    }

    #[test]
    fn scopes_and_audience_are_sent_only_where_there_are_any() {
        let mut request = request(AuthMethod::Basic, "id", "secret");
        (request.scopes, request.audience) = (Vec::new(), None);
        request.parameters.clear();
        assert_eq!(encode(&request).unwrap().body(), b"grant_type=client_credentials".as_slice());
    }

    #[test]
    fn the_outline_says_what_a_request_has_and_no_value() {
        let mut request = request(AuthMethod::Post, "id", "s &");
        let outline = request.outline();
        assert_eq!((outline.authentication, outline.changes_credentials), (AuthMethod::Post, false));
        assert!(outline.has_scopes && outline.has_audience);
        request.audience = None;
        assert!(request.outline().has_audience, "the parameter resource");
        request.parameters.clear();
        request.scopes.clear();
        assert!(!request.outline().has_audience && !request.outline().has_scopes);
    }

    proptest! {
        /// Appendix A.1 and A.2 of RFC 6749: an id and a secret are printable ASCII.
        #[test]
        fn any_id_and_secret_come_back_out_of_header_and_form(id in "[ -~]{0,40}", secret in "[ -~]{0,80}") {
            let basic = encode(&request(AuthMethod::Basic, &id, &secret)).unwrap();
            let (user, password) = user_and_password(&basic);
            prop_assert_eq!((decoded(&user), decoded(&password)), (id.clone(), secret.clone()));
            let post = encode(&request(AuthMethod::Post, &id, &secret)).unwrap();
            let fields = fields(post.body());
            prop_assert!(fields.contains(&("client_id".into(), id)) && fields.contains(&("client_secret".into(), secret)));
        }
    }
}
