//! Which changes of flags and client keys are accepted.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::Value;
use shipway_flags::{
    BucketingVersion, FlagDiagnostic, FlagDocument, FlagFileError, FlagFileStrictness, FlagProblem,
    TextPosition,
};

use super::{
    CLIENT_KEY_LIFETIME_MAX, CLIENT_KEYS_MAX, DEFINITION_BYTES_MAX, ENVIRONMENT_FLAGS_MAX,
    EnvironmentFlags, FLAG_ENVIRONMENTS_MAX, FlagContent, FlagKey, FlagKill, FlagPromotion,
    FlagSetDocuments, FlagSetEvent, FlagSetInput, FlagSetRejection, FlagSetState, IssuedClientKey,
    SEGMENTS_MAX, SET_BYTES_MAX, StoredFlag, flag_set_documents::definition_line,
};
use crate::{
    aggregate::Actor,
    ids::{ClientKeyId, Digest, EnvironmentName},
    user_directory::is_valid_text,
};

/// One fact at most follows from an input.
pub(super) fn decide(
    state: &FlagSetState,
    input: FlagSetInput,
    by: &Actor,
    now: Timestamp,
) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
    match input {
        FlagSetInput::ChangeFlag {
            environment,
            key,
            content,
            expected_version,
        } => {
            let flags = find_environment(state, &environment)?;
            let change = FlagChange {
                environment,
                key,
                content,
                promoted_from: None,
            };
            change.require_version(&flags, expected_version)?;
            change.decide(&flags, by)
        }
        FlagSetInput::PromoteFlag {
            key,
            source,
            target,
            source_version,
            expected_version,
        } => {
            let change = promote_flag(state, key, source, target, source_version)?;
            let flags = find_environment(state, &change.environment)?;
            change.require_version(&flags, expected_version)?;
            change.decide(&flags, by)
        }
        FlagSetInput::RemoveFlag {
            environment,
            key,
            expected_version,
        } => remove_flag(state, environment, key, expected_version),
        FlagSetInput::KillFlag {
            environment,
            key,
            kill,
        } => kill_flag(state, environment, key, kill),
        FlagSetInput::ResumeFlag {
            environment,
            key,
            reason,
        } => resume_flag(state, environment, key, reason, by),
        FlagSetInput::ChangeSegments { .. }
        | FlagSetInput::ChooseBucketing { .. }
        | FlagSetInput::CreateClientKey { .. }
        | FlagSetInput::RevokeClientKey { .. }
        | FlagSetInput::RemoveAll
        | FlagSetInput::TimerFired => decide_set_change(state, input, now),
    }
}

/// Changes of a whole set, and of client keys.
fn decide_set_change(
    state: &FlagSetState,
    input: FlagSetInput,
    now: Timestamp,
) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
    match input {
        FlagSetInput::ChangeSegments {
            environment,
            segments,
            expected_version,
        } => change_segments(state, environment, segments, expected_version),
        FlagSetInput::ChooseBucketing {
            environment,
            bucketing,
        } => choose_bucketing(state, environment, bucketing),
        FlagSetInput::CreateClientKey {
            environment,
            name,
            hash,
            expires_at,
        } => {
            let key = issue_client_key(state, &environment, name, hash, expires_at, now)?;
            Ok(Some(FlagSetEvent::ClientKeyCreated { environment, key }))
        }
        FlagSetInput::RevokeClientKey { environment, id } => {
            revoke_client_key(state, environment, id)
        }
        FlagSetInput::RemoveAll => {
            let is_empty = state.environments.values().all(EnvironmentFlags::is_empty);
            Ok((!is_empty).then_some(FlagSetEvent::AllRemoved))
        }
        // Flags are decided by the caller.
        FlagSetInput::TimerFired
        | FlagSetInput::ChangeFlag { .. }
        | FlagSetInput::PromoteFlag { .. }
        | FlagSetInput::RemoveFlag { .. }
        | FlagSetInput::KillFlag { .. }
        | FlagSetInput::ResumeFlag { .. } => Ok(None),
    }
}

/// A flag with its new content, to be checked.
struct FlagChange {
    environment: EnvironmentName,
    key: FlagKey,
    content: FlagContent,
    promoted_from: Option<FlagPromotion>,
}

