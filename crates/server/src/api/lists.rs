//! Lists, page by page. The store applies all conditions, so that each page is full but the last one.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shipway_api::{Page, PageQuery, TimeBound};
use shipway_core::{access::Resource, ids::ServiceName};
use shipway_engine::{RowFacets, RowQuery, RowScope, Store, StoreError, row_order};

/// Entries of a page by default.
const LIMIT: u32 = 50;
/// Entries of a page at most.
pub(super) const LIMIT_MAX: u32 = 200;

pub(super) fn page_limit(page: &PageQuery) -> u32 {
    page.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX)
}

/// The conditions of a list, as its query names them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ListConditions<'a> {
    pub(super) service: Option<&'a str>,
    /// The services that the reader may see; none for all.
    pub(super) visible: Option<&'a BTreeSet<ServiceName>>,
    pub(super) scope: RowScope,
    pub(super) facets: RowFacets<'a>,
    pub(super) since: Option<TimeBound>,
    pub(super) until: Option<TimeBound>,
}

/// The query for rows of a kind that meet the conditions.
pub(super) async fn conditional_rows<'a>(
    store: &dyn Store,
    now: Timestamp,
    kind: &'a str,
    conditions: ListConditions<'a>,
) -> Result<RowQuery<'a>, StoreError> {
    let mut query = RowQuery {
        service: conditions.service,
        visible: conditions.visible,
        scope: conditions.scope,
        facets: conditions.facets,
        ..RowQuery::new(kind)
    };
    if let Some(since) = conditions.since {
        query.floor = Some(row_order(store.position_at(since.resolve(now)).await?, 0));
    }
    if let Some(until) = conditions.until {
        query.cursor = Some(row_order(store.position_at(until.resolve(now)).await?, 0));
    }
    Ok(query)
}

/// A status as documents have it.
pub(super) fn status_text(status: &impl Serialize) -> String {
    let text = serde_json::to_value(status).ok();
    text.and_then(|text| text.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The earlier end of a list: that of the page, and that of the list's conditions.
fn earlier_cursor(page: Option<u64>, list: Option<u64>) -> Option<u64> {
    match (page, list) {
        (Some(page), Some(list)) => Some(page.min(list)),
        (page, list) => page.or(list),
    }
}

/// A page of a read model, the newest change or, of what exists now, the newest entry first. Its rows are passed on as they are stored: they are the documents of the API.
pub(super) async fn read_page(
    store: &dyn Store,
    rows: RowQuery<'_>,
    page: &PageQuery,
) -> Result<Page<Value>, StoreError> {
    let query = RowQuery {
        cursor: earlier_cursor(page.cursor, rows.cursor),
        limit: page_limit(page),
        ..rows
    };
    let read = store.rows(query).await?;
    Ok(Page {
        items: read.rows.into_iter().map(|row| row.doc).collect(),
        next: read.next,
    })
}

/// A position in two read models that are listed one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct JoinedCursor {
    /// 0 or 1.
    list: u64,
    /// The cursor in that list; none at its start.
    cursor: Option<u64>,
}

impl JoinedCursor {
    fn from_number(number: u64) -> Self {
        Self {
            list: number % 2,
            cursor: (number / 2).checked_sub(1),
        }
    }

    fn to_number(self) -> u64 {
        self.cursor.map_or(0, |cursor| cursor + 1) * 2 + self.list
    }
}

/// A page of two read models, the second one after the first.
pub(super) async fn read_joined_page(
    store: &dyn Store,
    lists: [RowQuery<'_>; 2],
    page: &PageQuery,
) -> Result<Page<Value>, StoreError> {
    let limit = page_limit(page);
    let start = page.cursor.map(JoinedCursor::from_number);
    let JoinedCursor { list, cursor } = start.unwrap_or_default();
    let [first, second] = lists;
    let mut items = Vec::new();
    if list == 0 {
        let query = RowQuery {
            cursor: earlier_cursor(cursor, first.cursor),
            limit,
            ..first
        };
        let read = store.rows(query).await?;
        items.extend(read.rows.into_iter().map(|row| row.doc));
        if read.next.is_some() {
            let next = JoinedCursor {
                list,
                cursor: read.next,
            };
            return Ok(Page {
                items,
                next: Some(next.to_number()),
            });
        }
    }
    let room = limit.saturating_sub(u32::try_from(items.len()).unwrap_or(limit));
    let query = RowQuery {
        cursor: earlier_cursor(cursor.filter(|_| list == 1), second.cursor),
        // Where the page is full, one row shows whether the second list has any.
        limit: room.max(1),
        ..second
    };
    let read = store.rows(query).await?;
    let next = match room {
        0 if read.rows.is_empty() => None,
        0 => Some(JoinedCursor {
            list: 1,
            cursor: None,
        }),
        _ => {
            items.extend(read.rows.into_iter().map(|row| row.doc));
            read.next.map(|next| JoinedCursor {
                list: 1,
                cursor: Some(next),
            })
        }
    };
    Ok(Page {
        items,
        next: next.map(JoinedCursor::to_number),
    })
}

/// The resource of a list: one service, or all of them.
pub(crate) fn listed_resource(service: Option<&str>) -> Resource {
    // A malformed name gives an empty list.
    let service = service.and_then(|service| service.parse().ok());
    service.map_or(Resource::Server, Resource::Service)
}

#[cfg(test)]
mod tests {
    use shipway_core::aggregate::ViewRow;
    use shipway_engine::MemoryStore;

    use super::*;

    async fn store_with(kinds: [(&str, u64); 2]) -> MemoryStore {
        let store = MemoryStore::default();
        for (kind, count) in kinds {
            let rows = (0..count).map(|number| ViewRow {
                kind: kind.to_owned(),
                key: number.to_string(),
                service: "shop".to_owned(),
                live: true,
                doc: Value::from(format!("{kind} {number}")),
            });
            store.replace_rows(kind, rows.collect()).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn two_lists_are_read_to_the_end_of_both_wherever_a_page_ends() {
        for (rollouts, jobs) in [(0, 0), (0, 5), (5, 0), (3, 4), (6, 6)] {
            let store = store_with([("rollout", rollouts), ("job", jobs)]).await;
            let newest_first = |kind: &str, count: u64| -> Vec<Value> {
                let numbers = (0..count).rev();
                numbers
                    .map(|it| Value::from(format!("{kind} {it}")))
                    .collect()
            };
            let mut expected = newest_first("rollout", rollouts);
            expected.extend(newest_first("job", jobs));
            for limit in 1..=13 {
                let (mut found, mut cursor) = (Vec::new(), None);
                loop {
                    let query = PageQuery {
                        limit: Some(limit),
                        cursor,
                    };
                    let lists = [RowQuery::new("rollout"), RowQuery::new("job")];
                    let page = read_joined_page(&store, lists, &query).await.unwrap();
                    let is_full = page.items.len() == limit as usize;
                    assert!(is_full || page.next.is_none(), "{limit}");
                    found.extend(page.items);
                    cursor = page.next;
                    if cursor.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected, "{rollouts} {jobs} {limit}");
            }
        }
    }
}
