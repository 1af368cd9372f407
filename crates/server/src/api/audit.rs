//! Who changed what: the entries of the audit, which are read from the log.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use jiff::Timestamp;
use serde_json::Value;
use shipway_api::{AuditListQuery, Page, PageQuery};
use shipway_core::{
    access::{Resource, Verb, VisibleServices},
    audit::{AuditEntry, AuditLog},
    projection::LogProjection as _,
};
use shipway_engine::{Clock, RowFacets, Store, StoreError, row_order};

use super::{
    ApiError, Caller,
    lists::{ListConditions, conditional_rows, read_page},
};

/// Positions of the log that one save of the audit may span: its rows have the order of the last one.
const SAVE_POSITIONS_MAX: u64 = 1_000;

/// Changes that people made: of users, groups, tokens, secrets and forges, decisions at gates, deploys, rollbacks and holds; the newest
/// first. For administrators of the server.
#[utoipa::path(get, path = "/api/v1/audit", operation_id = "list_audit", params(AuditListQuery), responses((status = 200, description = "A page of changes", body = Page<Value>)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    State(clock): State<Arc<dyn Clock>>,
    Query(query): Query<AuditListQuery>,
    caller: Caller,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    caller.require(Verb::ReadAudit, &Resource::Server)?;
    let visible = caller.visible_services();
    let page = read_audit(&*store, &visible, clock.now(), &query).await?;
    Ok(Json(page))
}

/// A page of the audit. A page may have fewer entries than asked for although there is a next one, where its times are filtered.
pub(crate) async fn read_audit(
    store: &dyn Store,
    visible: &VisibleServices,
    now: Timestamp,
    query: &AuditListQuery,
) -> Result<Page<AuditEntry>, StoreError> {
    let conditions = ListConditions {
        service: query.service.as_deref(),
        visible: visible.names(),
        facets: RowFacets {
            person: query.person.as_deref(),
            ..RowFacets::default()
        },
        since: query.since,
        until: query.until,
        ..ListConditions::default()
    };
    let mut rows = conditional_rows(store, now, AuditLog::NAME, conditions).await?;
    rows.cursor = rows.cursor.map(|it| it + row_order(SAVE_POSITIONS_MAX, 0));
    let page_query = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let page = read_page(store, rows, &page_query).await?;
    let (since, until) = (query.since, query.until);
    let is_in_time = |entry: &AuditEntry| {
        since.is_none_or(|since| entry.at >= since.resolve(now))
            && until.is_none_or(|until| entry.at < until.resolve(now))
    };
    let entries = page.items.into_iter();
    let entries = entries.filter_map(|doc| serde_json::from_value(doc).ok());
    Ok(Page {
        items: entries.filter(is_in_time).collect(),
        next: page.next,
    })
}
