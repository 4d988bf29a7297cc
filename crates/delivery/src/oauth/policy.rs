//! Decides when to request a token, when to use the stored token, and when to fail. Pure: the caller passes in the time
//! and random numbers.

use std::time::Duration;

use http::HeaderValue;
use tidings_api::SubscriberReason;
use tokio::time::Instant;

use super::{NoToken, TokenError, answer::Token};

/// A token is renewed this long before it expires, or a tenth of its lifetime before, whichever is longer.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// The margin is longer by up to this factor at random, so that tokens issued together are not renewed together.
const SPREAD: f64 = 0.5;
/// The waits after temporary failures: doubling from the first to the longest, each up to a fifth shorter or longer.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(5 * 60);
/// The longest wait where the client's assertion is missing: no token service has been asked.
const LONGEST_WITHOUT_ASSERTION: Duration = Duration::from_secs(60);
/// The waits after the service rejected the client: doubling from the first to the longest, each up to a fifth longer.
const REJECTED_FIRST: Duration = Duration::from_secs(15 * 60);
const REJECTED_LONGEST: Duration = Duration::from_secs(50 * 60);
/// Credentials that replace accepted ones are new for this long: a rejection of them may be temporary.
const NEW_FOR: Duration = Duration::from_secs(5 * 60);
/// A webhook that rejects tokens causes at most one new token in this time.
const FORCED_RENEWAL: Duration = Duration::from_secs(60);
/// The state of an unused key is dropped after this time.
const LONGEST_MEMORY: Duration = Duration::from_secs(3600);

/// What to do for a caller that needs a token.
#[derive(Debug)]
pub(super) enum TokenDecision {
    /// Use this token.
    Serve(HeaderValue),
    /// Use this token, and request the next one.
    Renew(HeaderValue),
    /// Request a token and wait for the response.
    Ask,
    /// Fail: there is no token, and it is too early for another request.
    Refuse(NoToken),
}

/// The state of the tokens for one key: the token in use, the last failure, and when a renewal was last forced.
/// [`Self::decide`] decides what follows.
#[derive(Default)]
pub(super) struct TokenState {
    token: Option<HeldToken>,
    failure: Option<Failure>,
    forced: Option<Instant>,
    credentials: CredentialsState,
}

/// What is known of the credentials of a key.
#[derive(Clone, Copy, Default)]
enum CredentialsState {
    /// The service has issued no token for them.
    #[default]
    Unknown,
    /// They replaced accepted credentials, and are new until this instant.
    New(Instant),
    /// The service has issued a token for them.
    Accepted,
}

/// What the source of a key hands over to the source of the key that replaces it.
pub(super) struct Inheritance {
    token: Option<HeldToken>,
    credentials: CredentialsState,
}

#[derive(Clone)]
struct HeldToken {
    authorization: HeaderValue,
    renew_at: Instant,
    ends_at: Instant,
    /// The webhook answered 403 to it: a new token comes first, if there is one.
    doubted: bool,
}

struct Failure {
    error: TokenError,
    at: Instant,
    ask_again: Instant,
    /// The number of consecutive failures of this kind.
    count: u32,
}

impl TokenState {
    /// Decides what to do at `now`. No request follows a failure before its wait ends; a valid token stays in use
    /// meanwhile.
    pub(super) fn decide(&self, now: Instant) -> TokenDecision {
        let waiting = self.failure.as_ref().filter(|failure| now < failure.ask_again);
        match (self.token.as_ref().filter(|token| now < token.ends_at), waiting) {
            (Some(token), Some(_)) => TokenDecision::Serve(token.authorization.clone()),
            (Some(token), None) if token.doubted => TokenDecision::Ask,
            (Some(token), None) if now < token.renew_at => TokenDecision::Serve(token.authorization.clone()),
            (Some(token), None) => TokenDecision::Renew(token.authorization.clone()),
            (None, Some(failure)) => TokenDecision::Refuse(failure.no_token()),
            (None, None) => TokenDecision::Ask,
        }
    }

