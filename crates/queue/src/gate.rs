//! Why nothing of a Subscriber is sent.

/// Why nothing of a Subscriber is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// The Subscriber does not exist, or is not known yet.
    SubscriberNotFound,
    /// The Subscriber lacks something that a delivery needs.
    SubscriberNotReady,
    /// The Subscriber's spec says to hold.
    Suspended,
    /// The webhook answered 410.
    EndpointGone,
    /// The webhook asked for silence until some time.
    Paused,
    /// The webhook failed too often in a row; only a probe starts from time to time.
    CircuitOpen,
    /// Another process acts for the Subscriber. No Notification names this gate: the other process writes.
    NotOwned,
}

impl Gate {
    /// How many gates there are.
    pub(crate) const COUNT: usize = 7;
}

/// The gates that an entry was written to wait behind since its last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Explained(u8);

impl Explained {
    /// Of an event that was not tried since: an entry names its gate once, not with each of its events.
    pub(crate) fn none_of(event: u16) -> Self {
        if event == 0 { Self::default() } else { Self(u8::MAX) }
    }

    pub(crate) fn insert(&mut self, gate: Gate) {
        self.0 |= 1 << gate as u8;
    }

    pub(crate) fn contains(self, gate: Gate) -> bool {
        self.0 & (1 << gate as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gate_is_explained_on_its_own() {
        use Gate::*;
        let all = [SubscriberNotFound, SubscriberNotReady, Suspended, EndpointGone, Paused, CircuitOpen, NotOwned];
        assert_eq!(all.len(), Gate::COUNT);
        for gate in all {
            let mut explained = Explained::default();
            explained.insert(gate);
            assert!(all.iter().all(|other| explained.contains(*other) == (*other == gate)));
        }
    }
}
