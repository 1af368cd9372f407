//! Values as Rust types, for programs that evaluate in-process.

use serde_json::{Map, Value};

use crate::context::EvaluationContext;
use crate::definition::FlagSet;
use crate::evaluation::FlagEvaluation;
use crate::evaluation_error::{EvaluationError, EvaluationErrorCode};

/// A Rust type that flags have values of: `bool`, `&str`, `i64`, `f64`, and a JSON object.
pub trait FlagValue<'f>: Sized {
    /// The type as an error names it.
    const TYPE_NAME: &'static str;

    /// The value as this type, if it is one without loss.
    fn from_json(value: &'f Value) -> Option<Self>;
}

impl<'f> FlagValue<'f> for bool {
    const TYPE_NAME: &'static str = "a boolean";

    fn from_json(value: &'f Value) -> Option<bool> {
        value.as_bool()
    }
}

impl<'f> FlagValue<'f> for &'f str {
    const TYPE_NAME: &'static str = "a string";

    fn from_json(value: &'f Value) -> Option<&'f str> {
        value.as_str()
    }
}

impl<'f> FlagValue<'f> for i64 {
    const TYPE_NAME: &'static str = "an integer";

    fn from_json(value: &'f Value) -> Option<i64> {
        value.as_i64().or_else(|| {
            let float = value.as_f64()?;
            let is_integer = float.fract() == 0.0 && float.abs() < 9.0e15;
            is_integer.then_some(float as i64)
        })
    }
}

impl<'f> FlagValue<'f> for f64 {
    const TYPE_NAME: &'static str = "a number";

    fn from_json(value: &'f Value) -> Option<f64> {
        value.as_f64()
    }
}

impl<'f> FlagValue<'f> for &'f Map<String, Value> {
    const TYPE_NAME: &'static str = "an object";

    fn from_json(value: &'f Value) -> Option<&'f Map<String, Value>> {
        value.as_object()
    }
}

impl<'f> FlagEvaluation<'f> {
    /// The value as a Rust type; `None` when the caller's own default counts.
    ///
    /// # Errors
    /// `TYPE_MISMATCH`
    pub fn typed_value<T: FlagValue<'f>>(&self) -> Result<Option<T>, EvaluationError> {
        let Some(value) = self.value else {
            return Ok(None);
        };
        T::from_json(value).map(Some).ok_or_else(|| {
            EvaluationError::new(
                EvaluationErrorCode::TypeMismatch,
                format!(
                    "the value of `{}` is {value}, not {}",
                    self.key,
                    T::TYPE_NAME
                ),
            )
        })
    }
}

impl FlagSet {
    /// The value of a flag, or `default` when the flag has none for this context or can't be evaluated.
    pub fn value_or<'f, T: FlagValue<'f>>(
        &'f self,
        key: &str,
        context: &EvaluationContext,
        default: T,
    ) -> T {
        self.evaluate(key, context)
            .and_then(|evaluation| evaluation.typed_value())
            .ok()
            .flatten()
            .unwrap_or(default)
    }
}