    /// Records that the service issued a token for the request sent at `asked`. `chance` is a random number in 0..1.
    pub(super) fn issued(&mut self, asked: Instant, token: Token, chance: f64) -> HeaderValue {
        let Token { authorization, lifetime } = token;
        let margin = RENEW_BEFORE.max(lifetime / 10).min(lifetime / 2).mul_f64(1.0 + SPREAD * chance);
        let held = HeldToken {
            authorization: authorization.clone(),
            renew_at: asked + lifetime.saturating_sub(margin),
            ends_at: asked + lifetime,
            doubted: false,
        };
        (self.token, self.failure, self.credentials) = (Some(held), None, CredentialsState::Accepted);
        authorization
    }

    /// Records that the service issued no token. A valid token stays in use. `chance` is a random number in 0..1.
    pub(super) fn failed(&mut self, now: Instant, error: TokenError, chance: f64) -> Result<HeaderValue, NoToken> {
        let error = self.softened(error, now);
        let of_its_kind = self.failure.as_ref().filter(|last| is_rejected(&last.error) == is_rejected(&error));
        let before = of_its_kind.map_or(0, |last| last.count);
        let mut ask_again = now + ask_again_after(&error, before, chance);
        if let (TokenError::NotAcceptedYet(_), CredentialsState::New(until)) = (&error, self.credentials) {
            // Once more at the end, and then what the service says is final.
            ask_again = ask_again.min(until.max(now + FIRST_RETRY));
        }
        let failure = Failure { error, at: now, ask_again, count: before.saturating_add(1) };
        let no_token = failure.no_token();
        self.failure = Some(failure);
        match self.token.as_mut().filter(|token| now < token.ends_at) {
            Some(token) => {
                token.doubted = false;
                Ok(token.authorization.clone())
            }
            None => Err(no_token),
        }
    }

    /// Returns what the state of the key that replaces this one takes over at `now`.
    pub(super) fn inheritance(&self, now: Instant) -> Inheritance {
        let token = self.token.clone().filter(|token| now < token.ends_at);
        Inheritance { token, credentials: self.credentials }
    }

    /// Takes the token of the key that this one replaces. It stays in use until it expires, and the next token is due
    /// immediately. Does nothing if this key has sent a request.
    pub(super) fn take_token(&mut self, previous: &Inheritance, now: Instant) {
        let is_untouched = self.token.is_none() && self.failure.is_none() && self.forced.is_none();
        if is_untouched && !self.are_accepted() {
            let token = previous.token.as_ref();
            self.token = token.map(|token| HeldToken { renew_at: now, doubted: false, ..token.clone() });
        }
    }

    /// Records at `now` that the credentials replace credentials that the service accepted, or that were new. Does
    /// nothing if the service has accepted these, or if this is recorded already.
    pub(super) fn mark_new(&mut self, now: Instant) {
        if matches!(self.credentials, CredentialsState::Unknown) {
            self.set_new(now + NEW_FOR);
        }
    }

    /// Takes over what is known of the same credentials.
    pub(super) fn take_credentials(&mut self, previous: &Inheritance) {
        if let (CredentialsState::Unknown, CredentialsState::New(until)) = (self.credentials, previous.credentials) {
            self.set_new(until);
        }
    }

    fn set_new(&mut self, until: Instant) {
        self.credentials = CredentialsState::New(until);
        // Another Subscriber with the same key may have asked before.
        if let Some(failure) = self.failure.take_if(|failure| is_rejected(&failure.error)) {
            let _ = self.failed(failure.at, failure.error, 0.5);
        }
    }

    /// Whether the service has issued a token for the credentials.
    pub(super) fn are_accepted(&self) -> bool {
        matches!(self.credentials, CredentialsState::Accepted)
    }

    /// Returns the last failure if the service has not accepted the credentials, or accepts them no longer, or if the
    /// client may have no more assertions.
    pub(super) fn refusal(&self) -> Option<NoToken> {
        let ends = |error: &TokenError| is_rejected(error) || lacks_assertion_for_good(error);
        let failure = self.failure.as_ref().filter(|failure| !self.are_accepted() || ends(&failure.error));
        failure.map(Failure::no_token)
    }

