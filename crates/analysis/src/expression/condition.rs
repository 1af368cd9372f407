//! Conditions: `value >= 0.95 * stable && value > 10`.
//!
//! Numbers (`0.5`, `5%`), `value` (the canary's), `stable` (stable's), `+ - * /`, comparisons, `!`, `&&`, `||`, parentheses.
//! A condition over what isn't known, or is no number, is neither true nor false.
//!
//! ```
//! use shipway_analysis::expression::ValueCondition;
//! let condition: ValueCondition = "value >= 0.95 * stable".parse()?;
//! assert_eq!(condition.holds(99.0, Some(100.0)), Some(true));
//! assert_eq!(condition.holds(99.0, None), None);
//! # Ok::<(), shipway_analysis::expression::InvalidCondition>(())
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Something that is true or false of a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ValueCondition {
    text: String,
    tree: ConditionTree,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a valid condition: {problem} (at character {character}); an example is `value >= 0.95 * stable`"
)]
pub struct InvalidCondition {
    text: String,
    problem: ConditionProblem,
    character: usize,
}

/// The reason why a text isn't a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum ConditionProblem {
    #[error("it has more than {CHARS_MAX} characters")]
    TooLong,
    #[error("it is nested too deeply")]
    TooDeep,
    #[error("a `)` is missing")]
    MissingParenthesis,
    #[error("a value is missing at the end")]
    UnexpectedEnd,
    #[error("unexpected `{0}`")]
    UnexpectedCharacter(char),
    #[error("`{0}` is not a number")]
    InvalidNumber(String),
    #[error("unknown name `{0}`; use `value` and `stable`")]
    UnknownName(String),
    #[error("`{sign}` needs {operand} {side} it")]
    WrongOperand {
        sign: String,
        operand: OperandType,
        side: OperandSide,
    },
    #[error("the end is expected")]
    TrailingText,
    #[error("it is a number, not a condition")]
    IsNumber,
}

/// The side of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OperandSide {
    Before,
    After,
}

impl fmt::Display for OperandSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// Characters of a condition, at most: more is a program.
const CHARS_MAX: usize = 500;
/// Parentheses and signs in one another, at most.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq)]
enum ConditionTree {
    Number(f64),
    Value,
    Stable,
    Minus(Box<Self>),
    Not(Box<Self>),
    Both(ConditionOperator, Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConditionOperator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Plus,
    Minus,
    Times,
    By,
}

/// The operators, longer ones before those they begin with, each with how tightly it binds.
const OPERATORS: [(&str, ConditionOperator, u8); 12] = [
    ("||", ConditionOperator::Or, 1),
    ("&&", ConditionOperator::And, 2),
    ("==", ConditionOperator::Equal, 3),
    ("!=", ConditionOperator::Unequal, 3),
    ("<=", ConditionOperator::LessOrEqual, 3),
    (">=", ConditionOperator::MoreOrEqual, 3),
    ("<", ConditionOperator::Less, 3),
    (">", ConditionOperator::More, 3),
    ("+", ConditionOperator::Plus, 4),
    ("-", ConditionOperator::Minus, 4),
    ("*", ConditionOperator::Times, 5),
    ("/", ConditionOperator::By, 5),
];

/// What a part of a condition is; `None` where it isn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OperandType {
    Number,
    Truth,
}

impl fmt::Display for OperandType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a number",
            Self::Truth => "a condition",
        })
    }
}

impl ConditionOperator {
    /// What it takes and what it gives.
    const fn sorts(self) -> (OperandType, OperandType) {
        match self {
            Self::Or | Self::And => (OperandType::Truth, OperandType::Truth),
            Self::Plus | Self::Minus | Self::Times | Self::By => {
                (OperandType::Number, OperandType::Number)
            }
            Self::Equal
            | Self::Unequal
            | Self::Less
            | Self::LessOrEqual
            | Self::More
            | Self::MoreOrEqual => (OperandType::Number, OperandType::Truth),
        }
    }
}

impl ValueCondition {
    /// Whether it holds of these; `None` when that isn't known.
    #[must_use]
    pub fn holds(&self, value: f64, stable: Option<f64>) -> Option<bool> {
        self.tree.truth(value, stable)
    }
}

impl ConditionTree {
    fn sort(&self) -> OperandType {
        match self {
            Self::Number(_) | Self::Value | Self::Stable | Self::Minus(_) => OperandType::Number,
            Self::Not(_) => OperandType::Truth,
            Self::Both(operator, ..) => operator.sorts().1,
        }
    }

