//! GitHub's expressions, as its runner reads and evaluates them. Pure: what they see is passed in, `hashFiles` included.
//!
//! ```
//! use shipway_workflow::expr::{Contexts, Expr, ExprValue};
//! let contexts = Contexts::new().with("github", ExprValue::object([("ref_name", ExprValue::from("main"))]));
//! let expr = Expr::parse("github.REF_NAME == 'Main' && 'yes' || 'no'", 0)?;
//! assert_eq!(expr.eval(&contexts)?, ExprValue::from("yes"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{ops::Range, sync::Arc};

mod ast;
mod context_path;
mod error;
mod eval;
mod expr_site;
mod functions;
mod json;
mod json_reader;
mod lexer;
mod parser;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use context_path::ContextPath;
pub use error::{EvalError, ParseError, join_with_and, join_with_or};
pub(crate) use eval::BYTES_MAX;
pub use eval::{Contexts, HashFiles, StatusChecks};
pub use expr_site::ExprSite;
pub use functions::HashFilesError;
pub use template::{IfCondition, Template};
pub use value::{ExprObject, ExprValue, PropertyNames};

/// An expression, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    text: Arc<str>,
    offset: usize,
    root: ast::ExprNode,
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
            ast::ExprKind::Literal(ExprValue::String(text)) if self.text.starts_with('\'') => {
                Some(text)
            }
            _ => None,
        }
    }

    /// Where its text begins, inside a literal's quote when it is one.
    pub(crate) const fn start(&self) -> usize {
        self.root.at.start + 1
    }

    /// Evaluates the expression.
    pub fn eval(&self, contexts: &Contexts<'_>) -> Result<ExprValue, EvalError> {
        eval::evaluate(self, contexts)
    }

    /// Whether `success`, `failure`, `always` or `cancelled` is called anywhere in it.
    #[must_use]
    pub fn calls_status(&self) -> bool {
        let mut found = false;
        self.root.walk(&mut |node| {
            found |= matches!(&node.kind, ast::ExprKind::Call(function, _) if function.is_status())
        });
        found
    }

    /// The properties of a context that are named in it, with their places: `steps.build` gives `build`.
    #[must_use]
    pub fn properties_of(&self, context: &str) -> Vec<(String, Range<usize>)> {
        let mut found = Vec::new();
        self.root.walk(&mut |node| {
            let ast::ExprKind::Index(pair) = &node.kind else {
                return;
            };
            if let (
                ast::ExprKind::Context(name),
                ast::ExprKind::Literal(ExprValue::String(property)),
            ) = (&pair[0].kind, &pair[1].kind)
                && &**name == context
            {
                found.push((property.to_string(), pair[1].at.clone()));
            }
        });
        found
    }
}
