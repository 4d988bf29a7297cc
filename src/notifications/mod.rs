//! Notifications in Kubernetes: reads them, writes their outcomes, replays them, and finally deletes them.

pub mod names;
pub mod record;
pub mod replay;
pub mod replayed;
pub mod retention;
pub mod size;
pub mod source;
pub mod status;
mod stored;
pub mod unrecorded;
pub mod watch;
pub mod wire;
