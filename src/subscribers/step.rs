//! Names the steps that lead to a delivery.

/// A step that every event depends on. Only deliveries and tests take the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Reads the Secrets and ConfigMaps that the spec names, and resolves the host names in the spec.
    Secret,
    /// Requests a token from the token service.
    Token,
    /// Sends the webhook a validation request.
    Handshake,
    /// Sends an event.
    Delivery,
}

impl Step {
    /// The number of the step, from 1 to 4, and its name.
    pub(super) fn number_and_name(self) -> (u8, &'static str) {
        match self {
            Self::Secret => (1, "Secret"),
            Self::Token => (2, "token"),
            Self::Handshake => (3, "handshake"),
            Self::Delivery => (4, "delivery"),
        }
    }
}
