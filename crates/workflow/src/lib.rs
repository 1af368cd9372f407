//! GitHub Actions files: model, expressions, job graph. Pure: no files, no clock, no network, and nothing is run here.
//!
//! [`parse()`] reads a file into a [`model::Workflow`], [`graph`] says which jobs may start, [`expr`] evaluates expressions,
//! and [`job`] is what a worker process is given and what it writes down.

pub mod cron;
pub mod expr;
#[doc(hidden)]
pub mod fuzz;
pub mod glob;
pub mod graph;
pub mod job;
pub mod lint;
pub mod model;
pub mod parse;
pub mod persistent_vec;
pub mod report;
pub mod runner;

pub use model::PushEvent;
pub use parse::{ParsedAction, ParsedWorkflow, parse, parse_action};
