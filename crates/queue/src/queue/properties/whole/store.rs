//! What a source has stored, who changes it, and what its watch still has to show.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

use super::{super::super::harness::Toy, key};
use crate::{Content, Current, Entry, Gate, Loaded, Ticket, Written};

#[derive(Clone, Debug)]
pub struct Stored {
    pub lane: usize,
    pub events: u16,
    pub bytes: usize,
    pub lifetime: Option<Duration>,
    pub version: u64,
    pub attempts: u32,
    pub began: SystemTime,
    pub next: Option<SystemTime>,
    pub explained: Option<Gate>,
    /// The events that are recorded as finished.
    pub finished: BTreeSet<u16>,
    pub is_done: bool,
    pub is_cancelled: bool,
    pub is_pulled: bool,
}

/// What a watch shows.
#[derive(Clone, Debug)]
pub enum Shown {
    Present(Box<Stored>),
    Absent(u64),
}

/// What another writer does.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Finish,
    /// Another attempt is recorded; the next one is due after these seconds.
    Attempt(u64),
    Label,
    Replay,
    /// Its deletion begins.
    Cancel,
    Delete,
}

#[derive(Default)]
pub struct Store {
    pub entries: BTreeMap<u32, Stored>,
    /// What the watch has not shown yet, in order for each entry.
    pub pending: BTreeMap<u32, VecDeque<Shown>>,
    versions: u64,
    /// The lives and attempts of each version.
    history: BTreeMap<(u32, u64), (SystemTime, u32)>,
}

/// How a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    Good,
    /// It cannot be read.
    Unread,
}

impl Stored {
    pub fn entry(&self, id: u32) -> Entry<Toy> {
        Entry {
            id,
            name: (),
            of: key(self.lane),
            version: self.version,
            events: self.events,
            finished: Vec::new(),
            attempts: self.attempts,
            began: self.began,
            lifetime: self.lifetime,
            next: self.next,
            bytes: self.bytes,
            kind: self.bytes as u16,
            explained: self.explained,
            cancelled: self.is_cancelled,
            pulled: self.is_pulled,
            item: None,
        }
    }

    fn current(&self, id: u32) -> Current<Toy> {
        Current { entry: self.entry(id), finished: self.is_done }
    }

    /// A later moment than its life began, in whole seconds.
    fn replay(&mut self, now: SystemTime) {
        self.began = now.max(self.began + Duration::from_secs(1));
        (self.attempts, self.next, self.explained, self.is_done) = (0, None, None, false);
        self.finished.clear();
    }
}

impl Store {
    pub fn insert(&mut self, id: u32, entry: Stored) {
        self.entries.insert(id, entry);
        self.changed(id);
    }

    /// The entry has another version, which the watch is to show.
    fn changed(&mut self, id: u32) -> u64 {
        self.versions += 1;
        let Some(entry) = self.entries.get_mut(&id) else { return self.versions };
        entry.version = self.versions;
        self.history.insert((id, entry.version), (entry.began, entry.attempts));
        if !entry.is_pulled {
            let shown = if entry.is_done { Shown::Absent(entry.version) } else { Shown::Present(entry.clone().into()) };
            self.pending.entry(id).or_default().push_back(shown);
        }
        self.versions
    }

    fn delete(&mut self, id: u32) {
        self.versions += 1;
        if let Some(entry) = self.entries.remove(&id)
            && !entry.is_done
        {
            self.pending.entry(id).or_default().push_back(Shown::Absent(self.versions));
        }
    }

    /// Another writer changes an entry.
    pub fn change(&mut self, id: u32, change: Change, now: SystemTime) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.is_pulled) else { return };
        match change {
            Change::Finish if entry.is_done => return,
            Change::Finish => entry.is_done = true,
            Change::Attempt(_) | Change::Cancel if entry.is_done => return,
            Change::Attempt(wait) => {
                entry.attempts += 1;
                entry.next = Some(now + Duration::from_secs(wait));
            }
            // A label of a finished one is not shown.
            Change::Label if entry.is_done => return,
            Change::Label => {}
            Change::Replay if entry.is_cancelled => return,
            Change::Replay => entry.replay(now),
            Change::Cancel => entry.is_cancelled = true,
            Change::Delete => return self.delete(id),
        }
        self.changed(id);
    }

    pub fn load(&self, ticket: &Ticket<Toy>, luck: Luck) -> Loaded<Toy> {
        match self.entries.get(&ticket.id) {
            _ if luck == Luck::Unread => Loaded::Unread,
            None => Loaded::Gone,
            Some(entry) if entry.is_done || entry.is_cancelled || entry.attempts > ticket.attempts => {
                Loaded::Superseded(entry.current(ticket.id))
            }
            Some(entry) => Loaded::Item(Box::new(entry.version)),
        }
    }

    pub fn write(
        &mut self,
        ticket: &Ticket<Toy>,
        item: Option<Box<u64>>,
        content: &Content<&'static str>,
        luck: Luck,
        now: SystemTime,
    ) -> Written<Toy> {
        let (id, Some(entry)) = (ticket.id, self.entries.get_mut(&ticket.id)) else { return Written::Gone };
        let known = item.and_then(|version| self.history.get(&(id, *version)).copied());
        let is_other = known.is_some_and(|known| known != (entry.began, entry.attempts));
        match content {
            Content::Waiting(gate) => {
                if !entry.is_done && !is_other && entry.explained != Some(*gate) {
                    entry.explained = Some(*gate);
                    self.changed(id);
                }
                Written::Noted
            }
            Content::Returned => Written::Noted,
            Content::Expired if known.is_none() && luck == Luck::Unread => Written::Unread,
            _ if entry.is_done || is_other => Written::Superseded(entry.current(id)),
            Content::Expired if entry.began != ticket.began => Written::Superseded(entry.current(id)),
            Content::Expired => {
                entry.is_done = true;
                self.finish(id)
            }
            Content::Outcome(answers) => {
                entry.finished.extend(answers.iter().filter(|(_, answer)| *answer == "ok").map(|(event, _)| *event));
                entry.is_done = entry.finished.len() == usize::from(entry.events);
                if entry.is_done {
                    return self.finish(id);
                }
                let wait = Duration::from_secs(7);
                entry.attempts += 1;
                entry.next = (entry.events == 1).then(|| now + wait);
                let (attempts, began, next) = (entry.attempts, entry.began, entry.next);
                Written::Retry { version: self.changed(id), attempts, began, next, wait }
            }
        }
    }

    fn finish(&mut self, id: u32) -> Written<Toy> {
        let version = self.changed(id);
        Written::Finished { version, out_of_sight: self.entries[&id].is_pulled }
    }
}
