//! Effects carried out: process target, checks, git, notifications.
