//! Flag definitions and evaluation, usable alone inside any Rust program. Pure: no clock, no files, no network.
//!
//! So far it holds the one thing rollouts need as well: the hash that puts a user in a bucket.

mod bucketing;

pub use bucketing::{bucket_for, choose_variant, hash_key, murmur3_32, scale_hash};