impl FlagChange {
    fn require_version(
        &self,
        flags: &EnvironmentFlags,
        expected: Option<u64>,
    ) -> Result<(), FlagSetRejection> {
        let flag = flags.flags.get(&self.key);
        require_flag_version(&self.environment, &self.key, flag, expected)
    }

    fn decide(
        self,
        flags: &EnvironmentFlags,
        by: &Actor,
    ) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
        let before = flags.flags.get(&self.key);
        if let Some(before) = before {
            if is_automatic(by) {
                require_not_killed(&self.environment, &self.key, before)?;
            }
            if before.content == self.content {
                return Ok(None);
            }
        } else {
            require_at_most("flags", flags.flags.len() + 1, ENVIRONMENT_FLAGS_MAX)?;
        }
        self.check_content(flags)?;
        if let Some(killed) = before.and_then(|it| it.killed.as_ref()) {
            require_kill_variant(&self.key, &self.content, &killed.kill)?;
        }
        Ok(Some(FlagSetEvent::FlagChanged {
            environment: self.environment,
            key: self.key,
            content: self.content,
            promoted_from: self.promoted_from,
        }))
    }

    fn check_content(&self, flags: &EnvironmentFlags) -> Result<(), FlagSetRejection> {
        let definition = &self.content.definition;
        if definition.len() > DEFINITION_BYTES_MAX {
            return Err(FlagSetRejection::DefinitionTooLarge {
                bytes: definition.len(),
                max: DEFINITION_BYTES_MAX,
            });
        }
        if let Some(owner) = &self.content.details.owner {
            require_text("the owner", owner)?;
        }
        // Also keeps a definition from closing the object that it is written into.
        if let Err(error) = serde_json::from_str::<IgnoredAny>(definition) {
            return Err(invalid_json(&error));
        }
        let documents = flags.documents_with_flag(&self.key, self.content.clone());
        check_documents(&self.environment, &documents, Some(&self.key))
    }
}

fn promote_flag(
    state: &FlagSetState,
    key: FlagKey,
    source: EnvironmentName,
    target: EnvironmentName,
    source_version: Option<u64>,
) -> Result<FlagChange, FlagSetRejection> {
    if source == target {
        return Err(FlagSetRejection::SamePromotionTarget(source));
    }
    let flag = require_flag(state, &source, &key)?;
    require_flag_version(&source, &key, Some(flag), source_version)?;
    Ok(FlagChange {
        environment: target,
        key,
        content: flag.content.clone(),
        promoted_from: Some(FlagPromotion {
            environment: source,
            version: flag.version,
        }),
    })
}

fn remove_flag(
    state: &FlagSetState,
    environment: EnvironmentName,
    key: FlagKey,
    expected: Option<u64>,
) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
    let flag = require_flag(state, &environment, &key)?;
    require_flag_version(&environment, &key, Some(flag), expected)?;
    // A flag that is added again would come back without its kill.
    require_not_killed(&environment, &key, flag)?;
    let documents = find_environment(state, &environment)?.documents_without_flag(&key);
    check_documents(&environment, &documents, None)?;
    Ok(Some(FlagSetEvent::FlagRemoved { environment, key }))
}

fn kill_flag(
    state: &FlagSetState,
    environment: EnvironmentName,
    key: FlagKey,
    kill: FlagKill,
) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
    let flag = require_flag(state, &environment, &key)?;
    require_text("the reason", &kill.reason)?;
    require_kill_variant(&key, &flag.content, &kill)?;
    let variant_before = flag.killed.as_ref().map(|it| &it.kill.variant);
    if variant_before == Some(&kill.variant) {
        return Ok(None);
    }
    Ok(Some(FlagSetEvent::FlagKilled {
        environment,
        key,
        kill,
    }))
}

fn resume_flag(
    state: &FlagSetState,
    environment: EnvironmentName,
    key: FlagKey,
    reason: String,
    by: &Actor,
) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
    let flag = require_flag(state, &environment, &key)?;
    require_text("the reason", &reason)?;
    if !matches!(by, Actor::Person { .. }) {
        return Err(FlagSetRejection::ResumeNeedsPerson { key, environment });
    }
    Ok(flag.killed.is_some().then_some(FlagSetEvent::FlagResumed {
        environment,
        key,
        reason,
    }))
}

