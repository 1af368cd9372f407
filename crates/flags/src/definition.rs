//! A set of flags, ready to be evaluated.

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::bucketing::BucketingVersion;
use crate::details::{FlagDetails, FlagSetDetails};
use crate::diagnostic::FlagDiagnostic;
use crate::targeting::TargetingExpression;

/// What a flag set is read from.
#[derive(Clone, Copy, Debug)]
pub struct FlagSetSource<'a> {
    /// flagd's JSON.
    pub definitions: &'a str,
    /// Shipway's own facts about the flags.
    pub details: Option<&'a FlagSetDetails>,
    /// What a problem of a targeting rule does.
    pub strictness: FlagFileStrictness,
}

/// What a problem of a targeting rule does to its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlagFileStrictness {
    /// The file is refused.
    #[default]
    Strict,
    /// As in flagd: the flag alone gives an error or its default variant, and the problem is a warning of the set.
    Lenient,
}

/// Flags with their rules, compiled. Evaluations don't change it: share it between threads, or in a
/// [`FlagSetHandle`](crate::FlagSetHandle).
#[derive(Debug)]
pub struct FlagSet {
    pub(crate) flags: FlagMap,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) bucketing: BucketingVersion,
    pub(crate) warnings: Vec<FlagDiagnostic>,
}

/// Flags by their keys, in the order of the file.
pub(crate) type FlagMap = IndexMap<Box<str>, FlagDefinition, FixedState>;

/// A flag, as its file defines it.
#[derive(Debug)]
pub struct FlagDefinition {
    pub(crate) state: FlagState,
    pub(crate) value_type: FlagValueType,
    pub(crate) variants: FlagVariants,
    pub(crate) default_variant: Option<usize>,
    pub(crate) targeting: FlagTargeting,
    /// With the set's metadata; `None` when the flag has none of its own.
    pub(crate) metadata: Option<Map<String, Value>>,
    pub(crate) details: Option<Box<FlagDetails>>,
    pub(crate) prerequisites: Box<[PrerequisiteIndex]>,
    pub(crate) unmet_variant: Option<usize>,
}

/// Whether evaluations give variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagState {
    /// They do.
    Enabled,
    /// Evaluations give no value, and the caller uses its own default.
    Disabled,
}

/// The type of all variants of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagValueType {
    /// `true` or `false`
    Boolean,
    /// A string.
    Text,
    /// An integer or a float.
    Number,
    /// A JSON object.
    Object,
}

#[derive(Debug)]
pub(crate) enum FlagTargeting {
    None,
    Rule(Box<TargetingExpression>),
    /// Evaluations give `PARSE_ERROR` with this message.
    Invalid(Box<str>),
}

/// A prerequisite as places in the set.
#[derive(Debug)]
pub(crate) struct PrerequisiteIndex {
    pub(crate) flag: usize,
    pub(crate) variants: Box<[usize]>,
}

/// The variants of a flag in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct FlagVariants {
    pub(crate) entries: Vec<(Box<str>, Value)>,
}

impl FlagVariants {
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.entries
            .iter()
            .position(|(variant, _)| variant.as_ref() == name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_ref())
    }
}

impl FlagSet {
    /// A flag by its key.
    #[must_use]
    pub fn flag(&self, key: &str) -> Option<&FlagDefinition> {
        self.flags.get(key)
    }

    /// All flags with their keys, in the order of the file.
    pub fn flags(&self) -> impl ExactSizeIterator<Item = (&str, &FlagDefinition)> {
        self.flags.iter().map(|(key, flag)| (key.as_ref(), flag))
    }

    /// The metadata of the set, which each evaluation carries unless the flag has its own of the same name.
    #[must_use]
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// How percentages hash their subjects.
    #[must_use]
    pub fn bucketing(&self) -> BucketingVersion {
        self.bucketing
    }

    /// What a lenient reader let pass.
    #[must_use]
    pub fn warnings(&self) -> &[FlagDiagnostic] {
        &self.warnings
    }
}

impl FlagDefinition {
    /// Whether evaluations give variants.
    #[must_use]
    pub fn state(&self) -> FlagState {
        self.state
    }

    /// The type of all variants.
    #[must_use]
    pub fn value_type(&self) -> FlagValueType {
        self.value_type
    }

    /// The names and values of the variants, in the order of the file.
    pub fn variants(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.variants
            .entries
            .iter()
            .map(|(name, value)| (name.as_ref(), value))
    }

    /// The variant when targeting gives none; without it callers use their own default.
    #[must_use]
    pub fn default_variant(&self) -> Option<&str> {
        let (name, _) = self.variants.entries.get(self.default_variant?)?;
        Some(name)
    }

    /// Whether results depend on the context.
    #[must_use]
    pub fn has_targeting(&self) -> bool {
        !matches!(self.targeting, FlagTargeting::None)
    }

    /// Shipway's own facts, if the set was read with some for this flag.
    #[must_use]
    pub fn details(&self) -> Option<&FlagDetails> {
        self.details.as_deref()
    }
}
