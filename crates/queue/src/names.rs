//! The names of Subscribers and of versions of their specs.

use std::{fmt, sync::Arc};

/// Names a Subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberKey {
    /// The Subscriber's namespace.
    pub namespace: Arc<str>,
    /// The Subscriber's name.
    pub name: Arc<str>,
}

impl fmt::Display for SubscriberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One version of one Subscriber's spec.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpecVersion {
    /// The Subscriber's uid, which changes when a Subscriber is deleted and recreated.
    pub uid: Arc<str>,
    /// The Subscriber's generation.
    pub generation: i64,
}

impl SpecVersion {
    /// Makes the version `generation` of the Subscriber with this uid.
    pub fn new(uid: impl Into<Arc<str>>, generation: i64) -> Self {
        Self { uid: uid.into(), generation }
    }

    /// Whether a report of this version applies to a Subscriber whose current version is `present` (None: not known
    /// yet). A report of another version is stale and changes nothing.
    pub fn concerns(&self, present: Option<&Self>) -> bool {
        present.is_none_or(|present| present == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_another_version_is_stale_and_one_for_an_unknown_version_is_not() {
        let version = SpecVersion::new("uid", 2);
        assert!(version.concerns(None) && version.concerns(Some(&version.clone())));
        for other in [SpecVersion::new("uid", 1), SpecVersion::new("uid", 3), SpecVersion::new("another", 2)] {
            assert!(!version.concerns(Some(&other)), "{other:?}");
        }
    }
}
