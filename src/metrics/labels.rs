//! The labels of metrics that no other room names. Every label has a fixed set of values.

/// Defines enums whose variants are values of a label.
macro_rules! labels {
    ($($(#[doc = $about:literal])+ $label:ident { $($(#[doc = $meaning:literal])+ $variant:ident: $text:literal,)+ })+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $label { $($(#[doc = $meaning])+ $variant,)+ }

        impl $label {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The value of the label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    )+};
}

labels! {
    /// What an attempt means for its event.
    AttemptOutcome {
        /// The webhook accepted the event.
        Delivered: "delivered",
        /// The event was not delivered, and another attempt follows if the Subscriber's limits allow it.
        Retried: "retried",
        /// The event was not delivered, and no attempt follows.
        Failed: "failed",
        /// The webhook rejected the event, whether that ends the event or not.
        Rejected: "rejected",
    }

    /// A kind of objects that the operator watches.
    WatchedKind {
        /// Subscribers.
        Subscriber: "Subscriber",
        /// Notifications: the unfinished ones, and those to replay.
        Notification: "Notification",
        /// Secrets.
        Secret: "Secret",
        /// ConfigMaps.
        ConfigMap: "ConfigMap",
    }

    /// A kind of objects that the operator writes.
    WrittenKind {
        /// Notifications: the status of one.
        Notification: "Notification",
        /// Notifications: the deletion of one.
        NotificationDeletion: "NotificationDeletion",
        /// Subscribers: the status of one.
        Subscriber: "Subscriber",
        /// Kubernetes Events.
        Event: "Event",
        /// The Lease of the leader election.
        Lease: "Lease",
    }

    /// The result of an attempt to renew the Lease.
    LeaseRenewal {
        /// The Lease is held on.
        Renewed: "renewed",
        /// Another writer changed the Lease, or another operator holds it.
        Conflict: "conflict",
        /// The API server refused the renewal, or did not respond.
        Error: "error",
    }
}

/// The result of a write to the API server. Not every kind of object has every result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteResult {
    /// The API server stored it.
    Recorded,
    /// The API server stored which gate a Notification waits behind.
    Explanation,
    /// The API server deleted the object.
    Deleted,
    /// Another writer was faster: the object has changed.
    Conflict,
    /// The API server refused the write of an unchanged object, or did not respond.
    Error,
    /// The API server refused the write because of the size of the object.
    TooLarge,
    /// The operator did not send it: too many of this kind waited.
    Dropped,
}

impl WriteResult {
    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Explanation => "explanation",
            Self::Deleted => "deleted",
            Self::Conflict => "conflict",
            Self::Error => "error",
            Self::TooLarge => "too_large",
            Self::Dropped => "dropped",
        }
    }
}

impl WrittenKind {
    /// The results that a write of this kind can have.
    pub const fn results(self) -> &'static [WriteResult] {
        use WriteResult::{Conflict, Deleted, Dropped, Error, Explanation, Recorded, TooLarge};
        match self {
            Self::Notification => &[Recorded, Explanation, Conflict, Error, TooLarge],
            Self::NotificationDeletion => &[Deleted, Conflict, Error],
            Self::Subscriber => &[Recorded, Conflict, Error, TooLarge],
            Self::Event => &[Recorded, Error, Dropped],
            Self::Lease => &[Recorded, Conflict, Error],
        }
    }
}
