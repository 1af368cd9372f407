//! The subject of an evaluation with its attributes.

use serde_json::{Map, Value};

use crate::evaluation_error::{EvaluationError, EvaluationErrorCode};
use crate::limits::{CONTEXT_BYTES_MAX, CONTEXT_DEPTH_MAX, CONTEXT_VALUE_BYTES};

/// The attribute that names the subject.
pub(crate) const TARGETING_KEY: &str = "targetingKey";

/// The subject of an evaluation and its attributes, with the time of the request. One serves all flags of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationContext {
    /// Always an object.
    attributes: Value,
    unix_seconds: i64,
}

impl EvaluationContext {
    /// A context without attributes. `unix_seconds` is what rules read as `$flagd.timestamp`.
    #[must_use]
    pub fn new(unix_seconds: i64) -> EvaluationContext {
        EvaluationContext {
            attributes: Value::Object(Map::new()),
            unix_seconds,
        }
    }

    /// The context that a client sent.
    ///
    /// # Errors
    /// `INVALID_CONTEXT`: not an object, a `targetingKey` that is not a string, above [`CONTEXT_BYTES_MAX`] or
    /// [`CONTEXT_DEPTH_MAX`].
    pub fn from_value(
        context: Value,
        unix_seconds: i64,
    ) -> Result<EvaluationContext, EvaluationError> {
        let Value::Object(attributes) = context else {
            return Err(invalid_context("the context must be a JSON object"));
        };
        match attributes.get(TARGETING_KEY) {
            None | Some(Value::String(_) | Value::Null) => {}
            Some(_) => {
                return Err(invalid_context("`targetingKey` must be a string"));
            }
        }
        let mut bytes_left = CONTEXT_BYTES_MAX;
        for (name, value) in &attributes {
            bytes_left = bytes_left
                .checked_sub(name.len())
                .and_then(|left| subtract_size(value, left, CONTEXT_DEPTH_MAX))
                .ok_or_else(|| {
                    invalid_context(&format!(
                        "the context is above {CONTEXT_BYTES_MAX} bytes or {CONTEXT_DEPTH_MAX} levels; send the \
                         attributes that flags use"
                    ))
                })?;
        }
        Ok(EvaluationContext {
            attributes: Value::Object(attributes),
            unix_seconds,
        })
    }

    /// The context that a client sent, as JSON text.
    ///
    /// # Errors
    /// `INVALID_CONTEXT`: as for [`EvaluationContext::from_value`], or not JSON.
    pub fn from_json(text: &[u8], unix_seconds: i64) -> Result<EvaluationContext, EvaluationError> {
        if text.len() > CONTEXT_BYTES_MAX {
            return Err(invalid_context(&format!(
                "the context is {} bytes long, above the limit of {CONTEXT_BYTES_MAX}",
                text.len()
            )));
        }
        let value = serde_json::from_slice(text)
            .map_err(|error| invalid_context(&format!("the context is invalid JSON: {error}")))?;
        EvaluationContext::from_value(value, unix_seconds)
    }

    /// The same context with the subject's key, which percentages are computed from.
    #[must_use]
    pub fn with_targeting_key(self, key: impl Into<String>) -> EvaluationContext {
        self.with_attribute(TARGETING_KEY, key.into())
    }

    /// The same context with an attribute, which replaces one of the same name.
    #[must_use]
    pub fn with_attribute(
        mut self,
        name: impl Into<String>,
        value: impl Into<Value>,
    ) -> EvaluationContext {
        if let Value::Object(attributes) = &mut self.attributes {
            attributes.insert(name.into(), value.into());
        }
        self
    }

    /// The subject's key, unless it is missing or empty.
    #[must_use]
    pub fn targeting_key(&self) -> Option<&str> {
        let key = self.attributes.get(TARGETING_KEY)?.as_str()?;
        (!key.is_empty()).then_some(key)
    }

    /// The subject's key, for callers that accept no request without one.
    ///
    /// # Errors
    /// `TARGETING_KEY_MISSING`
    pub fn require_targeting_key(&self) -> Result<&str, EvaluationError> {
        self.targeting_key().ok_or_else(|| {
            EvaluationError::new(
                EvaluationErrorCode::TargetingKeyMissing,
                "the context has no `targetingKey`: send the user's id",
            )
        })
    }

    /// All attributes as an object, `targetingKey` among them.
    #[must_use]
    pub fn attributes(&self) -> &Value {
        &self.attributes
    }

    /// The time of the request.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        self.unix_seconds
    }
}

fn invalid_context(message: &str) -> EvaluationError {
    EvaluationError::new(EvaluationErrorCode::InvalidContext, message)
}

/// `bytes` without the size of `value`; `None` when it is larger, or nests deeper than `depth` levels.
fn subtract_size(value: &Value, bytes: usize, depth: usize) -> Option<usize> {
    let left = bytes.checked_sub(CONTEXT_VALUE_BYTES)?;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(left),
        Value::String(text) => left.checked_sub(text.len()),
        Value::Array(elements) => {
            let depth = depth.checked_sub(1)?;
            elements
                .iter()
                .try_fold(left, |left, element| subtract_size(element, left, depth))
        }
        Value::Object(members) => {
            let depth = depth.checked_sub(1)?;
            members.iter().try_fold(left, |left, (name, member)| {
                subtract_size(member, left.checked_sub(name.len())?, depth)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_context_is_an_object_with_a_key_of_text_within_the_limits() {
        let code = |context: Value| {
            EvaluationContext::from_value(context, 0)
                .map(|_| ())
                .map_err(|error| error.code)
        };
        assert_eq!(
            code(json!({"targetingKey": "a", "n": [1, {"b": null}]})),
            Ok(())
        );
        let invalid = Err(EvaluationErrorCode::InvalidContext);
        for context in [
            json!(null),
            json!([]),
            json!({"targetingKey": 7}),
            json!({"text": "x".repeat(CONTEXT_BYTES_MAX)}),
            json!({"many": vec![0; CONTEXT_BYTES_MAX / 8]}),
        ] {
            assert_eq!(code(context), invalid);
        }
        let deep = (0..CONTEXT_DEPTH_MAX + 1).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(code(json!({ "deep": deep })), invalid);
        let huge = vec![b' '; 10 << 20];
        assert!(EvaluationContext::from_json(&huge, 0).is_err());
    }

    #[test]
    fn an_empty_key_is_a_missing_key() {
        let context = EvaluationContext::new(0).with_targeting_key("");
        assert_eq!(context.targeting_key(), None);
        let error = context.require_targeting_key().unwrap_err();
        assert_eq!(error.code, EvaluationErrorCode::TargetingKeyMissing);
    }
}
