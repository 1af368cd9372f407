//! Conditions: `value >= 0.95 * stable && value > 10`.
//!
//! Numbers (`0.5`, `5%`), `value` (the canary's), `stable` (stable's), `+ - * /`, comparisons, `!`, `&&`, `||`, parentheses.
//! A condition over what isn't known, or is no number, is neither true nor false.
//!
//! ```
//! use shipway_analysis::expression::Condition;
//! let condition: Condition = "value >= 0.95 * stable".parse()?;
//! assert_eq!(condition.holds(99.0, Some(100.0)), Some(true));
//! assert_eq!(condition.holds(99.0, None), None);
//! # Ok::<(), shipway_analysis::expression::InvalidCondition>(())
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Something that is true or false of a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    text: String,
    tree: Tree,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no condition: {why} (at character {place}); one is `value >= 0.95 * stable`")]
pub struct InvalidCondition {
    text: String,
    why: String,
    place: usize,
}

/// Characters of a condition, at most: more is a program.
const CHARS_MAX: usize = 500;
/// Parentheses and signs in one another, at most.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Number(f64),
    Value,
    Stable,
    Minus(Box<Self>),
    Not(Box<Self>),
    Both(Operator, Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
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
const OPERATORS: [(&str, Operator, u8); 12] = [
    ("||", Operator::Or, 1),
    ("&&", Operator::And, 2),
    ("==", Operator::Equal, 3),
    ("!=", Operator::Unequal, 3),
    ("<=", Operator::LessOrEqual, 3),
    (">=", Operator::MoreOrEqual, 3),
    ("<", Operator::Less, 3),
    (">", Operator::More, 3),
    ("+", Operator::Plus, 4),
    ("-", Operator::Minus, 4),
    ("*", Operator::Times, 5),
    ("/", Operator::By, 5),
];

/// What a part of a condition is; `None` where it isn't known.
#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Number,
    Truth,
}

impl Operator {
    /// What it takes and what it gives.
    const fn sorts(self) -> (Sort, Sort) {
        match self {
            Self::Or | Self::And => (Sort::Truth, Sort::Truth),
            Self::Plus | Self::Minus | Self::Times | Self::By => (Sort::Number, Sort::Number),
            Self::Equal
            | Self::Unequal
            | Self::Less
            | Self::LessOrEqual
            | Self::More
            | Self::MoreOrEqual => (Sort::Number, Sort::Truth),
        }
    }
}

impl Condition {
    /// Whether it holds of these; `None` when that isn't known.
    #[must_use]
    pub fn holds(&self, value: f64, stable: Option<f64>) -> Option<bool> {
        self.tree.truth(value, stable)
    }
}

impl Tree {
    fn sort(&self) -> Sort {
        match self {
            Self::Number(_) | Self::Value | Self::Stable | Self::Minus(_) => Sort::Number,
            Self::Not(_) => Sort::Truth,
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
                    Operator::Plus => left + right,
                    Operator::Minus => left - right,
                    Operator::Times => left * right,
                    Operator::By => left / right,
                    Operator::Or
                    | Operator::And
                    | Operator::Equal
                    | Operator::Unequal
                    | Operator::Less
                    | Operator::LessOrEqual
                    | Operator::More
                    | Operator::MoreOrEqual => return None,
                }
            }
            Self::Not(_) => return None,
        };
        number.is_finite().then_some(number)
    }

    fn truth(&self, value: f64, stable: Option<f64>) -> Option<bool> {
        match self {
            Self::Not(of) => of.truth(value, stable).map(|truth| !truth),
            Self::Both(operator @ (Operator::Or | Operator::And), left, right) => {
                let decides = *operator == Operator::Or;
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
                    Operator::Equal => Some(left == right),
                    Operator::Unequal => Some(left != right),
                    Operator::Less => Some(left < right),
                    Operator::LessOrEqual => Some(left <= right),
                    Operator::More => Some(left > right),
                    Operator::MoreOrEqual => Some(left >= right),
                    Operator::Or
                    | Operator::And
                    | Operator::Plus
                    | Operator::Minus
                    | Operator::Times
                    | Operator::By => None,
                }
            }
            Self::Number(_) | Self::Value | Self::Stable | Self::Minus(_) => None,
        }
    }
}

