//! Compiles the two operators whose arguments have a form of their own: `fractional` and `sem_ver`.

use super::compiler::{OperatorArguments, TargetingCompiler};
use super::expression::{
    BucketWeight, FractionalSplit, TargetingExpression, VersionComparison, VersionOperatorSource,
    VersionSource, WeightedBucket,
};
use super::version_test::{VERSION_OPERATORS, VersionOperator, parse_padded_version};
use crate::diagnostic::FlagProblem;
use crate::document_value::DocumentValue;
use crate::json_position::PathSegment;
use crate::limits::WEIGHT_TOTAL_MAX;
use crate::problem_list::ProblemList;
use crate::schema::describe_type;

impl<'v> TargetingCompiler<'v> {
    pub(super) fn compile_fractional(
        &mut self,
        arguments: OperatorArguments<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> TargetingExpression {
        let has_subject = !matches!(arguments.values[0], DocumentValue::Array(_));
        let subject = has_subject.then(|| self.compile_argument(arguments, 0, level, problems));
        let first_bucket = usize::from(has_subject);
        let mut buckets = Vec::with_capacity(arguments.values.len());
        for (index, bucket) in arguments.values.iter().enumerate().skip(first_bucket) {
            problems.push(PathSegment::Index(index));
            buckets.push(self.compile_bucket(bucket, level, problems));
            problems.pop();
        }
        if buckets.is_empty() {
            problems.report_rule(FlagProblem::ArgumentCount {
                operator: "fractional",
                expected: "1 bucket or more".to_owned(),
                actual: 0,
            });
        }
        let buckets: Option<Box<[WeightedBucket]>> = buckets.into_iter().collect();
        let Some(buckets) = buckets.filter(|buckets| !buckets.is_empty()) else {
            return TargetingExpression::Failing;
        };
        let Ok(constant_total) = sum_constant_weights(&buckets, problems) else {
            return TargetingExpression::Failing;
        };
        TargetingExpression::Fractional(Box::new(FractionalSplit {
            subject,
            buckets,
            constant_total,
        }))
    }

    /// `None` when the bucket is malformed; the problem is reported.
    fn compile_bucket(
        &mut self,
        bucket: &'v DocumentValue<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> Option<WeightedBucket> {
        let (name, weight) = match bucket.as_array() {
            Some([name]) => (name, None),
            Some([name, weight]) => (name, Some(weight)),
            _ => {
                problems.report_rule(FlagProblem::MalformedBucket);
                return None;
            }
        };
        problems.push(PathSegment::Index(0));
        let name = self.compile(name, level + 2, problems);
        problems.pop();
        problems.push(PathSegment::Index(1));
        let weight = match weight {
            None => Some(BucketWeight::Constant(1)),
            Some(DocumentValue::Object(_)) => {
                let weight = weight.map(|weight| self.compile(weight, level + 2, problems));
                weight.map(BucketWeight::Computed)
            }
            Some(weight) => compile_constant_weight(weight, problems),
        };
        problems.pop();
        Some(WeightedBucket {
            name,
            weight: weight?,
        })
    }

    pub(super) fn compile_versions(
        &mut self,
        arguments: OperatorArguments<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> TargetingExpression {
        let operator = match &arguments.values[1] {
            DocumentValue::String(text) => match VersionOperator::parse(text) {
                Some(operator) => Some(VersionOperatorSource::Constant(operator)),
                None => {
                    problems.push(PathSegment::Index(1));
                    problems.report_rule(FlagProblem::UnknownVersionOperator {
                        actual: text.to_string(),
                        nearest: problems.find_nearest(text, VERSION_OPERATORS),
                    });
                    problems.pop();
                    None
                }
            },
            _ => Some(VersionOperatorSource::Computed(
                self.compile_argument(arguments, 1, level, problems),
            )),
        };
        let actual = self.compile_version(arguments, 0, level, problems);
        let expected = self.compile_version(arguments, 2, level, problems);
        match (actual, operator, expected) {
            (Some(actual), Some(operator), Some(expected)) => {
                TargetingExpression::CompareVersions(Box::new(VersionComparison {
                    actual,
                    operator,
                    expected,
                }))
            }
            _ => TargetingExpression::Failing,
        }
    }

    fn compile_version(
        &mut self,
        arguments: OperatorArguments<'v>,
        index: usize,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> Option<VersionSource> {
        let problem = match &arguments.values[index] {
            DocumentValue::String(text) => match parse_padded_version(text) {
                Some(version) => return Some(VersionSource::Constant(version)),
                None => FlagProblem::InvalidVersion {
                    actual: text.to_string(),
                },
            },
            DocumentValue::Object(_) => {
                let computed = self.compile_argument(arguments, index, level, problems);
                return Some(VersionSource::Computed(computed));
            }
            other => FlagProblem::ArgumentType {
                operator: "sem_ver",
                expected: "a version as a string, or a rule",
                actual: describe_type(other).to_owned(),
            },
        };
        problems.push(PathSegment::Index(index));
        problems.report_rule(problem);
        problems.pop();
        None
    }
}

/// A negative weight is reported, and 0 for a lenient reader.
fn compile_constant_weight(
    weight: &DocumentValue<'_>,
    problems: &mut ProblemList<'_>,
) -> Option<BucketWeight> {
    if let Some(number) = weight.as_f64()
        && number >= 0.0
        && number.fract() == 0.0
    {
        if number > f64::from(WEIGHT_TOTAL_MAX) {
            problems.report_rule(FlagProblem::WeightTotal {
                total: number as u64,
            });
            return None;
        }
        return Some(BucketWeight::Constant(number as u32));
    }
    problems.report_rule(FlagProblem::InvalidWeight {
        actual: match weight {
            DocumentValue::Number(number) => number.to_string(),
            other => describe_type(other).to_owned(),
        },
    });
    let is_negative = weight.as_f64().is_some_and(|number| number < 0.0);
    is_negative.then_some(BucketWeight::Constant(0))
}

/// The sum of the weights, or `None` when one is computed.
fn sum_constant_weights(
    buckets: &[WeightedBucket],
    problems: &mut ProblemList<'_>,
) -> Result<Option<u32>, ()> {
    let mut total = 0u64;
    let mut is_constant = true;
    for bucket in buckets {
        match bucket.weight {
            BucketWeight::Constant(weight) => total += u64::from(weight),
            BucketWeight::Computed(_) => is_constant = false,
        }
    }
    if total > u64::from(WEIGHT_TOTAL_MAX) {
        problems.report_rule(FlagProblem::WeightTotal { total });
        return Err(());
    }
    Ok(is_constant.then(|| u32::try_from(total).unwrap_or(WEIGHT_TOTAL_MAX)))
}
