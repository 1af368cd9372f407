//! The connections of this server, in memory, with their secrets.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use shipway_core::{
    aggregate::Aggregate as _,
    forge::{ForgeAggregate, ForgeConnection, ForgeKind, ForgeState},
    ids::ServiceName,
    secret::SecretUser,
};
use shipway_engine::{Store, StoreError};
use shipway_pages::RefusedWebhook;

use crate::{
    delivery_engines::DeliveryEngines,
    secrets::{SecretPlace, SecretStore},
};

/// Bytes of a webhook secret at least: a shorter one can be guessed from one signed body.
pub(crate) const WEBHOOK_SECRET_BYTES_MIN: usize = 16;

/// The connections of this server.
#[derive(Clone)]
pub(crate) struct ForgeConnections {
    by_repository: Arc<RwLock<BTreeMap<ServiceName, Arc<ForgeConnection>>>>,
    /// The last refused webhook of each kind of forge: anyone can send one.
    refusals: Arc<RwLock<BTreeMap<ForgeKind, RefusedWebhook>>>,
    secrets: SecretStore,
}

/// Why a secret of a connection can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectionSecretError {
    #[error(
        "the secret {name} of {repository} is not set: shipway secret set {name} --service {repository}"
    )]
    NotSet {
        name: String,
        repository: ServiceName,
    },
    #[error(
        "the webhook secret {name} of {repository} must have at least {WEBHOOK_SECRET_BYTES_MIN} characters: openssl rand -hex 32 | shipway secret set {name} --service {repository}"
    )]
    Short {
        name: String,
        repository: ServiceName,
    },
}

impl ForgeConnections {
    pub(crate) fn new(secrets: SecretStore) -> Self {
        Self {
            by_repository: Arc::default(),
            refusals: Arc::default(),
            secrets,
        }
    }

    /// Reads the connections of the log.
    pub(crate) async fn load(
        &self,
        store: &dyn Store,
        engines: &DeliveryEngines,
    ) -> Result<(), StoreError> {
        for stream in store.streams(ForgeAggregate::KIND).await? {
            let repository = stream.split_once('/').and_then(|it| it.1.parse().ok());
            if let (Some(repository), Some(state)) =
                (repository, engines.forges.read(&stream).await?)
            {
                self.refresh(&repository, &state);
            }
        }
        Ok(())
    }

    /// Takes over a change of a connection.
    pub(crate) fn refresh(&self, repository: &ServiceName, state: &ForgeState) {
        let mut known = self
            .by_repository
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match &state.connection {
            Some(connection) => {
                known.insert(repository.clone(), Arc::new(connection.clone()));
            }
            None => {
                known.remove(repository);
            }
        }
    }

    /// The connection of a repository.
    pub(crate) fn find(&self, repository: &ServiceName) -> Option<Arc<ForgeConnection>> {
        let known = self
            .by_repository
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        known.get(repository).cloned()
    }

    /// Remembers a refused webhook in place of the one before.
    pub(crate) fn record_refusal(&self, refusal: RefusedWebhook) {
        let refusals = self.refusals.write();
        let mut refusals = refusals.unwrap_or_else(PoisonError::into_inner);
        refusals.insert(refusal.forge, refusal);
    }

    /// The last refused webhook of each kind of forge, since the server was started.
    pub(crate) fn last_refusals(&self) -> Vec<RefusedWebhook> {
        let refusals = self.refusals.read();
        let refusals = refusals.unwrap_or_else(PoisonError::into_inner);
        refusals.values().cloned().collect()
    }

    /// The connections to a kind of forge.
    pub(crate) fn list_by_forge(
        &self,
        forge: ForgeKind,
    ) -> Vec<(ServiceName, Arc<ForgeConnection>)> {
        let known = self
            .by_repository
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let connections = known.iter().filter(|(_, it)| it.forge == forge);
        let connections = connections.map(|(name, it)| (name.clone(), it.clone()));
        connections.collect()
    }

    /// The secret that webhooks are signed with.
    pub(crate) fn webhook_secret(
        &self,
        repository: &ServiceName,
        connection: &ForgeConnection,
    ) -> Result<String, ConnectionSecretError> {
        let name = connection.webhook_secret.as_str();
        let secret = self.secret(repository, name)?;
        match secret.len() < WEBHOOK_SECRET_BYTES_MIN {
            true => Err(ConnectionSecretError::Short {
                name: name.to_owned(),
                repository: repository.clone(),
            }),
            false => Ok(secret),
        }
    }

    /// The token for git and the API; none where the connection has none.
    pub(crate) fn token(
        &self,
        repository: &ServiceName,
        connection: &ForgeConnection,
    ) -> Result<Option<String>, ConnectionSecretError> {
        let name = connection.token.as_ref();
        name.map(|name| self.secret(repository, name.as_str()))
            .transpose()
    }

    fn secret(
        &self,
        repository: &ServiceName,
        name: &str,
    ) -> Result<String, ConnectionSecretError> {
        let place = SecretPlace {
            service: repository,
            environment: None,
        };
        let found = self.secrets.find(place, name, &SecretUser::Forge);
        let found = found.map(|secret| secret.trim().to_owned());
        let found = found.filter(|secret| !secret.is_empty());
        found.ok_or_else(|| ConnectionSecretError::NotSet {
            name: name.to_owned(),
            repository: repository.clone(),
        })
    }
}

/// The header by which git presents a token.
pub(crate) fn git_authorization(forge: ForgeKind, token: &str) -> String {
    let user = match forge {
        ForgeKind::Gitlab => "oauth2",
        ForgeKind::Github | ForgeKind::Gitea => "x-access-token",
    };
    format!("Basic {}", STANDARD.encode(format!("{user}:{token}")))
}
