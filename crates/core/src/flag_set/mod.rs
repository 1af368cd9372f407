//! The flags of a service: definitions in each environment, kills, and the keys of clients that evaluate them.
//!
//! # Why
//!
//! A flag changes what users see, as a deploy does: each change is an event with its author, and a kill holds until a person resumes it.
//! Definitions are flagd's JSON as it was given ([`shipway_flags`] reads it); Shipway's own facts are separate from it (ADR 34).
//!
//! # Invariants
//!
//! - One stream for each service. Environments share nothing; a promotion copies one flag.
//! - A set that was accepted compiles: a change is checked together with the whole set of its environment.
//! - Versions of an environment only grow, also after a removal. A flag's version is that of its environment at its last change.
//! - While a flag is killed, Shipway itself can't change it, it can't be removed, and only a person can resume it.
//! - How percentages hash their subjects is chosen while the set has no flags, and never changes after that.
//! - Secrets of client keys are random values whose SHA-256 is recorded: the log opens nothing.

mod decide;
mod event;
mod flag_key;
mod flag_set_documents;
mod rejection;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shipway_flags::BucketingVersion;

pub use event::{FlagContent, FlagKill, FlagPromotion, FlagSetEvent, IssuedClientKey};
pub use flag_key::{FlagKey, ParseFlagKeyError};
pub use flag_set_documents::FlagSetDocuments;
pub use rejection::{ClientKeyProblem, FlagSetRejection};
pub use state::{EnvironmentFlags, FlagSetState, KilledFlag, StoredClientKey, StoredFlag};

use crate::{
    aggregate::{Actor, Aggregate, Event, PendingWork, ViewRow},
    ids::{ClientKeyId, Digest, EnvironmentName, ServiceName},
};

/// Flags of an environment at most.
pub const ENVIRONMENT_FLAGS_MAX: usize = 5_000;
/// Bytes of a definition at most.
pub const DEFINITION_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all definitions and segments of an environment at most.
pub const SET_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Segments of an environment at most.
pub const SEGMENTS_MAX: usize = 500;
/// Environments with flags of a service at most.
pub const FLAG_ENVIRONMENTS_MAX: usize = 50;
/// Client keys of an environment at most.
pub const CLIENT_KEYS_MAX: usize = 100;
/// Characters of a reason, an owner or the name of a key at most.
pub const TEXT_CHARS_MAX: usize = 200;
/// The longest lifetime of a client key that expires.
pub const CLIENT_KEY_LIFETIME_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);

/// The aggregate of flags.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct FlagSetAggregate;

/// Flags ask nothing of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagSetEffect {}

/// A change of flags, segments or client keys.
///
/// An expected version is the one that the caller has seen; none accepts any, and 0 is a flag that doesn't exist.
#[derive(Clone, Debug, PartialEq)]
pub enum FlagSetInput {
    /// Adds a flag or replaces its content.
    ChangeFlag {
        environment: EnvironmentName,
        key: FlagKey,
        content: FlagContent,
        expected_version: Option<u64>,
    },
    /// Copies a flag's content to another environment. The kill of either is unaffected.
    PromoteFlag {
        key: FlagKey,
        source: EnvironmentName,
        target: EnvironmentName,
        /// Of the flag in `source`.
        source_version: Option<u64>,
        /// Of the flag in `target`.
        expected_version: Option<u64>,
    },
    RemoveFlag {
        environment: EnvironmentName,
        key: FlagKey,
        expected_version: Option<u64>,
    },
    /// Takes no version: an editor never delays a kill.
    KillFlag {
        environment: EnvironmentName,
        key: FlagKey,
        kill: FlagKill,
    },
    ResumeFlag {
        environment: EnvironmentName,
        key: FlagKey,
        reason: String,
    },
    /// Replaces all segments of an environment.
    ChangeSegments {
        environment: EnvironmentName,
        segments: BTreeMap<String, Value>,
        /// Of the environment.
        expected_version: Option<u64>,
    },
    ChooseBucketing {
        environment: EnvironmentName,
        bucketing: BucketingVersion,
    },
    CreateClientKey {
        environment: EnvironmentName,
        name: String,
        /// The SHA-256 of the secret.
        hash: Digest,
        expires_at: Option<Timestamp>,
    },
    RevokeClientKey {
        environment: EnvironmentName,
        id: ClientKeyId,
    },
    /// Removes all flags and keys: the service is deleted, and its name may later belong to others.
    RemoveAll,
    TimerFired,
}

/// The stream of a service's flags.
#[must_use]
pub fn flag_set_stream(service: &ServiceName) -> String {
    format!("{}/{service}", FlagSetAggregate::KIND)
}

impl Aggregate for FlagSetAggregate {
    const KIND: &'static str = "flags";
    type State = FlagSetState;
    type Body = FlagSetEvent;
    type Input = FlagSetInput;
    type Effect = FlagSetEffect;
    type Rejection = FlagSetRejection;

    fn decide(
        state: &FlagSetState,
        input: FlagSetInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<FlagSetEvent>>, FlagSetRejection> {
        let body = decide::decide(state, input, &by, now)?;
        let event = body.map(|body| Event { at: now, by, body });
        Ok(event.into_iter().collect())
    }

    fn apply(state: &mut FlagSetState, event: &Event<FlagSetEvent>) {
        state.apply(event);
    }

    fn pending(_state: &FlagSetState, _now: Timestamp) -> PendingWork<FlagSetEffect> {
        PendingWork::nothing()
    }

    fn rows(_state: &FlagSetState, _events: &[Event<FlagSetEvent>]) -> Vec<ViewRow> {
        Vec::new()
    }

    fn timer_fired() -> FlagSetInput {
        FlagSetInput::TimerFired
    }
}
