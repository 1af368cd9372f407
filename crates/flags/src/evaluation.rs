//! What a flag gives for a context, and why.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::context::EvaluationContext;
use crate::definition::{FlagDefinition, FlagSet, FlagState, FlagTargeting};
use crate::evaluation_error::{EvaluationError, EvaluationErrorCode};
use crate::limits::{BULK_EVALUATION_STEPS_MAX, EVALUATION_STEPS_MAX};
use crate::targeting::{
    EvaluationBudget, RuleInterpreter, RuleInterruption, TargetingExpression, TargetingOperand,
};

/// A result of a flag. It borrows from the set: taking it apart costs no allocation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlagEvaluation<'f> {
    /// The flag's key.
    pub key: &'f str,
    /// The variant's name; `None` when the caller's own default counts.
    pub variant: Option<&'f str>,
    /// The variant's value.
    pub value: Option<&'f Value>,
    /// Why it is this variant.
    pub reason: EvaluationReason,
    /// The flag's metadata with the set's.
    pub metadata: &'f Map<String, Value>,
    /// The flag whose variant does not meet a prerequisite.
    pub unmet_prerequisite: Option<&'f str>,
}

/// OpenFeature's words for why a variant was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EvaluationReason {
    /// The flag has no rules: the same for every context.
    Static,
    /// The rules gave no variant, or a prerequisite is not met.
    Default,
    /// A rule named the variant.
    TargetingMatch,
    /// A percentage did.
    Split,
    /// The flag is disabled: the caller's own default counts.
    Disabled,
}

impl EvaluationReason {
    /// As OpenFeature writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EvaluationReason::Static => "STATIC",
            EvaluationReason::Default => "DEFAULT",
            EvaluationReason::TargetingMatch => "TARGETING_MATCH",
            EvaluationReason::Split => "SPLIT",
            EvaluationReason::Disabled => "DISABLED",
        }
    }
}

impl fmt::Display for EvaluationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The variant by its place, with the reason.
type VariantChoice = (Option<usize>, EvaluationReason, Option<usize>);

