//! The secrets and variables of a server: those that users have set, which are in the log ([`shipway_core::secret`]), and those of
//! the operator's file (`--secrets`).
//!
//! # Invariants
//!
//! - What users have set comes before the file, and values of an environment before shared ones.
//! - Every value that is given out is recorded: a job's before it starts, the others shortly afterwards.
//!
//! # Failure modes
//!
//! - A value can't be decrypted: jobs that need it fail with the reason; for other users the secret is not set, and the server logs the
//!   reason.

mod secrets_file;
mod use_recorder;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, PoisonError, RwLock},
};

pub use secrets_file::SecretsError;
pub(crate) use secrets_file::SecretsFile;
use shipway_core::{
    aggregate::{Aggregate as _, Event, fold},
    ids::{EnvironmentName, ServiceName},
    sealed_value::SealedValue,
    secret::{
        FoundSecret, SealedSecret, SecretAggregate, SecretEvent, SecretName, SecretScope,
        SecretScopes, SecretState, SecretUser, UsedSecret, secret_stream,
    },
};
use shipway_engine::{Store, StoreError};
pub(crate) use use_recorder::{SecretUse, UseRecorder};

use crate::sealing::{SealingKeys, UnsealError};

/// The secrets and variables of a server.
#[derive(Clone)]
pub(crate) struct SecretStore {
    file: Arc<SecretsFile>,
    keys: Arc<SealingKeys>,
    /// By stream.
    states: Arc<RwLock<BTreeMap<String, Arc<SecretState>>>>,
    uses: UseRecorder,
}

/// The service and environment that need a secret.
#[derive(Clone, Copy)]
pub(crate) struct SecretPlace<'a> {
    pub(crate) service: &'a ServiceName,
    pub(crate) environment: Option<&'a EnvironmentName>,
}

/// Secrets of an environment, or of none, encrypted with the newest key.
pub(crate) struct ResealedSecrets {
    pub(crate) environment: Option<EnvironmentName>,
    pub(crate) secrets: Vec<SealedSecret>,
}

/// A secret of the log with its value.
struct OpenedSecret {
    stream: String,
    secret: UsedSecret,
    value: String,
}

/// The secrets of a job.
#[derive(Default)]
pub(crate) struct JobSecrets {
    /// Those of no environment.
    pub(crate) shared: BTreeMap<String, String>,
    /// Those of the job's environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// What of them the log knows, to be recorded before the job starts; by stream.
    pub(crate) used: BTreeMap<String, Vec<UsedSecret>>,
}

/// A secret that can't be given to a job.
#[derive(Debug, thiserror::Error)]
#[error("the secret {name} of {scope} can't be decrypted: {reason}")]
pub(crate) struct LockedSecretError {
    name: SecretName,
    scope: SecretScope,
    reason: UnsealError,
}

impl SecretStore {
    /// The secrets of a file and of the log. Read before anything that may need one starts.
    pub(crate) async fn open(
        file: SecretsFile,
        keys: Arc<SealingKeys>,
        log: &dyn Store,
    ) -> Result<Self, StoreError> {
        let mut states = BTreeMap::new();
        for stream in log.streams(SecretAggregate::KIND).await? {
            let mut state = SecretState::default();
            for text in log.read(&stream, 0).await? {
                let event: Event<SecretEvent> = serde_json::from_str(&text).map_err(|error| {
                    StoreError(format!("{stream} has an unreadable event: {error}"))
                })?;
                fold::<SecretAggregate>(&mut state, [&event]);
            }
            states.insert(stream, Arc::new(state));
        }
        Ok(Self {
            file: Arc::new(file),
            keys,
            states: Arc::new(RwLock::new(states)),
            uses: UseRecorder::default(),
        })
    }

