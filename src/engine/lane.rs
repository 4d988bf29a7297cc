//! What the engine knows of one Subscriber. Pure.

use std::{sync::Arc, time::Duration};

use tidings_queue::SpecVersion;

use crate::contract::Route;

/// One Subscriber's lane: whether it is open, by which route, and for how long its Notifications live.
#[derive(Default)]
pub(super) struct Lane {
    route: Option<Arc<Route>>,
    longest_wait: Option<Duration>,
    lifetime: Option<Duration>,
    version: Option<SpecVersion>,
    /// The version whose webhook answered 410.
    gone: Option<SpecVersion>,
}

impl Lane {
    /// The way, while it is open.
    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    /// The longest wait of the last route: no wait that is read is longer (None: there was no route yet).
    pub(super) fn longest_wait(&self) -> Option<Duration> {
        self.longest_wait
    }

    /// After what time those that may expire do so (None: that is not known).
    pub(super) fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// The version of the spec that was reconciled last (None: none yet).
    pub(super) fn version(&self) -> Option<&SpecVersion> {
        self.version.as_ref()
    }

    /// The Subscriber is ready. Whether that opens the lane: a webhook that answered 410 to this version stays gone until a
    /// reset.
    #[must_use]
    pub(super) fn open(&mut self, route: Arc<Route>) -> bool {
        let is_gone = self.gone.as_ref() == Some(&route.version);
        (self.version, self.lifetime) = (Some(route.version.clone()), Some(route.expire_after));
        self.longest_wait = Some(route.backoff.longest());
        self.route = (!is_gone).then_some(route);
        !is_gone
    }

    /// Nothing is sent until the lane is opened.
    pub(super) fn close(&mut self, version: Option<SpecVersion>, lifetime: Option<Duration>) {
        (self.route, self.version, self.lifetime) = (None, version, lifetime);
    }

    /// Nothing is sent until the Subscriber is reconciled.
    pub(super) fn hold(&mut self) {
        self.route = None;
    }

    /// The webhook of this version answered 410.
    pub(super) fn is_gone(&mut self, version: SpecVersion) {
        self.route = None;
        self.gone = Some(version);
    }

    /// Forgets that the webhook answered 410.
    pub(super) fn reset(&mut self) {
        self.gone = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::testing::route;

    #[test]
    fn a_410_outlives_a_reconcile_that_began_before_it_and_ends_with_a_reset_or_another_version() {
        let version = |generation| SpecVersion::new("uid", generation);
        let mut lane = Lane::default();
        assert!(lane.open(route(version(1))));
        lane.is_gone(version(1));
        assert!(!lane.open(route(version(1))) && lane.route().is_none(), "the reconcile that began before");
        lane.close(Some(version(1)), None);
        assert!(!lane.open(route(version(1))), "closed meanwhile, of the same version");
        assert!(lane.open(route(version(2))), "another version");
        let mut lane = Lane::default();
        lane.is_gone(version(1));
        lane.reset();
        assert!(lane.open(route(version(1))) && lane.route().is_some());
    }
}
