//! Makes the headers that a user adds to the requests to one endpoint, with values from the spec or from Secrets.

use http::HeaderMap;
use tidings_api::{Header, SecretKeyRef, SubscriberReason, is_reserved_token_header};
use tidings_delivery::webhook::{InvalidHeader, MAX_HEADERS, extra_header};

use super::{consent::Purpose, secrets::ObjectReader, unresolved::Unresolved};

/// How the keys of `webhook.signature` begin.
const SIGNING_KEYS: [&[u8]; 2] = [b"whsec_", b"whsk_"];

/// Checks again what the API server has validated in `headers`, and reads the values that are in Secrets. The headers
/// are sent to the endpoint of this purpose.
pub(super) async fn read(
    reader: &mut ObjectReader<'_>,
    headers: &[Header],
    purpose: Purpose,
) -> Result<HeaderMap, Unresolved> {
    let list = match purpose {
        Purpose::Webhook | Purpose::Signature => "webhook.headers",
        Purpose::TokenService => "tokenService.headers",
    };
    let mut map = HeaderMap::new();
    let mut bytes = 0;
    for Header { name, value, value_from } in headers {
        let field = format!("{list}[{name:.128}]");
        let (reason, at, value) = match (value, value_from) {
            (Some(value), None) => (SubscriberReason::InvalidSpec, field, value.as_bytes()),
            (None, Some(from)) => {
                let SecretKeyRef { name, key } = &from.secret_key_ref;
                let at = format!("Secret {name}, key {key}, for {field}");
                let value = reader.header_value(&from.secret_key_ref, purpose).await?;
                if SIGNING_KEYS.iter().any(|prefix| value.starts_with(prefix)) {
                    let fault = "the value is a key that signs webhooks, which the operator never sends";
                    return Err(Unresolved::permanent(
                        SubscriberReason::InvalidSecret,
                        format!("{at}: {fault}: name another key"),
                    ));
                }
                (SubscriberReason::InvalidSecret, at, value)
            }
            _ => {
                let message = format!("{field}: set exactly one of value and valueFrom");
                return Err(Unresolved::permanent(SubscriberReason::InvalidSpec, message));
            }
        };
        let is_own = purpose == Purpose::TokenService && is_reserved_token_header(name);
        let header = if is_own { Err(InvalidHeader::Reserved) } else { extra_header(name, value) };
        let (name, value) = header.map_err(|fault| {
            let reason = if fault.is_of_name() { SubscriberReason::InvalidSpec } else { reason };
            Unresolved::permanent(reason, format!("{at}: {fault}"))
        })?;
        bytes += name.as_str().len() + value.len();
        if bytes > MAX_HEADERS {
            let fault = format!(
                "{at}: this header makes the names and values of {list} longer than {} KiB in total: shorten or remove headers",
                MAX_HEADERS >> 10
            );
            return Err(Unresolved::permanent(reason, fault));
        }
        map.insert(name, value);
    }
    Ok(map)
}