    /// Takes over the state of a stream after a change, unless a newer one is known.
    pub(crate) fn refresh(&self, stream: &str, state: Arc<SecretState>) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        let known = states.get(stream).map_or(0, |it| it.events);
        if known < state.events {
            states.insert(stream.to_owned(), state);
        }
    }

    /// Encrypts a value for the log.
    pub(crate) fn seal(
        &self,
        scope: &SecretScope,
        name: &SecretName,
        value: &str,
    ) -> io::Result<SealedValue> {
        self.keys
            .seal(&scope.sealing_purpose(name), value.as_bytes())
    }

    /// Adds a key that encrypts from now on.
    pub(crate) fn add_key(&self) -> io::Result<()> {
        self.keys.add_key().map(|_| ())
    }

    /// The secrets of a stream that an older key has encrypted, encrypted with the newest one.
    pub(crate) fn reseal(
        &self,
        service: Option<&ServiceName>,
    ) -> Result<Vec<ResealedSecrets>, ResealError> {
        let Some(state) = self.state(service) else {
            return Ok(Vec::new());
        };
        let newest = self.keys.newest();
        let mut resealed = Vec::new();
        for (environment, values) in state.all_values() {
            let scope = SecretScope {
                service: service.cloned(),
                environment: environment.cloned(),
            };
            let mut secrets = Vec::new();
            for name in values.secrets.keys() {
                let Some((version, value)) = values.secret(name).filter(|it| it.1.key < newest)
                else {
                    continue;
                };
                let opened = self.unseal(name, &scope, value)?;
                secrets.push(SealedSecret {
                    name: name.clone(),
                    version,
                    value: self.seal(&scope, name, &opened)?,
                });
            }
            let environment = environment.cloned();
            resealed.push(ResealedSecrets {
                environment,
                secrets,
            });
        }
        resealed.retain(|it| !it.secrets.is_empty());
        Ok(resealed)
    }

    /// The services for which something is set, and none for all services.
    pub(crate) fn scopes(&self) -> Vec<Option<ServiceName>> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let all = secret_stream(None);
        let services = states.keys().filter(|stream| **stream != all);
        let services = services.filter_map(|stream| stream.split_once('/')?.1.parse().ok());
        [None].into_iter().chain(services.map(Some)).collect()
    }

    /// One secret; `user` gets it.
    pub(crate) fn find(
        &self,
        place: SecretPlace<'_>,
        name: &str,
        user: &SecretUser,
    ) -> Option<String> {
        match self.find_in_log(place, name) {
            Some(Ok(OpenedSecret {
                stream,
                secret,
                value,
            })) => {
                let user = user.clone();
                self.uses.report(SecretUse {
                    stream,
                    user,
                    secret,
                });
                return Some(value);
            }
            // Not the value of the file, which this secret has replaced.
            Some(Err(error)) => {
                tracing::error!(%error, "a secret is treated as not set");
                return None;
            }
            None => {}
        }
        let environment = place.environment.map_or("", |it| it.as_str());
        self.file.get_in(environment, name).map(str::to_owned)
    }

    fn find_in_log(
        &self,
        place: SecretPlace<'_>,
        name: &str,
    ) -> Option<Result<OpenedSecret, LockedSecretError>> {
        let name: SecretName = name.parse().ok()?;
        let states = self.states_of(place.service);
        let found = states
            .scopes(place.service)
            .find_secret(place.environment, &name)?;
        let value = self.unseal(&name, &found.scope, found.value);
        let (stream, secret) = used_secret(&name, &found);
        Some(value.map(|value| OpenedSecret {
            stream,
            secret,
            value,
        }))
    }

    /// The secrets for a job, which may go to an environment.
    ///
    /// # Errors
    /// One of them can't be decrypted.
    pub(crate) fn job_secrets(
        &self,
        service: &ServiceName,
        environment: Option<&str>,
    ) -> Result<JobSecrets, LockedSecretError> {
        let mut secrets = JobSecrets {
            shared: self.file.all().clone(),
            ..JobSecrets::default()
        };
        let states = self.states_of(service);
        let scopes = states.scopes(service);
        for (name, found) in scopes.shared_secrets() {
            let value = self.give_to_job(name, &found, &mut secrets.used)?;
            insert_name(&mut secrets.shared, name, value);
        }
        let Some(environment) = environment else {
            return Ok(secrets);
        };
        secrets.environment = self.file.for_environment(environment);
        if let Ok(environment) = environment.to_lowercase().parse::<EnvironmentName>() {
            for (name, found) in scopes.environment_secrets(&environment) {
                let value = self.give_to_job(name, &found, &mut secrets.used)?;
                insert_name(&mut secrets.environment, name, value);
            }
        }
        Ok(secrets)
    }

    /// The variables of a job or run.
    pub(crate) fn variables(
        &self,
        service: &ServiceName,
        environment: Option<&str>,
    ) -> BTreeMap<String, String> {
        let environment = environment.and_then(|name| name.to_lowercase().parse().ok());
        let states = self.states_of(service);
        states.scopes(service).variables(environment.as_ref())
    }

    /// The uses that are to be recorded. Read by one task.
    pub(crate) fn uses(&self) -> UseRecorder {
        self.uses.clone()
    }

    fn give_to_job(
        &self,
        name: &SecretName,
        found: &FoundSecret<'_>,
        used: &mut BTreeMap<String, Vec<UsedSecret>>,
    ) -> Result<String, LockedSecretError> {
        let value = self.unseal(name, &found.scope, found.value)?;
        let (stream, secret) = used_secret(name, found);
        used.entry(stream).or_default().push(secret);
        Ok(value)
    }

    fn unseal(
        &self,
        name: &SecretName,
        scope: &SecretScope,
        value: &SealedValue,
    ) -> Result<String, LockedSecretError> {
        let opened = self.keys.unseal(&scope.sealing_purpose(name), value);
        let opened =
            opened.and_then(|bytes| String::from_utf8(bytes).map_err(|_| UnsealError::Damaged));
        opened.map_err(|reason| LockedSecretError {
            name: name.clone(),
            scope: scope.clone(),
            reason,
        })
    }

    fn state(&self, service: Option<&ServiceName>) -> Option<Arc<SecretState>> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        states.get(&secret_stream(service)).cloned()
    }

    fn states_of(&self, service: &ServiceName) -> VisibleStates {
        VisibleStates {
            own: self.state(Some(service)),
            of_all_services: self.state(None),
        }
    }
}

/// Secrets that can't be encrypted with a new key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResealError {
    #[error(transparent)]
    Locked(#[from] LockedSecretError),
    #[error("the key file can't be written, or there are no random numbers: {0}")]
    Io(#[from] io::Error),
}

/// The states that a service sees.
struct VisibleStates {
    own: Option<Arc<SecretState>>,
    of_all_services: Option<Arc<SecretState>>,
}

impl VisibleStates {
    fn scopes<'a>(&'a self, service: &'a ServiceName) -> SecretScopes<'a> {
        SecretScopes {
            service,
            own: self.own.as_deref(),
            of_all_services: self.of_all_services.as_deref(),
        }
    }
}

fn used_secret(name: &SecretName, found: &FoundSecret<'_>) -> (String, UsedSecret) {
    let secret = UsedSecret {
        environment: found.scope.environment.clone(),
        name: name.clone(),
        version: found.version,
    };
    (found.scope.stream(), secret)
}

/// Names of the file may have lower case letters; to a workflow they are the same.
fn insert_name(values: &mut BTreeMap<String, String>, name: &SecretName, value: String) {
    values.retain(|known, _| !known.eq_ignore_ascii_case(name.as_str()));
    values.insert(name.to_string(), value);
}
