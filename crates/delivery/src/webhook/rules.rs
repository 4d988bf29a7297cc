//! What the status codes of a webhook mean, by the user's choice. Pure.

use http::StatusCode;

/// The consequence of a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The webhook has the event.
    Deliver,
    /// Retry later.
    Retry,
    /// The webhook will never accept the event.
    Fail,
    /// Renew the token and send the event once more, then retry later.
    RenewToken,
}

/// The user's rules for responses. The default has none.
#[derive(Clone, Debug, Default)]
pub struct ResponseRules {
    actions: Vec<(u16, Consequence)>,
    fails_rejected: bool,
}

impl ResponseRules {
    /// Makes the rules. The meaning of 2xx, 410 and 429 is fixed (CloudEvents web hooks, section 2.2): rules for them,
    /// and for codes below 300, have no effect. Of two rules for a code the first applies. `fails_rejected`: a rejection
    /// always ends its event, even if the webhook rejects all events.
    pub fn new(actions: impl IntoIterator<Item = (u16, Consequence)>, fails_rejected: bool) -> Self {
        let actions = actions.into_iter().filter(|(code, _)| (300..=599).contains(code) && ![410, 429].contains(code));
        Self { actions: actions.collect(), fails_rejected }
    }

    /// Returns the consequence of a status code (None: the default).
    pub(super) fn action(&self, status: StatusCode) -> Option<Consequence> {
        self.actions.iter().find(|(code, _)| *code == status.as_u16()).map(|(_, action)| *action)
    }

    /// Whether a response with this status says that the webhook does not accept the token.
    pub(super) fn renews_token(&self, status: StatusCode) -> bool {
        self.action(status).map_or(status == StatusCode::UNAUTHORIZED, |action| action == Consequence::RenewToken)
    }

    /// Whether a rejection always ends its event.
    pub(super) fn fails_rejected(&self) -> bool {
        self.fails_rejected
    }
}
