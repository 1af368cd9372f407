//! The documents that [`shipway_flags`] reads, composed of the flags of an environment.

use std::collections::BTreeMap;

use serde_json::Value;
use shipway_flags::{
    FlagDetails, FlagFileError, FlagFileStrictness, FlagSet, FlagSetDetails, FlagSetSource,
};

use super::{EnvironmentFlags, FlagContent, FlagKey, FlagKill};

/// A flag set as two documents.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagSetDocuments {
    /// flagd's JSON. Each definition begins at the first column of a line.
    pub definitions: String,
    /// Shipway's own facts.
    pub details: FlagSetDetails,
}

impl FlagSetDocuments {
    /// Compiles the set.
    ///
    /// # Errors
    /// As for [`FlagSet::read`].
    pub fn compile(&self, strictness: FlagFileStrictness) -> Result<FlagSet, FlagFileError> {
        FlagSet::read(&FlagSetSource {
            definitions: &self.definitions,
            details: Some(&self.details),
            strictness,
        })
    }
}

impl EnvironmentFlags {
    /// The flags as they are evaluated: a killed one has its kill instead of its rules.
    #[must_use]
    pub fn served_documents(&self) -> FlagSetDocuments {
        let flags = self.flags.iter().map(|(key, flag)| {
            let content = &flag.content;
            let content = match &flag.killed {
                Some(killed) => apply_kill(content, &killed.kill),
                None => content.clone(),
            };
            (key.clone(), content)
        });
        self.compose_documents(&flags.collect())
    }

    /// The flags as they were given, with `content` for the flag `key`.
    pub(super) fn documents_with_flag(
        &self,
        key: &FlagKey,
        content: FlagContent,
    ) -> FlagSetDocuments {
        let mut flags = self.contents();
        flags.insert(key.clone(), content);
        self.compose_documents(&flags)
    }

    pub(super) fn documents_without_flag(&self, key: &FlagKey) -> FlagSetDocuments {
        let mut flags = self.contents();
        flags.remove(key);
        self.compose_documents(&flags)
    }

    pub(super) fn documents_with_segments(
        &self,
        segments: &BTreeMap<String, Value>,
    ) -> FlagSetDocuments {
        let mut documents = self.compose_documents(&self.contents());
        documents.details.segments.clone_from(segments);
        documents
    }

    fn contents(&self) -> BTreeMap<FlagKey, FlagContent> {
        let contents = (self.flags.iter()).map(|(key, flag)| (key.clone(), flag.content.clone()));
        contents.collect()
    }

    fn compose_documents(&self, flags: &BTreeMap<FlagKey, FlagContent>) -> FlagSetDocuments {
        let mut definitions = "{\"flags\":{".to_owned();
        let mut details = FlagSetDetails {
            bucketing: self.bucketing,
            segments: self.segments.clone(),
            flags: BTreeMap::new(),
        };
        for (index, (key, content)) in flags.iter().enumerate() {
            if index > 0 {
                definitions.push(',');
            }
            definitions.push('\n');
            definitions.push_str(&Value::from(key.as_str()).to_string());
            definitions.push_str(":\n");
            definitions.push_str(&content.definition);
            if content.details != FlagDetails::default() {
                (details.flags).insert(key.as_str().to_owned(), content.details.clone());
            }
        }
        definitions.push_str("\n}}");
        FlagSetDocuments {
            definitions,
            details,
        }
    }
}

/// The line on which the definition of `key` begins, from 1.
pub(super) fn definition_line(definitions: &str, key: &FlagKey) -> usize {
    let head = format!("{}:", Value::from(key.as_str()));
    let line = definitions.lines().position(|line| line == head);
    line.map_or(1, |line| line + 2)
}

/// A flag that gives the variant of its kill to all users, or none. Who owns it and when it expires stays.
fn apply_kill(content: &FlagContent, kill: &FlagKill) -> FlagContent {
    let mut details = content.details.clone();
    details.prerequisites.clear();
    details.unmet_variant = None;
    let definition = match serde_json::from_str::<Value>(&content.definition) {
        Ok(Value::Object(mut definition)) => {
            definition.shift_remove("targeting");
            let state = match &kill.variant {
                Some(variant) => {
                    definition.insert("defaultVariant".to_owned(), variant.as_str().into());
                    "ENABLED"
                }
                None => "DISABLED",
            };
            definition.insert("state".to_owned(), state.into());
            Value::Object(definition).to_string()
        }
        // An accepted definition is an object; what isn't is left to the reader's diagnostics.
        Ok(_) | Err(_) => content.definition.clone(),
    };
    FlagContent {
        definition,
        details,
    }
}
