//! Feature flags in flagd's format, evaluated inside any Rust program. Pure: no clock, no files, no network.
//!
//! ```
//! use shipway_flags::{EvaluationContext, EvaluationReason, FlagSet, FlagSetHandle, FlagSetSource};
//!
//! let file = r#"{
//!   "flags": {
//!     "new-checkout": {
//!       "state": "ENABLED",
//!       "variants": {"on": true, "off": false},
//!       "defaultVariant": "off",
//!       "targeting": {"if": [
//!         {"ends_with": [{"var": "email"}, "@example.com"]}, "on",
//!         {"fractional": [["on", 10], ["off", 90]]}
//!       ]}
//!     }
//!   }
//! }"#;
//! let flags = FlagSetHandle::new(FlagSet::parse(file)?);
//!
//! // For each request: the time, the user, and what rules read of it.
//! let context = EvaluationContext::new(1_764_547_200)
//!     .with_targeting_key("user-17")
//!     .with_attribute("email", "ada@example.com");
//! let set = flags.current();
//! assert!(set.value_or("new-checkout", &context, false));
//!
//! let evaluation = set.evaluate("new-checkout", &context)?;
//! assert_eq!(evaluation.variant, Some("on"));
//! assert_eq!(evaluation.reason, EvaluationReason::TargetingMatch);
//!
//! // A bad file changes nothing and says where it is wrong.
//! let broken = file.replace("\"defaultVariant\": \"off\"", "\"defaultVariant\": \"offf\"");
//! let source = FlagSetSource { definitions: &broken, details: None, strictness: Default::default() };
//! let error = flags.reload(&source).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "6:25: /flags/new-checkout/defaultVariant: `offf` is none of the flag's variants; did you mean `off`?",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Rules
//!
//! - An unknown flag is `FLAG_NOT_FOUND`. A disabled one gives no value, with the reason `DISABLED`: callers use their own default.
//! - Without targeting, or with `{}`, the default variant is given, with `STATIC`; with `DEFAULT` if there is none.
//! - A rule that gives null, and an operator of flagd's own that can't use its arguments, give the default variant with `DEFAULT`.
//! - A rule that names a variant gives it with `TARGETING_MATCH`, or with `SPLIT` when a percentage decided. Any other result is `GENERAL`.
//! - A rule that can't be evaluated is `PARSE_ERROR` for its flag only, when its file was read leniently; a strict reader refuses the file.
//! - Raising a percentage only adds users, as long as its variant comes first.
//!
//! Where JsonLogic is defined by JavaScript, its conversions are kept, but arrays and objects are equal when what they hold is equal.
//!
//! # Limits
//!
//! [`limits`] states them all; nothing that a file or a context holds makes an evaluation panic or run for long.

mod bucketing;
mod cbor;
mod context;
mod definition;
mod details;
mod diagnostic;
mod document_value;
mod evaluation;
mod evaluation_error;
mod handle;
mod json_position;
pub mod limits;
mod prerequisites;
mod problem_list;
mod reader;
mod result_check;
mod schema;
mod targeting;
mod typed_value;

pub use bucketing::{
    BucketingVersion, bucket_for, choose_variant, hash_key, murmur3_32, scale_hash,
};
pub use context::EvaluationContext;
pub use definition::{
    FlagDefinition, FlagFileStrictness, FlagSet, FlagSetSource, FlagState, FlagValueType,
};
pub use details::{FlagDetails, FlagKind, FlagPrerequisite, FlagSetDetails};
pub use diagnostic::{FlagDiagnostic, FlagDocument, FlagFileError, FlagProblem, NearestWord};
pub use evaluation::{EvaluationReason, FlagEvaluation};
pub use evaluation_error::{EvaluationError, EvaluationErrorCode};
pub use handle::FlagSetHandle;
pub use json_position::TextPosition;
pub use typed_value::FlagValue;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/flags.md")]
struct FlagsPage;
