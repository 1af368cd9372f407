//! A targeting rule, compiled once: a tree that is evaluated without looking at JSON or names of operators again.

use std::sync::Arc;

use semver::Version;
use serde_json::Value;

use super::version_test::VersionOperator;

/// A node of a compiled rule.
#[derive(Clone, Debug)]
pub(crate) enum TargetingExpression {
    Null,
    Boolean(bool),
    Number(f64),
    Text(Box<str>),
    /// An array without rules in it.
    ConstantArray(Box<Value>),
    Array(Box<[TargetingExpression]>),
    Variable {
        path: VariablePath,
        default: Option<Box<TargetingExpression>>,
    },
    /// `var` with a path that a rule computes.
    ComputedVariable(Box<[TargetingExpression]>),
    Missing(Box<[TargetingExpression]>),
    MissingSome(Box<[TargetingExpression]>),
    If(Box<[TargetingExpression]>),
    And(Box<[TargetingExpression]>),
    Or(Box<[TargetingExpression]>),
    Not(Box<TargetingExpression>),
    IsTruthy(Box<TargetingExpression>),
    Compare(OperandComparison, Box<[TargetingExpression]>),
    Calculate(ArithmeticOperator, Box<[TargetingExpression]>),
    In(Box<[TargetingExpression]>),
    Concatenate(Box<[TargetingExpression]>),
    Substring(Box<[TargetingExpression]>),
    Merge(Box<[TargetingExpression]>),
    Iterate(IterationOperator, Box<[TargetingExpression]>),
    Reduce(Box<[TargetingExpression]>),
    CompareEdge(TextEdge, Box<[TargetingExpression]>),
    ChangeCase(LetterCase, Box<TargetingExpression>),
    CompareVersions(Box<VersionComparison>),
    Fractional(Box<FractionalSplit>),
    /// An evaluator, compiled once for all rules that refer to it.
    Shared(Arc<TargetingExpression>),
    /// An operator that fails whatever the context is, such as `starts_with` with one argument.
    Failing,
}

/// What `var` reads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum VariablePath {
    FlagKey,
    Timestamp,
    /// The whole context, or the element in an iteration.
    Whole,
    /// A `$flagd` property that there isn't, whatever a caller sends under that name.
    Absent,
    Member(Box<str>),
    Nested(Box<[Box<str>]>),
}

impl VariablePath {
    pub(crate) fn parse(path: &str) -> VariablePath {
        match path {
            "" => VariablePath::Whole,
            "$flagd.flagKey" => VariablePath::FlagKey,
            "$flagd.timestamp" => VariablePath::Timestamp,
            _ if path == "$flagd" || path.starts_with("$flagd.") => VariablePath::Absent,
            _ if path.contains('.') => {
                VariablePath::Nested(path.split('.').map(Box::from).collect())
            }
            _ => VariablePath::Member(Box::from(path)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperandComparison {
    Equal,
    NotEqual,
    StrictlyEqual,
    StrictlyNotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArithmeticOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Minimum,
    Maximum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IterationOperator {
    Map,
    Filter,
    All,
    Some,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextEdge {
    Start,
    End,
}

/// ASCII only, so that every provider in every language agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterCase {
    Lower,
    Upper,
}

#[derive(Clone, Debug)]
pub(crate) struct VersionComparison {
    pub(crate) actual: VersionSource,
    pub(crate) operator: VersionOperatorSource,
    pub(crate) expected: VersionSource,
}

#[derive(Clone, Debug)]
pub(crate) enum VersionSource {
    Constant(Version),
    Computed(TargetingExpression),
}

#[derive(Clone, Debug)]
pub(crate) enum VersionOperatorSource {
    Constant(VersionOperator),
    Computed(TargetingExpression),
}

#[derive(Clone, Debug)]
pub(crate) struct FractionalSplit {
    /// Computes the value to hash; `None` is the flag's key with the targeting key.
    pub(crate) subject: Option<TargetingExpression>,
    pub(crate) buckets: Box<[WeightedBucket]>,
    /// The sum of the weights, when none is computed.
    pub(crate) constant_total: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct WeightedBucket {
    pub(crate) name: TargetingExpression,
    pub(crate) weight: BucketWeight,
}

#[derive(Clone, Debug)]
pub(crate) enum BucketWeight {
    Constant(u32),
    Computed(TargetingExpression),
}
