//! The delivery domain: services, runs, releases and rollouts as event-sourced state machines.
//!
//! Everything here is a pure function of state, input and the current time: no clock, no files, no network, no async. Start at
//! [`aggregate::Aggregate`].

#![allow(
    missing_docs,
    reason = "most fields and variants are named after their type; a doc that repeats the name is noise"
)]

pub mod access;
pub mod address;
pub mod aggregate;
pub mod audit;
pub mod check;
pub mod concurrency;
pub mod config;
pub mod configuration_changes;
pub mod delivery;
pub mod duration_text;
mod field_values;
pub mod flag_set;
pub mod forge;
pub mod gate;
pub mod identity_token;
pub mod ids;
pub mod keyed_request;
pub mod outbox;
pub mod principal_id;
pub mod projection;
pub mod release;
pub mod repository;
pub mod retention;
pub mod rollout;
pub mod row_facets;
pub mod run;
pub mod sealed_value;
pub mod secret;
pub mod service;
pub mod source_repository;
pub mod strategy;
pub mod target;
pub mod terminal;
pub mod testing;
pub mod user_directory;
pub mod weight;
