//! The settings of webhooks.

use std::sync::Arc;

use axum::extract::FromRef;
use shipway_core::{
    access::{Resource, Verb},
    aggregate::Aggregate as _,
    forge::{ForgeAggregate, ForgeView, forge_stream},
    ids::ServiceName,
};
use shipway_engine::{Clock, Store};
use shipway_pages::{SettingsLink, WebhookSettingsPage};

use super::{NoQuery, PageError, SettingsPage, SettingsVisit};
use crate::{
    api::Caller, app::AppState, capabilities::ServerAddresses, delivery_engines::DeliveryEngines,
    forges::ForgeConnections,
};

/// The page of webhooks.
pub(super) struct WebhookSettingsSource {
    store: Arc<dyn Store>,
    engines: Arc<DeliveryEngines>,
    connections: ForgeConnections,
    addresses: ServerAddresses,
    clock: Arc<dyn Clock>,
}

impl FromRef<AppState> for WebhookSettingsSource {
    fn from_ref(app: &AppState) -> Self {
        Self {
            store: FromRef::from_ref(app),
            engines: FromRef::from_ref(app),
            connections: FromRef::from_ref(app),
            addresses: FromRef::from_ref(app),
            clock: FromRef::from_ref(app),
        }
    }
}

impl WebhookSettingsSource {
    /// The connections of the repositories that a caller may read.
    async fn visible_connections(&self, caller: &Caller) -> Result<Vec<ForgeView>, PageError> {
        let mut views = Vec::new();
        for stream in self.store.streams(ForgeAggregate::KIND).await? {
            let repository = stream.split_once('/').map(|(_, name)| name.parse());
            let Some(Ok(repository)) = repository else {
                continue;
            };
            let repository: ServiceName = repository;
            let resource = Resource::Repository(repository.clone());
            if !caller.is_allowed(Verb::Read, &resource) {
                continue;
            }
            let state = self
                .engines
                .forges
                .state(&forge_stream(&repository))
                .await?;
            let Some(state) = state else { continue };
            if let Some(connection) = &state.connection {
                let url = &self.addresses.url;
                views.push(ForgeView::new(repository, connection, &state, url));
            }
        }
        Ok(views)
    }
}

impl SettingsPage for WebhookSettingsSource {
    const LINK: SettingsLink = SettingsLink {
        address: "/settings/webhooks",
        title: "Webhooks",
    };
    /// Each connection needs a permission of its own.
    const VERB: Verb = Verb::Browse;
    type Query = NoQuery;
    type Shown = ();

    async fn to_html(&self, visit: SettingsVisit<'_, NoQuery, ()>) -> Result<String, PageError> {
        // Refused webhooks are of no known repository.
        let may_see_refusals = visit
            .caller
            .is_allowed(Verb::ConnectForge, &Resource::Server);
        let page = WebhookSettingsPage {
            frame: visit.frame,
            connections: self.visible_connections(visit.caller).await?,
            refusals: match may_see_refusals {
                true => self.connections.last_refusals(),
                false => Vec::new(),
            },
            now: self.clock.now(),
        };
        Ok(page.to_html())
    }
}
