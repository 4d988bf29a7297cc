//! The steps that lead to a delivery.

/// A step that every event depends on; the last one is taken by deliveries and by a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The Secrets and ConfigMaps that the spec names are read, and the host names are resolved.
    Secret,
    /// The token service is asked for a token.
    Token,
    /// The webhook is asked for its consent.
    Handshake,
    /// An event is sent.
    Delivery,
}

impl Step {
    /// Its number of four, and its name.
    pub(super) fn number_and_name(self) -> (u8, &'static str) {
        match self {
            Self::Secret => (1, "Secret"),
            Self::Token => (2, "token"),
            Self::Handshake => (3, "handshake"),
            Self::Delivery => (4, "delivery"),
        }
    }
}
