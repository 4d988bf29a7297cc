//! Why a Subscriber's spec leads to no target.

use tidings_api::SubscriberReason;

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unresolved {
    /// The Subscriber, or what it names, is not right: a reason and a message for its status.
    #[error("{reason}: {message}")]
    Subscriber {
        /// For the condition.
        reason: SubscriberReason,
        /// What to do.
        message: String,
        /// Whether it is about the client credentials.
        of_credentials: bool,
    },
    /// The API server did not answer in time.
    #[error("the API server did not answer in time")]
    ApiTimeout,
    /// The API server refused, or could not be reached.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
}

impl Unresolved {
    /// A reason for the Subscriber's status.
    pub(super) fn permanent(reason: SubscriberReason, message: impl Into<String>) -> Self {
        Self::Subscriber { reason, message: message.into(), of_credentials: false }
    }

    /// The same, about the client credentials.
    pub(super) fn of_credentials(self) -> Self {
        match self {
            Self::Subscriber { reason, message, .. } => Self::Subscriber { reason, message, of_credentials: true },
            other => other,
        }
    }
}
