//! Deletes one Notification that is due, if it has not changed since the decision.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use tracing::debug;

use super::{
    deadlines::{DeletionDecision, Due, RetentionRules, decide},
    finished_count::FinishedCount,
};
use crate::{
    cluster::{
        SingleTry,
        call::{found, in_time, is_not_found},
    },
    metrics::{Metrics, WriteResult, WrittenKind},
    notifications::stored::StoredNotification,
};

/// A Notification that changed between the read and the deletion is checked again after this time.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// The result for a Notification that was due.
pub enum DeletionResult {
    /// Done: there is nothing more to do.
    Done,
    /// Check the Notification again then.
    Again(Timestamp),
}

/// The result of a request to delete.
enum Deleted {
    /// The Notification is deleted, by this request or another one.
    Gone,
    /// The Notification has changed, or another one has its name.
    Changed,
}

/// Deletes Notifications that are due.
pub struct Deleter {
    client: SingleTry,
    /// Counts each deletion.
    finished_count: FinishedCount,
    metrics: Metrics,
    /// The rules to decide again after a change.
    rules: RetentionRules,
}

impl Deleter {
    /// Makes a deleter that reads and deletes with `client`, and counts its deletions in `metrics`.
    pub fn new(client: SingleTry, finished_count: FinishedCount, metrics: Metrics, rules: RetentionRules) -> Self {
        Self { client, finished_count, metrics, rules }
    }

    /// Deletes `due` if it is unchanged; otherwise reads it and decides again, as of `now`.
    pub async fn handle(&self, due: Due, now: Timestamp) -> (Due, Result<DeletionResult, kube::Error>) {
        let result = self.delete_if_due(&due, now).await;
        (due, result)
    }

    async fn delete_if_due(&self, due: &Due, now: Timestamp) -> Result<DeletionResult, kube::Error> {
        if let Some(version) = due.version
            && matches!(self.delete(due, version.to_string()).await?, Deleted::Gone)
        {
            return Ok(DeletionResult::Done);
        }
        let Some(read) = found(in_time(self.api(due).get(&due.name)).await)? else {
            return Ok(DeletionResult::Done);
        };
        match decide(&read, &due.uid, self.rules, now) {
            DeletionDecision::Forget => return Ok(DeletionResult::Done),
            DeletionDecision::Later(at) => return Ok(DeletionResult::Again(at)),
            DeletionDecision::Delete => {}
        }
        let version = read.metadata.resource_version.unwrap_or_default();
        Ok(match self.delete(due, version).await? {
            Deleted::Gone => DeletionResult::Done,
            Deleted::Changed => DeletionResult::Again(now.checked_add(AFTER_CONFLICT).unwrap_or(Timestamp::MAX)),
        })
    }

    async fn delete(&self, due: &Due, version: String) -> Result<Deleted, kube::Error> {
        let preconditions = Preconditions { uid: Some(due.uid.to_string()), resource_version: Some(version) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match in_time(self.api(due).delete(&due.name, &params)).await {
            Ok(_) => {
                self.finished_count.changed(&due.namespace, -1);
                self.count(WriteResult::Deleted);
                debug!(namespace = due.namespace, name = due.name, uid = due.uid, "deleted; its TTL has expired");
                Ok(Deleted::Gone)
            }
            Err(kube::Error::Api(answer)) if is_not_found(&answer) => Ok(Deleted::Gone),
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                self.count(WriteResult::Conflict);
                Ok(Deleted::Changed)
            }
            Err(error) => {
                self.count(WriteResult::Error);
                Err(error)
            }
        }
    }

    fn count(&self, result: WriteResult) {
        self.metrics.api_write(WrittenKind::NotificationDeletion, result);
    }

    fn api(&self, due: &Due) -> Api<StoredNotification> {
        self.client.namespaced(&due.namespace)
    }
}
