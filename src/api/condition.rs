//! Conditions in the form of `metav1.Condition` (Kubernetes API conventions).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// One aspect of an object's state, as `metav1.Condition` has it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about, such as Ready.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// The metadata.generation that it describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status last changed.
    pub last_transition_time: Time,
    /// One word for why, from the catalogue of reasons.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// The same for people: what happened and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// The value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Reads a field that only the operator should write, but others may have: what cannot be read counts as absent, so that
/// one odd object does not hide all others.
pub(crate) fn if_readable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// Puts `new` into `conditions`, keeping the transition time of the one it replaces unless the status flips.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn ready(status: ConditionStatus, second: i64) -> Condition {
        Condition {
            type_: "Ready".into(),
            status,
            observed_generation: None,
            last_transition_time: Time(Timestamp::from_second(second).unwrap()),
            reason: "Test".into(),
            message: String::new(),
        }
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let mut conditions = vec![ready(ConditionStatus::True, 1)];
        set_condition(&mut conditions, ready(ConditionStatus::True, 2));
        assert_eq!(conditions, [ready(ConditionStatus::True, 1)]);
        set_condition(&mut conditions, ready(ConditionStatus::False, 3));
        assert_eq!(conditions, [ready(ConditionStatus::False, 3)]);
    }
}
