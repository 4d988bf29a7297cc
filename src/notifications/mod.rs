//! Notifications in Kubernetes: how they are read, how their outcomes are written, replayed and, in the end, deleted.

pub mod names;
pub mod record;
pub mod replay;
pub mod replayed;
pub mod retention;
pub mod source;
pub mod status;
mod stored;
pub mod watch;
pub mod wire;
