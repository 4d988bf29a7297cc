//! Reads how the client of a Subscriber authenticates at the token service.

use std::{sync::Arc, time::SystemTime};

use secrecy::SecretString;
use tidings_api::{
    ClientAuthentication as Method, CredentialsSecretRef, PrivateKeySecretRef, SigningAlgorithm as Algorithm,
    SubscriberReason, TokenService,
};
use tidings_delivery::oauth::{AssertionIssuer, AuthMethod, ClientKey, Credentials, JwsAlgorithm, KeyFault, KeyNames};

use super::{
    account_tokens::{AccountClient, AccountTokens},
    consent::Purpose,
    referrers::Reference,
    secrets::{ObjectReader, Wanted, want},
    times::seconds,
    unresolved::Unresolved,
};

/// The client of a token service, and where its credentials came from.
pub(super) struct ReadClient {
    /// The client ID, and what proves the client's identity.
    pub(super) credentials: Credentials,
    /// The uid of the Secret with the credentials, or of the ServiceAccount. Empty if there is neither.
    pub(super) secret_uid: String,
    /// The keys of that Secret.
    pub(super) secret_keys: Vec<String>,
    /// When that Secret says that the credentials expire.
    pub(super) expires: Option<SystemTime>,
}

/// Adds the objects that hold the client's credentials.
pub(super) fn want_credentials(wanted: &mut Wanted, service: &TokenService) {
    if let Some(reference) = &service.credentials_secret_ref {
        want(wanted, Reference::Secret(reference.name.clone()), &keys(service, reference));
    }
    if let Some(settings) = &service.private_key_jwt {
        let PrivateKeySecretRef { name, private_key_key, key_id_key, certificate_key } = &settings.key_secret_ref;
        let keys = [Some(private_key_key), key_id_key.as_ref(), certificate_key.as_ref()].into_iter().flatten();
        want(wanted, Reference::Secret(name.clone()), &keys.map(String::as_str).collect::<Vec<_>>());
    }
}

/// The keys of the credentials Secret that are read.
fn keys<'r>(service: &TokenService, reference: &'r CredentialsSecretRef) -> Vec<&'r str> {
    let id = service.client_id.is_none().then_some(&*reference.client_id_key);
    let secret = match service.client_authentication {
        Method::Basic | Method::BasicUnencoded | Method::Post => Some(&*reference.client_secret_key),
        Method::Tls | Method::PrivateKeyJwt | Method::ServiceAccountToken => None,
    };
    id.into_iter().chain(secret).collect()
}

/// The endpoints that receive what the client certificate of the token service proves: the certificate itself, and where
/// it authenticates the client, the tokens that were issued for it.
pub(super) fn purposes_of_certificate(service: &TokenService) -> &'static [Purpose] {
    match service.client_authentication {
        Method::Tls => &[Purpose::TokenService, Purpose::Webhook],
        Method::Basic | Method::BasicUnencoded | Method::Post | Method::PrivateKeyJwt | Method::ServiceAccountToken => {
            &[Purpose::TokenService]
        }
    }
}

/// Reads the client ID and what proves the client's identity. Checks again what the API server has validated.
pub(super) async fn read(
    reader: &mut ObjectReader<'_>,
    accounts: &Arc<AccountTokens>,
    service: &TokenService,
) -> Result<ReadClient, Unresolved> {
    let reference = service.credentials_secret_ref.as_ref();
    let client_id = match (&service.client_id, reference) {
        (Some(client_id), _) => client_id.clone(),
        (None, Some(reference)) => reader.client_id(reference).await?,
        (None, None) => return Err(incomplete("set clientID or credentialsSecretRef")),
    };
    let mut account_uid = None;
    let authentication = match service.client_authentication {
        Method::Basic => AuthMethod::Basic(client_secret(reader, reference).await?),
        Method::BasicUnencoded if client_id.contains(':') => return Err(colon(service)),
        Method::BasicUnencoded => AuthMethod::BasicUnencoded(client_secret(reader, reference).await?),
        Method::Post => AuthMethod::Post(client_secret(reader, reference).await?),
        Method::Tls => {
            let certificate = service.tls.as_ref().and_then(|tls| tls.client_certificate_secret_ref.as_ref());
            certificate
                .ok_or_else(|| incomplete("clientAuthentication TLS needs tls.clientCertificateSecretRef: set it"))?;
            AuthMethod::Tls
        }
        Method::PrivateKeyJwt => AuthMethod::PrivateKeyJwt(assertion_issuer(reader, service).await?),
        Method::ServiceAccountToken => {
            let AccountClient { uid, assertions } = account_client(reader, accounts, service).await?;
            account_uid = Some(uid);
            AuthMethod::IssuedAssertion(assertions)
        }
    };
    let keys = reference.map(|reference| keys(service, reference)).unwrap_or_default();
    // The Secret that proves the client: with a private key, the other one holds no more than the client ID.
    let of_key = service.private_key_jwt.as_ref().map(|settings| &settings.key_secret_ref.name);
    let of_key = of_key.filter(|_| service.client_authentication == Method::PrivateKeyJwt);
    let secret = of_key.or(reference.map(|reference| &reference.name));
    Ok(ReadClient {
        credentials: Credentials { client_id, authentication },
        secret_uid: account_uid.or_else(|| secret.map(|name| reader.uid(name))).unwrap_or_default(),
        secret_keys: keys.into_iter().map(str::to_owned).collect(),
        expires: secret.and_then(|name| reader.expires(name)),
    })
}

