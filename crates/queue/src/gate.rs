//! Why nothing of a lane may start.

/// Why nothing of a lane may start, as the Notification will tell.
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
}

impl Gate {
    /// How many gates there are.
    pub(super) const COUNT: usize = 6;
}

/// The gates that a Notification was told since its last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told(u8);

impl Told {
    pub(super) fn insert(&mut self, gate: Gate) {
        self.0 |= 1 << gate as u8;
    }

    pub(super) fn contains(self, gate: Gate) -> bool {
        self.0 & (1 << gate as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gate_is_told_on_its_own() {
        use Gate::*;
        let all = [SubscriberNotFound, SubscriberNotReady, Suspended, EndpointGone, Paused, CircuitOpen];
        assert_eq!(all.len(), Gate::COUNT);
        for gate in all {
            let mut told = Told::default();
            told.insert(gate);
            assert!(all.iter().all(|other| told.contains(*other) == (*other == gate)));
        }
    }
}