    /// As a number; only of a part that is one.
    fn number(&self, value: f64, stable: Option<f64>) -> Option<f64> {
        let number = match self {
            Self::Number(number) => *number,
            Self::Value => value,
            Self::Stable => stable?,
            Self::Minus(of) => -of.number(value, stable)?,
            Self::Both(operator, left, right) => {
                let (left, right) = (left.number(value, stable)?, right.number(value, stable)?);
                match operator {
                    ConditionOperator::Plus => left + right,
                    ConditionOperator::Minus => left - right,
                    ConditionOperator::Times => left * right,
                    ConditionOperator::By => left / right,
                    ConditionOperator::Or
                    | ConditionOperator::And
                    | ConditionOperator::Equal
                    | ConditionOperator::Unequal
                    | ConditionOperator::Less
                    | ConditionOperator::LessOrEqual
                    | ConditionOperator::More
                    | ConditionOperator::MoreOrEqual => return None,
                }
            }
            Self::Not(_) => return None,
        };
        number.is_finite().then_some(number)
    }

    fn truth(&self, value: f64, stable: Option<f64>) -> Option<bool> {
        match self {
            Self::Not(of) => of.truth(value, stable).map(|truth| !truth),
            Self::Both(
                operator @ (ConditionOperator::Or | ConditionOperator::And),
                left,
                right,
            ) => {
                let decides = *operator == ConditionOperator::Or;
                match (left.truth(value, stable), right.truth(value, stable)) {
                    (Some(left), _) if left == decides => Some(decides),
                    (_, Some(right)) if right == decides => Some(decides),
                    (Some(_), Some(_)) => Some(!decides),
                    _ => None,
                }
            }
            Self::Both(operator, left, right) => {
                let (left, right) = (left.number(value, stable)?, right.number(value, stable)?);
                match operator {
                    ConditionOperator::Equal => Some(left == right),
                    ConditionOperator::Unequal => Some(left != right),
                    ConditionOperator::Less => Some(left < right),
                    ConditionOperator::LessOrEqual => Some(left <= right),
                    ConditionOperator::More => Some(left > right),
                    ConditionOperator::MoreOrEqual => Some(left >= right),
                    ConditionOperator::Or
                    | ConditionOperator::And
                    | ConditionOperator::Plus
                    | ConditionOperator::Minus
                    | ConditionOperator::Times
                    | ConditionOperator::By => None,
                }
            }
            Self::Number(_) | Self::Value | Self::Stable | Self::Minus(_) => None,
        }
    }
}

/// Reads a condition from left to right.
struct ConditionParser<'a> {
    rest: &'a str,
    depth: usize,
}

impl ConditionParser<'_> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn peek_operator(&self) -> Option<(usize, ConditionOperator, u8)> {
        let found = OPERATORS
            .iter()
            .find(|(text, ..)| self.rest.starts_with(text));
        found.map(|(text, operator, binds)| (text.len(), *operator, *binds))
    }

    /// A part whose operators bind at least this tightly.
    fn parse_expression(&mut self, least: u8) -> Result<ConditionTree, ConditionProblem> {
        let mut left = self.parse_operand()?;
        loop {
            self.skip_spaces();
            let Some((length, operator, binds)) = self.peek_operator().filter(|it| it.2 >= least)
            else {
                return Ok(left);
            };
            let takes = operator.sorts().0;
            let sign = self.rest[..length].to_owned();
            if left.sort() != takes {
                return Err(wrong_operand(&sign, takes, OperandSide::Before));
            }
            self.rest = &self.rest[length..];
            let right = self.parse_expression(binds + 1)?;
            if right.sort() != takes {
                return Err(wrong_operand(&sign, takes, OperandSide::After));
            }
            left = ConditionTree::Both(operator, Box::new(left), Box::new(right));
        }
    }

    fn parse_operand(&mut self) -> Result<ConditionTree, ConditionProblem> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ConditionProblem::TooDeep);
        }
        self.skip_spaces();
        let tree = if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            let inner = self.parse_expression(0)?;
            self.skip_spaces();
            self.rest = self
                .rest
                .strip_prefix(')')
                .ok_or(ConditionProblem::MissingParenthesis)?;
            inner
        } else if let Some(rest) = self.rest.strip_prefix('!') {
            self.rest = rest;
            let of = self.parse_operand()?;
            if of.sort() != OperandType::Truth {
                return Err(wrong_operand("!", OperandType::Truth, OperandSide::After));
            }
            ConditionTree::Not(Box::new(of))
        } else if let Some(rest) = self.rest.strip_prefix('-') {
            self.rest = rest;
            let of = self.parse_operand()?;
            if of.sort() != OperandType::Number {
                return Err(wrong_operand("-", OperandType::Number, OperandSide::After));
            }
            ConditionTree::Minus(Box::new(of))
        } else {
            self.parse_term()?
        };
        self.depth -= 1;
        Ok(tree)
    }

    fn parse_term(&mut self) -> Result<ConditionTree, ConditionProblem> {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let tree = match word {
            "value" | "canary" => ConditionTree::Value,
            "stable" => ConditionTree::Stable,
            "" => {
                return Err(match self.rest.chars().next() {
                    Some(other) => ConditionProblem::UnexpectedCharacter(other),
                    None => ConditionProblem::UnexpectedEnd,
                });
            }
            number if number.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                let number: f64 = number
                    .parse()
                    .map_err(|_| ConditionProblem::InvalidNumber(word.to_owned()))?;
                if let Some(rest) = rest.strip_prefix('%') {
                    self.rest = rest;
                    return Ok(ConditionTree::Number(number / 100.0));
                }
                ConditionTree::Number(number)
            }
            other => {
                return Err(ConditionProblem::UnknownName(other.to_owned()));
            }
        };
        self.rest = rest;
        Ok(tree)
    }
}

