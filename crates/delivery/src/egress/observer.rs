//! Reports what happens at the outside: lookups, connections, token requests and validation requests.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{SendError, dns::LookupError};

/// Receives the result of each lookup, connection, token request and validation request. Each method is called in the
/// task that made the request, so it must return at once.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A lookup of a name ended. Names that are remembered are not looked up.
    fn name_looked_up(&self, result: LookupResult, took: Duration);
    /// An attempt to connect ended. `took` includes the lookup of the name, the wait for other connections to the host,
    /// and the TLS handshake.
    fn connected(&self, result: ConnectResult, took: Duration);
    /// A token request ended.
    fn token_requested(&self, result: TokenRequestResult, took: Duration);
    /// A validation request ended (CloudEvents web hooks, section 4).
    fn validation_requested(&self, result: ValidationResult);
}

/// Defines enums whose variants have a fixed name in metrics.
macro_rules! results {
    ($($(#[doc = $about:literal])+ $result:ident { $($(#[doc = $meaning:literal])+ $variant:ident: $text:literal,)+ })+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $result { $($(#[doc = $meaning])+ $variant,)+ }

        impl $result {
            /// All results.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name of the result in metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    )+};
}

results! {
    /// The result of a lookup.
    LookupResult {
        /// The name has addresses.
        Resolved: "resolved",
        /// The name does not exist or has no address.
        Nonexistent: "nonexistent",
        /// No name server gave an answer.
        Unanswered: "unanswered",
        /// No name server is configured.
        Unconfigured: "unconfigured",
        /// No attempt waited any longer: its timeout passed first.
        Timeout: "timeout",
    }

    /// The result of an attempt to connect.
    ConnectResult {
        /// The connection is open, TLS included.
        Connected: "connected",
        /// The egress policy denies the address.
        Denied: "denied",
        /// The name of the host does not resolve.
        NameNotResolved: "name_not_resolved",
        /// The connection was refused, or broke, or there is no way to the address.
        Failed: "failed",
        /// The TLS handshake failed.
        TlsFailed: "tls_failed",
        /// The egress proxy failed, or did not connect to the host.
        ProxyFailed: "proxy_failed",
        /// The time to connect ran out, or no attempt waited any longer.
        Timeout: "timeout",
    }

    /// The result of a token request.
    TokenRequestResult {
        /// The token service issued a token.
        Issued: "issued",
        /// The token service rejects the client.
        Rejected: "rejected",
        /// The token service answered 401 without the code of a refusal.
        Unauthorized: "unauthorized",
        /// The token service responded with a temporary failure.
        Unavailable: "unavailable",
        /// There was no response.
        Unreachable: "unreachable",
        /// The response is not a token response, or has an encoding that the operator cannot read.
        Malformed: "malformed",
        /// There was no assertion to send, and no request was sent.
        NoAssertion: "no_assertion",
        /// The operator itself failed.
        Internal: "internal",
    }

    /// The result of a validation request.
    ValidationResult {
        /// The webhook allows events.
        Granted: "granted",
        /// The webhook allows only other origins.
        Refused: "refused",
        /// The webhook does not support validation.
        NotSupported: "not_supported",
        /// The webhook responded with a temporary failure.
        Unavailable: "unavailable",
        /// There was no response.
        Unreachable: "unreachable",
    }
}

/// Observes nothing.
#[derive(Debug)]
pub(super) struct Unobserved;

impl Observer for Unobserved {
    fn name_looked_up(&self, _: LookupResult, _: Duration) {}
    fn connected(&self, _: ConnectResult, _: Duration) {}
    fn token_requested(&self, _: TokenRequestResult, _: Duration) {}
    fn validation_requested(&self, _: ValidationResult) {}
}

/// Awaits a lookup and reports its result. A lookup that is dropped before it ends has the result `Timeout`.
pub(super) async fn lookup<T>(
    observer: &Arc<dyn Observer>,
    lookup: impl Future<Output = Result<T, LookupError>>,
) -> Result<T, LookupError> {
    let began = Began::new(|result, took| observer.name_looked_up(result, took));
    let result = lookup.await;
    began.ended(match &result {
        Ok(_) => LookupResult::Resolved,
        Err(LookupError::Nonexistent) => LookupResult::Nonexistent,
        Err(LookupError::Unanswered) => LookupResult::Unanswered,
        Err(LookupError::Unconfigured) => LookupResult::Unconfigured,
    });
    result
}

/// Awaits an attempt to connect and reports its result, which `sort` makes of the error. An attempt that is dropped
/// before it ends has the result `Timeout`.
pub(super) async fn connect<T, E>(
    observer: &Arc<dyn Observer>,
    sort: impl Fn(&E) -> SendError,
    connect: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let began = Began::new(|result, took| observer.connected(result, took));
    let result = connect.await;
    began.ended(result.as_ref().err().map_or(ConnectResult::Connected, |error| match sort(error) {
        SendError::Denied => ConnectResult::Denied,
        SendError::Dns => ConnectResult::NameNotResolved,
        SendError::Tls(_) => ConnectResult::TlsFailed,
        SendError::Proxy(_) => ConnectResult::ProxyFailed,
        SendError::Timeout => ConnectResult::Timeout,
        SendError::Connection | SendError::Broken => ConnectResult::Failed,
    }));
    result
}

/// A result that stands for what was dropped before it ended.
trait Abandoned {
    const ABANDONED: Self;
}

impl Abandoned for LookupResult {
    const ABANDONED: Self = Self::Timeout;
}

impl Abandoned for ConnectResult {
    const ABANDONED: Self = Self::Timeout;
}

/// Something that began, and how its end is reported, once.
struct Began<R: Abandoned, F: FnOnce(R, Duration)> {
    at: Instant,
    report: Option<F>,
    result: PhantomData<R>,
}

impl<R: Abandoned, F: FnOnce(R, Duration)> Began<R, F> {
    fn new(report: F) -> Self {
        Self { at: Instant::now(), report: Some(report), result: PhantomData }
    }

    fn ended(mut self, result: R) {
        self.report(result);
    }

    fn report(&mut self, result: R) {
        if let Some(report) = self.report.take() {
            report(result, self.at.elapsed());
        }
    }
}

impl<R: Abandoned, F: FnOnce(R, Duration)> Drop for Began<R, F> {
    fn drop(&mut self) {
        self.report(R::ABANDONED);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::Mutex,
    };

    use futures::FutureExt;

    use super::*;
    use crate::egress::{ProxyFault, TlsFault};

    #[derive(Debug, Default)]
    struct Seen(Mutex<Vec<String>>);

    impl Seen {
        fn note(&self, result: &str) {
            self.0.lock().unwrap().push(result.to_owned());
        }
    }

    impl Observer for Seen {
        fn name_looked_up(&self, result: LookupResult, _: Duration) {
            self.note(result.as_str());
        }
        fn connected(&self, result: ConnectResult, _: Duration) {
            self.note(result.as_str());
        }
        fn token_requested(&self, result: TokenRequestResult, _: Duration) {
            self.note(result.as_str());
        }
        fn validation_requested(&self, result: ValidationResult) {
            self.note(result.as_str());
        }
    }

    #[tokio::test]
    async fn each_result_of_a_lookup_is_reported_once_also_of_one_that_is_dropped() {
        let seen = Arc::new(Seen::default());
        let observer: Arc<dyn Observer> = seen.clone();
        for result in
            [Ok(()), Err(LookupError::Nonexistent), Err(LookupError::Unanswered), Err(LookupError::Unconfigured)]
        {
            assert_eq!(lookup(&observer, ready(result)).await, result);
        }
        assert!(lookup(&observer, pending::<Result<(), _>>()).now_or_never().is_none());
        assert_eq!(*seen.0.lock().unwrap(), ["resolved", "nonexistent", "unanswered", "unconfigured", "timeout"]);
    }

    #[tokio::test]
    async fn each_result_of_an_attempt_to_connect_is_reported_once() {
        let seen = Arc::new(Seen::default());
        let observer: Arc<dyn Observer> = seen.clone();
        let all = [
            (SendError::Denied, "denied"),
            (SendError::Dns, "name_not_resolved"),
            (SendError::Connection, "failed"),
            (SendError::Broken, "failed"),
            (SendError::Tls(TlsFault::of(&rustls::Error::HandshakeNotComplete)), "tls_failed"),
            (SendError::Proxy(ProxyFault::Timeout), "proxy_failed"),
            (SendError::Timeout, "timeout"),
        ];
        for (error, _) in &all {
            assert!(connect(&observer, SendError::clone, ready(Err::<(), _>(error.clone()))).await.is_err());
        }
        assert!(connect(&observer, SendError::clone, ready(Ok(()))).await.is_ok());
        assert!(connect(&observer, SendError::clone, pending::<Result<(), _>>()).now_or_never().is_none());
        let expected: Vec<_> = all.iter().map(|(_, text)| *text).chain(["connected", "timeout"]).collect();
        assert_eq!(*seen.0.lock().unwrap(), expected);
    }
}
