//! A source in memory: a store whose versions grow, a list and a watch of it, and entries to pull.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{Stream, StreamExt, stream};
use tidings_api::AttemptReason;
use tidings_delivery::{
    event::{CheckedEvent, Defaults},
    webhook::Verdict,
};
use tidings_queue::{
    Content, Current, Entry, Gate, Loaded, ScopeId, Seen, SourceId, SubscriberKey, Ticket, Want, Work, Written,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::world::PATIENCE;
use crate::engine::source::{Answer, Payload, SharedRoute, Source, Unsendable};

/// The source; clones share the store.
#[derive(Clone, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Default)]
struct Shared {
    store: Mutex<Store>,
    changes: watch::Sender<()>,
}

/// All that the source holds, and what the engine did with it.
#[derive(Default)]
struct Store {
    entries: BTreeMap<u64, Stored>,
    version: u64,
    watcher: Option<mpsc::UnboundedSender<Seen<Memory>>>,
    supplies: HashMap<SubscriberKey, VecDeque<u64>>,
    /// Whether the watch lags: what is finished is not shown.
    lags: bool,
    held: Held,
    log: Log,
}

/// What does not go on for now.
#[derive(Default)]
struct Held {
    writes: HashSet<SubscriberKey>,
    written: HashSet<SubscriberKey>,
    pulls: bool,
}

/// What the engine did.
#[derive(Default)]
struct Log {
    loads: Vec<u64>,
    begun: Vec<u64>,
    writes: Vec<(u64, Wrote)>,
    pulls: Vec<usize>,
    open_pulls: usize,
    most_open_pulls: usize,
    in_hand: BTreeSet<u64>,
    most_in_hand: usize,
}

/// One entry of the store.
#[derive(Clone)]
pub struct Stored {
    /// Its Subscriber.
    pub of: SubscriberKey,
    /// The ids of its events.
    pub events: Vec<String>,
    /// The attempts that were written.
    pub attempts: u32,
    /// When its life began.
    pub began: SystemTime,
    /// The age at which it expires by itself.
    pub lifetime: Option<Duration>,
    id: u64,
    version: u64,
    failures: u32,
    next: Option<SystemTime>,
    explained: Option<Gate>,
    /// Those of its events that were delivered or failed for good.
    finished: BTreeSet<u16>,
    is_over: bool,
    is_pulled: bool,
}

/// A write, as the store took it.
#[derive(Clone, Debug, PartialEq)]
pub enum Wrote {
    /// What came of events, by their numbers, and how long the entry waits (None: it is finished).
    Outcome(Vec<(u16, AttemptReason)>, Option<Duration>),
    /// It expired.
    Expired,
    /// It was given back.
    Returned,
    /// The store refused: another writer was there before.
    Refused,
}

/// An entry as it was loaded or shown.
#[derive(Clone, Debug)]
pub struct Item {
    events: Vec<String>,
    failures: u32,
}

impl Memory {
    /// Creates an entry with these events. Returns its id.
    pub fn add(&self, of: &SubscriberKey, events: &[&str]) -> u64 {
        self.add_with(of, events, |_| {})
    }

    /// The same; `change` may alter it before it is shown.
    pub fn add_with(&self, of: &SubscriberKey, events: &[&str], change: impl FnOnce(&mut Stored)) -> u64 {
        self.change(|store| {
            let id = store.create(of, events, false);
            change(store.entries.get_mut(&id).unwrap());
            store.show(id);
            id
        })
    }

    /// Has entries with one event each to pull for a Subscriber. Returns their ids.
    pub fn supply(&self, of: &SubscriberKey, events: &[&str]) -> Vec<u64> {
        self.change(|store| {
            let ids: Vec<_> = events.iter().map(|event| store.create(of, &[event], true)).collect();
            store.supplies.entry(of.clone()).or_default().extend(&ids);
            store.show_supply(of);
            ids
        })
    }

    /// The entry begins another life.
    pub fn replay(&self, id: u64) {
        self.change(|store| {
            let version = store.next_version();
            let entry = store.entries.get_mut(&id).unwrap();
            entry.began = SystemTime::now().max(entry.began + Duration::from_secs(1));
            (entry.version, entry.attempts, entry.failures, entry.next) = (version, 0, 0, None);
            (entry.is_over, entry.finished) = (false, BTreeSet::new());
            store.show(id);
        });
    }

    /// Another process finished the entry, and the watch has not shown it yet.
    pub fn finish_unseen(&self, id: u64) {
        self.change(|store| {
            let version = store.next_version();
            let entry = store.entries.get_mut(&id).unwrap();
            (entry.version, entry.attempts, entry.is_over) = (version, entry.attempts + 1, true);
        });
    }

    /// The entry as it is now.
    pub fn get(&self, id: u64) -> Stored {
        self.lock().entries[&id].clone()
    }

    /// Shows an entry as it was once.
    pub fn show_again(&self, entry: &Stored) {
        self.change(|store| store.send(Seen::Present(entry.entry(Some(entry.item())))));
    }

    /// Lists all again, as after a watch that broke off.
    pub fn list_again(&self) {
        self.change(|store| {
            let listing = store.listing();
            listing.into_iter().for_each(|seen| store.send(seen));
        });
    }

    /// The watch shows nothing of what is finished, or, from now on, all of it.
    pub fn lag(&self, lags: bool) {
        self.change(|store| {
            store.lags = lags;
            let over: Vec<_> = store.entries.values().filter(|entry| entry.is_over).map(Stored::key).collect();
            over.into_iter().filter(|_| !lags).for_each(|(id, version)| store.send(Seen::Absent { id, version }));
        });
    }

    /// Writes for this Subscriber hang from now on, or go on.
    pub fn hold_writes(&self, of: &SubscriberKey, held: bool) {
        self.change(|store| if held { store.held.writes.insert(of.clone()) } else { store.held.writes.remove(of) });
    }

    /// Writes for this Subscriber are taken and shown from now on, but their answers hang, or go on.
    pub fn hold_written(&self, of: &SubscriberKey, held: bool) {
        self.change(|store| if held { store.held.written.insert(of.clone()) } else { store.held.written.remove(of) });
    }

    /// Pulls hang from now on, or go on.
    pub fn hold_pulls(&self, held: bool) {
        self.change(|store| store.held.pulls = held);
    }

    /// Lists, then watches.
    pub fn watch(&self) -> impl Stream<Item = Seen<Self>> + use<> {
        let (watcher, mut shown) = mpsc::unbounded_channel();
        let listing = self.change(|store| {
            store.watcher = Some(watcher);
            let supplied: Vec<_> = store.supplies.keys().cloned().collect();
            supplied.iter().for_each(|of| store.show_supply(of));
            store.listing()
        });
        stream::iter(listing).chain(stream::poll_fn(move |context| shown.poll_recv(context)))
    }

    /// Waits until the store took `count` writes to the entry. Returns them.
    pub async fn written(&self, id: u64, count: usize) -> Vec<Wrote> {
        self.until("writes", |store| Some(store.writes_to(id)).filter(|writes| writes.len() >= count)).await
    }

    /// Waits until the entry is finished.
    pub async fn finished(&self, id: u64) {
        self.until("end", |store| store.entries[&id].is_over.then_some(())).await;
    }

    /// The writes to the entry so far.
    pub fn writes(&self, id: u64) -> Vec<Wrote> {
        self.lock().writes_to(id)
    }

    /// Waits until a write to the entry is under way.
    pub async fn write_begun(&self, id: u64) {
        self.until("a write", |store| store.log.begun.contains(&id).then_some(())).await;
    }

    /// Whether a write to the entry was ever under way.
    pub fn has_write_begun(&self, id: u64) -> bool {
        self.lock().log.begun.contains(&id)
    }

    /// Which entries were loaded, in order.
    pub fn loads(&self) -> Vec<u64> {
        self.lock().log.loads.clone()
    }

    /// Waits until `count` pulls began. Returns how many events each was for.
    pub async fn pulled(&self, count: usize) -> Vec<usize> {
        self.until("pulls", |store| Some(store.log.pulls.clone()).filter(|pulls| pulls.len() >= count)).await
    }

    /// How many events each pull was for.
    pub fn pulls(&self) -> Vec<usize> {
        self.lock().log.pulls.clone()
    }

    /// The most pulls that were open at once, and the most entries that were pulled and neither finished nor given
    /// back.
    pub fn most(&self) -> (usize, usize) {
        let log = &self.lock().log;
        (log.most_open_pulls, log.most_in_hand)
    }

    /// Which entries are pulled and neither finished nor given back.
    pub fn in_hand(&self) -> Vec<u64> {
        self.lock().log.in_hand.iter().copied().collect()
    }

    async fn released(&self, is_free: impl Fn(&Held) -> bool) {
        let mut changes = self.0.changes.subscribe();
        while !is_free(&self.lock().held) {
            changes.changed().await.unwrap();
        }
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&Store) -> Option<T>) -> T {
        let mut changes = self.0.changes.subscribe();
        let seen = async {
            loop {
                if let Some(found) = look(&self.lock()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        match timeout(PATIENCE, seen).await {
            Ok(found) => found,
            Err(_) => panic!("no {what} after {PATIENCE:?}; all writes: {:?}", self.lock().log.writes),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let changed = change(&mut self.lock());
        self.0.changes.send_replace(());
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap()
    }
}

impl Store {
    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn create(&mut self, of: &SubscriberKey, events: &[&str], is_pulled: bool) -> u64 {
        let id = self.next_version();
        let entry = Stored {
            of: of.clone(),
            events: events.iter().map(|&id| id.into()).collect(),
            attempts: 0,
            began: SystemTime::now(),
            lifetime: None,
            id,
            version: id,
            failures: 0,
            next: None,
            explained: None,
            finished: BTreeSet::new(),
            is_over: false,
            is_pulled,
        };
        self.entries.insert(id, entry);
        id
    }

    /// What a list says.
    fn listing(&self) -> Vec<Seen<Memory>> {
        let unfinished = self.entries.values().filter(|entry| !entry.is_over && !entry.is_pulled);
        let shown = unfinished.map(|entry| Seen::Present(entry.entry(Some(entry.item()))));
        let (begins, ends) = (Seen::ListBegins(ScopeId(0)), Seen::ListEnds(ScopeId(0)));
        [begins].into_iter().chain(shown).chain([ends]).collect()
    }

    /// The watch shows the entry as it is now.
    fn show(&self, id: u64) {
        let Some(entry) = self.entries.get(&id).filter(|entry| !entry.is_pulled) else { return };
        if !entry.is_over {
            self.send(Seen::Present(entry.entry(Some(entry.item()))));
        } else if !self.lags {
            self.send(Seen::Absent { id, version: entry.version });
        }
    }

    fn show_supply(&self, of: &SubscriberKey) {
        let any = self.supplies.get(of).is_some_and(|ids| !ids.is_empty());
        self.send(Seen::Supply { source: SourceId(0), of: of.clone(), any });
    }

    fn send(&self, seen: Seen<Memory>) {
        // The watcher ends with its engine.
        if let Some(watcher) = &self.watcher {
            let _ = watcher.send(seen);
        }
    }

    fn writes_to(&self, id: u64) -> Vec<Wrote> {
        self.log.writes.iter().filter(|(of, _)| *of == id).map(|(_, wrote)| wrote.clone()).collect()
    }

    fn load(&mut self, of: &Ticket<Memory>) -> Loaded<Memory> {
        self.log.loads.push(of.id);
        match self.entries.get(&of.id) {
            None => Loaded::Gone,
            Some(entry) if entry.is_news_to(of) => Loaded::Superseded(entry.current()),
            Some(entry) => Loaded::Item(Box::new(entry.item())),
        }
    }

    fn write(&mut self, of: &Ticket<Memory>, content: Content<Answer>) -> Written<Memory> {
        let version = self.next_version();
        let Some(entry) = self.entries.get_mut(&of.id) else { return Written::Gone };
        let wrote = match content {
            Content::Waiting(gate) => {
                entry.explained = Some(gate);
                return Written::Noted;
            }
            Content::Returned => {
                self.log.in_hand.remove(&of.id);
                self.supplies.entry(of.of.clone()).or_default().push_front(of.id);
                self.log.writes.push((of.id, Wrote::Returned));
                self.show_supply(&of.of);
                return Written::Noted;
            }
            _ if entry.is_news_to(of) => {
                self.log.writes.push((of.id, Wrote::Refused));
                return Written::Superseded(entry.current());
            }
            Content::Expired => {
                entry.is_over = true;
                Wrote::Expired
            }
            Content::Outcome(answers) => entry.record(&answers),
        };
        entry.version = version;
        let written = entry.written(&wrote);
        if entry.is_over {
            self.log.in_hand.remove(&of.id);
        }
        self.log.writes.push((of.id, wrote));
        self.show(of.id);
        written
    }

    fn pull(&mut self, of: &SubscriberKey, want: Want) -> (Vec<Entry<Memory>>, bool) {
        let supply = self.supplies.entry(of.clone()).or_default();
        let ids: Vec<_> = supply.drain(..want.events.min(supply.len())).collect();
        let more = !supply.is_empty();
        self.log.in_hand.extend(&ids);
        self.log.most_in_hand = self.log.most_in_hand.max(self.log.in_hand.len());
        self.log.open_pulls -= 1;
        let pulled = ids.iter().map(|id| &self.entries[id]);
        (pulled.map(|entry| entry.entry(Some(entry.item()))).collect(), more)
    }
}

impl Stored {
    fn key(&self) -> (u64, u64) {
        (self.id, self.version)
    }

    fn item(&self) -> Item {
        Item { events: self.events.clone(), failures: self.failures }
    }

    fn entry(&self, item: Option<Item>) -> Entry<Memory> {
        Entry {
            id: self.id,
            name: "entry",
            of: self.of.clone(),
            version: self.version,
            events: u16::try_from(self.events.len()).unwrap(),
            finished: if self.events.len() > 1 { self.finished.iter().copied().collect() } else { Vec::new() },
            attempts: self.attempts,
            began: self.began,
            lifetime: self.lifetime,
            next: self.next,
            bytes: self.events.iter().map(|id| json(id).len()).max().unwrap_or_default(),
            kind: 0,
            explained: self.explained,
            cancelled: false,
            pulled: self.is_pulled,
            item: item.map(Box::new),
        }
    }

    fn current(&self) -> Current<Memory> {
        Current { entry: self.entry(None), finished: self.is_over }
    }

    /// Whether another writer was here since the ticket was made.
    fn is_news_to(&self, of: &Ticket<Memory>) -> bool {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let has_attempts = self.events.len() == 1 && self.attempts != of.attempts;
        self.is_over || seconds(self.began) != seconds(of.began) || has_attempts
    }

    /// Takes note of what came of events.
    fn record(&mut self, answers: &[(u16, Answer)]) -> Wrote {
        let mut wait = None;
        for (number, answer) in answers {
            self.attempts += 1;
            self.failures +=
                u32::from(!matches!(answer.outcome.verdict, Verdict::Pause(_) | Verdict::Hold | Verdict::Defer));
            match answer.outcome.verdict {
                Verdict::Delivered | Verdict::Failed | Verdict::Rejected => drop(self.finished.insert(*number)),
                Verdict::Retry | Verdict::RetryAfter(_)
                    if answer.max_attempts.is_some_and(|most| self.failures >= most) =>
                {
                    self.finished.insert(*number);
                }
                Verdict::Retry
                | Verdict::RetryAfter(_)
                | Verdict::Pause(_)
                | Verdict::Hold
                | Verdict::Defer
                | Verdict::Gone => wait = Some(answer.next_wait),
            }
        }
        self.next = wait.filter(|_| self.events.len() == 1).map(|wait| SystemTime::now() + wait);
        self.is_over = self.finished.len() == self.events.len();
        Wrote::Outcome(answers.iter().map(|(number, answer)| (*number, answer.outcome.reason)).collect(), wait)
    }

    fn written(&self, wrote: &Wrote) -> Written<Memory> {
        let Self { version, attempts, began, next, .. } = *self;
        match wrote {
            Wrote::Outcome(_, wait) if !self.is_over => {
                Written::Retry { version, attempts, began, next, wait: wait.unwrap_or_default() }
            }
            _ => Written::Finished { version, out_of_sight: self.is_pulled },
        }
    }
}

impl Work for Memory {
    type Id = u64;
    type Name = &'static str;
    type Item = Item;
    type Route = SharedRoute;
    type Answer = Answer;
}

impl Source for Memory {
    async fn load(&self, of: &Ticket<Self>) -> Loaded<Self> {
        self.change(|store| store.load(of))
    }

    async fn write(&self, of: Ticket<Self>, _: Option<Box<Item>>, content: Content<Answer>) -> Written<Self> {
        if !matches!(content, Content::Waiting(_)) {
            self.change(|store| store.log.begun.push(of.id));
        }
        self.released(|held| !held.writes.contains(&of.of)).await;
        let written = self.change(|store| store.write(&of, content));
        self.released(|held| !held.written.contains(&of.of)).await;
        written
    }

    async fn pull(&self, _: SourceId, of: &SubscriberKey, want: Want) -> (Vec<Entry<Self>>, bool) {
        self.change(|Store { log, .. }| {
            log.pulls.push(want.events);
            log.open_pulls += 1;
            log.most_open_pulls = log.most_open_pulls.max(log.open_pulls);
        });
        self.released(|held| !held.pulls).await;
        self.change(|store| store.pull(of, want))
    }
}

impl Payload for Item {
    fn event(&self, number: u16) -> Result<CheckedEvent, Unsendable> {
        let defaults = Defaults { id: "", time: "2026-10-01T10:02:00Z" };
        Ok(CheckedEvent::parse(&json(&self.event_id(number)), defaults)?)
    }

    fn event_id(&self, number: u16) -> String {
        self.events.get(usize::from(number)).cloned().unwrap_or_default()
    }

    fn size(&self) -> usize {
        self.events.iter().map(|id| json(id).len()).sum()
    }

    fn drop_events(&mut self) {
        self.events.clear();
    }

    fn uid(&self) -> &str {
        ""
    }

    fn failures(&self) -> u32 {
        self.failures
    }
}

/// An event with this id.
fn json(id: &str) -> String {
    format!(r#"{{"id": "{id}", "source": "/memory", "type": "test", "data": {{}}}}"#)
}
