//! What an unfinished Notification takes in the queue itself, without its event.

use std::time::{Duration, Instant, SystemTime};

use tidings_queue::{Bounds, Entry, Now, Queue, ScopeId, Seen, SubscriberKey, Work};

use crate::{report::Report, say::say, usage};

const PENDING: u32 = 100_000;

/// Ids and names are as large as those of Notifications.
struct Alike;

impl Work for Alike {
    type Id = [u8; 16];
    type Name = [u8; 24];
    type Item = ();
    type Route = ();
    type Answer = ();
}

/// To be measured before anything else has used, and given back, memory of this process.
pub fn measure(report: &mut Report) {
    for (what, attempts, next) in
        [("due", 0, None), ("tried, waiting for the next attempt", 1, Some(Duration::from_secs(3600)))]
    {
        let before = usage::rss(std::process::id());
        let queue = fill(attempts, next);
        let bytes = (usage::rss(std::process::id()) - before) * 1024.0 * 1024.0 / f64::from(PENDING);
        say(format!("the queue alone: {bytes:.0} bytes for each of {} {what}", queue.len()));
        report.at_most(&format!("the queue alone, each of {PENDING} {what}"), bytes, 150.0, " bytes");
        // Kept: the next one must not find its memory.
        std::mem::forget(queue);
    }
}

fn fill(attempts: u32, next: Option<Duration>) -> Queue<Alike> {
    let now = Now { instant: Instant::now(), wall: SystemTime::now() };
    let bounds = Bounds { in_flight: 128, bytes_in_flight: 1 << 26, bytes_kept: 1 << 26 };
    let mut queue = Queue::new(&bounds, vec![None], now);
    queue.observe(Seen::ListBegins(ScopeId(0)), now);
    let of = SubscriberKey { namespace: "bench".into(), name: "shop".into() };
    for number in 0..PENDING {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_le_bytes());
        let entry = Entry {
            id,
            name: [0; 24],
            of: of.clone(),
            version: u64::from(number) + 1,
            events: 1,
            finished: Vec::new(),
            attempts,
            began: now.wall,
            lifetime: None,
            next: next.map(|next| now.wall + next),
            bytes: 1024,
            kind: 0,
            explained: None,
            cancelled: false,
            pulled: false,
            item: None,
        };
        queue.observe(Seen::Present(entry), now);
    }
    queue.observe(Seen::ListEnds(ScopeId(0)), now);
    queue
}
