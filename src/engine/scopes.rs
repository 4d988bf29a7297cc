//! What is watched: each namespace by itself, or all in one, and how much of it is known.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

/// A list that takes longer than this may show what is gone or finished by now.
const LONG_LIST: Duration = Duration::from_secs(30);

/// The watch that follows such a list has shown what changed meanwhile within this.
const CATCH_UP: Duration = Duration::from_secs(60);

/// One watch: of a namespace, or of all.
pub(super) struct Scope {
    pub(super) namespace: Option<String>,
    /// The number of its listing under way, and since when it is.
    pub(super) listing: u64,
    pub(super) listing_since: Option<Instant>,
    /// Its first listing is complete.
    pub(super) synced: bool,
    /// The API server does not let this operator list it, or there is no such namespace.
    pub(super) is_refused: bool,
    /// Since when all of its Subscribers are known (None: they are not yet).
    pub(super) subscribers_since: Option<Timestamp>,
    /// Until when the watch may not have shown yet what changed during the listing.
    pub(super) catches_up_until: Option<Instant>,
    /// A leader before may still write outcomes that its first listing does not show.
    is_contested: bool,
}

impl Scope {
    /// Whether what was listed may be old, so that each Notification is read again immediately before it is sent.
    pub(super) fn may_be_old(&self, now: Instant) -> bool {
        (self.is_contested && !self.synced)
            || self.listing_since.is_some_and(|since| now.saturating_duration_since(since) > LONG_LIST)
            || self.catches_up_until.is_some_and(|until| now < until)
    }

    /// The listing is complete. Where it may be old, the watch has yet to show what changed meanwhile.
    pub(super) fn is_listed(&mut self, now: Instant) {
        self.catches_up_until = self.may_be_old(now).then(|| now + CATCH_UP);
        (self.synced, self.is_refused, self.listing_since) = (true, false, None);
    }

    /// The watch failed: it has not caught up.
    pub(super) fn failed(&mut self, now: Instant) {
        self.catches_up_until = self.catches_up_until.filter(|until| now < *until).map(|_| now + CATCH_UP);
    }
}

/// All scopes.
pub(super) struct Scopes {
    list: Vec<Scope>,
    by_namespace: HashMap<Box<str>, usize>,
}

impl Scopes {
    /// One for each namespace (None: of all).
    pub(super) fn new(namespaces: &[Option<String>], is_contested: bool) -> Self {
        let scope = |namespace: &Option<String>| Scope {
            namespace: namespace.clone(),
            listing: 0,
            listing_since: None,
            synced: false,
            is_refused: false,
            subscribers_since: None,
            catches_up_until: None,
            is_contested,
        };
        let numbered = namespaces.iter().enumerate();
        let by_namespace = numbered.filter_map(|(n, namespace)| Some((namespace.as_deref()?.into(), n))).collect();
        Self { list: namespaces.iter().map(scope).collect(), by_namespace }
    }

    /// The scope of this number.
    pub(super) fn numbered(&mut self, number: usize) -> Option<&mut Scope> {
        self.list.get_mut(number)
    }

    /// The scope in which a namespace is watched.
    pub(super) fn of(&self, namespace: &str) -> Option<&Scope> {
        self.list.get(self.by_namespace.get(namespace).copied().unwrap_or_default())
    }

    /// The Subscribers of this scope (None: of all namespaces) are known.
    pub(super) fn subscribers_are_known(&mut self, namespace: Option<&str>, now: Timestamp) {
        let number = namespace.map_or(Some(0), |namespace| self.by_namespace.get(namespace).copied());
        if let Some(scope) = number.and_then(|number| self.list.get_mut(number)) {
            scope.subscribers_since.get_or_insert(now);
        }
    }

    /// Whether every Notification is known, as far as the API server lets it be.
    pub(super) fn are_synced(&self) -> bool {
        self.list.iter().all(|scope| scope.synced || scope.is_refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_namespace_keeps_no_other_waiting_and_each_is_found_by_its_name() {
        let mut scopes = Scopes::new(&[Some("a".into()), Some("b".into())], false);
        scopes.list[1].synced = true;
        assert!(!scopes.are_synced());
        scopes.list[0].is_refused = true;
        assert!(scopes.are_synced());
        scopes.subscribers_are_known(Some("b"), Timestamp::UNIX_EPOCH);
        assert!(
            scopes.of("b").unwrap().subscribers_since.is_some() && scopes.of("a").unwrap().subscribers_since.is_none()
        );
        let mut all = Scopes::new(&[None], false);
        all.subscribers_are_known(None, Timestamp::UNIX_EPOCH);
        assert!(all.of("any").unwrap().subscribers_since.is_some());
    }

    #[test]
    fn what_a_long_listing_or_one_under_a_contested_lease_showed_is_read_again() {
        let now = Instant::now();
        let mut scopes = Scopes::new(&[None], true);
        assert!(scopes.of("a").unwrap().may_be_old(now));
        scopes.list[0].is_listed(now);
        assert!(scopes.of("a").unwrap().may_be_old(now), "the watch has not shown what came meanwhile");
        scopes.list[0].failed(now + CATCH_UP / 2);
        assert!(scopes.of("a").unwrap().may_be_old(now + CATCH_UP));
        let now = now + 2 * CATCH_UP;
        assert!(!scopes.of("a").unwrap().may_be_old(now));
        scopes.list[0].is_listed(now);
        assert!(!scopes.of("a").unwrap().may_be_old(now), "a short one");
        scopes.list[0].listing_since = Some(now);
        assert!(!scopes.of("a").unwrap().may_be_old(now + LONG_LIST));
        assert!(scopes.of("a").unwrap().may_be_old(now + 2 * LONG_LIST));
    }
}
