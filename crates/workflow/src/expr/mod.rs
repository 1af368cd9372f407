//! GitHub's expressions, as its runner reads and evaluates them. Pure: what they see is passed in, `hashFiles` included.
//!
//! ```
//! use shipway_workflow::expr::{Contexts, Expr, Value};
//! let contexts = Contexts::new().with("github", Value::object([("ref_name", Value::from("main"))]));
//! let expr = Expr::parse("github.REF_NAME == 'Main' && 'yes' || 'no'", 0)?;
//! assert_eq!(expr.eval(&contexts)?, Value::from("yes"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{ops::Range, sync::Arc};

mod ast;
#[cfg(test)]
mod clauses;
mod error;
mod eval;
mod functions;
mod json;
mod json_reader;
mod lexer;
mod parser;
mod paths;
mod place;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use error::{EvalError, ParseError, listed, one_of};
pub(crate) use eval::BYTES_MAX;
pub use eval::{Contexts, HashFiles, Status};
pub use paths::Path;
pub use place::Place;
pub use template::{Condition, Template};
pub use value::{Names, Object, Value};

/// An expression, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    text: Arc<str>,
    offset: usize,
    root: ast::Node,
}

impl Expr {
    /// Reads an expression without its `${{ }}`. Places in errors are counted from `offset`.
    pub fn parse(text: &str, offset: usize) -> Result<Self, ParseError> {
        Ok(Self {
            text: Arc::from(text),
            offset,
            root: parser::parse(text, offset)?,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, when it is a literal text and nothing else.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.root.kind {
            ast::Kind::Literal(Value::String(text)) if self.text.starts_with('\'') => Some(text),
            _ => None,
        }
    }

    /// Where its text begins, inside a literal's quote when it is one.
    pub(crate) const fn start(&self) -> usize {
        self.root.at.start + 1
    }

    /// What it comes to.
    pub fn eval(&self, contexts: &Contexts<'_>) -> Result<Value, EvalError> {
        eval::evaluate(self, contexts)
    }

    /// Whether `success`, `failure`, `always` or `cancelled` is called anywhere in it.
    #[must_use]
    pub fn calls_status(&self) -> bool {
        let mut found = false;
        self.root.walk(&mut |node| {
            found |= matches!(&node.kind, ast::Kind::Call(function, _) if function.is_status())
        });
        found
    }

    /// The properties of a context that are named in it, with their places: `steps.build` gives `build`.
    #[must_use]
    pub fn properties_of(&self, context: &str) -> Vec<(String, Range<usize>)> {
        let mut found = Vec::new();
        self.root.walk(&mut |node| {
            let ast::Kind::Index(pair) = &node.kind else {
                return;
            };
            if let (ast::Kind::Context(name), ast::Kind::Literal(Value::String(property))) =
                (&pair[0].kind, &pair[1].kind)
                && &**name == context
            {
                found.push((property.to_string(), pair[1].at.clone()));
            }
        });
        found
    }
}