async fn client_secret(
    reader: &mut ObjectReader<'_>,
    reference: Option<&CredentialsSecretRef>,
) -> Result<SecretString, Unresolved> {
    match reference {
        Some(reference) => reader.client_secret(reference).await,
        None => Err(incomplete("this clientAuthentication sends a client secret: set credentialsSecretRef")),
    }
}

/// Reads the ServiceAccount whose tokens authenticate the client.
async fn account_client(
    reader: &ObjectReader<'_>,
    accounts: &Arc<AccountTokens>,
    service: &TokenService,
) -> Result<AccountClient, Unresolved> {
    let settings = service.service_account_token.as_ref();
    let settings = settings
        .ok_or_else(|| incomplete("clientAuthentication ServiceAccountToken needs serviceAccountToken: set it"))?;
    accounts.client(reader.namespace(), settings, reader.endpoints(), reader.requires_consent()).await
}

/// Reads the private key, and the names by which the token service knows it.
async fn assertion_issuer(
    reader: &mut ObjectReader<'_>,
    service: &TokenService,
) -> Result<AssertionIssuer, Unresolved> {
    let settings = service.private_key_jwt.as_ref();
    let settings =
        settings.ok_or_else(|| incomplete("clientAuthentication PrivateKeyJWT needs privateKeyJWT: set it"))?;
    let PrivateKeySecretRef { name, private_key_key, key_id_key, certificate_key } = &settings.key_secret_ref;
    let unusable = |key: &str, fault: KeyFault| {
        Unresolved::permanent(SubscriberReason::InvalidSecret, format!("Secret {name}, key {key}: {fault}"))
    };
    let pem = reader.client_key(name, private_key_key).await?;
    let key = ClientKey::from_pem(algorithm(settings.algorithm), pem);
    let key = key.map_err(|fault| unusable(private_key_key, fault))?;
    let thumbprint = match certificate_key {
        Some(at) => {
            let thumbprint = key.thumbprint(reader.client_key(name, at).await?);
            Some(thumbprint.map_err(|fault| unusable(at, fault))?)
        }
        None => None,
    };
    let key_id = match (&settings.key_id, key_id_key) {
        (Some(_), Some(_)) => {
            return Err(incomplete("set at most one of privateKeyJWT.keyID and privateKeyJWT.keySecretRef.keyIDKey"));
        }
        (key_id, None) => key_id.clone(),
        (None, Some(at)) => Some(reader.key_id(name, at).await?),
    };
    // As the user wrote it: token services compare the text.
    let audience = settings.audience.as_ref().unwrap_or(&service.url.0).clone();
    let names = KeyNames { key_id, thumbprint };
    Ok(AssertionIssuer::new(key, &names, audience, seconds(settings.lifetime_seconds)))
}

fn algorithm(of: Algorithm) -> JwsAlgorithm {
    match of {
        Algorithm::Rs256 => JwsAlgorithm::Rs256,
        Algorithm::Ps256 => JwsAlgorithm::Ps256,
        Algorithm::Es256 => JwsAlgorithm::Es256,
        Algorithm::EdDsa => JwsAlgorithm::EdDsa,
    }
}

fn incomplete(fault: &str) -> Unresolved {
    Unresolved::permanent(SubscriberReason::InvalidSpec, format!("tokenService: {fault}"))
}

/// HTTP Basic ends the user name at the first colon (RFC 7617, section 2).
fn colon(service: &TokenService) -> Unresolved {
    let (reason, at) = match (&service.client_id, &service.credentials_secret_ref) {
        (None, Some(CredentialsSecretRef { name, client_id_key, .. })) => {
            (SubscriberReason::InvalidSecret, format!("Secret {name}, key {client_id_key}"))
        }
        _ => (SubscriberReason::InvalidSpec, "tokenService.clientID".to_owned()),
    };
    let fault = "the client ID has a colon, which BasicUnencoded cannot send: set tokenService.clientAuthentication to Basic or Post";
    Unresolved::permanent(reason, format!("{at}: {fault}"))
}
