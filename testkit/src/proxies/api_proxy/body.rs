//! The response bodies that the proxy passes on.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, Incoming};

/// The body of a response.
pub(super) type Answered = BoxBody<Bytes, Broken>;

/// The error that breaks off a response.
#[derive(Debug)]
pub(super) struct Broken(String);

impl Broken {
    pub(super) fn from(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The body from the API server, chunk by chunk, up to a number of bytes.
pub(super) struct Passed {
    body: Incoming,
    left: usize,
}

impl Passed {
    pub(super) fn new(body: Incoming, limit: usize) -> Self {
        Self { body, left: limit }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err(Broken::from("broken off"))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(Broken::from)?;
        let Ok(data) = frame.into_data() else { return Poll::Ready(None) };
        let passed = data.len().min(self.left);
        self.left -= passed;
        Poll::Ready(Some(Ok(Frame::data(data.slice(..passed)))))
    }
}
