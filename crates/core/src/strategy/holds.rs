//! How the holds of a strategy end: `on_inconclusive` and `min_hold`, which all strategies with holds take.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields};

use crate::field_values::one_of;

/// Parameters of all holds of a strategy. They are serialized among the other parameters of the strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HoldPolicy {
    /// Reaction to inconclusive evidence at the end of a hold; pause by default.
    pub on_inconclusive: OnInconclusive,
    /// Minimum length of a hold, however good the evidence is.
    #[serde(rename = "min_hold")]
    pub min: Duration,
}

/// Reaction to inconclusive evidence at the end of a hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// Wait for a person to decide.
    #[default]
    Pause,
    Rollback,
    Promote,
}

impl OnInconclusive {
    /// The words in `shipway.yaml`.
    pub const WORDS: [(&str, Self); 3] = [
        ("pause", Self::Pause),
        ("rollback", Self::Rollback),
        ("promote", Self::Promote),
    ];
}

impl Default for HoldPolicy {
    fn default() -> Self {
        Self {
            on_inconclusive: OnInconclusive::default(),
            min: Self::MIN,
        }
    }
}

impl HoldPolicy {
    /// What fails only after some seconds (a cache that fills, a timer) must have had them.
    pub const MIN: Duration = Duration::from_secs(10);

    /// Reads the keys, which are written among the other parameters of a strategy.
    pub(super) fn read(fields: &MappingFields<'_>, problems: &mut Vec<Diagnostic>) -> Self {
        let otherwise = one_of(fields, "on_inconclusive", &OnInconclusive::WORDS, problems);
        let min = fields.duration("min_hold", problems);
        Self {
            on_inconclusive: otherwise.unwrap_or_default(),
            min: min.unwrap_or(Self::MIN),
        }
    }

    /// The schema of these, to be extended by the strategy's own.
    pub(super) fn schema() -> Value {
        json!({
            "on_inconclusive": { "enum": OnInconclusive::WORDS.map(|(word, _)| word), "default": "pause", "description": "What happens when the evidence is still inconclusive at the deadline of a hold." },
            "min_hold": { "$ref": "#/$defs/duration", "default": "10s", "description": "Minimum length of a hold, however good the evidence is." }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Strategy;

    #[test]
    fn strategies_are_read_and_written_as_they_ever_were() {
        let hold = r#""on_inconclusive":"rollback","min_hold":{"secs":3,"nanos":0}"#;
        for written in [
            format!(r#"{{"canary":{{"steps":[],{hold},"baseline":true}}}}"#),
            format!(
                r#"{{"rolling":{{"max_surge":{{"number":1}},"max_unavailable":{{"number":0}},"hold":{{"secs":60,"nanos":0}},{hold}}}}}"#
            ),
            format!(r#"{{"blue-green":{{"keep":{{"secs":60,"nanos":0}},{hold}}}}}"#),
        ] {
            let read: Strategy = serde_json::from_str(&written).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), written);
        }
        let before_there_were_holds = r#"{"blue-green":{"keep":{"secs":60,"nanos":0}}}"#;
        let read: Strategy = serde_json::from_str(before_there_were_holds).unwrap();
        assert_eq!(read.holds(), super::HoldPolicy::default());
    }
}
