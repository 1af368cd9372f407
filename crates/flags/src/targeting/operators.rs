//! The operators that flagd's schema has, with the number of arguments that each takes.

use std::ops::RangeInclusive;

use super::expression::{
    ArithmeticOperator, IterationOperator, LetterCase, OperandComparison, TextEdge,
};

/// Operators with the same form of arguments and of compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperatorKind {
    Variable,
    Missing,
    MissingSome,
    If,
    And,
    Or,
    Not,
    IsTruthy,
    Compare(OperandComparison),
    Calculate(ArithmeticOperator),
    In,
    Concatenate,
    Substring,
    Merge,
    Iterate(IterationOperator),
    Reduce,
    CompareEdge(TextEdge),
    ChangeCase(LetterCase),
    CompareVersions,
    Fractional,
}

/// An operator of the schema.
#[derive(Debug)]
pub(crate) struct OperatorRule {
    pub(crate) name: &'static str,
    pub(crate) kind: OperatorKind,
    pub(crate) arguments: RangeInclusive<usize>,
}

impl OperatorRule {
    /// Whether a single argument needs no array around it.
    pub(crate) fn takes_bare_argument(&self) -> bool {
        matches!(
            self.kind,
            OperatorKind::Variable
                | OperatorKind::Not
                | OperatorKind::IsTruthy
                | OperatorKind::ChangeCase(_)
        )
    }

    /// How many arguments it takes, in words.
    pub(crate) fn describe_arguments(&self) -> String {
        let (least, most) = (*self.arguments.start(), *self.arguments.end());
        match (least, most) {
            (1, 1) => "1 argument".to_owned(),
            _ if least == most => format!("{least} arguments"),
            (1, MANY) => "1 argument or more".to_owned(),
            (_, MANY) => format!("{least} arguments or more"),
            _ => format!("{least} or {most} arguments"),
        }
    }
}

const MANY: usize = usize::MAX;

const fn rule(
    name: &'static str,
    kind: OperatorKind,
    arguments: RangeInclusive<usize>,
) -> OperatorRule {
    OperatorRule {
        name,
        kind,
        arguments,
    }
}

pub(crate) static OPERATORS: [OperatorRule; 39] = [
    rule("var", OperatorKind::Variable, 1..=2),
    rule("missing", OperatorKind::Missing, 0..=MANY),
    rule("missing_some", OperatorKind::MissingSome, 2..=2),
    rule("if", OperatorKind::If, 1..=MANY),
    rule("and", OperatorKind::And, 1..=MANY),
    rule("or", OperatorKind::Or, 1..=MANY),
    rule("!", OperatorKind::Not, 1..=1),
    rule("!!", OperatorKind::IsTruthy, 1..=1),
    rule("==", OperatorKind::Compare(OperandComparison::Equal), 2..=2),
    rule(
        "!=",
        OperatorKind::Compare(OperandComparison::NotEqual),
        2..=2,
    ),
    rule(
        "===",
        OperatorKind::Compare(OperandComparison::StrictlyEqual),
        2..=2,
    ),
    rule(
        "!==",
        OperatorKind::Compare(OperandComparison::StrictlyNotEqual),
        2..=2,
    ),
    rule("<", OperatorKind::Compare(OperandComparison::Less), 2..=3),
    rule(
        "<=",
        OperatorKind::Compare(OperandComparison::LessOrEqual),
        2..=3,
    ),
    rule(
        ">",
        OperatorKind::Compare(OperandComparison::Greater),
        2..=2,
    ),
    rule(
        ">=",
        OperatorKind::Compare(OperandComparison::GreaterOrEqual),
        2..=2,
    ),
    rule(
        "+",
        OperatorKind::Calculate(ArithmeticOperator::Add),
        1..=MANY,
    ),
    rule(
        "-",
        OperatorKind::Calculate(ArithmeticOperator::Subtract),
        1..=2,
    ),
    rule(
        "*",
        OperatorKind::Calculate(ArithmeticOperator::Multiply),
        2..=MANY,
    ),
    rule(
        "/",
        OperatorKind::Calculate(ArithmeticOperator::Divide),
        2..=2,
    ),
    rule(
        "%",
        OperatorKind::Calculate(ArithmeticOperator::Remainder),
        2..=2,
    ),
    rule(
        "min",
        OperatorKind::Calculate(ArithmeticOperator::Minimum),
        1..=MANY,
    ),
    rule(
        "max",
        OperatorKind::Calculate(ArithmeticOperator::Maximum),
        1..=MANY,
    ),
    rule("in", OperatorKind::In, 2..=2),
    rule("cat", OperatorKind::Concatenate, 1..=MANY),
    rule("substr", OperatorKind::Substring, 2..=3),
    rule("merge", OperatorKind::Merge, 1..=MANY),
    rule("map", OperatorKind::Iterate(IterationOperator::Map), 2..=2),
    rule(
        "filter",
        OperatorKind::Iterate(IterationOperator::Filter),
        2..=2,
    ),
    rule("all", OperatorKind::Iterate(IterationOperator::All), 2..=2),
    rule(
        "some",
        OperatorKind::Iterate(IterationOperator::Some),
        2..=2,
    ),
    rule(
        "none",
        OperatorKind::Iterate(IterationOperator::None),
        2..=2,
    ),
    rule("reduce", OperatorKind::Reduce, 3..=3),
    rule(
        "starts_with",
        OperatorKind::CompareEdge(TextEdge::Start),
        2..=2,
    ),
    rule("ends_with", OperatorKind::CompareEdge(TextEdge::End), 2..=2),
    rule("lower", OperatorKind::ChangeCase(LetterCase::Lower), 1..=1),
    rule("upper", OperatorKind::ChangeCase(LetterCase::Upper), 1..=1),
    rule("sem_ver", OperatorKind::CompareVersions, 3..=3),
    rule("fractional", OperatorKind::Fractional, 1..=MANY),
];

pub(crate) fn find_operator(name: &str) -> Option<&'static OperatorRule> {
    OPERATORS.iter().find(|rule| rule.name == name)
}
