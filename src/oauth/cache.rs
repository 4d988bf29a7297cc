//! Tokens kept until they age, failures kept until it is time to ask again; one request at a time for each key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use http::HeaderValue;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::{ClientAuthentication, Token, TokenError, TokenRequest};
use crate::egress::Fingerprint;

/// A token is renewed this long before it ends, or a tenth of its life before, whichever is longer.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// A service that refuses the client is asked again after this; a changed spec or Secret asks at once.
const ASK_AGAIN_REJECTED: Duration = Duration::from_secs(15 * 60);
/// A service in trouble is asked again after this, doubling up to the longest.
const ASK_AGAIN_FIRST: Duration = Duration::from_secs(5);
const ASK_AGAIN_LONGEST: Duration = Duration::from_secs(5 * 60);
/// A webhook that answers 401 makes for at most one new token in this time.
const FORCED_RENEWAL: Duration = Duration::from_secs(60);

/// What makes two tokens the same: tenants never share one, and a changed Secret never meets an old token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenKey {
    /// The namespace that owns the credentials.
    pub namespace: String,
    /// The Secret's uid.
    pub secret_uid: String,
    /// The Secret's resourceVersion.
    pub secret_version: String,
    /// The keys of client id and client secret in it.
    pub secret_keys: [String; 2],
    /// The token endpoint.
    pub url: String,
    /// The client id.
    pub client_id: String,
    /// How the client authenticates.
    pub authentication: ClientAuthentication,
    /// The scopes, in the order they are sent.
    pub scopes: Vec<String>,
    /// The audience.
    pub audience: Option<String>,
    /// What one request may take.
    pub timeout: Duration,
    /// Who is trusted at the endpoint, and the client certificate shown there.
    pub trust: Fingerprint,
}

/// One source of tokens for each key that somebody still holds.
#[derive(Default)]
pub struct TokenCache {
    sources: Mutex<HashMap<TokenKey, Weak<TokenSource>>>,
}

impl TokenCache {
    /// The source for `key`; `request` makes it when there is none.
    pub fn source(&self, key: TokenKey, request: impl FnOnce() -> TokenRequest) -> Arc<TokenSource> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get(&key).and_then(Weak::upgrade) {
            return source;
        }
        let source = Arc::new(TokenSource { request: request(), state: AsyncMutex::new(State::default()) });
        sources.retain(|_, source| source.strong_count() > 0);
        sources.insert(key, Arc::downgrade(&source));
        source
    }
}

/// Hands out one key's token and asks for a new one when it is time.
pub struct TokenSource {
    request: TokenRequest,
    state: AsyncMutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Held>,
    failure: Option<Failure>,
    forced: Option<Instant>,
}

struct Held {
    authorization: HeaderValue,
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Clone, Copy)]
struct Failure {
    error: TokenError,
    count: u32,
    ask_again: Instant,
}

/// Why there is no token, and when the service will be asked again.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{error}")]
pub struct NoToken {
    /// What went wrong.
    #[source]
    pub error: TokenError,
    /// Nobody asks before this.
    pub ask_again: Instant,
}

impl TokenSource {
    /// The token for an Authorization header, asked for when none is held that lives on.
    ///
    /// Callers wait for one another: whatever the backlog, one request is under way, and a failure answers all of
    /// them until it is time to ask again. A token past its renewal time serves on while the service is in trouble.
    pub async fn token(&self) -> Result<HeaderValue, NoToken> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(token) = &state.token
            && now < token.renew_at
        {
            return Ok(token.authorization.clone());
        }
        match state.failure {
            Some(failure) if now < failure.ask_again => state.fall_back(now, failure),
            _ => self.renew(&mut state).await,
        }
    }

    /// A token other than `refused`, which the webhook did not accept: one that came meanwhile, or a new one.
    ///
    /// Returns None when a new one was forced too short a time ago.
    pub async fn token_other_than(&self, refused: &HeaderValue) -> Option<Result<HeaderValue, NoToken>> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(token) = &state.token
            && token.authorization != *refused
        {
            return Some(Ok(token.authorization.clone()));
        }
        if !state.may_force(now) {
            return None;
        }
        state.forced = Some(now);
        state.token = None;
        Some(self.renew(&mut state).await)
    }

    /// The webhook refused what `refused` permits: the next attempt gets a fresh token, unless one was forced lately.
    pub async fn renew_next(&self, refused: &HeaderValue) {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        let is_held = state.token.as_ref().is_some_and(|token| token.authorization == *refused);
        if is_held && state.may_force(now) {
            state.forced = Some(now);
            state.token = None;
        }
    }

    /// Forgets a failure, so that the service is asked again at once.
    pub async fn forget_failure(&self) {
        self.state.lock().await.failure = None;
    }

    async fn renew(&self, state: &mut State) -> Result<HeaderValue, NoToken> {
        let asked = Instant::now();
        match self.request.send().await {
            Ok(Token { authorization, lifetime }) => {
                let margin = RENEW_BEFORE.max(lifetime / 10).min(lifetime / 2);
                state.failure = None;
                state.token = Some(Held {
                    authorization: authorization.clone(),
                    renew_at: asked + lifetime - margin,
                    ends_at: asked + lifetime,
                });
                Ok(authorization)
            }
            Err(error) => {
                let count = state.failure.map_or(0, |failure| failure.count);
                let now = Instant::now();
                let failure =
                    Failure { error, count: count.saturating_add(1), ask_again: now + ask_again_after(error, count) };
                state.failure = Some(failure);
                state.fall_back(now, failure)
            }
        }
    }
}

impl State {
    fn may_force(&self, now: Instant) -> bool {
        self.forced.is_none_or(|last| now >= last + FORCED_RENEWAL)
    }

    fn fall_back(&self, now: Instant, failure: Failure) -> Result<HeaderValue, NoToken> {
        match &self.token {
            Some(token) if now < token.ends_at => Ok(token.authorization.clone()),
            _ => Err(NoToken { error: failure.error, ask_again: failure.ask_again }),
        }
    }
}

/// How long to leave the service alone after its `count`-th failure in a row (from 0).
fn ask_again_after(error: TokenError, count: u32) -> Duration {
    let backoff = (ASK_AGAIN_FIRST * 2u32.saturating_pow(count.min(16))).min(ASK_AGAIN_LONGEST);
    match error {
        TokenError::Rejected(_) => ASK_AGAIN_REJECTED,
        TokenError::Unavailable { retry_after: Some(wanted), .. } => wanted.max(backoff),
        _ => backoff,
    }
}
