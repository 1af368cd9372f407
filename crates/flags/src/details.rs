//! Shipway's own facts about flags, apart from flagd's definitions: those stay readable by every tool of flagd's.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bucketing::BucketingVersion;
use crate::diagnostic::{FlagDiagnostic, FlagDocument, FlagFileError, FlagProblem};
use crate::document_value::DocumentValue;
use crate::json_position::TextPosition;
use crate::limits::FLAG_FILE_BYTES_MAX;

/// Shipway's own facts about a set of flags.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct FlagSetDetails {
    /// How percentages hash their subjects. Never changed for a set in use.
    pub bucketing: BucketingVersion,
    /// Named rules that flags use with `{"$ref": "name"}`, as they use `$evaluators`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub segments: BTreeMap<String, Value>,
    /// By flag key. A flag without details has [`FlagDetails::default`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub flags: BTreeMap<String, FlagDetails>,
}

/// Shipway's own facts about a flag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct FlagDetails {
    /// What the flag is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<FlagKind>,
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The last day on which the flag should be in the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Date>,
    /// All must be met for the flag's own rules to count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<FlagPrerequisite>,
    /// The variant while a prerequisite is not met; the default variant if there is none here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmet_variant: Option<String>,
}

/// What a flag is for, which says how long it may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlagKind {
    /// Hides unfinished work; must expire.
    Release,
    /// Compares variants.
    Experiment,
    /// Switches a part off, such as a kill switch.
    Operational,
    /// Gives a part to some users.
    Permission,
}

/// Another flag that must have one of some variants for the same context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagPrerequisite {
    /// The other flag's key.
    pub flag: String,
    /// The variants that meet it.
    pub variants: Vec<String>,
}

impl FlagDetails {
    /// Whether the flag should be gone on `today`.
    #[must_use]
    pub fn is_expired(&self, today: Date) -> bool {
        self.expires.is_some_and(|expires| expires < today)
    }
}

impl FlagSetDetails {
    /// Reads details from JSON.
    ///
    /// # Errors
    /// Invalid JSON, unknown properties, wrong types, above [`FLAG_FILE_BYTES_MAX`]. What refers to flags is checked with the flags.
    pub fn parse(text: &str) -> Result<FlagSetDetails, FlagFileError> {
        if text.len() > FLAG_FILE_BYTES_MAX {
            let problem = FlagProblem::FileTooLarge { bytes: text.len() };
            return Err(refuse_details(problem, None));
        }
        serde_json::from_str::<DocumentValue<'_>>(text)
            .and_then(|_| serde_json::from_str(text))
            .map_err(|error| {
                let position = TextPosition {
                    line: error.line(),
                    column: error.column().max(1),
                };
                let message = error.to_string();
                refuse_details(FlagProblem::InvalidJson { message }, Some(position))
            })
    }
}

fn refuse_details(problem: FlagProblem, position: Option<TextPosition>) -> FlagFileError {
    FlagFileError {
        diagnostics: vec![FlagDiagnostic {
            document: FlagDocument::Details,
            pointer: String::new(),
            position,
            problem,
        }],
        unreported: 0,
    }
}
