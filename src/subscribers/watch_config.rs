//! Configures the watches of this module.

use kube::runtime::watcher::Config;

use crate::cluster::call::WATCH_SECONDS;

/// The configuration of every watch of this module.
pub(super) fn watch_config() -> Config {
    Config::default().timeout(WATCH_SECONDS)
}