impl FlagSet {
    /// Evaluates one flag.
    ///
    /// # Errors
    /// `FLAG_NOT_FOUND`; `PARSE_ERROR` for a rule that can't be evaluated; `GENERAL` for a rule that names no variant or takes too many
    /// steps.
    pub fn evaluate(
        &self,
        key: &str,
        context: &EvaluationContext,
    ) -> Result<FlagEvaluation<'_>, EvaluationError> {
        let index = self.flags.get_index_of(key).ok_or_else(|| {
            EvaluationError::new(
                EvaluationErrorCode::FlagNotFound,
                format!("there is no flag `{key}` in the set"),
            )
        })?;
        let mut budget = EvaluationBudget::new(EVALUATION_STEPS_MAX);
        self.evaluate_at(index, context, &mut budget)
    }

    /// Evaluates all flags, in the order of the file. An error is that of its flag only.
    ///
    /// Together they may take [`BULK_EVALUATION_STEPS_MAX`] steps; the rules of flags after that give `GENERAL`.
    pub fn evaluate_all<'s>(
        &'s self,
        context: &'s EvaluationContext,
    ) -> impl ExactSizeIterator<Item = (&'s str, Result<FlagEvaluation<'s>, EvaluationError>)> {
        let mut steps_left = BULK_EVALUATION_STEPS_MAX;
        self.flags.keys().enumerate().map(move |(index, key)| {
            let steps = steps_left.min(EVALUATION_STEPS_MAX);
            let mut budget = EvaluationBudget::new(steps);
            let result = self.evaluate_at(index, context, &mut budget);
            steps_left -= steps - budget.remaining_steps();
            (key.as_ref(), result)
        })
    }

    fn evaluate_at(
        &self,
        index: usize,
        context: &EvaluationContext,
        budget: &mut EvaluationBudget,
    ) -> Result<FlagEvaluation<'_>, EvaluationError> {
        let (key, flag) = self.flag_at(index);
        let (variant, reason, unmet) = self.choose_variant(key, flag, context, budget)?;
        let entry = variant.and_then(|variant| flag.variants.entries.get(variant));
        Ok(FlagEvaluation {
            key,
            variant: entry.map(|(name, _)| name.as_ref()),
            value: entry.map(|(_, value)| value),
            reason,
            metadata: flag.metadata.as_ref().unwrap_or(&self.metadata),
            unmet_prerequisite: unmet.map(|unmet| self.flag_at(unmet).0),
        })
    }

    fn flag_at(&self, index: usize) -> (&str, &FlagDefinition) {
        let (key, flag) = self
            .flags
            .get_index(index)
            .expect("places come from the set");
        (key, flag)
    }

    fn choose_variant(
        &self,
        key: &str,
        flag: &FlagDefinition,
        context: &EvaluationContext,
        budget: &mut EvaluationBudget,
    ) -> Result<VariantChoice, EvaluationError> {
        if flag.state == FlagState::Disabled {
            return Ok((None, EvaluationReason::Disabled, None));
        }
        for prerequisite in &flag.prerequisites {
            budget.charge(1).map_err(|_| too_many_steps())?;
            let (other_key, other) = self.flag_at(prerequisite.flag);
            let is_met = match self.choose_variant(other_key, other, context, budget) {
                Ok((variant, _, _)) => {
                    variant.is_some_and(|variant| prerequisite.variants.contains(&variant))
                }
                Err(error) if budget.is_exhausted() => return Err(error),
                // Its own evaluation says why.
                Err(_) => false,
            };
            if !is_met {
                let variant = flag.unmet_variant.or(flag.default_variant);
                return Ok((variant, EvaluationReason::Default, Some(prerequisite.flag)));
            }
        }
        match &flag.targeting {
            FlagTargeting::None => {
                let is_static = flag.prerequisites.is_empty() && flag.default_variant.is_some();
                let reason = if is_static {
                    EvaluationReason::Static
                } else {
                    EvaluationReason::Default
                };
                Ok((flag.default_variant, reason, None))
            }
            FlagTargeting::Invalid(message) => Err(EvaluationError::new(
                EvaluationErrorCode::ParseError,
                message.as_ref(),
            )),
            FlagTargeting::Rule(rule) => {
                let mut interpreter = RuleInterpreter {
                    context,
                    flag_key: key,
                    bucketing: self.bucketing,
                    budget,
                    is_split: false,
                };
                let (variant, reason) = evaluate_targeting(&mut interpreter, rule, flag)?;
                Ok((variant, reason, None))
            }
        }
    }
}

fn evaluate_targeting<'a>(
    interpreter: &mut RuleInterpreter<'a, '_>,
    rule: &'a TargetingExpression,
    flag: &FlagDefinition,
) -> Result<(Option<usize>, EvaluationReason), EvaluationError> {
    let result = match interpreter.evaluate_rule(rule) {
        Ok(result) => result,
        Err(RuleInterruption::OperatorFailed) => TargetingOperand::Null,
        Err(RuleInterruption::BudgetExceeded) => return Err(too_many_steps()),
    };
    let name = match &result {
        TargetingOperand::Null => {
            return Ok((flag.default_variant, EvaluationReason::Default));
        }
        TargetingOperand::Text(name) => name.as_ref(),
        TargetingOperand::Boolean(true) => "true",
        TargetingOperand::Boolean(false) => "false",
        TargetingOperand::Number(_) | TargetingOperand::Json(_) | TargetingOperand::List(_) => {
            return Err(EvaluationError::new(
                EvaluationErrorCode::General,
                "targeting gave a value that can't name a variant; it must give a string, a boolean or null",
            ));
        }
    };
    let reason = if interpreter.is_split {
        EvaluationReason::Split
    } else {
        EvaluationReason::TargetingMatch
    };
    match flag.variants.index_of(name) {
        Some(variant) => Ok((Some(variant), reason)),
        None => Err(EvaluationError::new(
            EvaluationErrorCode::General,
            format!("targeting gave `{name}`, which is none of the flag's variants"),
        )),
    }
}

fn too_many_steps() -> EvaluationError {
    EvaluationError::new(
        EvaluationErrorCode::General,
        "the flag's rules take too many steps for this context; send a smaller context or simplify them",
    )
}
