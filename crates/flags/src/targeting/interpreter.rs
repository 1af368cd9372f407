//! Evaluates compiled rules.
//!
//! *Failure modes*: an operator of flagd's own (`fractional`, `sem_ver`, `starts_with`, `ends_with`, `lower`, `upper`) that can't use its
//! arguments ends the whole rule with no result, so that the default variant is served; JsonLogic's operators convert what they get.
//! Each evaluation has a budget of steps, because rules iterate over what a caller sends.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::expression::{
    LetterCase, OperandComparison, TargetingExpression, TextEdge, VariablePath, VersionComparison,
    VersionOperatorSource, VersionSource,
};
use super::operand::{TEXT_BYTES_PER_STEP, TargetingOperand};
use super::version_test::{VersionOperator, version_from_operand};
use crate::bucketing::BucketingVersion;
use crate::context::EvaluationContext;

/// Why a rule ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleInterruption {
    /// An operator could not use its arguments: the default variant is served.
    OperatorFailed,
    /// No steps are left.
    BudgetExceeded,
}

/// The steps that are left.
#[derive(Debug)]
pub(crate) struct EvaluationBudget {
    steps_left: u32,
}

impl EvaluationBudget {
    pub(crate) fn new(steps: u32) -> EvaluationBudget {
        EvaluationBudget { steps_left: steps }
    }

    pub(crate) fn remaining_steps(&self) -> u32 {
        self.steps_left
    }

    pub(crate) fn charge(&mut self, steps: usize) -> Result<(), RuleInterruption> {
        let left = u32::try_from(steps)
            .ok()
            .and_then(|steps| self.steps_left.checked_sub(steps));
        self.steps_left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(RuleInterruption::BudgetExceeded)
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.steps_left == 0
    }

    pub(crate) fn charge_text(&mut self, bytes: usize) -> Result<(), RuleInterruption> {
        self.charge(bytes / TEXT_BYTES_PER_STEP)
    }
}

/// What variables are relative to.
pub(super) enum VariableScope<'a> {
    Context,
    Element(TargetingOperand<'a>),
    Reduction {
        current: TargetingOperand<'a>,
        accumulator: TargetingOperand<'a>,
    },
}

/// Evaluates rules of one flag for one context.
pub(crate) struct RuleInterpreter<'a, 'b> {
    pub(crate) context: &'a EvaluationContext,
    pub(crate) flag_key: &'a str,
    pub(crate) bucketing: BucketingVersion,
    pub(crate) budget: &'b mut EvaluationBudget,
    /// Whether a `fractional` chose a bucket.
    pub(crate) is_split: bool,
}

pub(super) type OperandResult<'a> = Result<TargetingOperand<'a>, RuleInterruption>;

