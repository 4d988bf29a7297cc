//! Collects the outcomes of an entry with several events until they are written.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::work::Work;

/// How often outcomes are written before the last one.
const PROGRESS: Duration = Duration::from_secs(60);

/// Answers with the numbers of their events.
type Answers<W> = Vec<(u16, <W as Work>::Answer)>;

pub(crate) struct Batch<W: Work> {
    /// The number of unfinished events.
    unfinished: usize,
    /// The answers that are not written yet.
    answers: BTreeMap<u16, W::Answer>,
    item: Option<Box<W::Item>>,
    /// Since when there is an answer to write.
    since: Option<Instant>,
}

impl<W: Work> Batch<W> {
    /// Makes the batch of an entry with this many unfinished events.
    pub(crate) fn new(unfinished: usize) -> Self {
        Self { unfinished, answers: BTreeMap::new(), item: None, since: None }
    }

    /// Starts again with all events, because the entry was replayed.
    pub(crate) fn restart(&mut self, events: usize) {
        self.answers.clear();
        (self.unfinished, self.item, self.since) = (events, None, None);
    }

    /// Records that this many events are unfinished that seemed to be finished.
    pub(crate) fn reopen(&mut self, events: usize) {
        self.unfinished += events;
    }

    /// Whether there is an unwritten answer for an event.
    pub(crate) fn has(&self, event: u16) -> bool {
        self.answers.contains_key(&event)
    }

    /// Adds the answer for an event. `is_final`: the event is not retried.
    pub(crate) fn answer(&mut self, event: u16, answer: W::Answer, item: Box<W::Item>, is_final: bool, now: Instant) {
        self.unfinished -= usize::from(is_final);
        self.answers.insert(event, answer);
        self.item = Some(item);
        self.since.get_or_insert(now);
    }

    /// Whether the answers must be written: all events have one, a minute has passed, or there are `most` answers,
    /// whose events a crash would repeat.
    pub(crate) fn is_due(&self, most: usize, now: Instant) -> bool {
        let is_old = self.progress_at().is_some_and(|at| at <= now);
        !self.is_empty() && (is_old || self.unfinished == 0 || self.answers.len() >= most)
    }

    /// Returns when the answers must be written if there are no more.
    pub(crate) fn progress_at(&self) -> Option<Instant> {
        Some(self.since? + PROGRESS)
    }

    /// Whether all answers are written.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Takes the answers to write now, with the numbers of their events, and the entry.
    pub(crate) fn take(&mut self) -> (Answers<W>, Option<Box<W::Item>>) {
        self.since = None;
        (std::mem::take(&mut self.answers).into_iter().collect(), self.item.take())
    }
}
