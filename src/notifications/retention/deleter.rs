//! Deletes one Notification that is due, and only as it was when that was decided.

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
    cluster::{SingleTry, call::in_time},
    notifications::stored::StoredNotification,
};

/// One that was changed between the read and the delete is looked at again after this.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// What became of one that was due.
pub enum DeletionResult {
    /// There is nothing more to do.
    Done,
    /// It is to be looked at again then.
    Again(Timestamp),
}

/// Whether a delete was done.
enum Deleted {
    /// It is gone, by this delete or by another.
    Gone,
    /// It was changed since, or another one has its name.
    Changed,
}

/// Deletes those that are due.
pub struct Deleter {
    client: SingleTry,
    /// Hears of each delete.
    finished_count: FinishedCount,
    /// Decide again where one was changed.
    rules: RetentionRules,
}

impl Deleter {
    /// Reads and deletes by `client`.
    pub fn new(client: SingleTry, finished_count: FinishedCount, rules: RetentionRules) -> Self {
        Self { client, finished_count, rules }
    }

    /// Deletes `due`, as of `now`, if it is still as it was; otherwise reads it and decides again.
    pub async fn look(&self, due: Due, now: Timestamp) -> (Due, Result<DeletionResult, kube::Error>) {
        let looked = self.delete_if_due(&due, now).await;
        (due, looked)
    }

    async fn delete_if_due(&self, due: &Due, now: Timestamp) -> Result<DeletionResult, kube::Error> {
        if let Some(version) = due.version
            && matches!(self.delete(due, version.to_string()).await?, Deleted::Gone)
        {
            return Ok(DeletionResult::Done);
        }
        let Some(read) = in_time(self.api(due).get_opt(&due.name)).await? else {
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
                debug!(notification = %due, "deleted: its time is over");
                Ok(Deleted::Gone)
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Deleted::Gone),
            Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(Deleted::Changed),
            Err(error) => Err(error),
        }
    }

    fn api(&self, due: &Due) -> Api<StoredNotification> {
        self.client.namespaced(&due.namespace)
    }
}
