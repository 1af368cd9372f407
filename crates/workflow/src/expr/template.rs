//! Text with `${{ expressions }}` in it, and conditions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Contexts, EvalError, Expr, ExprSite, ExprValue, ParseError, ast::LENGTH_MAX,
    functions::FunctionError,
};

/// Text that may hold expressions, and the line of the file where it begins. Serialized as text and line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredTemplate", into = "StoredTemplate")]
pub struct Template {
    text: String,
    line: u32,
    parts: Vec<TemplatePart>,
}

#[derive(Clone, Debug, PartialEq)]
enum TemplatePart {
    Text(String),
    Expr(Expr),
}

#[derive(Serialize, Deserialize)]
struct StoredTemplate {
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
                    .help("add `}}`; strings in expressions are written in single quotes")
            })?;
            if open > at {
                parts.push(TemplatePart::Text(text[at..open].to_owned()));
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
            parts.push(TemplatePart::Expr(expr));
            at = close + 2;
        }
        if at < text.len() {
            parts.push(TemplatePart::Text(text[at..].to_owned()));
        }
        // GitHub makes one expression of text with expressions in it, and that has the usual limit.
        if parts.len() > 1 && text.encode_utf16().count() > LENGTH_MAX {
            let help = "pass the values through `env:` instead of expressions";
            return Err(ParseError::new(
                format!("a string with expressions may have at most {LENGTH_MAX} characters"),
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

    /// Literal text: `${{` in it is not an expression.
    #[must_use]
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            parts: vec![TemplatePart::Text(text.clone())],
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
            [TemplatePart::Expr(expr)] => Some(expr),
            _ => None,
        }
    }

    /// The expressions in it, in order.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Text(_) => None,
            TemplatePart::Expr(expr) => Some(expr),
        })
    }

    /// Refuses expressions that see more than `place` shows.
    pub fn check(&self, place: ExprSite) -> Result<(), ParseError> {
        self.exprs().try_for_each(|expr| expr.check(place))
    }

    /// Its value: of a lone expression what that comes to, of all else text.
    pub fn resolve(&self, contexts: &Contexts<'_>) -> Result<ExprValue, EvalError> {
        match self.as_expr() {
            Some(expr) => expr.eval(contexts),
            None => self.concatenated(contexts).map(ExprValue::from),
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
                TemplatePart::Text(part) => text.push_str(part),
                TemplatePart::Expr(expr) => text.push_str(&expr.eval(contexts)?.to_text()),
            }
            if text.len() > super::eval::BYTES_MAX + self.text.len() {
                return Err(self.error(FunctionError::TooLarge.to_string()));
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

impl TryFrom<StoredTemplate> for Template {
    type Error = ParseError;

    fn try_from(written: StoredTemplate) -> Result<Self, ParseError> {
        let template = if written.plain {
            Self::literal(written.text)
        } else {
            Self::parse(&written.text, 0)?
        };
        Ok(template.at_line(written.line))
    }
}

impl From<Template> for StoredTemplate {
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

/// The condition of an `if:`. An empty one means `success()`; one without a status function holds only after success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredCondition", into = "StoredCondition")]
pub struct IfCondition {
    text: String,
    line: u32,
    asked: ConditionKind,
    calls_status: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum ConditionKind {
    Nothing,
    Expr(Expr),
    /// Text around `${{ }}`: GitHub makes one text of it, which holds as it isn't empty. [`IfCondition::is_text`] lets the
    /// parser warn.
    Text(Template),
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct StoredCondition(StoredTemplate);

impl Default for IfCondition {
    fn default() -> Self {
        Self {
            text: String::new(),
            line: 0,
            asked: ConditionKind::Nothing,
            calls_status: false,
        }
    }
}

impl IfCondition {
    /// Parses the value of `if:`, with or without `${{ }}`. Positions in errors start at `offset`.
    pub fn parse(text: &str, offset: usize) -> Result<Self, ParseError> {
        let asked = if text.trim().is_empty() {
            ConditionKind::Nothing
        } else if text.contains("${{") {
            let template = Template::parse(text, offset)?;
            match template.as_expr() {
                // A lone literal is a way to write text, and the text of an `if` is an expression.
                Some(expr) => match expr.as_text() {
                    Some(inner) => return Self::parse_plain(text, inner, expr.start()),
                    None => ConditionKind::Expr(expr.clone()),
                },
                None => ConditionKind::Text(template),
            }
        } else {
            return Self::parse_plain(text, text, offset);
        };
        Ok(Self::asking(text, asked))
    }

    /// An expression without `${{ }}` around it.
    fn parse_plain(written: &str, text: &str, offset: usize) -> Result<Self, ParseError> {
        let asked = if text.trim().is_empty() {
            ConditionKind::Nothing
        } else {
            let blank = text.len() - text.trim_start().len();
            ConditionKind::Expr(Expr::parse(text.trim(), offset + blank)?)
        };
        Ok(Self::asking(written, asked))
    }

    fn asking(text: &str, asked: ConditionKind) -> Self {
        let calls_status = match &asked {
            ConditionKind::Nothing => false,
            ConditionKind::Expr(expr) => expr.calls_status(),
            ConditionKind::Text(template) => template.exprs().any(Expr::calls_status),
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
        matches!(self.asked, ConditionKind::Text(_))
    }

    /// The expressions in it.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let (one, template) = match &self.asked {
            ConditionKind::Nothing => (None, None),
            ConditionKind::Expr(expr) => (Some(expr), None),
            ConditionKind::Text(template) => (None, Some(template)),
        };
        one.into_iter()
            .chain(template.into_iter().flat_map(Template::exprs))
    }

    /// Refuses expressions that see more than `place` shows.
    pub fn check(&self, place: ExprSite) -> Result<(), ParseError> {
        self.exprs().try_for_each(|expr| expr.check(place))
    }

    /// Whether it holds. `contexts` must have a status.
    pub fn holds(&self, contexts: &Contexts<'_>) -> Result<bool, EvalError> {
        if !self.calls_status && !contexts.status().success {
            return Ok(false);
        }
        match &self.asked {
            ConditionKind::Nothing => Ok(true),
            ConditionKind::Expr(expr) => Ok(expr.eval(contexts)?.is_truthy()),
            ConditionKind::Text(template) => Ok(template.resolve(contexts)?.is_truthy()),
        }
    }
}

impl TryFrom<StoredCondition> for IfCondition {
    type Error = ParseError;

    fn try_from(StoredCondition(written): StoredCondition) -> Result<Self, ParseError> {
        Ok(Self::parse(&written.text, 0)?.at_line(written.line))
    }
}

impl From<IfCondition> for StoredCondition {
    fn from(condition: IfCondition) -> Self {
        Self(StoredTemplate {
            text: condition.text,
            line: condition.line,
            plain: false,
        })
    }
}
