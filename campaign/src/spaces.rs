//! The namespaces of a campaign: what goes wrong in one of them must not reach the others.

/// The operators' own, which holds their Lease, too.
pub(crate) const CORE: &str = "chaos";
/// Of events that look days old.
pub(crate) const OLD: &str = "chaos-old";
/// Of events of up to 1 MiB.
pub(crate) const LARGE: &str = "chaos-large";
/// Of a token service that hangs.
pub(crate) const HANGING: &str = "chaos-hanging";
/// Of a Subscriber that is suspended every other while.
pub(crate) const NAPPING: &str = "chaos-napping";
/// The operators lose their rights to it, and get them back.
pub(crate) const BARRED: &str = "chaos-barred";
/// It is deleted, with the operators' rights to it.
pub(crate) const DOOMED: &str = "chaos-doomed";
/// Of a Subscriber with a low rate, so that its Notifications queue.
pub(crate) const QUEUED: &str = "chaos-queued";
/// Of events that expire while no operator runs.
pub(crate) const FLEETING: &str = "chaos-fleeting";
/// Of more Subscribers than a page of a listing holds.
pub(crate) const MANY: &str = "chaos-many";
/// Where nothing goes wrong.
pub(crate) const CALM: &str = "chaos-sound";
/// Where there is nothing.
const EMPTY: &str = "chaos-empty";

/// All of them.
pub(crate) const ALL: [&str; 12] =
    [CORE, OLD, LARGE, HANGING, NAPPING, BARRED, DOOMED, QUEUED, FLEETING, MANY, CALM, EMPTY];
