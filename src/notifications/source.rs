//! Notifications as a source of the engine: watches, loads and writes them.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::SystemTime,
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, runtime::watcher::Event as Watched};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_api::{AttemptReason, Phase};
use tidings_delivery::{
    event::{CheckedEvent, Defaults},
    webhook::Verdict,
};
use tidings_queue::{
    Content, Current, Entry, Gate, Loaded, ScopeId, Seen, SourceId, SubscriberKey, Ticket, Want, Work, Written,
};
use tracing::{debug, info, warn};

use super::{
    names::{Name, Uid},
    record::{self, Patched, StatusWriter},
    replayed::HandledReplays,
    retention::RetentionHandle,
    size,
    status::{Attempt, after, expired, gate_of, reason_of},
    unrecorded::Unrecorded,
    watch,
    wire::Unfinished,
};
use crate::{
    cluster::call::plain,
    engine::source::{Answer, Payload, SharedRoute, Source, Unsendable},
    metrics::{Metrics, WatchedKind},
};

/// The Notifications of the API server.
pub struct Notifications {
    writer: StatusWriter,
    retention: RetentionHandle,
    replays: Arc<HandledReplays>,
    unrecorded: Arc<Unrecorded>,
}

impl Notifications {
    /// Reads and writes with `writer`, passes finished Notifications to `retention`, queries `replays` for recent
    /// replays, and adds to `unrecorded` what cannot be written.
    pub fn new(
        writer: StatusWriter,
        retention: RetentionHandle,
        replays: Arc<HandledReplays>,
        unrecorded: Arc<Unrecorded>,
    ) -> Self {
        Self { writer, retention, replays, unrecorded }
    }

    /// Returns what the watches of these namespaces (None: of all) show, without what `unrecorded` contains. `metrics`
    /// counts the watches that fail.
    pub fn watch(
        client: &Client,
        namespaces: &[Option<String>],
        unrecorded: &Arc<Unrecorded>,
        metrics: &Metrics,
    ) -> impl Stream<Item = Seen<Self>> + use<> {
        let pages = watch::pages();
        let watches = namespaces.iter().cloned().enumerate().map(|(number, namespace)| {
            let (unrecorded, metrics) = (unrecorded.clone(), metrics.clone());
            let events = watch::watch(client, namespace.as_deref(), pages.clone());
            let shown = move |event| match event {
                Ok(Watched::InitApply(object) | Watched::Apply(object)) if unrecorded.contains(&object) => None,
                event => seen(ScopeId(number), namespace.as_deref().unwrap_or("(all)"), event),
            };
            let events = events.inspect_err(move |error| {
                // After an object that cannot be read, the watch continues.
                if !matches!(error, kube::Error::SerdeError(_)) {
                    metrics.watch_restarted(WatchedKind::Notification);
                }
            });
            events.filter_map(move |event| std::future::ready(shown(event))).boxed()
        });
        stream::select_all(watches)
    }

    async fn read(&self, of: &Ticket<Self>) -> Result<Option<Box<Unfinished>>, kube::Error> {
        self.writer.load(&of.of.namespace, of.name.name(), &of.name.uid(&of.id)).await
    }

    /// Writes the outcome of an attempt.
    async fn record(&self, of: &Ticket<Self>, mut object: Box<Unfinished>, answer: &Answer) -> Written<Self> {
        let mut attempt = Attempt {
            outcome: &answer.outcome,
            event_id: &answer.event_id,
            duration: answer.duration,
            next_wait: answer.next_wait,
            max_attempts: answer.max_attempts,
            began_before_label: false,
        };
        let mut is_logged = false;
        let (status, written) = loop {
            let status = after(&object, &attempt, Timestamp::now());
            // Before the write, which may take long.
            if !std::mem::replace(&mut is_logged, true) {
                log(of, answer, status.attempts);
            }
            match self.writer.record(&object, status).await {
                // The attempt began after a replay that its object did not show, so it is the attempt that the replay
                // requested. A label that shows only now requests another replay.
                (_, Patched::Superseded(current))
                    if !current.is_finished() && self.replays.came_before(answer.began, &object, &current) =>
                {
                    (object, attempt.began_before_label) = (current, true);
                }
                written => break written,
            }
        };
        match written {
            Patched::Recorded { version, .. } if status.phase == Phase::Pending => Written::Retry {
                version,
                attempts: status.attempts,
                began: calendar(object.began()),
                next: status.next_attempt_time.as_ref().map(|time| calendar(time.0)),
                wait: answer.next_wait,
            },
            written => self.finished(&object, &status, written).await,
        }
    }

