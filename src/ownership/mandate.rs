//! Whether this operator may act for Subscribers now.

use tidings_queue::{SubscriberKey, Term};
use tokio::sync::watch;

use super::lease::Leadership;

/// Permission to send requests and to write statuses: this operator leads and is not stopping.
#[derive(Clone)]
pub struct Mandate {
    leadership: Leadership,
    stopping: watch::Receiver<bool>,
}

impl Mandate {
    /// The mandate holds while `leadership` does, until `stopping` is true.
    pub fn new(leadership: Leadership, stopping: watch::Receiver<bool>) -> Self {
        Self { leadership, stopping }
    }

    /// Whether this operator leads. If so, what it writes is not older than what another operator wrote.
    pub fn leads(&self, of: &SubscriberKey) -> bool {
        self.leadership.holds(of)
    }

    /// Returns the leadership alone, which also holds while the operator stops.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Returns the term in which a request may be sent now (None: no request may be sent).
    pub fn term(&self, of: &SubscriberKey) -> Option<Term> {
        self.leadership.term(of).filter(|_| !*self.stopping.borrow())
    }

    /// Whether a request may be sent now.
    pub fn holds(&self, of: &SubscriberKey) -> bool {
        self.term(of).is_some()
    }

    /// Returns when the operator must stop.
    pub async fn stopping(&self) {
        let mut stopping = self.stopping.clone();
        drop(stopping.wait_for(|stopping| *stopping).await);
    }

    /// Returns the result of `exchange`, or None if the operator stops first. The next leader then sends the request
    /// again.
    pub async fn unless_stopping<T>(&self, exchange: impl Future<Output = T>) -> Option<T> {
        if *self.stopping.borrow() {
            return None;
        }
        tokio::select! {
            biased;
            answer = exchange => Some(answer),
            () = self.stopping() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn an_operator_that_stops_sends_nothing_and_waits_for_no_response() {
        let (stop, stopping) = watch::channel(false);
        let mandate = Mandate::new(Leadership::alone(), stopping);
        let of = SubscriberKey { namespace: "a".into(), name: "s".into() };
        assert!(mandate.holds(&of));
        assert_eq!(mandate.unless_stopping(ready(7)).await, Some(7));
        stop.send(true).unwrap();
        assert!(!mandate.holds(&of) && mandate.leads(&of));
        assert_eq!(mandate.unless_stopping(pending::<()>()).await, None);
        assert_eq!(mandate.unless_stopping(ready(7)).await, None, "nothing begins");
    }
}