fn change_segments(
    state: &FlagSetState,
    environment: EnvironmentName,
    segments: BTreeMap<String, Value>,
    expected: Option<u64>,
) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
    let flags = find_environment(state, &environment)?;
    if let Some(expected) = expected
        && expected != flags.version
    {
        return Err(FlagSetRejection::OtherSetVersion {
            environment,
            current: flags.version,
            expected,
        });
    }
    if flags.segments == segments {
        return Ok(None);
    }
    require_at_most("segments", segments.len(), SEGMENTS_MAX)?;
    check_documents(
        &environment,
        &flags.documents_with_segments(&segments),
        None,
    )?;
    Ok(Some(FlagSetEvent::SegmentsChanged {
        environment,
        segments,
    }))
}

fn choose_bucketing(
    state: &FlagSetState,
    environment: EnvironmentName,
    bucketing: BucketingVersion,
) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
    let flags = find_environment(state, &environment)?;
    if flags.bucketing == bucketing {
        return Ok(None);
    }
    if !flags.flags.is_empty() {
        return Err(FlagSetRejection::BucketingInUse {
            environment,
            current: flags.bucketing,
        });
    }
    Ok(Some(FlagSetEvent::BucketingChosen {
        environment,
        bucketing,
    }))
}

fn issue_client_key(
    state: &FlagSetState,
    environment: &EnvironmentName,
    name: String,
    hash: Digest,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<IssuedClientKey, FlagSetRejection> {
    require_text("the name of a client key", &name)?;
    if expires_at.is_some_and(|at| at <= now || at.duration_since(now) > CLIENT_KEY_LIFETIME_MAX) {
        return Err(FlagSetRejection::InvalidExpiry);
    }
    let keys = find_environment(state, environment)?.client_keys.len();
    require_at_most("client keys", keys + 1, CLIENT_KEYS_MAX)?;
    let mut known = (state.environments.values()).flat_map(|it| it.client_keys.values());
    if known.any(|it| it.key.hash == hash) {
        return Err(FlagSetRejection::SecretInUse);
    }
    let number = state.keys_created + 1;
    let id = format!("k{number}").parse();
    Ok(IssuedClientKey {
        id: id.expect("a letter and a number are a valid id"),
        name,
        hash,
        expires_at,
    })
}

fn revoke_client_key(
    state: &FlagSetState,
    environment: EnvironmentName,
    id: ClientKeyId,
) -> Result<Option<FlagSetEvent>, FlagSetRejection> {
    let flags = state.environments.get(&environment);
    if !flags.is_some_and(|it| it.client_keys.contains_key(&id)) {
        return Err(FlagSetRejection::UnknownClientKey { id, environment });
    }
    Ok(Some(FlagSetEvent::ClientKeyRevoked { environment, id }))
}

/// The flags of an environment, or an empty set if another environment is within the limit.
fn find_environment<'s>(
    state: &'s FlagSetState,
    name: &EnvironmentName,
) -> Result<Cow<'s, EnvironmentFlags>, FlagSetRejection> {
    if let Some(flags) = state.environments.get(name) {
        return Ok(Cow::Borrowed(flags));
    }
    let count = state.environments.len() + 1;
    require_at_most("environments with flags", count, FLAG_ENVIRONMENTS_MAX)?;
    Ok(Cow::Owned(EnvironmentFlags::default()))
}

/// Guarded rollouts and schedules; a push is a person's.
const fn is_automatic(by: &Actor) -> bool {
    match by {
        Actor::Shipway(_) | Actor::Workload { .. } => true,
        Actor::Person { .. } | Actor::Push { .. } => false,
    }
}

fn require_flag<'s>(
    state: &'s FlagSetState,
    environment: &EnvironmentName,
    key: &FlagKey,
) -> Result<&'s StoredFlag, FlagSetRejection> {
    (state.flag(environment, key)).ok_or_else(|| FlagSetRejection::UnknownFlag {
        key: key.clone(),
        environment: environment.clone(),
    })
}

