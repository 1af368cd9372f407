//! The operators that compute with arrays, texts and numbers, and `fractional`.

use std::borrow::Cow;

use super::expression::{
    ArithmeticOperator, BucketWeight, FractionalSplit, IterationOperator, TargetingExpression,
    VariablePath,
};
use super::interpreter::{OperandResult, RuleInterpreter, RuleInterruption, VariableScope};
use super::operand::TargetingOperand;
use crate::bucketing::{BucketingVersion, murmur3_32, scale_hash};
use crate::cbor::{push_array_head, push_float, push_text, push_value};
use crate::context::TARGETING_KEY;
use crate::limits::WEIGHT_TOTAL_MAX;

impl<'a> RuleInterpreter<'a, '_> {
    pub(super) fn find_missing(
        &mut self,
        arguments: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let mut names = self.evaluate_all(arguments, scope)?;
        if names
            .first()
            .is_some_and(|name| name.count_elements().is_some())
        {
            names = names.swap_remove(0).into_elements().unwrap_or_default();
        }
        self.list_missing(names, scope)
    }

    pub(super) fn find_missing_some(
        &mut self,
        arguments: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let (required, names) = self.evaluate_pair(arguments, scope)?;
        let names = names.into_elements().unwrap_or_default();
        let count = names.len();
        let missing = self.list_missing(names, scope)?;
        let present = count - missing.count_elements().unwrap_or(0);
        if present as f64 >= required.to_number().unwrap_or(f64::INFINITY) {
            return Ok(TargetingOperand::List(Vec::new()));
        }
        Ok(missing)
    }

    fn list_missing(
        &mut self,
        names: Vec<TargetingOperand<'a>>,
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let mut missing = Vec::new();
        for name in names {
            self.budget.charge(1 + name.count_steps())?;
            let value = self.find_variable(&VariablePath::parse(&name.to_text()), scope)?;
            match value {
                None | Some(TargetingOperand::Null) => missing.push(name),
                Some(value) if value.as_text() == Some("") => missing.push(name),
                Some(_) => {}
            }
        }
        Ok(TargetingOperand::List(missing))
    }

    pub(super) fn calculate(
        &mut self,
        operator: ArithmeticOperator,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let operands = self.evaluate_all(operands, scope)?;
        let number = match operator {
            ArithmeticOperator::Add => fold_numbers(&operands, 0.0, |sum, number| sum + number),
            ArithmeticOperator::Multiply => {
                fold_numbers(&operands, 1.0, |product, number| product * number)
            }
            ArithmeticOperator::Subtract => match operands.as_slice() {
                [number] => number.to_number().map(|number| -number),
                _ => calculate_pair(&operands, |left, right| left - right),
            },
            ArithmeticOperator::Divide => calculate_pair(&operands, |left, right| left / right),
            ArithmeticOperator::Remainder => calculate_pair(&operands, |left, right| left % right),
            ArithmeticOperator::Minimum => pick_number(&operands, f64::min),
            ArithmeticOperator::Maximum => pick_number(&operands, f64::max),
        };
        Ok(number.map_or(TargetingOperand::Null, TargetingOperand::from_number))
    }

    pub(super) fn find_in(
        &mut self,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let (needle, haystack) = self.evaluate_pair(operands, scope)?;
        if let Some(text) = haystack.as_text() {
            self.budget.charge_text(text.len())?;
            return Ok(TargetingOperand::Boolean(
                text.contains(needle.to_text().as_ref()),
            ));
        }
        let is_in = match &haystack {
            TargetingOperand::Json(serde_json::Value::Array(elements)) => {
                self.budget.charge(elements.len())?;
                elements
                    .iter()
                    .any(|element| TargetingOperand::from_json(element).strictly_equals(&needle))
            }
            TargetingOperand::List(elements) => {
                self.budget.charge(elements.len())?;
                elements
                    .iter()
                    .any(|element| element.strictly_equals(&needle))
            }
            _ => false,
        };
        Ok(TargetingOperand::Boolean(is_in))
    }

    pub(super) fn concatenate(
        &mut self,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let mut text = String::new();
        for operand in operands {
            let operand = self.evaluate(operand, scope)?;
            let part = operand.to_text();
            self.budget.charge_text(part.len())?;
            text.push_str(&part);
        }
        Ok(TargetingOperand::Text(Cow::Owned(text)))
    }

    /// `substr`: a negative start counts from the end, a negative length leaves that many characters out at the end.
    pub(super) fn cut_text(
        &mut self,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let (text, start) = self.evaluate_pair(operands, scope)?;
        let length = match operands.get(2) {
            Some(length) => Some(self.evaluate(length, scope)?.to_number().unwrap_or(0.0) as i64),
            None => None,
        };
        let text = text.to_text();
        self.budget.charge_text(text.len())?;
        let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        let start = start.to_number().unwrap_or(0.0) as i64;
        let start = if start < 0 {
            count.saturating_add(start).max(0)
        } else {
            start.min(count)
        };
        let end = match length {
            None => count,
            Some(length) if length < 0 => count.saturating_add(length),
            Some(length) => start.saturating_add(length).min(count),
        };
        let skipped = usize::try_from(start).unwrap_or(0);
        let taken = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        let cut: String = text.chars().skip(skipped).take(taken).collect();
        Ok(TargetingOperand::Text(Cow::Owned(cut)))
    }

    pub(super) fn merge(
        &mut self,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let mut merged = Vec::new();
        for operand in operands {
            let operand = self.evaluate(operand, scope)?;
            match operand.count_elements() {
                Some(count) => {
                    self.budget.charge(count)?;
                    merged.extend(operand.into_elements().unwrap_or_default());
                }
                None => merged.push(operand),
            }
        }
        Ok(TargetingOperand::List(merged))
    }

    pub(super) fn iterate(
        &mut self,
        operator: IterationOperator,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let [array, rule] = operands else {
            return Err(RuleInterruption::OperatorFailed);
        };
        let elements = self
            .evaluate(array, scope)?
            .into_elements()
            .unwrap_or_default();
        self.budget.charge(elements.len())?;
        let is_empty = elements.is_empty();
        let mut collected = Vec::new();
        for element in elements {
            let scope = VariableScope::Element(element);
            let result = self.evaluate(rule, &scope)?;
            let VariableScope::Element(element) = scope else {
                continue;
            };
            match (operator, result.is_truthy()) {
                (IterationOperator::Map, _) => collected.push(result),
                (IterationOperator::Filter, true) => collected.push(element),
                (IterationOperator::All, false) | (IterationOperator::None, true) => {
                    return Ok(TargetingOperand::Boolean(false));
                }
                (IterationOperator::Some, true) => return Ok(TargetingOperand::Boolean(true)),
                _ => {}
            }
        }
        Ok(match operator {
            IterationOperator::Map | IterationOperator::Filter => TargetingOperand::List(collected),
            IterationOperator::All => TargetingOperand::Boolean(!is_empty),
            IterationOperator::Some => TargetingOperand::Boolean(false),
            IterationOperator::None => TargetingOperand::Boolean(true),
        })
    }

    pub(super) fn reduce(
        &mut self,
        operands: &'a [TargetingExpression],
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let [array, rule, initial] = operands else {
            return Err(RuleInterruption::OperatorFailed);
        };
        let elements = self
            .evaluate(array, scope)?
            .into_elements()
            .unwrap_or_default();
        self.budget.charge(elements.len())?;
        let mut accumulator = self.evaluate(initial, scope)?;
        for current in elements {
            let scope = VariableScope::Reduction {
                current,
                accumulator,
            };
            accumulator = self.evaluate(rule, &scope)?;
        }
        Ok(accumulator)
    }

    pub(super) fn choose_bucket(
        &mut self,
        split: &'a FractionalSplit,
        scope: &VariableScope<'a>,
    ) -> OperandResult<'a> {
        let hash = match &split.subject {
            Some(rule) => {
                let subject = self.evaluate(rule, scope)?;
                if is_targeting_key(rule) && subject.as_text() == Some("") {
                    return Err(RuleInterruption::OperatorFailed);
                }
                self.hash_subject(&subject)?
            }
            None => self.hash_targeting_key()?,
        };
        let mut computed = Vec::new();
        let total = match split.constant_total {
            Some(total) => total,
            None => {
                for bucket in &split.buckets {
                    computed.push(match &bucket.weight {
                        BucketWeight::Constant(weight) => *weight,
                        BucketWeight::Computed(weight) => {
                            weight_from_operand(&self.evaluate(weight, scope)?)?
                        }
                    });
                }
                let total: u64 = computed.iter().map(|&weight| u64::from(weight)).sum();
                u32::try_from(total).unwrap_or(u32::MAX)
            }
        };
        if total == 0 || total > WEIGHT_TOTAL_MAX {
            return Err(RuleInterruption::OperatorFailed);
        }
        let hashed_bucket = u64::from(scale_hash(hash, total));
        let mut cumulative = 0u64;
        for (index, bucket) in split.buckets.iter().enumerate() {
            cumulative += u64::from(match &bucket.weight {
                BucketWeight::Constant(weight) => *weight,
                BucketWeight::Computed(_) => computed.get(index).copied().unwrap_or(0),
            });
            if cumulative > hashed_bucket {
                self.is_split = true;
                return self.evaluate(&bucket.name, scope);
            }
        }
        Err(RuleInterruption::OperatorFailed)
    }

    /// The hash of what a rule computed. Null is not a subject: all users without the attribute would share a bucket.
    fn hash_subject(&mut self, subject: &TargetingOperand<'a>) -> Result<u32, RuleInterruption> {
        if let TargetingOperand::Text(text) = subject {
            self.budget.charge_text(text.len())?;
        }
        let mut cbor = Vec::with_capacity(64);
        match (self.bucketing, subject) {
            (BucketingVersion::V2, TargetingOperand::Text(text)) => {
                return Ok(murmur3_32(text.as_bytes()));
            }
            (BucketingVersion::V3, TargetingOperand::Text(text)) => {
                push_text(&mut cbor, text);
            }
            (BucketingVersion::V3, TargetingOperand::Number(number)) => {
                push_float(&mut cbor, *number);
            }
            (BucketingVersion::V3, TargetingOperand::Boolean(boolean)) => {
                push_value(&mut cbor, &serde_json::Value::Bool(*boolean));
            }
            (BucketingVersion::V3, TargetingOperand::Json(value)) if !value.is_array() => {
                push_value(&mut cbor, value);
                self.budget.charge_text(cbor.len())?;
            }
            _ => return Err(RuleInterruption::OperatorFailed),
        }
        Ok(murmur3_32(&cbor))
    }

    fn hash_targeting_key(&mut self) -> Result<u32, RuleInterruption> {
        let key = self
            .context
            .targeting_key()
            .ok_or(RuleInterruption::OperatorFailed)?;
        let mut bytes = Vec::with_capacity(self.flag_key.len() + key.len() + 11);
        self.budget.charge_text(key.len())?;
        match self.bucketing {
            BucketingVersion::V2 => {
                bytes.extend_from_slice(self.flag_key.as_bytes());
                bytes.extend_from_slice(key.as_bytes());
            }
            BucketingVersion::V3 => {
                push_array_head(&mut bytes, 2);
                push_text(&mut bytes, self.flag_key);
                push_text(&mut bytes, key);
            }
        }
        Ok(murmur3_32(&bytes))
    }
}

