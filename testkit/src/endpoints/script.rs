//! Scripts the behavior of an endpoint where it differs from the correct behavior.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::sleep;

use crate::endpoints::exchange::{Answer, Reply};

/// What an endpoint does with one request: it waits, then answers.
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
    /// When `status` is not an HTTP status.
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

    /// Adds a delay before the answer.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The HTTP status that a client receives after the delay.
    pub(crate) fn visible_status(&self) -> Option<u16> {
        match &self.answer {
            Answer::Reply(reply) => Some(reply.status.as_u16()),
            Answer::Hang | Answer::Reset => None,
        }
    }

    /// Waits for the delay, if there is one, and calls `answered` right before the answer is sent.
    pub(crate) async fn perform(self, answered: impl FnOnce(Option<u16>)) -> Answer {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
            answered(self.visible_status());
        }
        self.answer
    }

    /// The status to record when the request arrives: None if the answer is sent later.
    pub(crate) fn immediate_status(&self) -> Option<u16> {
        self.delay.is_zero().then(|| self.visible_status()).flatten()
    }
}

/// The planned behaviors of an endpoint, by path.
#[derive(Debug, Default)]
pub(crate) struct Scripts(Mutex<HashMap<String, Script>>);

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Behaviour>,
    steady: Option<Behaviour>,
}

impl Scripts {
    /// Plans `behaviour` for the next `count` requests to `path`, after the behaviors that are planned already.
    pub(crate) fn next(&self, path: &str, count: usize, behaviour: &Behaviour) {
        let mut scripts = self.0.lock().unwrap();
        scripts.entry(path.to_owned()).or_default().next.extend(std::iter::repeat_n(behaviour.clone(), count));
    }

    /// Plans `behaviour` for all requests to `path` that have no other plan.
    pub(crate) fn always(&self, path: &str, behaviour: Behaviour) {
        self.0.lock().unwrap().entry(path.to_owned()).or_default().steady = Some(behaviour);
    }

    /// Removes all plans for `path`.
    pub(crate) fn forget(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }

    /// Takes the planned behavior for this request to `path`, if there is one.
    pub(crate) fn take(&self, path: &str) -> Option<Behaviour> {
        let mut scripts = self.0.lock().unwrap();
        let script = scripts.get_mut(path)?;
        script.next.pop_front().or_else(|| script.steady.clone())
    }
}
