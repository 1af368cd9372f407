//! What a flag file, a context and an evaluation may be at most. Each limit stops an input, not a user: real sets stay far below.

/// Bytes of a flag file.
pub const FLAG_FILE_BYTES_MAX: usize = 64 << 20;
/// Flags in a set.
pub const FLAGS_MAX: usize = 100_000;
/// Bytes of a flag's key, a variant's name or an evaluator's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Variants of a flag.
pub const VARIANTS_MAX: usize = 1_000;
/// Levels of operators in a targeting rule, with the evaluators it refers to: an evaluation recurses that deep.
pub const TARGETING_DEPTH_MAX: usize = 64;
/// The sum of the weights of a `fractional`: with it `hash * total` fits 64 bits in every language of flagd's providers.
pub const WEIGHT_TOTAL_MAX: u32 = i32::MAX as u32;
/// Bytes of a context: names and texts, and [`CONTEXT_VALUE_BYTES`] for each value.
pub const CONTEXT_BYTES_MAX: usize = 1 << 20;
/// What a value of a context counts at least against [`CONTEXT_BYTES_MAX`].
pub const CONTEXT_VALUE_BYTES: usize = 8;
/// Levels of arrays and objects in a context.
pub const CONTEXT_DEPTH_MAX: usize = 32;
/// Operators, elements and blocks of 16 bytes of text that one evaluation may compute: 10 ms or so.
pub const EVALUATION_STEPS_MAX: u32 = 500_000;
/// The same for an evaluation of all flags of a set: 200 ms or so.
pub const BULK_EVALUATION_STEPS_MAX: u32 = 20 * EVALUATION_STEPS_MAX;
/// Words that a suggestion is searched among.
pub(crate) const SUGGESTION_WORDS_MAX: usize = 2_000;
/// Flags in a chain of prerequisites.
pub const PREREQUISITE_CHAIN_MAX: usize = 16;
/// Problems of a file that are reported; there may be more.
pub const PROBLEMS_REPORTED_MAX: usize = 50;
/// The largest integer that every JSON number type holds exactly: 2⁵³−1.
pub const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;