impl<'a> RuleInterpreter<'a, '_> {
    pub(crate) fn evaluate_rule(&mut self, rule: &'a TargetingExpression) -> OperandResult<'a> {
        self.evaluate(rule, &VariableScope::Context)
    }

    pub(super) fn evaluate(
        &mut self,
        expression: &'a TargetingExpression,
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        use TargetingExpression as Expression;
        self.budget.charge(1)?;
        Ok(match expression {
            Expression::Null => TargetingOperand::Null,
            Expression::Boolean(boolean) => TargetingOperand::Boolean(*boolean),
            Expression::Number(number) => TargetingOperand::Number(*number),
            Expression::Text(text) => TargetingOperand::Text(Cow::Borrowed(text)),
            Expression::ConstantArray(array) => TargetingOperand::Json(array),
            Expression::Array(elements) => {
                TargetingOperand::List(self.evaluate_all(elements, scope)?)
            }
            Expression::Variable { path, default } => match self.find_variable(path, scope)? {
                Some(value) => value,
                None => match default {
                    Some(default) => self.evaluate(default, scope)?,
                    None => TargetingOperand::Null,
                },
            },
            Expression::ComputedVariable(arguments) => {
                self.find_computed_variable(arguments, scope)?
            }
            Expression::Missing(arguments) => self.find_missing(arguments, scope)?,
            Expression::MissingSome(arguments) => self.find_missing_some(arguments, scope)?,
            Expression::If(branches) => self.choose_branch(branches, scope)?,
            Expression::And(operands) => {
                self.find_first(operands, scope, |operand| !operand.is_truthy())?
            }
            Expression::Or(operands) => {
                self.find_first(operands, scope, TargetingOperand::is_truthy)?
            }
            Expression::Not(operand) => {
                TargetingOperand::Boolean(!self.evaluate(operand, scope)?.is_truthy())
            }
            Expression::IsTruthy(operand) => {
                TargetingOperand::Boolean(self.evaluate(operand, scope)?.is_truthy())
            }
            Expression::Compare(operator, operands) => {
                TargetingOperand::Boolean(self.compare(*operator, operands, scope)?)
            }
            Expression::Calculate(operator, operands) => {
                self.calculate(*operator, operands, scope)?
            }
            Expression::In(operands) => self.find_in(operands, scope)?,
            Expression::Concatenate(operands) => self.concatenate(operands, scope)?,
            Expression::Substring(operands) => self.cut_text(operands, scope)?,
            Expression::Merge(operands) => self.merge(operands, scope)?,
            Expression::Iterate(operator, operands) => self.iterate(*operator, operands, scope)?,
            Expression::Reduce(operands) => self.reduce(operands, scope)?,
            Expression::CompareEdge(edge, operands) => self.compare_edge(*edge, operands, scope)?,
            Expression::ChangeCase(letter_case, operand) => {
                self.change_case(*letter_case, operand, scope)?
            }
            Expression::CompareVersions(comparison) => self.compare_versions(comparison, scope)?,
            Expression::Fractional(split) => self.choose_bucket(split, scope)?,
            Expression::Shared(rule) => self.evaluate(rule, scope)?,
            Expression::Failing => return Err(RuleInterruption::OperatorFailed),
        })
    }

    pub(super) fn evaluate_all(
        &mut self,
        expressions: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> Result<Vec<TargetingOperand<'a>>, RuleInterruption> {
        expressions
            .iter()
            .map(|expression| self.evaluate(expression, scope))
            .collect()
    }

    pub(super) fn evaluate_pair(
        &mut self,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> Result<(TargetingOperand<'a>, TargetingOperand<'a>), RuleInterruption> {
        let [left, right, ..] = operands else {
            return Err(RuleInterruption::OperatorFailed);
        };
        Ok((self.evaluate(left, scope)?, self.evaluate(right, scope)?))
    }

    /// `None` when the variable is missing; null when it is there and null.
    ///
    /// Within iterations a value costs steps by its size: it is copied or compared again for each element.
    pub(super) fn find_variable(
        &mut self,
        path: &VariablePath,
        scope: &VariableScope<'a>,
    ) -> Result<Option<TargetingOperand<'a>>, RuleInterruption> {
        let value = match path {
            VariablePath::FlagKey => Some(TargetingOperand::Text(Cow::Borrowed(self.flag_key))),
            VariablePath::Timestamp => Some(TargetingOperand::from_number(
                self.context.unix_seconds() as f64,
            )),
            VariablePath::Absent => None,
            VariablePath::Whole => match scope {
                VariableScope::Context => Some(TargetingOperand::Json(self.context.attributes())),
                VariableScope::Element(element) => Some(self.copy_value(element)?),
                VariableScope::Reduction { .. } => None,
            },
            VariablePath::Member(name) => self.find_member(name, scope)?,
            VariablePath::Nested(names) => match names.split_first() {
                Some((first, rest)) => {
                    let first = self.find_member(first, scope)?;
                    rest.iter()
                        .try_fold(first, |value, name| Some(value?.member(name)))
                        .flatten()
                }
                None => None,
            },
        };
        Ok(value)
    }

    fn find_member(
        &mut self,
        name: &str,
        scope: &VariableScope<'a>,
    ) -> Result<Option<TargetingOperand<'a>>, RuleInterruption> {
        Ok(match scope {
            VariableScope::Context => self
                .context
                .attributes()
                .get(name)
                .map(TargetingOperand::from_json),
            VariableScope::Element(element) => match element.member(name) {
                Some(member) => Some(self.copy_value(&member)?),
                None => None,
            },
            VariableScope::Reduction {
                current,
                accumulator,
            } => match name {
                "current" => Some(self.copy_value(current)?),
                "accumulator" => Some(self.copy_value(accumulator)?),
                _ => None,
            },
        })
    }

    fn copy_value(&mut self, value: &TargetingOperand<'a>) -> OperandResult<'a> {
        self.budget.charge(value.count_steps())?;
        Ok(value.clone())
    }

    fn find_computed_variable(
        &mut self,
        arguments: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let [path, default @ ..] = arguments else {
            return Ok(TargetingOperand::Null);
        };
        let path = self.evaluate(path, scope)?;
        let path = VariablePath::parse(&path.to_text());
        match (self.find_variable(&path, scope)?, default.first()) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => self.evaluate(default, scope),
            (None, None) => Ok(TargetingOperand::Null),
        }
    }

    fn choose_branch(
        &mut self,
        branches: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let (pairs, otherwise) = branches.as_chunks::<2>();
        for [condition, branch] in pairs {
            if self.evaluate(condition, scope)?.is_truthy() {
                return self.evaluate(branch, scope);
            }
        }
        match otherwise.first() {
            Some(otherwise) => self.evaluate(otherwise, scope),
            None => Ok(TargetingOperand::Null),
        }
    }

    /// The first operand that decides, or the last one. Those after it are not evaluated.
    fn find_first(
        &mut self,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
        decides: impl Fn(&TargetingOperand<'a>) -> bool,
    ) -> OperandResult<'a> {
        let mut last = TargetingOperand::Null;
        for operand in operands {
            last = self.evaluate(operand, scope)?;
            if decides(&last) {
                break;
            }
        }
        Ok(last)
    }

    fn compare(
        &mut self,
        operator: OperandComparison,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> Result<bool, RuleInterruption> {
        let (left, right) = self.evaluate_pair(operands, scope)?;
        Ok(match operator {
            OperandComparison::Equal => left.loosely_equals(&right),
            OperandComparison::NotEqual => !left.loosely_equals(&right),
            OperandComparison::StrictlyEqual => left.strictly_equals(&right),
            OperandComparison::StrictlyNotEqual => !left.strictly_equals(&right),
            OperandComparison::Less
            | OperandComparison::LessOrEqual
            | OperandComparison::Greater
            | OperandComparison::GreaterOrEqual => {
                is_in_order(operator, &left, &right)
                    && match operands.get(2) {
                        Some(upper) => is_in_order(operator, &right, &self.evaluate(upper, scope)?),
                        None => true,
                    }
            }
        })
    }

    fn compare_edge(
        &mut self,
        edge: TextEdge,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let (text, part) = self.evaluate_pair(operands, scope)?;
        let (Some(text), Some(part)) = (text.as_text(), part.as_text()) else {
            return Err(RuleInterruption::OperatorFailed);
        };
        Ok(TargetingOperand::Boolean(match edge {
            TextEdge::Start => text.starts_with(part),
            TextEdge::End => text.ends_with(part),
        }))
    }

    fn change_case(
        &mut self,
        letter_case: LetterCase,
        operand: &'a TargetingExpression,
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let operand = self.evaluate(operand, scope)?;
        let Some(text) = operand.as_text() else {
            return Err(RuleInterruption::OperatorFailed);
        };
        self.budget.charge_text(text.len())?;
        Ok(TargetingOperand::Text(Cow::Owned(match letter_case {
            LetterCase::Lower => text.to_ascii_lowercase(),
            LetterCase::Upper => text.to_ascii_uppercase(),
        })))
    }

    fn compare_versions(
        &mut self,
        comparison: &'a VersionComparison,
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let actual = self.find_version(&comparison.actual, scope)?;
        let operator = match &comparison.operator {
            VersionOperatorSource::Constant(operator) => *operator,
            VersionOperatorSource::Computed(operator) => self
                .evaluate(operator, scope)?
                .as_text()
                .and_then(VersionOperator::parse)
                .ok_or(RuleInterruption::OperatorFailed)?,
        };
        let expected = self.find_version(&comparison.expected, scope)?;
        Ok(TargetingOperand::Boolean(
            operator.matches(&actual, &expected),
        ))
    }

    fn find_version(
        &mut self,
        source: &'a VersionSource,
        scope: &VariableScope<'a>,
    ) -> Result<Cow<'a, semver::Version>, RuleInterruption> {
        match source {
            VersionSource::Constant(version) => Ok(Cow::Borrowed(version)),
            VersionSource::Computed(version) => {
                version_from_operand(&self.evaluate(version, scope)?)
                    .map(Cow::Owned)
                    .ok_or(RuleInterruption::OperatorFailed)
            }
        }
    }
}

fn is_in_order<'a>(
    operator: OperandComparison,
    left: &TargetingOperand<'a>,
    right: &TargetingOperand<'a>,
) -> bool {
    let Some(order) = left.compare(right) else {
        return false;
    };
    match operator {
        OperandComparison::Less => order == Ordering::Less,
        OperandComparison::LessOrEqual => order != Ordering::Greater,
        OperandComparison::Greater => order == Ordering::Greater,
        OperandComparison::GreaterOrEqual => order != Ordering::Less,
        OperandComparison::Equal
        | OperandComparison::NotEqual
        | OperandComparison::StrictlyEqual
        | OperandComparison::StrictlyNotEqual => false,
    }
}
