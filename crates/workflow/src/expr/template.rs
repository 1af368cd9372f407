//! Text with `${{ expressions }}` in it, and conditions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Contexts, EvalError, Expr, ParseError, Place, Value, ast::LENGTH_MAX};

/// Text that may hold expressions, and the line of the file where it begins. Serialized as text and line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Template {
    text: String,
    line: u32,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Expr(Expr),
}

#[derive(Serialize, Deserialize)]
struct Written {
    text: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    line: u32,
    /// Whether `${{` in it means nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    plain: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
const fn is_zero(line: &u32) -> bool {
    *line == 0
}

impl Template {
    /// Reads text; places in errors are counted from `offset`.
    pub fn parse(text: &str, offset: usize) -> Result<Self, ParseError> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("${{") {
            let open = at + found;
            let close = closing(text, open + 3).ok_or_else(|| {
                ParseError::new("`${{` is never closed", offset + open..offset + open + 3)
                    .help("add `}}`; a text in an expression is written in single quotes")
            })?;
            if open > at {
                parts.push(Part::Text(text[at..open].to_owned()));
            }
            let inner = &text[open + 3..close];
            let blank = inner.len() - inner.trim_start().len();
            let expr =
                Expr::parse(inner.trim(), offset + open + 3 + blank).map_err(|mut error| {
                    if inner.trim().is_empty() {
                        error.at = offset + open..offset + close + 2;
                    }
                    error
                })?;
            parts.push(Part::Expr(expr));
            at = close + 2;
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        // GitHub makes one expression of text with expressions in it, and that has the usual limit.
        if parts.len() > 1 && text.encode_utf16().count() > LENGTH_MAX {
            let help = "pass the values by `env:`, so that no expression stands in the text";
            return Err(ParseError::new(
                format!("a text with expressions in it may have at most {LENGTH_MAX} characters"),
                offset..offset + text.len(),
            )
            .help(help));
        }
        Ok(Self {
            text: text.to_owned(),
            line: 0,
            parts,
        })
    }

    /// Text that comes from elsewhere: `${{` in it means nothing.
    #[must_use]
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            parts: vec![Part::Text(text.clone())],
            text,
            line: 0,
        }
    }

    /// With the line of the file where it begins, from 1.
    #[must_use]
    pub const fn at_line(mut self, line: u32) -> Self {
        self.line = line;
        self
    }

    /// The line of the file where it begins, from 1; 0 when not known.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, when no expression is in it.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        self.exprs().next().is_none().then_some(&*self.text)
    }

    /// The expression, when it is nothing else.
    #[must_use]
    pub fn as_expr(&self) -> Option<&Expr> {
        match self.parts.as_slice() {
            [Part::Expr(expr)] => Some(expr),
            _ => None,
        }
    }

    /// The expressions in it, in order.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Expr(expr) => Some(expr),
        })
    }

    /// Refuses expressions that see more than `place` shows.
    pub fn check(&self, place: Place) -> Result<(), ParseError> {
        self.exprs().try_for_each(|expr| expr.check(place))
    }

    /// Its value: of a lone expression what that comes to, of all else text.
    pub fn resolve(&self, contexts: &Contexts<'_>) -> Result<Value, EvalError> {
        match self.as_expr() {
            Some(expr) => expr.eval(contexts),
            None => self.concatenated(contexts).map(Value::from),
        }
    }

    /// Its value as text.
    pub fn resolve_text(&self, contexts: &Contexts<'_>) -> Result<String, EvalError> {
        self.concatenated(contexts)
    }

    fn concatenated(&self, contexts: &Contexts<'_>) -> Result<String, EvalError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Expr(expr) => text.push_str(&expr.eval(contexts)?.to_text()),
            }
            if text.len() > super::eval::BYTES_MAX + self.text.len() {
                return Err(self.error(super::functions::TOO_LARGE.to_owned()));
            }
        }
        Ok(text)
    }

    /// An error about the whole.
    #[must_use]
    pub fn error(&self, message: String) -> EvalError {
        EvalError {
            message,
            expression: self.text.clone(),
            at: 0..self.text.len(),
        }
    }
}

