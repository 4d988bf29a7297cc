//! Names the reasons why a Subscriber's spec cannot be resolved to a target.

use tidings_api::SubscriberReason;

use crate::cluster::call::plain;

/// Why a spec cannot be resolved to a target.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unresolved {
    /// The Subscriber, or an object that it names, is missing or cannot be used.
    #[error("{reason}: {message}")]
    Subscriber {
        /// The reason of the condition.
        reason: SubscriberReason,
        /// The message of the condition: what is wrong and what to do.
        message: String,
        /// Whether the fault is in the client credentials.
        of_credentials: bool,
    },
    /// The API server did not respond in time.
    #[error("the API server did not respond in time")]
    ApiTimeout,
    /// The API server refused the request, or could not be reached.
    #[error("the request to the API server failed: {}", plain(.0))]
    Api(#[from] kube::Error),
}

impl Unresolved {
    /// An error with this reason and message that is not about the client credentials.
    pub(super) fn permanent(reason: SubscriberReason, message: impl Into<String>) -> Self {
        Self::Subscriber { reason, message: message.into(), of_credentials: false }
    }

    /// Marks the error as one about the client credentials.
    pub(super) fn of_credentials(self) -> Self {
        match self {
            Self::Subscriber { reason, message, .. } => Self::Subscriber { reason, message, of_credentials: true },
            other => other,
        }
    }
}
