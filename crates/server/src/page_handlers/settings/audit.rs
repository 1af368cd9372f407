//! Who changed what.

use std::sync::Arc;

use axum::extract::FromRef;
use shipway_core::access::Verb;
use shipway_engine::{Clock, Store};
use shipway_pages::{AuditSettingsPage, SettingsLink};

use super::{PageError, SettingsPage, SettingsVisit};
use crate::{
    api::audit::read_audit,
    app::AppState,
    page_handlers::{list_parameters::ListParameters, lists::refused},
};

/// The page of changes.
pub(super) struct AuditSettings {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl FromRef<AppState> for AuditSettings {
    fn from_ref(app: &AppState) -> Self {
        Self {
            store: FromRef::from_ref(app),
            clock: FromRef::from_ref(app),
        }
    }
}

impl SettingsPage for AuditSettings {
    const LINK: SettingsLink = SettingsLink {
        address: "/settings/audit",
        title: "Audit",
    };
    const VERB: Verb = Verb::ReadAudit;
    type Query = ListParameters;
    type Shown = ();

    async fn to_html(
        &self,
        visit: SettingsVisit<'_, ListParameters, ()>,
    ) -> Result<String, PageError> {
        let parameters = visit.query.unwrap_or_default();
        let mut filters = parameters.filters();
        let (now, visible) = (self.clock.now(), visit.caller.visible_services());
        let entries = match parameters.audit_query() {
            Ok(query) => {
                let page = read_audit(&*self.store, &visible, now, &query).await?;
                filters.next = page.next;
                page.items
            }
            Err(error) => refused(&error, &mut filters),
        };
        let page = AuditSettingsPage {
            frame: visit.frame,
            entries,
            filters,
            now,
        };
        Ok(page.to_html())
    }
}
