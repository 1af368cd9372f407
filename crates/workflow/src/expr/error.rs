//! Errors of expressions: message, position and suggestion.

use std::ops::Range;

use shipway_syntax::nearest;

/// An expression that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The message: ``unknown function `contians` ``.
    pub message: String,
    /// A suggestion: ``did you mean `contains`?``, or the names that exist.
    pub help: Option<String>,
    /// The byte range, counted from the offset that the caller passed.
    pub at: Range<usize>,
}

impl ParseError {
    pub(crate) fn new(message: impl Into<String>, at: Range<usize>) -> Self {
        Self {
            message: message.into(),
            help: None,
            at,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The message with its help, on one line.
    #[must_use]
    pub fn one_line(&self) -> String {
        match &self.help {
            Some(help) => format!("{}; {help}", self.message),
            None => self.message.clone(),
        }
    }
}

/// An expression that can be read, and yet has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} in `{expression}`")]
pub struct EvalError {
    /// The message: `fromJSON: expected value at line 1 column 1`.
    pub message: String,
    /// The expression's own text.
    pub expression: String,
    /// The byte range in `expression`.
    pub at: Range<usize>,
}

impl EvalError {
    /// The expression, and a line of carets below the faulty part.
    #[must_use]
    pub fn snippet(&self) -> String {
        let before = self.expression.get(..self.at.start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = self.expression[start..].lines().next().unwrap_or_default();
        let column = before[start..].chars().count();
        let width = self
            .expression
            .get(self.at.clone())
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .count();
        format!("{line}\n{}{}", " ".repeat(column), "^".repeat(width.max(1)))
    }
}

/// The words in a sentence: `` `a`, `b` and `c` ``.
pub fn join_with_and<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    join_words(words, "and")
}

/// The words as alternatives: `` `a`, `b` or `c` ``.
pub fn join_with_or<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    join_words(words, "or")
}

fn join_words<'k>(words: impl IntoIterator<Item = &'k str>, conjunction: &str) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} {conjunction} {last}", rest.join(", ")),
    }
}

/// The nearest word as a question, or all that exist.
pub(crate) fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => {
            "no context is available; pass one with --context FILE".to_owned()
        }
        None => format!(
            "the known ones are {}",
            join_with_and(known.iter().copied())
        ),
    }
}
