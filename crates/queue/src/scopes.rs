//! The watched scopes: single namespaces or all in one, and the state of each list.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{clock::Seconds, work::ScopeId};

/// A list that takes longer than this may show entries that are gone or finished meanwhile.
const LONG_LIST: Duration = Duration::from_secs(30);

/// Within this time, the watch after such a list has shown the changes.
const CATCH_UP: Duration = Duration::from_secs(60);

/// One watch of a namespace, or of all namespaces.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) namespace: Option<Arc<str>>,
    /// The number of the listing in progress, and when it started.
    pub(crate) listing: u32,
    listing_since: Option<Instant>,
    /// Whether its first listing is complete.
    pub(crate) synced: bool,
    /// Whether the API server refuses to list it, or the namespace does not exist.
    pub(crate) is_refused: bool,
    /// Since when all of its Subscribers are known (None: they are not yet).
    pub(crate) subscribers_since: Option<Seconds>,
    /// Until when the watch may not have shown all changes during the listing.
    pub(crate) catches_up_until: Option<Instant>,
    /// Whether a previous leader may still write outcomes that the first listing does not show.
    is_contested: bool,
}

impl Scope {
    /// Whether listed entries may be outdated, so that each Notification is read again immediately before it is sent.
    pub(crate) fn may_be_old(&self, now: Instant) -> bool {
        (self.is_contested && !self.synced)
            || self.listing_since.is_some_and(|since| now.saturating_duration_since(since) > LONG_LIST)
            || self.catches_up_until.is_some_and(|until| now < until)
    }

    /// Records that the listing is complete. If it may be outdated, the watch must still show the changes.
    pub(crate) fn is_listed(&mut self, now: Instant) {
        self.catches_up_until = self.may_be_old(now).then(|| now + CATCH_UP);
        (self.synced, self.is_refused, self.listing_since) = (true, false, None);
    }

    /// Records that the watch failed and has not caught up.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.catches_up_until = self.catches_up_until.filter(|until| now < *until).map(|_| now + CATCH_UP);
    }
}

/// All scopes.
#[derive(Debug)]
pub(crate) struct Scopes {
    list: Vec<Scope>,
    by_namespace: HashMap<Arc<str>, usize>,
}

impl Scopes {
    /// Makes a scope for each namespace (None: one for all).
    pub(crate) fn new(namespaces: Vec<Option<Arc<str>>>) -> Self {
        let scope = |namespace: &Option<Arc<str>>| Scope {
            namespace: namespace.clone(),
            listing: 0,
            listing_since: None,
            synced: false,
            is_refused: false,
            subscribers_since: None,
            catches_up_until: None,
            is_contested: false,
        };
        let numbered = namespaces.iter().enumerate();
        let by_namespace = numbered.filter_map(|(n, namespace)| Some((namespace.clone()?, n))).collect();
        Self { list: namespaces.iter().map(scope).collect(), by_namespace }
    }

    pub(crate) fn get_mut(&mut self, scope: ScopeId) -> Option<&mut Scope> {
        self.list.get_mut(scope.0)
    }

    /// Returns the scope of a namespace.
    pub(crate) fn of(&self, namespace: &str) -> Option<&Scope> {
        self.list.get(self.by_namespace.get(namespace).copied().unwrap_or_default())
    }

    /// Whether all Subscribers of a namespace are known.
    pub(crate) fn knows_subscribers(&self, namespace: &str) -> bool {
        self.of(namespace).is_some_and(|scope| scope.subscribers_since.is_some())
    }

    /// Records that the Subscribers of this scope (None: of all namespaces) are known.
    pub(crate) fn subscribers_are_known(&mut self, namespace: Option<&str>, now: Seconds) {
        let number = namespace.map_or(Some(0), |namespace| self.by_namespace.get(namespace).copied());
        if let Some(scope) = number.and_then(|number| self.list.get_mut(number)) {
            scope.subscribers_since.get_or_insert(now);
        }
    }

    /// Starts a listing with this number.
    pub(crate) fn begin(&mut self, scope: ScopeId, listing: u32, now: Instant) {
        if let Some(scope) = self.list.get_mut(scope.0) {
            (scope.listing, scope.listing_since) = (listing, Some(now));
        }
    }

    /// Records that a listing, or the watch after it, failed or was refused.
    pub(crate) fn failed(&mut self, scope: ScopeId, is_refused: bool, now: Instant) {
        if let Some(scope) = self.list.get_mut(scope.0) {
            scope.failed(now);
            scope.is_refused |= is_refused;
        }
    }

    /// Records that another process acted until now, so that the first listing may be outdated.
    pub(crate) fn contest(&mut self) {
        self.list.iter_mut().filter(|scope| !scope.synced).for_each(|scope| scope.is_contested = true);
    }

    /// Whether all Notifications are known, except in refused scopes.
    pub(crate) fn are_synced(&self) -> bool {
        self.list.iter().all(|scope| scope.synced || scope.is_refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_namespace_keeps_no_other_waiting_and_each_is_found_by_its_name() {
        let mut scopes = Scopes::new(vec![Some("a".into()), Some("b".into())]);
        scopes.list[1].synced = true;
        assert!(!scopes.are_synced());
        scopes.list[0].is_refused = true;
        assert!(scopes.are_synced());
        scopes.subscribers_are_known(Some("b"), 1);
        assert!(
            scopes.of("b").unwrap().subscribers_since.is_some() && scopes.of("a").unwrap().subscribers_since.is_none()
        );
        let mut all = Scopes::new(vec![None]);
        all.subscribers_are_known(None, 1);
        assert!(all.of("any").unwrap().subscribers_since.is_some());
    }

    #[test]
    fn what_a_long_listing_or_one_under_a_contested_lease_showed_is_read_again() {
        let now = Instant::now();
        let mut scopes = Scopes::new(vec![None]);
        scopes.contest();
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
