//! The settings of secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::extract::FromRef;
use serde::Deserialize;
use shipway_api::SecretScopeQuery;
use shipway_core::{
    access::Verb,
    ids::ServiceName,
    secret::{SecretInput, SecretScope, SecretView, secret_views},
};
use shipway_engine::Clock;
use shipway_pages::{SecretPermission, SecretRow, SecretSettingsPage, SettingsLink};

use super::{NoQuery, PageError, SettingsForms, SettingsPage, SettingsVisit, parse_field};
use crate::{
    api::{
        ApiError, Caller,
        secrets::{
            parse_name, parse_scope, secret_state, secrets_resource, send_change, set_secrets,
        },
    },
    app::AppState,
    capabilities::SecretEditing,
    delivery_matrix::MatrixFeed,
};

/// The page of secrets.
pub(super) struct SecretSettings {
    editing: SecretEditing,
    /// Names of services and environments.
    feed: MatrixFeed,
    clock: Arc<dyn Clock>,
}

impl FromRef<AppState> for SecretSettings {
    fn from_ref(app: &AppState) -> Self {
        Self {
            editing: FromRef::from_ref(app),
            feed: FromRef::from_ref(app),
            clock: FromRef::from_ref(app),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SecretAction {
    SetSecret,
    RemoveSecret,
}

/// The fields of all forms. An empty service or environment means all.
#[derive(Deserialize)]
pub(super) struct SecretForm {
    action: SecretAction,
    name: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    environment: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    value: String,
}

impl SecretForm {
    fn scope(&self) -> Result<SecretScope, ApiError> {
        let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        parse_scope(&SecretScopeQuery {
            service: filled(&self.service),
            environment: filled(&self.environment),
        })
    }
}

/// The places whose secrets a caller may list or change.
fn access_of(caller: &Caller, scope: &SecretScope) -> SecretPermission {
    match caller.is_allowed(Verb::ChangeSecrets, &secrets_resource(scope)) {
        true => SecretPermission::Change,
        false => SecretPermission::List,
    }
}

fn may_list(caller: &Caller, service: Option<&ServiceName>) -> bool {
    let scope = SecretScope {
        service: service.cloned(),
        environment: None,
    };
    caller.is_allowed(Verb::ReadSecrets, &secrets_resource(&scope))
}

impl SecretSettings {
    async fn list_secrets(&self, caller: &Caller) -> Result<Vec<SecretView>, ApiError> {
        let mut secrets = Vec::new();
        for service in self.editing.secrets.scopes() {
            if may_list(caller, service.as_ref()) {
                let state = secret_state(&self.editing.engines, service.as_ref()).await?;
                secrets.extend(secret_views(service.as_ref(), &state));
            }
        }
        Ok(secrets)
    }
}

impl SettingsPage for SecretSettings {
    const LINK: SettingsLink = SettingsLink {
        address: "/settings/secrets",
        title: "Secrets",
    };
    /// Each secret needs a permission of its own.
    const VERB: Verb = Verb::Browse;
    type Query = NoQuery;
    type Shown = ();

    async fn to_html(&self, visit: SettingsVisit<'_, NoQuery, ()>) -> Result<String, PageError> {
        let caller = visit.caller;
        let snapshot = self.feed.newest().await?;
        let visible = caller.visible_services();
        let entries = snapshot.entries.values();
        let entries = entries.filter(|entry| visible.contains(&entry.service.service));
        let (mut services, mut environments) = (Vec::new(), BTreeSet::new());
        let mut scopes = vec![SecretScope::default()];
        for entry in entries {
            let service = &entry.service.service;
            scopes.push(SecretScope {
                service: Some(service.clone()),
                environment: None,
            });
            for cell in &entry.service.environments {
                environments.insert(cell.environment.to_string());
                scopes.push(SecretScope {
                    service: Some(service.clone()),
                    environment: Some(cell.environment.clone()),
                });
            }
            services.push(service.clone());
        }
        let may_add = |scope: &SecretScope| access_of(caller, scope) == SecretPermission::Change;
        let secrets = self.list_secrets(caller).await?.into_iter();
        let row = |secret: SecretView| {
            let scope = SecretScope {
                service: secret.service.clone(),
                environment: secret.environment.clone(),
            };
            SecretRow {
                access: access_of(caller, &scope),
                secret,
            }
        };
        let page = SecretSettingsPage {
            frame: visit.frame,
            secrets: secrets.map(row).collect(),
            services,
            environments: environments.into_iter().collect(),
            access: match scopes.iter().any(may_add) {
                true => SecretPermission::Change,
                false => SecretPermission::List,
            },
            now: self.clock.now(),
        };
        Ok(page.to_html())
    }
}

impl SettingsForms for SecretSettings {
    type Form = SecretForm;

    fn require_sender(caller: &Caller, form: &SecretForm) -> Result<(), ApiError> {
        caller.require(Verb::ChangeSecrets, &secrets_resource(&form.scope()?))
    }

    async fn apply_form(&self, caller: &Caller, form: SecretForm) -> Result<Option<()>, ApiError> {
        let (scope, name) = (form.scope()?, parse_name(form.name.trim())?);
        match form.action {
            SecretAction::SetSecret => {
                let version = Some(form.version.as_str()).filter(|text| !text.is_empty());
                let version: Option<u32> = version.map(parse_field).transpose()?;
                // A form sends the ends of lines as CR LF.
                let value = form.value.replace("\r\n", "\n");
                let values = BTreeMap::from([(name, value)]);
                set_secrets(&self.editing, &scope, values, version, caller).await?;
            }
            SecretAction::RemoveSecret => {
                let input = SecretInput::RemoveSecret {
                    environment: scope.environment.clone(),
                    name,
                };
                send_change(&self.editing, scope.service.as_ref(), input, caller).await?;
            }
        }
        Ok(None)
    }
}
