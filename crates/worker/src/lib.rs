//! Runs one job of a workflow: a process of its own.
