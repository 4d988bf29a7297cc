//! Gates: the reasons why no event of a Subscriber is sent.

/// The reason why no event of a Subscriber is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// The Subscriber does not exist, or is not known yet.
    SubscriberNotFound,
    /// The Subscriber is not Ready, or has no token.
    SubscriberNotReady,
    /// The Subscriber's spec suspends delivery.
    Suspended,
    /// The webhook answered 410.
    EndpointGone,
    /// The webhook requested a pause until some time.
    Paused,
    /// The circuit is open after consecutive failures; only probes start.
    CircuitOpen,
    /// The webhook rejects all events; only probes start.
    RejectsAll,
    /// Another process acts for the Subscriber. No Notification names this gate, because the other process writes their
    /// statuses.
    NotOwned,
}

impl Gate {
    /// All gates, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::SubscriberNotFound,
        Self::SubscriberNotReady,
        Self::Suspended,
        Self::EndpointGone,
        Self::Paused,
        Self::CircuitOpen,
        Self::NotOwned,
        Self::RejectsAll,
    ];

    /// The name of the gate: where Notifications name it, the reason in their status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SubscriberNotFound => "SubscriberNotFound",
            Self::SubscriberNotReady => "SubscriberNotReady",
            Self::Suspended => "Suspended",
            Self::EndpointGone => "EndpointGone",
            Self::Paused => "Paused",
            Self::CircuitOpen => "CircuitOpen",
            Self::RejectsAll => "RejectsAll",
            Self::NotOwned => "NotOwned",
        }
    }

    /// The number of gates.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The index of the gate in [`Self::ALL`]. A new gate must be added there too.
    pub(crate) const fn number(self) -> usize {
        match self {
            Self::SubscriberNotFound => 0,
            Self::SubscriberNotReady => 1,
            Self::Suspended => 2,
            Self::EndpointGone => 3,
            Self::Paused => 4,
            Self::CircuitOpen => 5,
            Self::NotOwned => 6,
            Self::RejectsAll => 7,
        }
    }
}

// One bit of `Explained` for each gate.
const _: () = assert!(Gate::COUNT <= 8);

/// The gates that an entry's status has named since its last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Explained(u8);

impl Explained {
    /// The set for an event without an attempt since then. An entry names its gate once, with its first event.
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
