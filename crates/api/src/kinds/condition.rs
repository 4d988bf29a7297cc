//! Status conditions in the form of `metav1.Condition` (Kubernetes API conventions).

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::ConditionType;

/// Maximum number of conditions that the schema of a status allows.
const MOST: usize = 16;

/// One aspect of an object's state, in the form of `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, such as Ready.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub type_: String,
    /// Status of the condition: True, False or Unknown.
    pub status: ConditionStatus,
    /// The metadata.generation that this condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Time at which the status last changed.
    pub last_transition_time: Time,
    /// Machine-readable reason for the status. docs/reasons.md lists all reasons.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Human-readable explanation: what happened and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The operator cannot determine the status.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Deserializes a field that only the operator should write. A value that cannot be read counts as absent, so that one
/// malformed object does not hide all others.
pub fn if_readable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// Updates the conditions of an object by the API conventions and the kstatus rules.
pub struct Conditions {
    conditions: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    /// Starts from the stored conditions. Conditions that are set describe `generation` at the time `now`.
    pub fn from(read: &[Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { conditions: read.to_vec(), generation, now }
    }

    /// Sets one condition. Its transition time changes only if its status changes. The message is cut to the 1024
    /// characters that the schema allows.
    pub fn set(mut self, type_: ConditionType, holds: bool, reason: &str, message: &str) -> Self {
        let mut new = Condition {
            type_: type_.to_string(),
            status: ConditionStatus::from(holds),
            observed_generation: self.generation,
            last_transition_time: Time(self.now),
            reason: reason.to_owned(),
            message: message.chars().take(1024).collect(),
        };
        match self.conditions.iter_mut().find(|c| c.type_ == new.type_) {
            Some(old) => {
                if old.status == new.status {
                    new.last_transition_time = old.last_transition_time.clone();
                }
                *old = new;
            }
            None => self.conditions.push(new),
        }
        self
    }

    /// Returns the conditions, Reconciling and Stalled unchanged.
    pub fn into_vec(self) -> Vec<Condition> {
        bounded(self.conditions)
    }

    /// Returns the conditions with `abnormal` (Reconciling or Stalled) set and without the other one (kstatus).
    pub fn finish(self, abnormal: Option<ConditionType>, reason: &str, message: &str) -> Vec<Condition> {
        let mut conditions = match abnormal {
            Some(type_) => self.set(type_, true, reason, message).conditions,
            None => self.conditions,
        };
        conditions.retain(|c| {
            [ConditionType::Reconciling, ConditionType::Stalled]
                .iter()
                .all(|type_| c.type_ != type_.as_str() || abnormal == Some(*type_))
        });
        bounded(conditions)
    }
}

/// Drops conditions beyond the limit of the schema: first conditions that others wrote, then the operator's own.
fn bounded(mut conditions: Vec<Condition>) -> Vec<Condition> {
    while conditions.len() > MOST {
        let foreign = conditions.iter().rposition(|c| !ConditionType::ALL.iter().any(|own| c.type_ == own.as_str()));
        conditions.remove(foreign.unwrap_or(conditions.len() - 1));
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let set = |read: &[Condition], holds, second| {
            Conditions::from(read, None, at(second)).set(ConditionType::Ready, holds, "Test", "").finish(None, "", "")
        };
        let first = set(&[], true, 1);
        assert_eq!(set(&first, true, 2), first);
        assert_eq!(set(&first, false, 3)[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn conditions_of_others_are_dropped_first_where_there_are_more_than_the_schema_allows() {
        let foreign = |n: usize| Condition {
            type_: format!("Foreign{n}"),
            status: ConditionStatus::True,
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            reason: "Test".into(),
            message: String::new(),
        };
        let read: Vec<_> = (0..MOST).map(foreign).collect();
        let set = |read: &[Condition]| {
            let conditions = Conditions::from(read, None, Timestamp::UNIX_EPOCH);
            conditions.set(ConditionType::Ready, true, "Test", "").set(ConditionType::Delivered, true, "Test", "")
        };
        for written in [set(&read).into_vec(), set(&read).finish(None, "", "")] {
            assert_eq!(written.len(), MOST);
            assert!(["Ready", "Delivered", "Foreign0"].iter().all(|type_| written.iter().any(|c| c.type_ == *type_)));
        }
    }

    #[test]
    fn reconciling_and_stalled_exclude_each_other_and_go_when_neither_holds() {
        let finish = |read: &[Condition], abnormal| {
            let conditions = Conditions::from(read, None, Timestamp::UNIX_EPOCH).finish(abnormal, "Test", "");
            conditions.into_iter().map(|c| c.type_).collect::<Vec<_>>()
        };
        let waits =
            Conditions::from(&[], None, Timestamp::UNIX_EPOCH).finish(Some(ConditionType::Reconciling), "Test", "");
        assert_eq!(finish(&waits, Some(ConditionType::Stalled)), ["Stalled"]);
        assert!(finish(&waits, None).is_empty());
    }
}
