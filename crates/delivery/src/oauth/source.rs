//! The token source of one key, with at most one request in flight.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::HeaderValue;
use tokio::{
    sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    NoToken, RequestOutline, TokenError, TokenRequest, client,
    lineage::Lineage,
    policy::{TokenDecision, TokenState},
};
use crate::egress::TokenRequestResult;

/// Returns the token of one key, and requests a new one when it is due.
pub struct TokenSource {
    request: TokenRequest,
    lineage: Lineage,
    state: Mutex<SourceState>,
    /// The bytes of its namespace's sources that may be kept after their last use.
    memory: Arc<Semaphore>,
}

/// Never locked during a request.
#[derive(Default)]
struct SourceState {
    token_state: TokenState,
    flight: Option<PendingRequest>,
    /// Until when the source is kept without use.
    kept_until: Option<Instant>,
}

/// Whether a token service accepts the credentials of a source.
#[derive(Debug)]
pub enum Acceptance {
    /// As far as known, the service accepts them.
    Accepted,
    /// The service has not responded. It has responded, or the request has timed out, after this time.
    Pending(Duration),
    /// The last request with them failed, and none has succeeded; or the service rejects them after it accepted them.
    Failed(NoToken),
}

/// A request in flight. It runs in its own task, so that it completes even if no caller waits any longer.
type PendingRequest = Shared<BoxFuture<'static, Result<HeaderValue, NoToken>>>;

impl TokenSource {
    pub(super) fn new(request: TokenRequest, lineage: Lineage, memory: Arc<Semaphore>) -> Self {
        Self { request, lineage, state: Mutex::default(), memory }
    }

    /// Makes this source the successor of `previous`, the source that a Subscriber used before its Secret or its spec
    /// changed. Call it before the first use. `had_token`: the Subscriber had a token before this process started.
    ///
    /// The token of `previous` stays in use until it expires if both have the same Secret object, token endpoint,
    /// client id, client authentication, scopes, audience, parameters and trust, and this source has not sent a
    /// request. Credentials that replace accepted ones are new: for five minutes, a rejection of them counts as
    /// temporary.
    pub async fn follow(&self, previous: Option<&Self>, had_token: bool) {
        let now = Instant::now();
        // One lock at a time.
        let inheritance = match previous {
            Some(previous) if std::ptr::eq(previous, self) => return,
            Some(previous) => Some(previous.state.lock().await.token_state.inheritance(now)),
            None => None,
        };
        let mut state = self.state.lock().await;
        match previous.zip(inheritance) {
            Some((previous, inheritance)) => {
                if previous.lineage.tokens == self.lineage.tokens && state.flight.is_none() {
                    state.token_state.take_token(&inheritance, now);
                }
                if previous.lineage.credentials == self.lineage.credentials {
                    state.token_state.take_credentials(&inheritance);
                } else if inheritance.makes_new() {
                    state.token_state.mark_new(now);
                }
            }
            None if had_token => state.token_state.mark_new(now),
            None => {}
        }
    }

    /// Returns whether the service accepts the credentials, for a caller that has a token. Waits up to `patience` for
    /// the first response to credentials that it has not accepted yet.
    pub async fn acceptance(&self, patience: Duration) -> Acceptance {
        let state = self.state.lock().await;
        let flight = state.flight.clone().filter(|_| !state.token_state.are_accepted());
        drop(state);
        if let Some(flight) = flight
            && timeout(patience, flight).await.is_err()
        {
            return Acceptance::Pending(self.request.timeout);
        }
        let refusal = self.state.lock().await.token_state.refusal();
        refusal.map_or(Acceptance::Accepted, Acceptance::Failed)
    }

    /// Returns what the token requests of this source have.
    pub fn outline(&self) -> RequestOutline {
        self.request.outline()
    }

    /// Returns the token for an Authorization header, and requests one if there is no valid token.
    ///
    /// At most one request is in flight, whatever the backlog. After a failure, all callers get the error until the
    /// next request is due. A token that is due for renewal stays in use until the next one arrives, even while the
    /// service fails.
    pub async fn token(self: &Arc<Self>) -> Result<HeaderValue, NoToken> {
        self.serve(self.state.lock().await).await
    }

