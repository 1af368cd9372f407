//! Why changes of flags and client keys are refused.

use shipway_flags::{BucketingVersion, FlagFileError};

use super::{FlagKey, TEXT_CHARS_MAX};
use crate::ids::{ClientKeyId, EnvironmentName};

/// Why a change is refused, with what the caller can do about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FlagSetRejection {
    #[error("there is no flag {key} in {environment}")]
    UnknownFlag {
        key: FlagKey,
        environment: EnvironmentName,
    },
    #[error(
        "the flag {key} has version {current} in {environment}, not {expected}: it was changed meanwhile; read it again, and repeat the change"
    )]
    OtherVersion {
        key: FlagKey,
        environment: EnvironmentName,
        current: u64,
        expected: u64,
    },
    #[error(
        "the flags of {environment} have version {current}, not {expected}: they were changed meanwhile; read them again, and repeat the change"
    )]
    OtherSetVersion {
        environment: EnvironmentName,
        current: u64,
        expected: u64,
    },
    /// Positions are those of the flag's own definition, or none for what else it breaks.
    #[error("{0}")]
    Invalid(FlagFileError),
    #[error("the definition is {bytes} bytes long, above the limit of {max}")]
    DefinitionTooLarge { bytes: usize, max: usize },
    #[error(
        "the definitions and segments of {environment} would have {bytes} bytes, above the limit of {max}"
    )]
    SetTooLarge {
        environment: EnvironmentName,
        bytes: usize,
        max: usize,
    },
    #[error("there would be {count} {what}, above the limit of {max}: remove some first")]
    TooMany {
        what: &'static str,
        count: usize,
        max: usize,
    },
    #[error("{0} must be 1 to {TEXT_CHARS_MAX} characters without control characters")]
    InvalidText(&'static str),
    #[error(
        "the flag {key} is killed in {environment} since {by} said: {reason}. Only a person changes it; a person resumes it first"
    )]
    Killed {
        key: FlagKey,
        environment: EnvironmentName,
        by: String,
        reason: String,
    },
    #[error("only a person can resume the flag {key}, which is killed in {environment}")]
    ResumeNeedsPerson {
        key: FlagKey,
        environment: EnvironmentName,
    },
    #[error(
        "the flag {key} has no variant {variant}, which it is killed with: resume it first, or keep the variant"
    )]
    UnknownKillVariant { key: FlagKey, variant: String },
    #[error(
        "the flags of {environment} bucket users with {current}; with another version every user would get another bucket"
    )]
    BucketingInUse {
        environment: EnvironmentName,
        current: BucketingVersion,
    },
    #[error("a flag can't be promoted to its own environment, {0}")]
    SamePromotionTarget(EnvironmentName),
    #[error("there is no client key {id} of {environment}")]
    UnknownClientKey {
        id: ClientKeyId,
        environment: EnvironmentName,
    },
    #[error("the expiry of a client key must be in the future and at most a year away")]
    InvalidExpiry,
    #[error("another client key has this secret: create one with a new secret")]
    SecretInUse,
}

/// Why a client key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientKeyProblem {
    #[error("this client key is unknown: it was revoked, or belongs to another service")]
    Unknown,
    #[error("the client key {0} has expired: create another")]
    Expired(ClientKeyId),
}
