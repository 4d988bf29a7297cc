//! How this room watches.

use kube::runtime::watcher::Config;

use crate::cluster::call::WATCH_SECONDS;

/// What all watches of this room have in common.
pub(super) fn watch_config() -> Config {
    Config::default().timeout(WATCH_SECONDS)
}
