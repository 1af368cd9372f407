//! The tree of an expression, and the functions that exist.

use std::{fmt::Debug, ops::Range, sync::Arc};

use super::value::ExprValue;

/// Nodes from the root to the deepest leaf; GitHub's limit, which also bounds the recursion here.
pub(crate) const DEPTH_MAX: u8 = 50;

/// Characters in an expression; GitHub's limit.
pub(crate) const LENGTH_MAX: usize = 21_000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExprNode {
    pub(crate) kind: ExprKind,
    /// Its byte range in the file.
    pub(crate) at: Range<usize>,
    pub(crate) depth: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ExprKind {
    Literal(ExprValue),
    /// `github`, in lower case.
    Context(Arc<str>),
    /// `a.b`, `a['b']`
    Index(Box<[ExprNode; 2]>),
    /// `a.*`
    Filter(Box<ExprNode>),
    Not(Box<ExprNode>),
    And(Vec<ExprNode>),
    Or(Vec<ExprNode>),
    Compare(ComparisonOperator, Box<[ExprNode; 2]>),
    Call(BuiltinFunction, Vec<ExprNode>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ComparisonOperator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The functions of expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuiltinFunction {
    Contains,
    StartsWith,
    EndsWith,
    Format,
    Join,
    ToJson,
    FromJson,
    HashFiles,
    Case,
    Success,
    Failure,
    Always,
    Cancelled,
}

impl BuiltinFunction {
    const ALL: [(Self, &'static str, usize, usize); 13] = [
        (Self::Contains, "contains", 2, 2),
        (Self::StartsWith, "startsWith", 2, 2),
        (Self::EndsWith, "endsWith", 2, 2),
        (Self::Format, "format", 1, 255),
        (Self::Join, "join", 1, 2),
        (Self::ToJson, "toJSON", 1, 1),
        (Self::FromJson, "fromJSON", 1, 1),
        (Self::HashFiles, "hashFiles", 1, 255),
        (Self::Case, "case", 3, 255),
        (Self::Success, "success", 0, 255),
        (Self::Failure, "failure", 0, 255),
        (Self::Always, "always", 0, 0),
        (Self::Cancelled, "cancelled", 0, 0),
    ];

    /// All names, as they are usually written.
    pub(crate) fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|(_, name, ..)| *name).collect()
    }

    /// The function called `name`, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known, ..)| known.eq_ignore_ascii_case(name))
            .map(|(function, ..)| *function)
    }

    fn row(self) -> &'static (Self, &'static str, usize, usize) {
        Self::ALL
            .iter()
            .find(|(function, ..)| *function == self)
            .expect("every function has a row")
    }

    pub(crate) fn name(self) -> &'static str {
        self.row().1
    }

    /// The error for `count` arguments, if that is not an allowed number.
    pub(crate) fn arity_error(self, count: usize) -> Option<String> {
        let (_, name, least, most) = *self.row();
        let wanted = match (least, most) {
            _ if (least..=most).contains(&count)
                && !(self == Self::Case && count.is_multiple_of(2)) =>
            {
                return None;
            }
            _ if self == Self::Case => {
                "pairs of a condition and a value, followed by a default value".to_owned()
            }
            (0, 0) => "nothing".to_owned(),
            (1, 1) => "1 value".to_owned(),
            (least, most) if least == most => format!("{least} values"),
            (least, 255) => format!(
                "at least {least} value{}",
                if least == 1 { "" } else { "s" }
            ),
            (least, most) => format!("{least} to {most} values"),
        };
        Some(format!("`{name}` takes {wanted}, but got {count}"))
    }

    /// Whether it is a status function: `success`, `failure`, `always`, `cancelled`.
    pub(crate) const fn is_status(self) -> bool {
        matches!(
            self,
            Self::Success | Self::Failure | Self::Always | Self::Cancelled
        )
    }
}

impl ExprNode {
    /// Calls `visit` on this node and all below it.
    pub(crate) fn walk<'n>(&'n self, visit: &mut impl FnMut(&'n ExprNode)) {
        visit(self);
        match &self.kind {
            ExprKind::Literal(_) | ExprKind::Context(_) => {}
            ExprKind::Filter(inner) | ExprKind::Not(inner) => inner.walk(visit),
            ExprKind::Index(pair) | ExprKind::Compare(_, pair) => {
                pair.iter().for_each(|node| node.walk(visit))
            }
            ExprKind::And(nodes) | ExprKind::Or(nodes) | ExprKind::Call(_, nodes) => {
                nodes.iter().for_each(|node| node.walk(visit))
            }
        }
    }
}