fn wrong_operand(sign: &str, operand: OperandType, side: OperandSide) -> ConditionProblem {
    ConditionProblem::WrongOperand {
        sign: sign.to_owned(),
        operand,
        side,
    }
}

impl FromStr for ValueCondition {
    type Err = InvalidCondition;

    fn from_str(text: &str) -> Result<Self, InvalidCondition> {
        let refused = |problem: ConditionProblem, rest: &str| InvalidCondition {
            text: text.chars().take(CHARS_MAX).collect(),
            problem,
            character: text[..text.len() - rest.len()].chars().count() + 1,
        };
        if text.chars().count() > CHARS_MAX {
            return Err(refused(ConditionProblem::TooLong, text));
        }
        let mut reader = ConditionParser {
            rest: text,
            depth: 0,
        };
        let tree = reader
            .parse_expression(0)
            .map_err(|problem| refused(problem, reader.rest))?;
        reader.skip_spaces();
        if !reader.rest.is_empty() {
            return Err(refused(ConditionProblem::TrailingText, reader.rest));
        }
        if tree.sort() != OperandType::Truth {
            return Err(refused(ConditionProblem::IsNumber, text));
        }
        Ok(Self {
            text: text.to_owned(),
            tree,
        })
    }
}

impl TryFrom<String> for ValueCondition {
    type Error = InvalidCondition;
    fn try_from(text: String) -> Result<Self, InvalidCondition> {
        text.parse()
    }
}

impl From<ValueCondition> for String {
    fn from(condition: ValueCondition) -> Self {
        condition.text
    }
}

impl fmt::Display for ValueCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, value: f64, stable: Option<f64>) -> Option<bool> {
        text.parse::<ValueCondition>().unwrap().holds(value, stable)
    }

    #[test]
    fn conditions_mean_what_they_say() {
        assert_eq!(holds("value < 5%", 0.04, None), Some(true));
        assert_eq!(holds("value<0.05", 0.05, None), Some(false));
        assert_eq!(holds("1 + 2 * 3 == 7", 0.0, None), Some(true));
        assert_eq!(holds("10 - 4 - 3 == 3", 0.0, None), Some(true));
        assert_eq!(
            holds("(1 + 2) * 3 == 9 && !(value > 1)", 1.0, None),
            Some(true)
        );
        assert_eq!(holds("-value > -2 || value == 7", 7.0, None), Some(true));
        assert_eq!(holds("value >= 0.95*stable", 95.0, Some(100.0)), Some(true));
        assert_eq!(
            holds("value >= 0.95*stable", 94.0, Some(100.0)),
            Some(false)
        );
    }

    #[test]
    fn what_is_not_known_is_neither_true_nor_false_unless_it_does_not_matter() {
        assert_eq!(holds("value > stable", 1.0, None), None);
        assert_eq!(
            holds("value / stable > 1", 1.0, Some(0.0)),
            None,
            "infinite"
        );
        assert_eq!(holds("value > 0", f64::NAN, None), None);
        assert_eq!(holds("!(value > 0)", f64::NAN, None), None);
        assert_eq!(holds("value > 0 || value > stable", 1.0, None), Some(true));
        assert_eq!(holds("value > 9 && value > stable", 1.0, None), Some(false));
        assert_eq!(holds("value > 0 && value > stable", 1.0, None), None);
    }

    #[test]
    fn what_is_no_condition_is_refused_with_its_place() {
        for (text, said) in [
            ("", "a value is missing at the end"),
            ("value", "it is a number, not a condition"),
            ("value >", "a value is missing at the end"),
            (
                "value > x",
                "unknown name `x`; use `value` and `stable` (at character 9)",
            ),
            ("value > 1 2", "the end is expected (at character 11)"),
            ("(value > 1", "a `)` is missing"),
            ("value && 1 > 0", "`&&` needs a condition before it"),
            ("1 < value < 3", "`<` needs a number before it"),
            ("value > 1.2.3", "`1.2.3` is not a number"),
            ("value > ä", "unexpected `ä`"),
        ] {
            let refused = text.parse::<ValueCondition>().unwrap_err().to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
        let deep = format!("{}value > 1{}", "(".repeat(400), ")".repeat(40));
        assert!(
            deep.parse::<ValueCondition>()
                .unwrap_err()
                .to_string()
                .contains("deeply")
        );
        assert!(
            "value > 1 && "
                .repeat(50)
                .parse::<ValueCondition>()
                .is_err()
        );
    }
}