    /// Returns a token other than `refused`, which the webhook rejected: one that arrived meanwhile, or a new one.
    ///
    /// Returns None if a renewal was forced too recently, or if the service issues the same token again.
    pub async fn token_other_than(self: &Arc<Self>, refused: &HeaderValue) -> Option<Result<HeaderValue, NoToken>> {
        let mut state = self.state.lock().await;
        let result = match state.flight.clone() {
            Some(flight) if state.token_state.holds(refused) => {
                drop(state);
                flight.await
            }
            None if state.token_state.holds(refused) && !self.force(&mut state, TokenState::drop_token) => return None,
            _ => self.serve(state).await,
        };
        (result.as_ref().ok() != Some(refused)).then_some(result)
    }

    /// Requires a new token for the next attempt, because the webhook answered 403 to `refused`, unless a renewal was
    /// forced recently.
    pub async fn renew_next(self: &Arc<Self>, refused: &HeaderValue) {
        let mut state = self.state.lock().await;
        if state.token_state.holds(refused) && state.flight.is_none() {
            self.force(&mut state, TokenState::doubt_token);
        }
    }

    /// Forgets the failure on a user's request, so that a request follows, but not before the first wait of a failure.
    pub async fn forget_failure(&self) {
        self.state.lock().await.token_state.forget_failure();
    }

    async fn serve(self: &Arc<Self>, mut state: MutexGuard<'_, SourceState>) -> Result<HeaderValue, NoToken> {
        let flight = match state.token_state.decide(Instant::now()) {
            TokenDecision::Serve(token) => return Ok(token),
            TokenDecision::Refuse(no_token) => return Err(no_token),
            TokenDecision::Renew(token) => {
                drop(self.ask(&mut state));
                return Ok(token);
            }
            TokenDecision::Ask => self.ask(&mut state),
        };
        drop(state);
        flight.await
    }

    /// Returns the request in flight, or starts one.
    fn ask(self: &Arc<Self>, state: &mut SourceState) -> PendingRequest {
        if let Some(flight) = &state.flight {
            return flight.clone();
        }
        let source = self.clone();
        let task = tokio::spawn(async move { source.request_once().await });
        // The task cannot panic; the runtime drops it when the program exits.
        let ended = NoToken { error: TokenError::Internal, ask_again: Instant::now() };
        let flight = task.map(move |result| result.unwrap_or(Err(ended))).boxed().shared();
        state.flight = Some(flight.clone());
        flight
    }

    async fn request_once(self: &Arc<Self>) -> Result<HeaderValue, NoToken> {
        let asked = Instant::now();
        let answer = AssertUnwindSafe(client::send(&self.request)).catch_unwind().await;
        let answer = answer.unwrap_or(Err(TokenError::Internal));
        let result = answer.as_ref().map_or_else(TokenError::result, |_| TokenRequestResult::Issued);
        self.request.http.observer().token_requested(result, asked.elapsed());
        let mut state = self.state.lock().await;
        state.flight = None;
        let result = match answer {
            Ok(token) => Ok(state.token_state.issued(asked, token, rand::random())),
            Err(error) => state.token_state.failed(Instant::now(), error, rand::random()),
        };
        self.remember(&mut state);
        result
    }

    fn force(self: &Arc<Self>, state: &mut SourceState, how: impl FnOnce(&mut TokenState, Instant) -> bool) -> bool {
        let forced = how(&mut state.token_state, Instant::now());
        if forced {
            self.remember(state);
        }
        forced
    }

    /// Keeps this source for a while without use, so that a Subscriber that changes back and forth, or is deleted and
    /// recreated, causes no more requests than one that stays.
    fn remember(self: &Arc<Self>, state: &mut SourceState) {
        let until = state.token_state.remember_until(Instant::now());
        if state.kept_until.replace(until).is_some() {
            return; // the task below checks again when it wakes
        }
        let bytes = self.request.bytes().saturating_add(state.token_state.bytes());
        match self.memory.clone().try_acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX)) {
            Ok(permit) => drop(tokio::spawn(self.clone().keep(permit))),
            Err(_) => state.kept_until = None,
        }
    }

    async fn keep(self: Arc<Self>, _permit: OwnedSemaphorePermit) {
        while let Some(until) = self.keep_until().await {
            tokio::time::sleep_until(until).await;
        }
    }

    async fn keep_until(&self) -> Option<Instant> {
        let mut state = self.state.lock().await;
        state.kept_until = state.kept_until.filter(|until| Instant::now() < *until);
        state.kept_until
    }
}
