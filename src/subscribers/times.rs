//! Times: in full seconds, as the API writes them, and in the annotations of Secrets.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use k8s_openapi::jiff::Timestamp;
use tidings_api::EXPIRES_ANNOTATION;
use tracing::warn;

/// A duration of the API. Never zero.
pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.max(1).into())
}

/// Removes the fraction of a second.
pub(super) fn full_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Reads when the Secret with these annotations expires (None: no annotation says that). Logs a malformed annotation.
pub(super) fn expiry(namespace: &str, name: &str, annotations: &BTreeMap<String, String>) -> Option<SystemTime> {
    let text = annotations.get(EXPIRES_ANNOTATION)?;
    let expires = text.trim().parse::<Timestamp>();
    if expires.is_err() {
        warn!(
            namespace,
            kind = "Secret",
            name,
            "the annotation tidings.dev/expires is not a time by RFC 3339, such as 2027-01-31T00:00:00Z, and is ignored: correct the annotation of the Secret"
        );
    }
    expires.ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_a_secret_is_a_time_by_rfc_3339() {
        let read = |value: &str| expiry("a", "s", &[(EXPIRES_ANNOTATION.to_owned(), value.to_owned())].into());
        let at = std::time::UNIX_EPOCH + Duration::from_secs(1_801_393_200);
        for value in ["2027-01-31T11:00:00Z", "2027-01-31T12:00:00+01:00", " 2027-01-31T11:00:00Z\n"] {
            assert_eq!(read(value), Some(at), "{value}");
        }
        for value in ["", "2027-01-31", "next spring", "1801393200"] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(expiry("a", "s", &BTreeMap::new()), None);
    }
}
