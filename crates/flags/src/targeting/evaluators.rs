//! The named rules that `$ref` refers to: flagd's `$evaluators` and Shipway's segments. Each is compiled once, when first referred to.

use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;

use super::expression::TargetingExpression;
use crate::diagnostic::FlagDocument;
use crate::document_value::DocumentValue;

pub(crate) struct NamedRule<'v> {
    pub(crate) value: &'v DocumentValue<'v>,
    pub(crate) document: FlagDocument,
    pub(crate) state: NamedRuleState,
}

#[derive(Clone)]
pub(crate) enum NamedRuleState {
    Pending,
    /// A reference to it now is a cycle.
    Compiling,
    Compiled {
        expression: Arc<TargetingExpression>,
        depth: usize,
    },
    Invalid,
}

impl NamedRule<'_> {
    /// The member of its document that holds it.
    pub(crate) fn parent_key(&self) -> &'static str {
        match self.document {
            FlagDocument::Definitions => "$evaluators",
            FlagDocument::Details => "segments",
        }
    }
}

pub(crate) type NamedRules<'v> = IndexMap<&'v str, NamedRule<'v>, FixedState>;