/// Reads a condition from left to right.
struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn operator(&self) -> Option<(usize, Operator, u8)> {
        let found = OPERATORS
            .iter()
            .find(|(text, ..)| self.rest.starts_with(text));
        found.map(|(text, operator, binds)| (text.len(), *operator, *binds))
    }

    /// A part whose operators bind at least this tightly.
    fn part(&mut self, least: u8) -> Result<Tree, String> {
        let mut left = self.operand()?;
        loop {
            self.skip_spaces();
            let Some((length, operator, binds)) = self.operator().filter(|it| it.2 >= least) else {
                return Ok(left);
            };
            let takes = operator.sorts().0;
            let sign = self.rest[..length].to_owned();
            if left.sort() != takes {
                return Err(expects(&sign, takes, "before"));
            }
            self.rest = &self.rest[length..];
            let right = self.part(binds + 1)?;
            if right.sort() != takes {
                return Err(expects(&sign, takes, "after"));
            }
            left = Tree::Both(operator, Box::new(left), Box::new(right));
        }
    }

    fn operand(&mut self) -> Result<Tree, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("it is nested too deeply".to_owned());
        }
        self.skip_spaces();
        let tree = if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            let inner = self.part(0)?;
            self.skip_spaces();
            self.rest = self.rest.strip_prefix(')').ok_or("a `)` is missing")?;
            inner
        } else if let Some(rest) = self.rest.strip_prefix('!') {
            self.rest = rest;
            let of = self.operand()?;
            if of.sort() != Sort::Truth {
                return Err(expects("!", Sort::Truth, "after"));
            }
            Tree::Not(Box::new(of))
        } else if let Some(rest) = self.rest.strip_prefix('-') {
            self.rest = rest;
            let of = self.operand()?;
            if of.sort() != Sort::Number {
                return Err(expects("-", Sort::Number, "after"));
            }
            Tree::Minus(Box::new(of))
        } else {
            self.word()?
        };
        self.depth -= 1;
        Ok(tree)
    }

    fn word(&mut self) -> Result<Tree, String> {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let tree = match word {
            "value" | "canary" => Tree::Value,
            "stable" => Tree::Stable,
            "" => {
                return Err(match self.rest.chars().next() {
                    Some(other) => format!("`{other}` has no meaning here"),
                    None => "something is missing at its end".to_owned(),
                });
            }
            number if number.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                let number: f64 = number
                    .parse()
                    .map_err(|_| format!("`{word}` is no number"))?;
                if let Some(rest) = rest.strip_prefix('%') {
                    self.rest = rest;
                    return Ok(Tree::Number(number / 100.0));
                }
                Tree::Number(number)
            }
            other => {
                return Err(format!(
                    "`{other}` is not known; there are `value` and `stable`"
                ));
            }
        };
        self.rest = rest;
        Ok(tree)
    }
}

fn expects(sign: &str, takes: Sort, side: &str) -> String {
    let what = match takes {
        Sort::Number => "a number",
        Sort::Truth => "a condition",
    };
    format!("`{sign}` takes {what}, and {side} it stands none")
}

impl FromStr for Condition {
    type Err = InvalidCondition;

    fn from_str(text: &str) -> Result<Self, InvalidCondition> {
        let refused = |why: String, rest: &str| InvalidCondition {
            text: text.chars().take(CHARS_MAX).collect(),
            why,
            place: text[..text.len() - rest.len()].chars().count() + 1,
        };
        if text.chars().count() > CHARS_MAX {
            return Err(refused(
                format!("it has more than {CHARS_MAX} characters"),
                text,
            ));
        }
        let mut reader = Reader {
            rest: text,
            depth: 0,
        };
        let tree = reader.part(0).map_err(|why| refused(why, reader.rest))?;
        reader.skip_spaces();
        if !reader.rest.is_empty() {
            return Err(refused("nothing more is expected".to_owned(), reader.rest));
        }
        if tree.sort() != Sort::Truth {
            return Err(refused("it is a number, not a condition".to_owned(), text));
        }
        Ok(Self {
            text: text.to_owned(),
            tree,
        })
    }
}

impl TryFrom<String> for Condition {
    type Error = InvalidCondition;
    fn try_from(text: String) -> Result<Self, InvalidCondition> {
        text.parse()
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.text
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, value: f64, stable: Option<f64>) -> Option<bool> {
        text.parse::<Condition>().unwrap().holds(value, stable)
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
            ("", "something is missing at its end"),
            ("value", "it is a number, not a condition"),
            ("value >", "something is missing at its end"),
            (
                "value > x",
                "`x` is not known; there are `value` and `stable` (at character 9)",
            ),
            ("value > 1 2", "nothing more is expected (at character 11)"),
            ("(value > 1", "a `)` is missing"),
            (
                "value && 1 > 0",
                "`&&` takes a condition, and before it stands none",
            ),
            (
                "1 < value < 3",
                "`<` takes a number, and before it stands none",
            ),
            ("value > 1.2.3", "`1.2.3` is no number"),
            ("value > ä", "`ä` has no meaning here"),
        ] {
            let refused = text.parse::<Condition>().unwrap_err().to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
        let deep = format!("{}value > 1{}", "(".repeat(400), ")".repeat(40));
        assert!(
            deep.parse::<Condition>()
                .unwrap_err()
                .to_string()
                .contains("deeply")
        );
        assert!("value > 1 && ".repeat(50).parse::<Condition>().is_err());
    }
}
