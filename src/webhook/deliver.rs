//! One delivery: token, POST, answer.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use tokio::time::{Instant, timeout_at};

use super::{Outcome, Target};
use crate::{
    cloudevent::{Encoding, Event, InvalidEvent, encode},
    egress::{SendError, retry_after},
    oauth::NoToken,
};

/// An event encoded for a target: what is POSTed, but for the token.
pub struct Delivery<'a> {
    target: &'a Target,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A delivery with its token: the next step sends it.
pub struct Authorized<'a> {
    delivery: Delivery<'a>,
    token: HeaderValue,
}

impl<'a> Delivery<'a> {
    /// Encodes `event` for `target`.
    pub fn prepare(target: &'a Target, event: &Event) -> Result<Self, InvalidEvent> {
        let (headers, body) = encode(event, target.encoding)?;
        Ok(Self { target, headers, body })
    }

    /// Gets the token. Without one, nothing is sent and no attempt is spent.
    pub async fn authorize(self) -> Result<Authorized<'a>, NoToken> {
        let token = self.target.tokens.token().await?;
        Ok(Authorized { delivery: self, token })
    }
}

impl Authorized<'_> {
    /// POSTs the event. A 401 renews the token and sends once more (no challenge scheme is followed).
    pub async fn send(self) -> Outcome {
        let Self { delivery, token } = self;
        let target = delivery.target;
        // One deadline for all of it.
        let deadline = Instant::now() + target.timeout;
        let mut answer = delivery.post(&token, deadline).await;
        if matches!(answer, Ok((StatusCode::UNAUTHORIZED, _)))
            && let Ok(Some(Ok(token))) = timeout_at(deadline, target.tokens.token_other_than(&token)).await
        {
            answer = delivery.post(&token, deadline).await;
        }
        match answer {
            Ok((StatusCode::FORBIDDEN, _)) => {
                target.tokens.renew_next(&token).await;
                Outcome::of_answer(StatusCode::FORBIDDEN, None, &delivery.describe())
            }
            Ok((status, retry_after)) => Outcome::of_answer(status, retry_after, &delivery.describe()),
            Err(error) => Outcome::of_error(error),
        }
    }
}

impl Delivery<'_> {
    async fn post(&self, token: &HeaderValue, deadline: Instant) -> Result<(StatusCode, Option<Duration>), SendError> {
        let mut headers = self.headers.clone();
        headers.insert(AUTHORIZATION, token.clone());
        let time = deadline.saturating_duration_since(Instant::now());
        let answer = self.target.exchange(Method::POST, headers, self.body.clone(), time).await?;
        Ok((answer.status, retry_after(&answer.headers, SystemTime::now())))
    }

    /// What was sent, for a person: content mode and media type.
    fn describe(&self) -> String {
        let mode = match self.target.encoding {
            Encoding::Structured(_) => "Structured",
            Encoding::Binary => "Binary",
        };
        let media_type = self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("?");
        format!("content mode {mode} with Content-Type {media_type:.100}")
    }
}
