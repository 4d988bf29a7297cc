//! How a Subscriber and a version of its spec are named.

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
    /// The Subscriber's uid: a Subscriber that is deleted and created again has another one.
    pub uid: Arc<str>,
    /// The Subscriber's generation.
    pub generation: i64,
}

impl SpecVersion {
    /// The version `generation` of the Subscriber with this uid.
    pub fn new(uid: impl Into<Arc<str>>, generation: i64) -> Self {
        Self { uid: uid.into(), generation }
    }

    /// Whether news of this version says something about a Subscriber whose version in force is `present` (None: not known
    /// yet). News of another version is stale and changes nothing.
    pub fn concerns(&self, present: Option<&Self>) -> bool {
        present.is_none_or(|present| present == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_another_version_is_stale_and_news_for_an_unknown_one_is_not() {
        let version = SpecVersion::new("uid", 2);
        assert!(version.concerns(None) && version.concerns(Some(&version.clone())));
        for other in [SpecVersion::new("uid", 1), SpecVersion::new("uid", 3), SpecVersion::new("another", 2)] {
            assert!(!version.concerns(Some(&other)), "{other:?}");
        }
    }
}
