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
    /// All gates, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::SubscriberNotFound,
        Self::SubscriberNotReady,
        Self::Suspended,
        Self::EndpointGone,
        Self::Paused,
        Self::CircuitOpen,
        Self::NotOwned,
    ];

    /// How many gates there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Its place in [`Self::ALL`]: a gate that is new has to be there, too.
    pub(crate) const fn number(self) -> usize {
        match self {
            Self::SubscriberNotFound => 0,
            Self::SubscriberNotReady => 1,
            Self::Suspended => 2,
            Self::EndpointGone => 3,
            Self::Paused => 4,
            Self::CircuitOpen => 5,
            Self::NotOwned => 6,
        }
    }
}

// One bit of `Explained` for each.
const _: () = assert!(Gate::COUNT <= 8);

/// The gates that an entry was written to wait behind since its last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Explained(u8);

impl Explained {
    /// Of an event that was not tried since: an entry names its gate once, not with each of its events.
    pub(crate) fn none_of(event: u16) -> Self {
        if event == 0 { Self::default() } else { Self(u8::MAX) }
    }

    pub(crate) fn insert(&mut self, gate: Gate) {
        self.0 |= 1 << gate.number();
    }

    pub(crate) fn contains(self, gate: Gate) -> bool {
        self.0 & (1 << gate.number()) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gate_is_explained_on_its_own() {
        for (number, gate) in Gate::ALL.into_iter().enumerate() {
            assert_eq!(gate.number(), number);
            let mut explained = Explained::default();
            explained.insert(gate);
            assert!(Gate::ALL.iter().all(|other| explained.contains(*other) == (*other == gate)));
        }
    }
}
