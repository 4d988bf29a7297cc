//! The lookups of one namespace: each name once at a time, and a limited number of names concurrently.

use std::{
    collections::HashMap,
    fmt, io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, WeakShared, ready},
};
use tokio::sync::Semaphore;

use super::{Dns, LookupError, ResolvedName};
use crate::egress::{Lookup, Observer, observer};

/// The maximum number of concurrent lookups of one namespace; further lookups wait. Slow name servers for these lookups
/// do not affect other namespaces. While a name server is silent, each lookup holds up to eight sockets: two families,
/// four queries.
const AT_ONCE: usize = 8;
/// The maximum number of stored names before outdated ones are dropped.
const REMEMBERED: usize = 256;
/// How long a negative result is used.
const NEGATIVE: Duration = Duration::from_secs(2);

/// The lookups of one namespace.
pub(in crate::egress) struct Share(Arc<ShareState>);

struct ShareState {
    dns: Arc<Dns>,
    observer: Arc<dyn Observer>,
    room: Semaphore,
    /// Never locked during a query.
    names: Mutex<HashMap<String, PendingLookup>>,
}

type LookupAnswer = Result<Arc<[IpAddr]>, LookupError>;

enum PendingLookup {
    /// A query in flight. It ends when the last caller stops waiting.
    Asked(WeakShared<BoxFuture<'static, LookupAnswer>>),
    /// A result, and until when it may be used.
    Known(LookupAnswer, Instant),
}

impl Share {
    /// Makes the lookups of one namespace, which `observer` counts.
    pub(in crate::egress) fn new(dns: Arc<Dns>, observer: Arc<dyn Observer>) -> Self {
        Self(Arc::new(ShareState { dns, observer, room: Semaphore::new(AT_ONCE), names: Mutex::default() }))
    }
}

impl Lookup for Share {
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let answer = self.0.clone().answer(name);
        Box::pin(async move { Ok(answer.await.map_err(io::Error::from)?.to_vec()) })
    }
}

impl ShareState {
    fn answer(self: Arc<Self>, name: &str) -> BoxFuture<'static, LookupAnswer> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(name) {
            Some(PendingLookup::Known(answer, until)) if Instant::now() < *until => {
                return ready(answer.clone()).boxed();
            }
            Some(PendingLookup::Asked(asked)) => {
                if let Some(asked) = asked.upgrade() {
                    return asked.boxed();
                }
            }
            _ => {}
        }
        make_room(&mut names);
        let asking = self.clone().ask(name.to_owned()).boxed().shared();
        if let Some(weak) = asking.downgrade() {
            names.insert(name.to_owned(), PendingLookup::Asked(weak));
        }
        asking.boxed()
    }

    async fn ask(self: Arc<Self>, name: String) -> LookupAnswer {
        // The semaphore is never closed; if it were, only the limit would be missing.
        let _turn = self.room.acquire().await;
        let answer = observer::lookup(&self.observer, self.dns.ask(&name)).await;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(ResolvedName { addresses, until }) => {
                names.insert(name, PendingLookup::Known(Ok(addresses.clone()), until));
                Ok(addresses)
            }
            Err(fault) => {
                // A missing response is not stored: the next caller queries again.
                match fault {
                    LookupError::Nonexistent => {
                        names.insert(name, PendingLookup::Known(Err(fault), Instant::now() + NEGATIVE))
                    }
                    LookupError::Unanswered | LookupError::Unconfigured => names.remove(&name),
                };
                Err(fault)
            }
        }
    }
}

/// Drops outdated results if there are too many, and all results if that is not enough.
fn make_room(names: &mut HashMap<String, PendingLookup>) {
    if names.len() < REMEMBERED {
        return;
    }
    let now = Instant::now();
    names.retain(|_, entry| match entry {
        PendingLookup::Asked(asked) => asked.upgrade().is_some(),
        PendingLookup::Known(_, until) => now < *until,
    });
    if names.len() >= REMEMBERED {
        names.retain(|_, entry| matches!(entry, PendingLookup::Asked(_)));
    }
}

impl From<LookupError> for io::Error {
    fn from(fault: LookupError) -> Self {
        let kind = match fault {
            LookupError::Nonexistent => io::ErrorKind::NotFound,
            LookupError::Unanswered => io::ErrorKind::HostUnreachable,
            LookupError::Unconfigured => io::ErrorKind::Unsupported,
        };
        Self::new(kind, fault)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}