/// An empty targeting key is a missing one; an empty text of another source is a text.
fn is_targeting_key(rule: &TargetingExpression) -> bool {
    matches!(
        rule,
        TargetingExpression::Variable { path: VariablePath::Member(name), .. } if name.as_ref() == TARGETING_KEY
    )
}

/// A whole number; below 0 counts as 0.
fn weight_from_operand(operand: &TargetingOperand<'_>) -> Result<u32, RuleInterruption> {
    match operand {
        TargetingOperand::Number(number)
            if number.fract() == 0.0 && *number <= f64::from(WEIGHT_TOTAL_MAX) =>
        {
            Ok(number.max(0.0) as u32)
        }
        _ => Err(RuleInterruption::OperatorFailed),
    }
}

fn fold_numbers(
    operands: &[TargetingOperand<'_>],
    initial: f64,
    fold: impl Fn(f64, f64) -> f64,
) -> Option<f64> {
    operands.iter().try_fold(initial, |result, operand| {
        Some(fold(result, operand.to_leading_number()?))
    })
}

fn calculate_pair(
    operands: &[TargetingOperand<'_>],
    calculate: impl Fn(f64, f64) -> f64,
) -> Option<f64> {
    let [left, right, ..] = operands else {
        return None;
    };
    Some(calculate(left.to_number()?, right.to_number()?))
}

fn pick_number(operands: &[TargetingOperand<'_>], pick: impl Fn(f64, f64) -> f64) -> Option<f64> {
    let (first, rest) = operands.split_first()?;
    rest.iter().try_fold(first.to_number()?, |picked, operand| {
        Some(pick(picked, operand.to_number()?))
    })
}
