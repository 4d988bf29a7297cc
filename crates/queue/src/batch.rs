//! What came of the events of one entry that has several, until it is written.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::work::Work;

/// Outcomes are written this often, until the last one.
const PROGRESS: Duration = Duration::from_secs(60);

/// Answers, by the numbers of their events.
type Answers<W> = Vec<(u16, <W as Work>::Answer)>;

pub(crate) struct Batch<W: Work> {
    /// How many events are not finished.
    unfinished: usize,
    /// What came of events and is not written yet.
    answers: BTreeMap<u16, W::Answer>,
    item: Option<Box<W::Item>>,
    /// Since when there is something to write.
    since: Option<Instant>,
}

impl<W: Work> Batch<W> {
    /// Of an entry of which this many events are not finished.
    pub(crate) fn new(unfinished: usize) -> Self {
        Self { unfinished, answers: BTreeMap::new(), item: None, since: None }
    }

    /// All events are to be sent again: the entry was replayed.
    pub(crate) fn restart(&mut self, events: usize) {
        self.answers.clear();
        (self.unfinished, self.item, self.since) = (events, None, None);
    }

    /// Of events that seemed to be finished, this many are not.
    pub(crate) fn reopen(&mut self, events: usize) {
        self.unfinished += events;
    }

    /// Whether something came of an event that is not written yet.
    pub(crate) fn has(&self, event: u16) -> bool {
        self.answers.contains_key(&event)
    }

    /// This came of an event; `is_final`: it is not tried again.
    pub(crate) fn answer(&mut self, event: u16, answer: W::Answer, item: Box<W::Item>, is_final: bool, now: Instant) {
        self.unfinished -= usize::from(is_final);
        self.answers.insert(event, answer);
        self.item = Some(item);
        self.since.get_or_insert(now);
    }

    /// Whether the answers are to be written: all have come, or a minute has passed, or there are `most`, which a crash would
    /// repeat.
    pub(crate) fn is_due(&self, most: usize, now: Instant) -> bool {
        let is_old = self.progress_at().is_some_and(|at| at <= now);
        !self.is_empty() && (is_old || self.unfinished == 0 || self.answers.len() >= most)
    }

    /// When the answers are to be written, if nothing more comes.
    pub(crate) fn progress_at(&self) -> Option<Instant> {
        Some(self.since? + PROGRESS)
    }

    /// Whether all is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The answers, by the numbers of their events, and the entry, to be written now.
    pub(crate) fn take(&mut self) -> (Answers<W>, Option<Box<W::Item>>) {
        self.since = None;
        (std::mem::take(&mut self.answers).into_iter().collect(), self.item.take())
    }
}
