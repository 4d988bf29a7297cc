//! Scripted behavior of an endpoint that differs from the correct one.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::sleep;

use crate::endpoints::exchange::{Answer, Reply};

/// What an endpoint does with one request: waits, then answers in this way.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// The time before the answer.
    pub delay: Duration,
    /// The answer.
    pub answer: Answer,
}

impl Behaviour {
    /// Answers with this status and no body.
    ///
    /// # Panics
    /// When `status` is no HTTP status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::reply(Reply::status(status))
    }

    /// Answers with this reply.
    #[must_use]
    pub fn reply(reply: Reply) -> Self {
        Self { delay: Duration::ZERO, answer: Answer::Reply(reply) }
    }

    /// Resets the connection.
    #[must_use]
    pub fn reset() -> Self {
        Self { delay: Duration::ZERO, answer: Answer::Reset }
    }

    /// Never answers.
    #[must_use]
    pub fn hang() -> Self {
        Self { delay: Duration::ZERO, answer: Answer::Hang }
    }

    /// Waits for `delay` first.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The HTTP status that a client sees once the delay is over.
    pub(crate) fn visible_status(&self) -> Option<u16> {
        match &self.answer {
            Answer::Reply(reply) => Some(reply.status.as_u16()),
            Answer::Hang | Answer::Reset => None,
        }
    }

    /// Lets the delay pass and calls `answered` right before the answer goes out.
    pub(crate) async fn perform(self, answered: impl FnOnce(Option<u16>)) -> Answer {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
            answered(self.visible_status());
        }
        self.answer
    }

    /// The status to record when the request arrives: none while the answer is still to come.
    pub(crate) fn immediate_status(&self) -> Option<u16> {
        self.delay.is_zero().then(|| self.visible_status()).flatten()
    }
}

/// The behaviours of an endpoint, path by path.
#[derive(Debug, Default)]
pub(crate) struct Scripts(Mutex<HashMap<String, Script>>);

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Behaviour>,
    steady: Option<Behaviour>,
}

impl Scripts {
    /// The next `count` requests to `path` are met by `behaviour`, after those that are planned already.
    pub(crate) fn next(&self, path: &str, count: usize, behaviour: &Behaviour) {
        let mut scripts = self.0.lock().unwrap();
        scripts.entry(path.to_owned()).or_default().next.extend(std::iter::repeat_n(behaviour.clone(), count));
    }

    /// All requests to `path` for which nothing else is planned are met by `behaviour`.
    pub(crate) fn always(&self, path: &str, behaviour: Behaviour) {
        self.0.lock().unwrap().entry(path.to_owned()).or_default().steady = Some(behaviour);
    }

    /// Forgets what was planned for `path`.
    pub(crate) fn forget(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }

    /// What is planned for this request to `path`, if anything is.
    pub(crate) fn take(&self, path: &str) -> Option<Behaviour> {
        let mut scripts = self.0.lock().unwrap();
        let script = scripts.get_mut(path)?;
        script.next.pop_front().or_else(|| script.steady.clone())
    }
}