    /// Writes that a Notification was not delivered in time.
    async fn expire(&self, of: &Ticket<Self>, object: Option<Box<Unfinished>>) -> Written<Self> {
        let object = match object {
            Some(object) => object,
            None => match self.read(of).await {
                Ok(Some(object)) => object,
                Ok(None) => return Written::Gone,
                Err(error) => {
                    unread(of, &error);
                    return Written::Unread;
                }
            },
        };
        // A replay that the watch has not shown yet starts a new life.
        if object.is_finished() || object.began().as_second() != seconds(of.began) {
            return superseded(&object).map_or(Written::Gone, Written::Superseded);
        }
        let (status, written) = self.writer.record(&object, expired(&object, Timestamp::now())).await;
        if matches!(written, Patched::Recorded { .. }) {
            info!(namespace = %of.of.namespace, name = of.name.name(), uid = of.name.uid(&of.id), subscriber = %of.of.name, attempts = status.attempts, "expired");
        }
        self.finished(&object, &status, written).await
    }

    async fn finished(
        &self,
        object: &Unfinished,
        status: &tidings_api::NotificationStatus,
        written: Patched,
    ) -> Written<Self> {
        match written {
            Patched::Recorded { version, over_final, replay_requested } => {
                self.writer.finished(object, status.phase, Timestamp::now());
                self.retention.finished(object, status, (!replay_requested).then_some(version));
                Written::Finished { version, out_of_sight: over_final }
            }
            Patched::Gone => Written::Gone,
            Patched::Superseded(current) => superseded(&current).map_or(Written::Gone, Written::Superseded),
            // Its slot is free again, and its event is not sent again.
            Patched::TooLarge => {
                self.unrecorded.add(object, status).await;
                Written::Gone
            }
        }
    }

    /// Writes which gate a Notification waits behind.
    async fn explain(&self, of: &Ticket<Self>, gate: Gate) {
        let Some(reason) = reason_of(gate) else { return };
        let waiting = record::Waiting {
            namespace: of.of.namespace.clone(),
            name: of.name.name().into(),
            uid: of.name.uid(&of.id),
            attempts: of.attempts,
        };
        if let Err(error) = self.writer.explain(&waiting, reason).await {
            debug!(namespace = %of.of.namespace, name = of.name.name(), error = %plain(&error), "cannot write an explanation");
        }
    }
}

impl Work for Notifications {
    type Id = Uid;
    type Name = Name;
    type Item = Unfinished;
    type Route = SharedRoute;
    type Answer = Answer;
}

impl Source for Notifications {
    async fn load(&self, of: &Ticket<Self>) -> Loaded<Self> {
        match self.read(of).await {
            // More attempts than this process knows: an outcome of another operator arrived after the end of its term.
            Ok(Some(object))
                if object.is_finished() || object.is_being_deleted() || object.status.attempts > of.attempts =>
            {
                superseded(&object).map_or(Loaded::Gone, Loaded::Superseded)
            }
            Ok(Some(object)) if self.unrecorded.contains(&object) => Loaded::Gone,
            Ok(Some(object)) => Loaded::Item(object),
            Ok(None) => Loaded::Gone,
            Err(error) => {
                unread(of, &error);
                Loaded::Unread
            }
        }
    }

    async fn write(&self, of: Ticket<Self>, item: Option<Box<Unfinished>>, content: Content<Answer>) -> Written<Self> {
        match (content, item) {
            (Content::Outcome(answers), Some(object)) => match answers.first() {
                Some((_, answer)) => self.record(&of, object, answer).await,
                None => Written::Unread,
            },
            (Content::Outcome(_), None) => Written::Unread,
            (Content::Expired, object) => self.expire(&of, object).await,
            (Content::Waiting(gate), _) => {
                self.explain(&of, gate).await;
                Written::Noted
            }
            (Content::Returned, _) => Written::Noted,
        }
    }

    /// Pulls nothing: the watch shows all Notifications.
    async fn pull(&self, _: SourceId, _: &SubscriberKey, _: Want) -> (Vec<Entry<Self>>, bool) {
        (Vec::new(), false)
    }
}

impl Payload for Unfinished {
    fn event(&self, _: u16) -> Result<CheckedEvent, Unsendable> {
        size::check(self.bytes).map_err(Unsendable::TooLarge)?;
        let created = self.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
        let defaults = Defaults { id: self.default_id(), time: created.as_deref().unwrap_or_default() };
        Ok(CheckedEvent::parse(self.spec.event.get(), defaults)?)
    }

    fn event_id(&self, _: u16) -> String {
        #[derive(serde::Deserialize)]
        struct Id {
            id: Option<String>,
        }
        let given = serde_json::from_str::<Id>(self.spec.event.get()).ok().and_then(|event| event.id);
        given.unwrap_or_else(|| self.default_id().to_owned())
    }

