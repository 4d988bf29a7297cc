//! What one namespace asks the name servers: each name once at a time, and a bounded number of names at once.

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
use crate::egress::Lookup;

/// The most names of one namespace that are queried at once; more wait. Whatever the name servers do with these, they take
/// nothing from another namespace. While a name server is silent, each holds up to eight sockets: two families, four
/// questions.
const AT_ONCE: usize = 8;
/// The most names that are remembered before the ones that are out of date are dropped.
const REMEMBERED: usize = 256;
/// That a name does not exist is believed for this long.
const NEGATIVE: Duration = Duration::from_secs(2);

/// The names of one namespace.
pub(in crate::egress) struct Share(Arc<ShareState>);

struct ShareState {
    dns: Arc<Dns>,
    room: Semaphore,
    /// Never locked while a query is under way.
    names: Mutex<HashMap<String, PendingLookup>>,
}

type LookupAnswer = Result<Arc<[IpAddr]>, LookupError>;

enum PendingLookup {
    /// A query is under way for those that wait: when the last of them goes away, the query ends.
    Asked(WeakShared<BoxFuture<'static, LookupAnswer>>),
    /// What came, and until when it serves.
    Known(LookupAnswer, Instant),
}

impl Share {
    pub(in crate::egress) fn new(dns: Arc<Dns>) -> Self {
        Self(Arc::new(ShareState { dns, room: Semaphore::new(AT_ONCE), names: Mutex::default() }))
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
        // The semaphore is never closed; were it, the bound would be missing and nothing else.
        let _turn = self.room.acquire().await;
        let answer = self.dns.ask(&name).await;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(ResolvedName { addresses, until }) => {
                names.insert(name, PendingLookup::Known(Ok(addresses.clone()), until));
                Ok(addresses)
            }
            Err(fault) => {
                // Silence is not remembered: the next one asks again.
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

/// Drops what is out of date where there is much, and everything known where that does not help.
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
