//! The proxy as clients and instances see it: the real one in a process of its own, between real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod affinity;
mod controlling;
mod counting;
mod drills;
mod failing;
mod lasting;
mod mirroring;
mod passing;
mod smuggling;
mod splitting;
mod swapping;
mod unanswered;
