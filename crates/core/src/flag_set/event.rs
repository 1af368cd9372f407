//! The facts about flags.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shipway_flags::{BucketingVersion, FlagDetails};

use super::FlagKey;
use crate::ids::{ClientKeyId, Digest, EnvironmentName};

/// What a flag is in one environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagContent {
    /// flagd's JSON of this flag, as it was given.
    pub definition: String,
    /// Shipway's own facts: kind, owner, expiry, prerequisites.
    #[serde(default)]
    pub details: FlagDetails,
}

/// A flag that is switched off whatever its rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagKill {
    /// The variant for all users; none: the flag is disabled, and callers use their own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    pub reason: String,
}

/// The flag that a promotion copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagPromotion {
    pub environment: EnvironmentName,
    pub version: u64,
}

/// A client key without its secret. It reads and evaluates flags of one environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedClientKey {
    pub id: ClientKeyId,
    pub name: String,
    /// The SHA-256 of the secret.
    pub hash: Digest,
    /// None for one that never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Each of flags, segments and bucketing raises the version of its environment by one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FlagSetEvent {
    FlagChanged {
        environment: EnvironmentName,
        key: FlagKey,
        content: FlagContent,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        promoted_from: Option<FlagPromotion>,
    },
    FlagRemoved {
        environment: EnvironmentName,
        key: FlagKey,
    },
    FlagKilled {
        environment: EnvironmentName,
        key: FlagKey,
        kill: FlagKill,
    },
    FlagResumed {
        environment: EnvironmentName,
        key: FlagKey,
        reason: String,
    },
    SegmentsChanged {
        environment: EnvironmentName,
        segments: BTreeMap<String, Value>,
    },
    BucketingChosen {
        environment: EnvironmentName,
        bucketing: BucketingVersion,
    },
    ClientKeyCreated {
        environment: EnvironmentName,
        key: IssuedClientKey,
    },
    ClientKeyRevoked {
        environment: EnvironmentName,
        id: ClientKeyId,
    },
    /// No flag and no key exists any more: the service was deleted.
    AllRemoved,
}
