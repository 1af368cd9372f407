//! The flags of one service.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shipway_flags::BucketingVersion;

use super::{
    ClientKeyProblem, FlagContent, FlagKey, FlagKill, FlagPromotion, FlagSetEvent, IssuedClientKey,
};
use crate::{
    aggregate::Event,
    ids::{ClientKeyId, Digest, EnvironmentName},
};

/// The flags of one service in all its environments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlagSetState {
    /// Events so far: of two copies of a state the one with more is newer.
    pub events: u64,
    /// Client keys that were ever created; their ids are not used again.
    pub keys_created: u32,
    pub environments: BTreeMap<EnvironmentName, EnvironmentFlags>,
}

/// The flags of one service in one environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentFlags {
    /// Counts changes of flags, segments and bucketing, not of client keys.
    pub version: u64,
    pub bucketing: BucketingVersion,
    pub segments: BTreeMap<String, Value>,
    pub flags: BTreeMap<FlagKey, StoredFlag>,
    pub client_keys: BTreeMap<ClientKeyId, StoredClientKey>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredFlag {
    /// Of the environment at the last change, kills and resumes included.
    pub version: u64,
    pub content: FlagContent,
    pub killed: Option<KilledFlag>,
    pub promoted_from: Option<FlagPromotion>,
    pub changed_at: Timestamp,
    pub changed_by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KilledFlag {
    pub kill: FlagKill,
    pub at: Timestamp,
    pub by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredClientKey {
    pub key: IssuedClientKey,
    pub created_at: Timestamp,
    pub created_by: String,
}

impl FlagSetState {
    /// A flag of an environment.
    #[must_use]
    pub fn flag(&self, environment: &EnvironmentName, key: &FlagKey) -> Option<&StoredFlag> {
        self.environments.get(environment)?.flags.get(key)
    }

    /// The environment whose flags a client may evaluate, by the SHA-256 of its key.
    ///
    /// # Errors
    /// The key is unknown or has expired.
    pub fn authenticate_client(
        &self,
        hash: &Digest,
        now: Timestamp,
    ) -> Result<(&EnvironmentName, &ClientKeyId), ClientKeyProblem> {
        for (name, environment) in &self.environments {
            for (id, stored) in &environment.client_keys {
                if stored.key.hash != *hash {
                    continue;
                }
                if stored.key.expires_at.is_some_and(|at| at <= now) {
                    return Err(ClientKeyProblem::Expired(id.clone()));
                }
                return Ok((name, id));
            }
        }
        Err(ClientKeyProblem::Unknown)
    }

    fn environment_mut(&mut self, name: &EnvironmentName) -> &mut EnvironmentFlags {
        self.environments.entry(name.clone()).or_default()
    }

    pub(super) fn apply(&mut self, event: &Event<FlagSetEvent>) {
        self.events += 1;
        match &event.body {
            FlagSetEvent::FlagChanged { environment, .. }
            | FlagSetEvent::FlagRemoved { environment, .. }
            | FlagSetEvent::FlagKilled { environment, .. }
            | FlagSetEvent::FlagResumed { environment, .. } => {
                self.environment_mut(environment).apply_to_flag(event);
            }
            FlagSetEvent::SegmentsChanged {
                environment,
                segments,
            } => {
                let environment = self.environment_mut(environment);
                environment.version += 1;
                environment.segments.clone_from(segments);
            }
            FlagSetEvent::BucketingChosen {
                environment,
                bucketing,
            } => {
                let environment = self.environment_mut(environment);
                environment.version += 1;
                environment.bucketing = *bucketing;
            }
            FlagSetEvent::ClientKeyCreated { environment, key } => {
                self.keys_created += 1;
                let stored = StoredClientKey {
                    key: key.clone(),
                    created_at: event.at,
                    created_by: event.by.to_string(),
                };
                let environment = self.environment_mut(environment);
                environment.client_keys.insert(key.id.clone(), stored);
            }
            FlagSetEvent::ClientKeyRevoked { environment, id } => {
                self.environment_mut(environment).client_keys.remove(id);
            }
            FlagSetEvent::AllRemoved => {
                for environment in self.environments.values_mut() {
                    *environment = EnvironmentFlags {
                        version: environment.version + 1,
                        ..EnvironmentFlags::default()
                    };
                }
            }
        }
    }
}

impl EnvironmentFlags {
    /// Whether nothing is set and no client has a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty() && self.segments.is_empty() && self.client_keys.is_empty()
    }

    /// Folds a fact about one flag of this environment; others change nothing.
    fn apply_to_flag(&mut self, event: &Event<FlagSetEvent>) {
        match &event.body {
            FlagSetEvent::FlagChanged {
                key,
                content,
                promoted_from,
                ..
            } => {
                self.change_flag(key, content, promoted_from.clone(), event);
            }
            FlagSetEvent::FlagRemoved { key, .. } => {
                self.version += 1;
                self.flags.remove(key);
            }
            FlagSetEvent::FlagKilled { key, kill, .. } => {
                let killed = KilledFlag {
                    kill: kill.clone(),
                    at: event.at,
                    by: event.by.to_string(),
                };
                self.set_killed(key, Some(killed));
            }
            FlagSetEvent::FlagResumed { key, .. } => self.set_killed(key, None),
            FlagSetEvent::SegmentsChanged { .. }
            | FlagSetEvent::BucketingChosen { .. }
            | FlagSetEvent::ClientKeyCreated { .. }
            | FlagSetEvent::ClientKeyRevoked { .. }
            | FlagSetEvent::AllRemoved => {}
        }
    }

    fn change_flag(
        &mut self,
        key: &FlagKey,
        content: &FlagContent,
        promoted_from: Option<FlagPromotion>,
        event: &Event<FlagSetEvent>,
    ) {
        self.version += 1;
        let killed = self.flags.get_mut(key).and_then(|it| it.killed.take());
        let flag = StoredFlag {
            version: self.version,
            content: content.clone(),
            killed,
            promoted_from,
            changed_at: event.at,
            changed_by: event.by.to_string(),
        };
        self.flags.insert(key.clone(), flag);
    }

    fn set_killed(&mut self, key: &FlagKey, killed: Option<KilledFlag>) {
        self.version += 1;
        if let Some(flag) = self.flags.get_mut(key) {
            flag.version = self.version;
            flag.killed = killed;
        }
    }
}