    /// Returns the error as one of new credentials, if they are new and the service rejects them.
    fn softened(&self, error: TokenError, now: Instant) -> TokenError {
        match (&error, self.credentials) {
            (
                TokenError::Rejected(code @ ("invalid_client" | "unauthorized_client" | "access_denied")),
                CredentialsState::New(until),
            ) if now < until => TokenError::NotAcceptedYet(Some(code)),
            (TokenError::Unauthorized, CredentialsState::New(until)) if now < until => TokenError::NotAcceptedYet(None),
            _ => error,
        }
    }

    /// Whether this is the token in use.
    pub(super) fn holds(&self, token: &HeaderValue) -> bool {
        self.token.as_ref().is_some_and(|held| held.authorization == *token)
    }

    /// Returns the memory that it takes beyond its own size, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.token.as_ref().map_or(0, |held| held.authorization.len())
    }

    /// Drops the token in use because the webhook rejected it, unless a renewal was forced recently.
    pub(super) fn drop_token(&mut self, now: Instant) -> bool {
        let may = self.may_force(now);
        if may {
            (self.token, self.forced) = (None, Some(now));
        }
        may
    }

    /// Requires a renewal before the token in use is used again, because the webhook answered 403, unless a renewal was
    /// forced recently.
    pub(super) fn doubt_token(&mut self, now: Instant) -> bool {
        let may = self.may_force(now);
        if may && let Some(token) = &mut self.token {
            token.doubted = true;
            self.forced = Some(now);
        }
        may
    }

    /// Forgets the failure on a user's request, so that a token request follows immediately, unless the last one was
    /// just now.
    pub(super) fn forget_failure(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.ask_again = failure.ask_again.min(failure.at + FIRST_RETRY);
            failure.count = 0;
        }
    }

    /// Returns until when this state must be kept without use. Otherwise a user could bypass the limit on token
    /// requests by dropping and recreating the key.
    pub(super) fn remember_until(&self, now: Instant) -> Instant {
        let failure = self.failure.as_ref().map_or(now, |failure| failure.ask_again);
        failure.clamp(now + FORCED_RENEWAL, now + LONGEST_MEMORY)
    }

    fn may_force(&self, now: Instant) -> bool {
        self.forced.is_none_or(|last| now >= last + FORCED_RENEWAL)
    }
}

impl Inheritance {
    /// Whether credentials that replace these are new: the service accepted these, or they were new.
    pub(super) fn makes_new(&self) -> bool {
        !matches!(self.credentials, CredentialsState::Unknown)
    }
}

impl Failure {
    fn no_token(&self) -> NoToken {
        NoToken { error: self.error.clone(), ask_again: self.ask_again }
    }
}

fn is_rejected(error: &TokenError) -> bool {
    matches!(error, TokenError::Rejected(_) | TokenError::Unauthorized)
}

/// Whether there is no assertion of the client until a user acts, for example because consent was withdrawn.
fn lacks_assertion_for_good(error: &TokenError) -> bool {
    matches!(error, TokenError::NoAssertion(none) if none.reason != SubscriberReason::TokenUnavailable)
}

