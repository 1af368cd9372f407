//! Effects carried out: process target, checks, git, notifications.

pub mod git;
pub mod notify;