/// Where the `}}` begins that ends an expression begun before `from`; quoted text may hold others.
fn closing(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quoted = false;
    for at in from..bytes.len() {
        match bytes[at] {
            b'\'' => quoted = !quoted,
            b'}' if !quoted && bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
    }
    None
}

impl TryFrom<Written> for Template {
    type Error = ParseError;

    fn try_from(written: Written) -> Result<Self, ParseError> {
        let template = if written.plain {
            Self::literal(written.text)
        } else {
            Self::parse(&written.text, 0)?
        };
        Ok(template.at_line(written.line))
    }
}

impl From<Template> for Written {
    fn from(template: Template) -> Self {
        let plain = template.text.contains("${{") && template.exprs().next().is_none();
        Self {
            text: template.text,
            line: template.line,
            plain,
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What stands behind `if:`. Nothing there means `success()`, and what asks for no status is asked only after success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenCondition", into = "WrittenCondition")]
pub struct Condition {
    text: String,
    line: u32,
    asked: Asked,
    calls_status: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Nothing,
    Expr(Expr),
    /// Text around `${{ }}`: GitHub makes one text of it, which holds as it isn't empty. [`Condition::is_text`] lets the
    /// parser warn.
    Text(Template),
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct WrittenCondition(Written);

impl Default for Condition {
    fn default() -> Self {
        Self {
            text: String::new(),
            line: 0,
            asked: Asked::Nothing,
            calls_status: false,
        }
    }
}

impl Condition {
    /// Reads what stands behind `if:`, with or without `${{ }}`; places in errors are counted from `offset`.
    pub fn parse(text: &str, offset: usize) -> Result<Self, ParseError> {
        let asked = if text.trim().is_empty() {
            Asked::Nothing
        } else if text.contains("${{") {
            let template = Template::parse(text, offset)?;
            match template.as_expr() {
                // A lone literal is a way to write text, and the text of an `if` is an expression.
                Some(expr) => match expr.as_text() {
                    Some(inner) => return Self::parse_plain(text, inner, expr.start()),
                    None => Asked::Expr(expr.clone()),
                },
                None => Asked::Text(template),
            }
        } else {
            return Self::parse_plain(text, text, offset);
        };
        Ok(Self::asking(text, asked))
    }

    /// An expression without `${{ }}` around it.
    fn parse_plain(written: &str, text: &str, offset: usize) -> Result<Self, ParseError> {
        let asked = if text.trim().is_empty() {
            Asked::Nothing
        } else {
            let blank = text.len() - text.trim_start().len();
            Asked::Expr(Expr::parse(text.trim(), offset + blank)?)
        };
        Ok(Self::asking(written, asked))
    }

    fn asking(text: &str, asked: Asked) -> Self {
        let calls_status = match &asked {
            Asked::Nothing => false,
            Asked::Expr(expr) => expr.calls_status(),
            Asked::Text(template) => template.exprs().any(Expr::calls_status),
        };
        Self {
            text: text.to_owned(),
            line: 0,
            asked,
            calls_status,
        }
    }

    /// With the line of the file where it stands, from 1.
    #[must_use]
    pub const fn at_line(mut self, line: u32) -> Self {
        self.line = line;
        self
    }

    /// The line of the file where it stands, from 1; 0 when there is none.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// As it was written; empty when it wasn't.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it says itself what to do after a failure. If not, `success() &&` is put before it.
    #[must_use]
    pub const fn calls_status(&self) -> bool {
        self.calls_status
    }

    /// Whether it is text around expressions, and so holds always: hardly ever meant.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        matches!(self.asked, Asked::Text(_))
    }

    /// The expressions in it.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let (one, template) = match &self.asked {
            Asked::Nothing => (None, None),
            Asked::Expr(expr) => (Some(expr), None),
            Asked::Text(template) => (None, Some(template)),
        };
        one.into_iter()
            .chain(template.into_iter().flat_map(Template::exprs))
    }

    /// Refuses expressions that see more than `place` shows.
    pub fn check(&self, place: Place) -> Result<(), ParseError> {
        self.exprs().try_for_each(|expr| expr.check(place))
    }

    /// Whether it holds. `contexts` must have a status.
    pub fn holds(&self, contexts: &Contexts<'_>) -> Result<bool, EvalError> {
        if !self.calls_status && !contexts.status().success {
            return Ok(false);
        }
        match &self.asked {
            Asked::Nothing => Ok(true),
            Asked::Expr(expr) => Ok(expr.eval(contexts)?.is_truthy()),
            Asked::Text(template) => Ok(template.resolve(contexts)?.is_truthy()),
        }
    }
}

impl TryFrom<WrittenCondition> for Condition {
    type Error = ParseError;

    fn try_from(WrittenCondition(written): WrittenCondition) -> Result<Self, ParseError> {
        Ok(Self::parse(&written.text, 0)?.at_line(written.line))
    }
}

impl From<Condition> for WrittenCondition {
    fn from(condition: Condition) -> Self {
        Self(Written {
            text: condition.text,
            line: condition.line,
            plain: false,
        })
    }
}
