//! `constant-condition`: an `if` that comes to the same always, so that what it guards always runs or never does.

use super::{LintFinding, LintSubject};
use crate::expr::{Contexts, IfCondition, StatusChecks};

pub(super) const CODE: &str = "constant-condition";

pub(super) fn check(subject: &LintSubject<'_>) -> Vec<LintFinding> {
    subject
        .conditions()
        .filter_map(|node| {
            let condition = IfCondition::parse(node.as_scalar_text()?, 0).ok()?;
            let constant = condition.exprs().all(crate::expr::Expr::is_constant);
            // Text around an expression has a warning of its own.
            if !constant || condition.is_text() || condition.exprs().next().is_none() {
                return None;
            }
            let holds = condition
                .holds(&Contexts::new().with_status(StatusChecks::FINE))
                .ok()?;
            let (message, help) = if holds {
                ("this condition is always true", "remove the `if`")
            } else {
                (
                    "this condition is always false, so this never runs",
                    "remove it, or mark it as intended: # shipway: allow(constant-condition)",
                )
            };
            Some(LintFinding::new(node.span, message, help))
        })
        .collect()
}
