//! Problems of flag files: the kind, the place, and the word that was probably meant.

use std::fmt;

use crate::bucketing::BucketingVersion;
use crate::json_position::TextPosition;
use crate::limits::{
    FLAG_FILE_BYTES_MAX, FLAGS_MAX, NAME_BYTES_MAX, PREREQUISITE_CHAIN_MAX, SAFE_INTEGER_MAX,
    SUGGESTION_WORDS_MAX, TARGETING_DEPTH_MAX, VARIANTS_MAX, WEIGHT_TOTAL_MAX,
};

/// The document that a problem is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagDocument {
    /// flagd's JSON: flags and evaluators.
    Definitions,
    /// Shipway's own facts about the flags.
    Details,
}

impl fmt::Display for FlagDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FlagDocument::Definitions => "flags",
            FlagDocument::Details => "details",
        })
    }
}

/// One problem of a flag file.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagDiagnostic {
    /// Which document it is in.
    pub document: FlagDocument,
    /// The JSON pointer of the value, such as `/flags/checkout/defaultVariant`; empty for the whole document.
    pub pointer: String,
    /// The line and column, unless the document was not given as text.
    pub position: Option<TextPosition>,
    /// The problem itself.
    pub problem: FlagProblem,
}

impl fmt::Display for FlagDiagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "{position}: ")?,
            None => write!(f, "{}: ", self.document)?,
        }
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        write!(f, "{}", self.problem)
    }
}

/// A known word that is near to an unknown one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NearestWord(pub Option<String>);

impl NearestWord {
    pub(crate) fn find<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> NearestWord {
        NearestWord(
            shipway_syntax::nearest(word, known.into_iter().take(SUGGESTION_WORDS_MAX))
                .map(str::to_owned),
        )
    }
}

impl fmt::Display for NearestWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(word) => write!(f, "; did you mean `{word}`?"),
            None => Ok(()),
        }
    }
}

