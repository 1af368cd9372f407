//! The delivery domain: what is delivered, where it goes, and what may happen next. Pure: no clock, no files, no network, no async.
//!
//! Everything that must never go wrong is a function here, of (state, input, now). See [`aggregate::Aggregate`].

pub mod address;
pub mod aggregate;
pub mod check;
pub mod concurrency;
pub mod config;
pub mod exposure;
pub mod ids;
pub mod keyed_request;
pub mod release;
pub mod rollout;
pub mod run;
pub mod service;
pub mod target;
pub mod terminal;
pub mod testing;
