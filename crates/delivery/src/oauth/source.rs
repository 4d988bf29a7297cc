//! The tokens of one key: one request under way at most, whoever waits for it or goes away.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::HeaderValue;
use tokio::{
    sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    NoToken, TokenError, TokenRequest, client,
    policy::{TokenDecision, TokenState},
};

/// Hands out one key's token and asks for a new one when it is time.
pub struct TokenSource {
    request: TokenRequest,
    state: Mutex<SourceState>,
    /// How many bytes of its namespace's sources may be remembered after their last use.
    memory: Arc<Semaphore>,
}

/// Never locked while a request is under way.
#[derive(Default)]
struct SourceState {
    token_state: TokenState,
    flight: Option<PendingRequest>,
    /// Until when the source is kept though nobody may use it.
    kept_until: Option<Instant>,
}

/// A request under way. It runs in a task of its own, so that it ends well even if all who wait for it go away.
type PendingRequest = Shared<BoxFuture<'static, Result<HeaderValue, NoToken>>>;

impl TokenSource {
    pub(super) fn new(request: TokenRequest, memory: Arc<Semaphore>) -> Self {
        Self { request, state: Mutex::default(), memory }
    }

    /// The token for an Authorization header, asked for when none is held that lives on.
    ///
    /// Whatever the backlog, one request is under way, and a failure answers all callers until it is time to ask again.
    /// A token past its renewal time serves on until the next one is there, also while the service is in trouble.
    pub async fn token(self: &Arc<Self>) -> Result<HeaderValue, NoToken> {
        self.serve(self.state.lock().await).await
    }

    /// A token other than `refused`, which the webhook did not accept: one that came meanwhile, or a new one.
    ///
    /// Returns None when a new one was forced too short a time ago, or the service issues the same one again.
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

    /// The webhook refused what `refused` permits: the next attempt gets a fresh token, unless one was forced lately.
    pub async fn renew_next(self: &Arc<Self>, refused: &HeaderValue) {
        let mut state = self.state.lock().await;
        if state.token_state.holds(refused) && state.flight.is_none() {
            self.force(&mut state, TokenState::doubt_token);
        }
    }

    /// Somebody acted: the service is asked again at once, though not sooner than after the first wait of a failure.
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

    /// The request under way; a new one if there is none.
    fn ask(self: &Arc<Self>, state: &mut SourceState) -> PendingRequest {
        if let Some(flight) = &state.flight {
            return flight.clone();
        }
        let source = self.clone();
        let task = tokio::spawn(async move { source.request_once().await });
        // It cannot panic; the runtime drops it when the program ends.
        let ended = NoToken { error: TokenError::Internal, ask_again: Instant::now() };
        let flight = task.map(move |result| result.unwrap_or(Err(ended))).boxed().shared();
        state.flight = Some(flight.clone());
        flight
    }

    async fn request_once(self: &Arc<Self>) -> Result<HeaderValue, NoToken> {
        let asked = Instant::now();
        let answer = AssertUnwindSafe(client::send(&self.request)).catch_unwind().await;
        let mut state = self.state.lock().await;
        state.flight = None;
        let result = match answer.unwrap_or(Err(TokenError::Internal)) {
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

    /// Keeps this source for a while even if nobody uses it, so that a Subscriber that is changed to and fro, or deleted
    /// and created again, asks no more often than one that stays.
    fn remember(self: &Arc<Self>, state: &mut SourceState) {
        let until = state.token_state.remember_until(Instant::now());
        if state.kept_until.replace(until).is_some() {
            return; // by the task below, which looks again when it wakes
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