/// A problem of a value in a flag file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FlagProblem {
    /// Not JSON, or a key that is there twice.
    #[error("invalid JSON: {message}")]
    InvalidJson {
        /// The parser's explanation.
        message: String,
    },
    /// Above [`FLAG_FILE_BYTES_MAX`].
    #[error(
        "the file is {bytes} bytes long, above the limit of {FLAG_FILE_BYTES_MAX}; split the set"
    )]
    FileTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Another JSON type than the schema's.
    #[error("`{name}` must be {expected}, but this is {actual}")]
    WrongType {
        /// The property.
        name: String,
        /// The types that are accepted.
        expected: &'static str,
        /// The type that is there.
        actual: &'static str,
    },
    /// A property that the schema requires.
    #[error("`{name}` is missing")]
    MissingProperty {
        /// The property.
        name: &'static str,
    },
    /// A property that the schema has no meaning for.
    #[error("`{name}` has no meaning here{nearest}")]
    UnknownProperty {
        /// The property.
        name: String,
        /// A property of the schema.
        nearest: NearestWord,
    },
    /// Another word than `ENABLED` and `DISABLED`.
    #[error("`state` must be `ENABLED` or `DISABLED`, but is `{actual}`{nearest}")]
    UnknownState {
        /// The word.
        actual: String,
        /// The state that was probably meant.
        nearest: NearestWord,
    },
    /// An empty or overlong name.
    #[error("a name must have 1 to {NAME_BYTES_MAX} bytes, but this has {bytes}")]
    NameLength {
        /// Its length.
        bytes: usize,
    },
    /// Above [`FLAGS_MAX`].
    #[error("the set has {count} flags, above the limit of {FLAGS_MAX}; split the set")]
    TooManyFlags {
        /// How many there are.
        count: usize,
    },
    /// None, or above [`VARIANTS_MAX`].
    #[error("a flag must have 1 to {VARIANTS_MAX} variants, but this has {count}")]
    VariantCount {
        /// How many there are.
        count: usize,
    },
    /// Variants of two types.
    #[error(
        "variant `{variant}` is {actual}, but `{first}` is {expected}; all variants of a flag must be of one type"
    )]
    MixedVariants {
        /// The variant that differs.
        variant: String,
        /// Its type.
        actual: &'static str,
        /// The flag's first variant.
        first: String,
        /// The type of the first.
        expected: &'static str,
    },
    /// A number that not every client reads exactly.
    #[error(
        "the integer is beyond ±{SAFE_INTEGER_MAX}, which not every client reads exactly; use a string"
    )]
    UnsafeInteger,
    /// A name that is none of the flag's variants.
    #[error("`{variant}` is none of the flag's variants{nearest}")]
    UnknownVariant {
        /// The name.
        variant: String,
        /// A variant of the flag.
        nearest: NearestWord,
    },
    /// A result of targeting that can't name a variant.
    #[error("targeting must give the name of a variant or null, but this is {actual}")]
    ResultNotVariant {
        /// Its type.
        actual: &'static str,
    },
    /// An operator that flagd doesn't have.
    #[error("unknown operator `{operator}`{nearest}")]
    UnknownOperator {
        /// The operator.
        operator: String,
        /// An operator of flagd.
        nearest: NearestWord,
    },
    /// An object that isn't one operator with its arguments.
    #[error("a rule must be an object with one operator, but this has {count} keys")]
    OperatorCount {
        /// How many keys it has.
        count: usize,
    },
    /// Too few or too many arguments.
    #[error("`{operator}` takes {expected}, but here are {actual}")]
    ArgumentCount {
        /// The operator.
        operator: &'static str,
        /// How many it takes, in words.
        expected: String,
        /// How many there are.
        actual: usize,
    },
    /// An argument that the operator can't use.
    #[error("`{operator}` needs {expected} here, but this is {actual}")]
    ArgumentType {
        /// The operator.
        operator: &'static str,
        /// What it can use.
        expected: &'static str,
        /// The argument.
        actual: String,
    },
    /// Another word than the operators of `sem_ver`.
    #[error("`sem_ver` compares with =, !=, <, <=, >, >=, ^ or ~, not with `{actual}`{nearest}")]
    UnknownVersionOperator {
        /// The word.
        actual: String,
        /// The operator that was probably meant.
        nearest: NearestWord,
    },
    /// A text that isn't a version.
    #[error("`{actual}` is not a semantic version such as 1.4.0")]
    InvalidVersion {
        /// The text.
        actual: String,
    },
    /// A weight below 0 or with a fraction.
    #[error("a weight must be a whole number from 0 on, but this is {actual}")]
    InvalidWeight {
        /// The weight.
        actual: String,
    },
    /// Above [`WEIGHT_TOTAL_MAX`].
    #[error(
        "the weights add up to {total}, above the limit of {WEIGHT_TOTAL_MAX}; use smaller ones of the same ratio"
    )]
    WeightTotal {
        /// Their sum.
        total: u64,
    },
    /// A bucket that isn't `[variant, weight]`.
    #[error("a bucket must be [variant, weight] or [variant]")]
    MalformedBucket,
    /// A `$flagd` property that evaluations don't have.
    #[error(
        "`{name}` is unknown: evaluations have `$flagd.flagKey` and `$flagd.timestamp`{nearest}"
    )]
    UnknownFlagdProperty {
        /// The path.
        name: String,
        /// The property that was probably meant.
        nearest: NearestWord,
    },
    /// A `$ref` to no evaluator and no segment.
    #[error("`$ref` names `{name}`, but there is no such evaluator or segment{nearest}")]
    UnknownEvaluator {
        /// The name.
        name: String,
        /// An evaluator of the set.
        nearest: NearestWord,
    },
    /// Evaluators that refer to each other.
    #[error("`$ref` leads back to itself: {chain}")]
    CyclicEvaluators {
        /// The names, from the first to itself.
        chain: String,
    },
    /// Above [`TARGETING_DEPTH_MAX`].
    #[error(
        "targeting nests deeper than {TARGETING_DEPTH_MAX} levels, evaluators included; use fewer levels"
    )]
    TargetingTooDeep,
    /// An evaluator and a segment of one name.
    #[error("`{name}` is an evaluator of the flag file too; rename the segment")]
    SegmentNameTaken {
        /// The name.
        name: String,
    },
    /// Details or a prerequisite of a flag that is not in the file.
    #[error("there is no flag `{name}`{nearest}")]
    UnknownFlag {
        /// The flag's key.
        name: String,
        /// A flag of the set.
        nearest: NearestWord,
    },
    /// Flags that require each other.
    #[error("prerequisites lead back to the flag itself: {chain}")]
    CyclicPrerequisites {
        /// The flags' keys, from the first to itself.
        chain: String,
    },
    /// Above [`PREREQUISITE_CHAIN_MAX`].
    #[error("prerequisites form a chain of more than {PREREQUISITE_CHAIN_MAX} flags; shorten it")]
    PrerequisiteChain,
    /// A release flag that would stay for ever.
    #[error("a release flag must expire; set `expires` to a date, or use another kind")]
    ReleaseWithoutExpiry,
    /// Another bucketing version than the set's so far.
    #[error(
        "the set buckets with {current} and the new file with {new}: every user would get another bucket; set `bucketing` to {current}"
    )]
    BucketingChanged {
        /// The version in use.
        current: BucketingVersion,
        /// The version of the new file.
        new: BucketingVersion,
    },
    /// A prerequisite that no variant meets.
    #[error("a prerequisite must list the variants of `{flag}` that meet it")]
    PrerequisiteVariants {
        /// The required flag.
        flag: String,
    },
}

/// A flag file that was refused, with its problems in the order of the file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct FlagFileError {
    /// At least one; at most [`PROBLEMS_REPORTED_MAX`](crate::limits::PROBLEMS_REPORTED_MAX).
    pub diagnostics: Vec<FlagDiagnostic>,
    /// Problems beyond those.
    pub unreported: usize,
}

impl fmt::Display for FlagFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.unreported > 0 {
            write!(f, "\nand {} more", self.unreported)?;
        }
        Ok(())
    }
}