/// Returns the wait after a failure with `before` preceding failures of the same kind.
fn ask_again_after(error: &TokenError, before: u32, chance: f64) -> Duration {
    let doubled = |first: Duration, longest: Duration| first.saturating_mul(1 << before.min(16)).min(longest);
    if is_rejected(error) {
        return doubled(REJECTED_FIRST, REJECTED_LONGEST).mul_f64(1.0 + 0.2 * chance);
    }
    let longest = match error {
        TokenError::NoAssertion(_) => LONGEST_WITHOUT_ASSERTION,
        _ => LONGEST_RETRY,
    };
    let backoff = doubled(FIRST_RETRY, longest).mul_f64(0.8 + 0.4 * chance);
    match error {
        // The service requested this of many clients, so the wait is never shorter and slightly longer at random.
        TokenError::Unavailable { retry_after: Some(wanted), .. } => wanted.mul_f64(1.0 + 0.2 * chance).max(backoff),
        _ => backoff,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::{egress::SendError, oauth::NoAssertion};

    const REJECTED: TokenError = TokenError::Rejected("invalid_client");
    const UNREACHABLE: TokenError = TokenError::Unreachable(SendError::Connection);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn token(text: &'static str, life: f64) -> Token {
        Token { authorization: HeaderValue::from_static(text), lifetime: seconds(life) }
    }

    fn told_to_wait(wait: f64) -> TokenError {
        let retry_after = Some(seconds(wait));
        TokenError::Unavailable { status: StatusCode::SERVICE_UNAVAILABLE, code: None, encoding: None, retry_after }
    }

    /// Makes a state with a token `t` that was issued at `now` and lives for `life` seconds.
    fn holding(now: Instant, life: f64) -> TokenState {
        let mut token_state = TokenState::default();
        token_state.issued(now, token("t", life), 0.0);
        token_state
    }

    /// Formats a decision, with the token or the error.
    fn decision(token_state: &TokenState, now: Instant) -> String {
        match token_state.decide(now) {
            TokenDecision::Serve(token) => format!("serve {}", token.to_str().unwrap()),
            TokenDecision::Renew(token) => format!("renew {}", token.to_str().unwrap()),
            TokenDecision::Ask => "ask".into(),
            TokenDecision::Refuse(no_token) => format!("refuse: {no_token}"),
        }
    }

    /// The seconds between the first request and each later one within `span`, if all of them fail with `error`.
    fn requests(error: TokenError, span: f64, mut chance: impl FnMut() -> f64) -> Vec<f64> {
        let start = Instant::now();
        let (mut token_state, mut now, mut requests) = (TokenState::default(), start, Vec::new());
        while now - start < seconds(span) {
            assert!(matches!(token_state.decide(now), TokenDecision::Ask));
            requests.push((now - start).as_secs_f64());
            let no_token = token_state.failed(now, error.clone(), chance()).unwrap_err();
            let before = no_token.ask_again - Duration::from_millis(1);
            assert!(matches!(token_state.decide(before), TokenDecision::Refuse(refused) if refused == no_token));
            now = no_token.ask_again;
        }
        requests
    }

    #[test]
    fn a_token_serves_then_serves_on_while_it_is_renewed_then_ends() {
        // Its life, and when its renewal is due at the latest and at the earliest.
        for (life, latest, earliest) in [(3600.0, 3240.0, 3060.0), (600.0, 540.0, 510.0), (60.0, 30.0, 15.0)] {
            for (chance, renewal) in [(0.0, latest), (1.0, earliest)] {
                let (now, mut token_state) = (Instant::now(), TokenState::default());
                assert_eq!(decision(&token_state, now), "ask");
                token_state.issued(now, token("t", life), chance);
                let at = |time: f64| decision(&token_state, now + seconds(time));
                assert_eq!(at(renewal - 0.1), "serve t", "{life} {chance}");
                assert_eq!(at(renewal + 0.1), "renew t", "{life} {chance}");
                assert_eq!(at(life - 0.1), "renew t", "{life} {chance}");
                assert_eq!(at(life), "ask", "{life} {chance}");
            }
        }
    }

    #[test]
    fn a_token_that_lives_serves_on_through_an_outage_and_no_longer() {
        let now = Instant::now();
        let mut token_state = holding(now, 600.0);
        assert_eq!(token_state.failed(now + seconds(595.0), UNREACHABLE, 0.0).unwrap(), "t");
        assert_eq!(decision(&token_state, now + seconds(598.0)), "serve t");
        assert_eq!(decision(&token_state, now + seconds(599.5)), "renew t", "it is time to ask again");
        token_state.failed(now + seconds(599.5), UNREACHABLE, 0.0).unwrap();
        assert_eq!(decision(&token_state, now + seconds(600.0)), format!("refuse: {UNREACHABLE}"));
        token_state.issued(now + seconds(610.0), token("u", 600.0), 0.0);
        assert_eq!(decision(&token_state, now + seconds(610.0)), "serve u", "the failure is over");
        assert_eq!(token_state.failed(now + seconds(620.0), UNREACHABLE, 0.5).unwrap(), "u");
        assert_eq!(decision(&token_state, now + seconds(626.0)), "serve u", "and the waits start again");
    }

    #[test]
    fn temporary_failures_are_retried_at_growing_intervals_up_to_five_minutes() {
        let all = requests(UNREACHABLE, 1500.0, || 0.5);
        assert_eq!(
            all.iter().map(|time| time.round()).collect::<Vec<_>>(),
            [0.0, 5.0, 15.0, 35.0, 75.0, 155.0, 315.0, 615.0, 915.0, 1215.0]
        );
    }

    #[test]
    fn a_missing_assertion_is_requested_again_within_a_minute() {
        let none = NoAssertion { reason: SubscriberReason::TokenUnavailable, message: "none".into() };
        let all = requests(TokenError::NoAssertion(none), 200.0, || 0.5);
        assert_eq!(all.iter().map(|time| time.round()).collect::<Vec<_>>(), [0.0, 5.0, 15.0, 35.0, 75.0, 135.0, 195.0]);
    }

    #[test]
    fn a_refusal_is_retried_after_fifteen_minutes_to_an_hour() {
        for chance in [0.0, 1.0] {
            let all = requests(REJECTED, 24.0 * 3600.0, || chance);
            let waits: Vec<_> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(waits.iter().all(|wait| (900.0..=3600.0).contains(wait)), "{waits:?}");
            assert!(waits.len() > 20 && waits[0] < 1090.0 && waits[2] >= 3000.0, "{waits:?}");
        }
    }

    #[test]
    fn retry_after_is_obeyed_and_never_causes_more_requests() {
        let mut token_state = TokenState::default();
        let now = Instant::now();
        let wait = |no_token: NoToken| no_token.ask_again - now;
        assert_eq!(wait(token_state.failed(now, told_to_wait(600.0), 0.0).unwrap_err()), seconds(600.0));
        assert_eq!(wait(token_state.failed(now, told_to_wait(600.0), 1.0).unwrap_err()), seconds(720.0));
        assert_eq!(wait(token_state.failed(now, told_to_wait(1.0), 0.5).unwrap_err()), seconds(20.0), "the third wait");
    }

    #[test]
    fn another_kind_of_failure_restarts_the_waits() {
        let (now, mut token_state) = (Instant::now(), TokenState::default());
        for _ in 0..3 {
            let _ = token_state.failed(now, UNREACHABLE, 0.5);
        }
        assert_eq!(token_state.failed(now, REJECTED, 0.0).unwrap_err().ask_again, now + seconds(900.0));
        assert_eq!(token_state.failed(now, UNREACHABLE, 0.5).unwrap_err().ask_again, now + seconds(5.0));
    }

    #[test]
    fn a_renewal_is_forced_at_most_once_a_minute_whichever_way() {
        type Way = fn(&mut TokenState, Instant) -> bool;
        let ways: [Way; 2] = [TokenState::drop_token, TokenState::doubt_token];
        for first in ways {
            for second in ways {
                let now = Instant::now();
                let mut token_state = holding(now, 3600.0);
                assert!(first(&mut token_state, now));
                assert_eq!(decision(&token_state, now), "ask");
                token_state.issued(now, token("u", 3600.0), 0.0);
                assert!(!second(&mut token_state, now + seconds(59.9)));
                assert_eq!(decision(&token_state, now + seconds(59.9)), "serve u");
                assert!(second(&mut token_state, now + seconds(60.0)));
                assert_eq!(decision(&token_state, now + seconds(60.0)), "ask");
            }
        }
    }

    #[test]
    fn while_a_token_serves_a_missing_assertion_is_a_refusal_unless_it_is_temporary() {
        let now = Instant::now();
        for (reason, refuses) in [
            (SubscriberReason::TokenUnavailable, false),
            (SubscriberReason::ServiceAccountNotPermitted, true),
            (SubscriberReason::ServiceAccountNotFound, true),
            (SubscriberReason::TokenRequestDenied, true),
        ] {
            let mut token_state = holding(now, 3600.0);
            assert_eq!(token_state.refusal(), None);
            let error = TokenError::NoAssertion(NoAssertion { reason, message: "none".into() });
            assert!(token_state.failed(now + seconds(3000.0), error.clone(), 0.5).is_ok(), "the token serves on");
            assert_eq!(token_state.refusal().map(|no_token| no_token.error), refuses.then_some(error), "{reason}");
            token_state.issued(now + seconds(3100.0), token("u", 3600.0), 0.0);
            assert_eq!(token_state.refusal(), None, "the next token ends it");
        }
    }

    #[test]
    fn a_doubted_token_serves_on_if_there_is_no_fresh_one_and_a_dropped_one_does_not() {
        let now = Instant::now();
        let mut token_state = holding(now, 3600.0);
        assert!(token_state.doubt_token(now));
        assert_eq!(token_state.failed(now, UNREACHABLE, 0.5).unwrap(), "t");
        assert_eq!(decision(&token_state, now + seconds(1.0)), "serve t");
        assert_eq!(decision(&token_state, now + seconds(10.0)), "serve t", "no other request follows");
        assert!(token_state.drop_token(now + seconds(60.0)));
        assert!(token_state.failed(now + seconds(60.0), UNREACHABLE, 0.5).is_err());
        assert!(!token_state.holds(&HeaderValue::from_static("t")));
    }

    #[test]
    fn a_refused_token_is_no_way_around_the_wait_for_a_service_that_refuses() {
        let now = Instant::now();
        let mut token_state = holding(now, 100.0);
        assert!(token_state.failed(now + seconds(60.0), REJECTED, 0.0).is_ok(), "an early renewal");
        assert!(token_state.drop_token(now + seconds(61.0)));
        assert_eq!(decision(&token_state, now + seconds(61.0)), format!("refuse: {REJECTED}"));
    }

    #[test]
    fn a_user_request_is_immediate_but_cannot_flood_the_service() {
        for error in [REJECTED, told_to_wait(3600.0)] {
            let (now, mut token_state) = (Instant::now(), TokenState::default());
            let _ = token_state.failed(now, error.clone(), 0.5);
            for _ in 0..3 {
                token_state.forget_failure();
                assert_eq!(decision(&token_state, now + seconds(4.9)), format!("refuse: {error}"));
                assert_eq!(decision(&token_state, now + seconds(5.0)), "ask");
            }
        }
        let (now, mut token_state) = (Instant::now(), TokenState::default());
        let _ = token_state.failed(now, UNREACHABLE, 0.0);
        token_state.forget_failure();
        assert_eq!(decision(&token_state, now + seconds(4.0)), "ask", "a shorter wait is not made longer");
    }

    #[test]
    fn the_limit_on_requests_is_kept_for_a_minute_to_an_hour() {
        let (now, mut token_state) = (Instant::now(), TokenState::default());
        let memory = |token_state: &TokenState| token_state.remember_until(now) - now;
        token_state.drop_token(now);
        assert_eq!(memory(&token_state), FORCED_RENEWAL);
        let _ = token_state.failed(now, REJECTED, 0.0);
        assert_eq!(memory(&token_state), REJECTED_FIRST);
        let _ = token_state.failed(now, told_to_wait(86_400.0), 0.0);
        assert_eq!(memory(&token_state), LONGEST_MEMORY);
    }

    /// A state whose credentials replace accepted ones at `now`, with a token `t` that lives for `life` seconds.
    fn rotated(now: Instant, life: f64) -> TokenState {
        let mut token_state = TokenState::default();
        let previous = holding(now, life).inheritance(now);
        assert!(previous.makes_new());
        token_state.take_token(&previous, now);
        token_state.mark_new(now);
        token_state
    }

    #[test]
    fn the_living_token_serves_on_while_the_service_does_not_accept_the_new_credentials() {
        let now = Instant::now();
        let mut token_state = rotated(now, 100.0);
        let mut asked = Vec::new();
        for tenth in 0..1000 {
            let at = seconds(f64::from(tenth) / 10.0);
            match token_state.decide(now + at) {
                TokenDecision::Serve(token) => assert_eq!(token, "t"),
                TokenDecision::Renew(token) => {
                    assert_eq!(token, "t");
                    asked.push(at.as_secs_f64().round());
                    assert_eq!(token_state.failed(now + at, REJECTED, 0.5).unwrap(), "t");
                }
                other => panic!("{other:?} after {at:?}"),
            }
        }
        assert_eq!(asked, [0.0, 5.0, 15.0, 35.0, 75.0]);
        let refused = TokenError::NotAcceptedYet(Some("invalid_client"));
        assert_eq!(decision(&token_state, now + seconds(100.0)), format!("refuse: {refused}"), "the token has expired");
        token_state.issued(now + seconds(150.0), token("u", 600.0), 0.0);
        assert_eq!(decision(&token_state, now + seconds(150.0)), "serve u");
        assert!(token_state.failed(now + seconds(160.0), REJECTED, 0.0).is_ok());
        assert_eq!(token_state.refusal().unwrap().error, REJECTED, "accepted credentials are not new again");
    }

    #[test]
    fn field_12_new_credentials_are_tried_again_for_five_minutes_and_then_the_rejection_is_final() {
        for (error, softened) in [
            (REJECTED, TokenError::NotAcceptedYet(Some("invalid_client"))),
            (TokenError::Unauthorized, TokenError::NotAcceptedYet(None)),
        ] {
            let start = Instant::now();
            let (mut token_state, mut now, mut asked) = (TokenState::default(), start, Vec::new());
            token_state.mark_new(start);
            let last = loop {
                assert!(matches!(token_state.decide(now), TokenDecision::Ask));
                asked.push((now - start).as_secs());
                let no_token = token_state.failed(now, error.clone(), 0.5).unwrap_err();
                if no_token.error != softened {
                    break no_token;
                }
                now = no_token.ask_again;
            };
            assert_eq!(asked, [0, 5, 15, 35, 75, 155, 300]);
            assert_eq!(last.error, error);
            assert!(last.ask_again - now >= REJECTED_FIRST);
            token_state.mark_new(now);
            assert_eq!(decision(&token_state, now), format!("refuse: {error}"), "they are not new a second time");
        }
        let mut token_state = TokenState::default();
        token_state.mark_new(Instant::now());
        let invalid_scope = TokenError::Rejected("invalid_scope");
        let no_token = token_state.failed(Instant::now(), invalid_scope.clone(), 0.5).unwrap_err();
        assert_eq!(no_token.error, invalid_scope, "only a rejection of the credentials may be temporary");
    }

    #[test]
    fn credentials_that_replace_none_that_were_accepted_are_not_new() {
        let now = Instant::now();
        let mut first = TokenState::default();
        assert_eq!(first.failed(now, REJECTED, 0.5).unwrap_err().error, REJECTED);
        assert!(!first.inheritance(now).makes_new());
        // Credentials that replace new ones are new, and the same credentials under another key keep their time.
        let mut new = rotated(now, 60.0);
        assert!(new.failed(now, REJECTED, 0.5).is_ok());
        assert!(new.inheritance(now).makes_new());
        let mut same = TokenState::default();
        same.take_credentials(&new.inheritance(now));
        assert_eq!(same.failed(now + NEW_FOR, REJECTED, 0.5).unwrap_err().error, REJECTED);
        // A rejection that came before it was known that they are new is not final.
        let mut marked_late = first;
        marked_late.mark_new(now);
        assert_eq!(
            decision(&marked_late, now + seconds(4.9)),
            "refuse: the token service does not accept the new client credentials yet: invalid_client"
        );
        assert_eq!(decision(&marked_late, now + seconds(5.1)), "ask");
    }

    #[test]
    fn a_token_is_taken_over_only_while_it_lives_and_only_by_a_key_without_requests() {
        let now = Instant::now();
        let previous = holding(now, 60.0);
        let mut late = TokenState::default();
        late.take_token(&previous.inheritance(now + seconds(60.0)), now + seconds(60.0));
        assert_eq!(decision(&late, now + seconds(60.0)), "ask");
        // The webhook refuses the token: it does not come back.
        let mut refused = rotated(now, 60.0);
        assert!(refused.failed(now, REJECTED, 0.5).is_ok());
        assert!(refused.drop_token(now));
        refused.take_token(&previous.inheritance(now), now);
        assert!(decision(&refused, now).starts_with("refuse: "), "it waits for the new credentials");
        let mut dropped = rotated(now, 60.0);
        assert!(dropped.drop_token(now));
        dropped.take_token(&previous.inheritance(now), now);
        assert_eq!(decision(&dropped, now), "ask");
    }

    proptest! {
        /// New credentials cost no more than an outage, whatever chance has it.
        #[test]
        fn new_credentials_cause_at_most_six_requests_in_the_first_minute(
            chances in proptest::collection::vec(0.0..1.0, 16),
            life in 0.0..120.0f64,
        ) {
            let start = Instant::now();
            let mut token_state = rotated(start, life);
            let mut asked = 0;
            for tenth in 0..600 {
                let now = start + seconds(f64::from(tenth) / 10.0);
                if matches!(token_state.decide(now), TokenDecision::Ask | TokenDecision::Renew(_)) {
                    let _ = token_state.failed(now, REJECTED, chances[asked % chances.len()]);
                    asked += 1;
                }
            }
            prop_assert!((2..=6).contains(&asked), "{} requests", asked);
        }

        /// The budget of the first minute, whatever chance has it: six for trouble, one for a refusal.
        #[test]
        fn the_first_minute_sees_two_to_six_requests_in_trouble_and_one_that_is_refused(
            chances in proptest::collection::vec(0.0..1.0, 16),
        ) {
            let mut by_chance = chances.iter().copied().cycle();
            let mut chance = || by_chance.next().unwrap_or_default();
            for error in [UNREACHABLE, TokenError::Malformed("x"), TokenError::Internal, told_to_wait(0.001)] {
                prop_assert!((2..=6).contains(&requests(error, 60.0, &mut chance).len()));
            }
            prop_assert_eq!(requests(REJECTED, 60.0, &mut chance).len(), 1);
        }

        #[test]
        fn a_token_is_renewed_in_the_last_three_quarters_of_its_life(life in 1.0..86400.0f64, chance in 0.0..1.0f64) {
            let now = Instant::now();
            let mut token_state = TokenState::default();
            token_state.issued(now, token("t", life), chance);
            prop_assert_eq!(decision(&token_state, now + seconds(life * 0.249)), "serve t");
            prop_assert_eq!(decision(&token_state, now + seconds(life * 0.999)), "renew t");
        }

        /// Whatever the service responds, the webhook rejects, and users request.
        #[test]
        fn requests_are_bounded_over_any_course_of_events(
            steps in proptest::collection::vec((0u64..20_000, 0u8..7, 0.0..1.0f64, 1.0..100_000.0f64), 1..200),
        ) {
            let (mut token_state, mut now) = (TokenState::default(), Instant::now());
            let (mut forced, mut failed): (Option<Instant>, Option<(Instant, Duration)>) = (None, None);
            for (wait, step, chance, life) in steps {
                now += Duration::from_millis(wait);
                let asks = matches!(token_state.decide(now), TokenDecision::Ask | TokenDecision::Renew(_));
                match step {
                    0 | 1 => {
                        // As the source does: only a token that is held can be refused.
                        let way = if step == 0 { TokenState::drop_token } else { TokenState::doubt_token };
                        if token_state.token.is_some() && way(&mut token_state, now) {
                            prop_assert!(forced.is_none_or(|last| now - last >= FORCED_RENEWAL));
                            forced = Some(now);
                        }
                    }
                    2 => {
                        token_state.forget_failure();
                        failed = failed.map(|(at, least)| (at, least.min(FIRST_RETRY.mul_f64(0.8))));
                    }
                    6 => {
                        let was_unknown = matches!(token_state.credentials, CredentialsState::Unknown);
                        token_state.mark_new(now);
                        // At most once for a key: a rejection becomes one of new credentials.
                        if was_unknown {
                            failed = failed.map(|(at, least)| (at, least.min(FIRST_RETRY.mul_f64(0.8))));
                        }
                    }
                    _ if asks => {
                        let early = failed.filter(|(at, least)| now - *at < *least);
                        prop_assert!(early.is_none(), "asked {:?} after a failure", early.map(|(at, _)| now - at));
                        failed = match step {
                            3 => {
                                token_state.issued(now, token("t", life), chance);
                                None
                            }
                            _ => {
                                let trouble = (UNREACHABLE, FIRST_RETRY.mul_f64(0.8));
                                let (error, least) = if step == 4 { (REJECTED, REJECTED_FIRST) } else { trouble.clone() };
                                let is_final = token_state.softened(error.clone(), now) == error;
                                let _ = token_state.failed(now, error, chance);
                                Some((now, if is_final { least } else { trouble.1 }))
                            }
                        };
                    }
                    _ => {}
                }
            }
        }
    }
}