fn require_flag_version(
    environment: &EnvironmentName,
    key: &FlagKey,
    flag: Option<&StoredFlag>,
    expected: Option<u64>,
) -> Result<(), FlagSetRejection> {
    let current = flag.map_or(0, |it| it.version);
    match expected {
        Some(expected) if expected != current => Err(FlagSetRejection::OtherVersion {
            key: key.clone(),
            environment: environment.clone(),
            current,
            expected,
        }),
        Some(_) | None => Ok(()),
    }
}

fn require_not_killed(
    environment: &EnvironmentName,
    key: &FlagKey,
    flag: &StoredFlag,
) -> Result<(), FlagSetRejection> {
    match &flag.killed {
        None => Ok(()),
        Some(killed) => Err(FlagSetRejection::Killed {
            key: key.clone(),
            environment: environment.clone(),
            by: killed.by.clone(),
            reason: killed.kill.reason.clone(),
        }),
    }
}

fn require_kill_variant(
    key: &FlagKey,
    content: &FlagContent,
    kill: &FlagKill,
) -> Result<(), FlagSetRejection> {
    let Some(variant) = &kill.variant else {
        return Ok(());
    };
    let definition = serde_json::from_str::<Value>(&content.definition);
    let has_variant = definition.is_ok_and(|it| {
        it.get("variants")
            .and_then(|all| all.get(variant))
            .is_some()
    });
    if !has_variant {
        return Err(FlagSetRejection::UnknownKillVariant {
            key: key.clone(),
            variant: variant.clone(),
        });
    }
    Ok(())
}

const fn require_at_most(
    what: &'static str,
    count: usize,
    max: usize,
) -> Result<(), FlagSetRejection> {
    if count > max {
        return Err(FlagSetRejection::TooMany { what, count, max });
    }
    Ok(())
}

fn require_text(what: &'static str, text: &str) -> Result<(), FlagSetRejection> {
    if !is_valid_text(text) {
        return Err(FlagSetRejection::InvalidText(what));
    }
    Ok(())
}

/// The set compiles and is within its limit. `changed` is the flag that the caller has given.
fn check_documents(
    environment: &EnvironmentName,
    documents: &FlagSetDocuments,
    changed: Option<&FlagKey>,
) -> Result<(), FlagSetRejection> {
    let segments = documents.details.segments.values();
    let segment_bytes: usize = segments.map(|rule| rule.to_string().len()).sum();
    let bytes = documents.definitions.len() + segment_bytes;
    if bytes > SET_BYTES_MAX {
        return Err(FlagSetRejection::SetTooLarge {
            environment: environment.clone(),
            bytes,
            max: SET_BYTES_MAX,
        });
    }
    let Err(mut error) = documents.compile(FlagFileStrictness::Strict) else {
        return Ok(());
    };
    for diagnostic in &mut error.diagnostics {
        diagnostic.position = changed.and_then(|key| {
            let first_line = definition_line(&documents.definitions, key);
            position_in_definition(diagnostic, key, first_line)
        });
    }
    Err(FlagSetRejection::Invalid(error))
}

/// The position of a problem in the definition of `key`, which begins on `first_line` of the composed set.
fn position_in_definition(
    diagnostic: &FlagDiagnostic,
    key: &FlagKey,
    first_line: usize,
) -> Option<TextPosition> {
    let token = key.as_str().replace('~', "~0").replace('/', "~1");
    let below = diagnostic.pointer.strip_prefix("/flags/")?;
    let below = below.strip_prefix(&token)?;
    if !(below.is_empty() || below.starts_with('/')) {
        return None;
    }
    let position = diagnostic.position?;
    Some(TextPosition {
        line: (position.line + 1)
            .checked_sub(first_line)
            .filter(|it| *it > 0)?,
        column: position.column,
    })
}

fn invalid_json(error: &serde_json::Error) -> FlagSetRejection {
    FlagSetRejection::Invalid(FlagFileError {
        diagnostics: vec![FlagDiagnostic {
            document: FlagDocument::Definitions,
            pointer: String::new(),
            position: Some(TextPosition {
                line: error.line(),
                column: error.column().max(1),
            }),
            problem: FlagProblem::InvalidJson {
                message: error.to_string(),
            },
        }],
        unreported: 0,
    })
}
