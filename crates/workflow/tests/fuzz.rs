//! The targets of `fuzz/`, driven for a moment: every seed, and seeds that were cut, mixed and damaged in ways that are the same
//! each time. `cargo fuzz` looks longer and deeper; what it finds becomes a seed.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "seeds are files, and the time is what bounds the test"
)]

use shipway_workflow::fuzz;

#[path = "../../../fuzz/drive.rs"]
mod drive;

#[test]
fn any_yaml_is_read_or_refused() {
    drive::drive("yaml", fuzz::yaml);
}

#[test]
fn any_workflow_is_read_or_refused() {
    drive::drive("files", fuzz::files);
}

#[test]
fn any_expression_is_evaluated_or_refused() {
    drive::drive("expressions", fuzz::expressions);
}

#[test]
fn any_pattern_and_time_is_read_or_refused() {
    drive::drive("patterns", fuzz::patterns);
}