    fn size(&self) -> usize {
        if self.spec.event.get() == RawValue::NULL.get() { 0 } else { self.spec.event.get().len() }
    }

    fn drop_events(&mut self) {
        self.spec.event = RawValue::NULL.to_owned();
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn failures(&self) -> u32 {
        self.status.attempts.saturating_sub(self.status.deferred_attempts)
    }
}

/// Translates a watch event for the queue. `namespace` is for the log.
fn seen(
    scope: ScopeId,
    namespace: &str,
    event: Result<Watched<Unfinished>, kube::Error>,
) -> Option<Seen<Notifications>> {
    match event {
        Ok(Watched::Init) => Some(Seen::ListBegins(scope)),
        Ok(Watched::InitApply(object) | Watched::Apply(object)) => {
            let mut entry = entry(&object)?;
            entry.item = Some(Box::new(object));
            Some(Seen::Present(entry))
        }
        Ok(Watched::InitDone) => Some(Seen::ListEnds(scope)),
        Ok(Watched::Delete(object)) => {
            let id = Uid::of(object.metadata.uid.as_deref()?);
            Some(Seen::Absent { id, version: object.version() })
        }
        Err(error) if matches!(&error, kube::Error::Api(status) if matches!(status.code, 403 | 404)) => {
            warn!(namespace, error = %plain(&error), "cannot list Notifications; grant the operator its Role there, or remove the namespace from --watch-namespace; retrying");
            Some(Seen::Refused(scope))
        }
        Err(error) => {
            warn!(namespace, error = %plain(&error), "watching Notifications failed; retrying");
            Some(Seen::Failed(scope))
        }
    }
}

/// Makes the queue's entry for a Notification, without the object itself.
fn entry(object: &Unfinished) -> Option<Entry<Notifications>> {
    let metadata = &object.metadata;
    let (uid, namespace, name) = (metadata.uid.as_deref()?, metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    Some(Entry {
        id: Uid::of(uid),
        name: Name::new(name, uid),
        of: SubscriberKey { namespace: namespace.into(), name: object.spec.subscriber_ref.name.as_str().into() },
        version: object.version(),
        events: 1,
        finished: Vec::new(),
        attempts: object.status.attempts,
        began: calendar(object.began()),
        lifetime: object.spec.expire_after_seconds.map(|seconds| std::time::Duration::from_secs(seconds.into())),
        next: object.status.next_attempt_time.as_ref().map(|time| calendar(time.0)),
        bytes: object.spec.event.get().len(),
        kind: kind(object.spec.event.get()),
        explained: gate_of(&object.status.reason),
        cancelled: object.is_being_deleted(),
        pulled: false,
        item: None,
    })
}

/// Returns a number for the type of an event. Events of different types rarely have the same number.
fn kind(event: &str) -> u16 {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        type_: Cow<'a, str>,
    }
    let mut hash = DefaultHasher::new();
    serde_json::from_str(event).map_or("".into(), |Typed { type_ }| type_).hash(&mut hash);
    // The low bits.
    hash.finish() as u16
}

fn superseded(object: &Unfinished) -> Option<Current<Notifications>> {
    Some(Current { entry: entry(object)?, finished: object.is_finished() })
}

fn unread(of: &Ticket<Notifications>, error: &kube::Error) {
    warn!(namespace = %of.of.namespace, name = of.name.name(), uid = of.name.uid(&of.id), subscriber = %of.of.name, error = %plain(error), "cannot read the Notification; retrying");
}

/// Writes the one line of an attempt: at the level info if it failed. `number` counts the attempts, with this one.
fn log(of: &Ticket<Notifications>, answer: &Answer, number: u32) {
    let Answer { outcome, event_id, trace_id, .. } = answer;
    let (namespace, subscriber, name) = (&of.of.namespace, &of.of.name, of.name.name());
    let uid = || of.name.uid(&of.id);
    if outcome.verdict == Verdict::Delivered {
        debug!(%namespace, name, uid = uid(), %subscriber, event_id, attempt = number, trace_id, "delivered");
    } else {
        let reason: AttemptReason = outcome.reason;
        let (status_code, detail) = (outcome.status.map(|code| code.as_u16()), &outcome.message);
        info!(%namespace, name, uid = uid(), %subscriber, event_id, attempt = number, %reason, status_code, trace_id, detail, "the attempt failed");
    }
}

fn calendar(time: Timestamp) -> SystemTime {
    time.into()
}

fn seconds(time: SystemTime) -> i64 {
    Timestamp::try_from(time).map_or(0, |time| time.as_second())
}
