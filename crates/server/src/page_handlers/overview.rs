//! The page of `/`, and the stream of its changed rows.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::{
        Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use shipway_api::{MatrixQuery, MatrixState};
use shipway_core::access::{Resource, Verb, VisibleServices};
use shipway_engine::Clock;
use shipway_pages::{OverviewPage, has_trouble, overview_row, overview_row_id};
use tokio::sync::watch;

use super::{html, page_error::PageError};
use crate::{
    api::{ApiError, Caller},
    capabilities::ServerAddresses,
    delivery_matrix::{MatrixEntry, MatrixFeed, MatrixSnapshot},
};

/// Between two comments that keep a connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What part of the overview is shown. A form sends all its fields, so that an empty one means none.
#[derive(Debug, Default, Deserialize)]
pub(super) struct OverviewParameters {
    #[serde(default)]
    q: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    page: String,
}

impl OverviewParameters {
    /// An unknown state is no filter.
    fn query(&self) -> MatrixQuery {
        let mut states = MatrixState::ALL.into_iter();
        MatrixQuery {
            q: (!self.q.trim().is_empty()).then(|| self.q.trim().chars().take(100).collect()),
            state: states.find(|state| state.as_str() == self.state),
            service: None,
        }
    }
}

/// Shows the overview.
pub(super) async fn show(
    State(feed): State<MatrixFeed>,
    State(server_addresses): State<ServerAddresses>,
    State(clock): State<Arc<dyn Clock>>,
    Query(parameters): Query<OverviewParameters>,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::Browse, &Resource::Server)?;
    let snapshot = feed.newest().await?;
    let query = parameters.query();
    let visible = caller.visible_services();
    let page = OverviewPage {
        matrix: snapshot.matrix(&visible, &query),
        query,
        page: parameters.page.parse().unwrap_or(1),
        revision: snapshot.revision,
        server_url: server_addresses.url.clone(),
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}

/// From where on a page wants the changes.
#[derive(Debug, Deserialize)]
pub(super) struct ChangesParameters {
    after: u64,
}

/// Streams the rows that have changed since a revision, and then each change. `reload` asks for the page to be made anew.
pub(super) async fn changes(
    State(feed): State<MatrixFeed>,
    State(clock): State<Arc<dyn Clock>>,
    Query(parameters): Query<ChangesParameters>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    caller.require(Verb::Browse, &Resource::Server)?;
    let seen = headers.get("last-event-id");
    let seen = seen.and_then(|value| value.to_str().ok()?.parse().ok());
    let state = ChangeStream {
        receiver: feed.watch(),
        clock,
        visible: caller.visible_services(),
        sent: seen.unwrap_or(parameters.after),
        waiting: VecDeque::new(),
        is_first: true,
    };
    let events = stream::unfold(state, |mut state| async move {
        let event = state.next_event().await?;
        Some((Ok(event), state))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The changes for one open page. It holds no snapshot while it waits.
struct ChangeStream {
    receiver: watch::Receiver<Option<Arc<MatrixSnapshot>>>,
    clock: Arc<dyn Clock>,
    visible: VisibleServices,
    /// The revision that the page has.
    sent: u64,
    waiting: VecDeque<Event>,
    is_first: bool,
}

#[derive(Serialize)]
struct RowReplacement<'a> {
    id: String,
    html: &'a str,
    /// The name of a service with an environment in trouble, for a page that has no row of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
}

impl ChangeStream {
    /// None when the server stops.
    async fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if !std::mem::take(&mut self.is_first) {
                self.receiver.changed().await.ok()?;
            }
            let newest = self.receiver.borrow_and_update().clone();
            if let Some(snapshot) = newest {
                self.add_changes(&snapshot);
            }
        }
    }

    fn add_changes(&mut self, snapshot: &MatrixSnapshot) {
        if snapshot.layout_revision > self.sent {
            let reload = Event::default().event("reload").data("");
            self.waiting
                .push_back(reload.id(snapshot.revision.to_string()));
            self.sent = snapshot.revision;
            return;
        }
        let entries = snapshot.entries.values();
        let changed: Vec<Arc<MatrixEntry>> = entries
            .filter(|entry| {
                entry.revision > self.sent && self.visible.contains(&entry.service.service)
            })
            .cloned()
            .collect();
        for entry in &changed {
            let html = entry.live_row.get_or_init(|| {
                overview_row(&entry.service, &snapshot.columns, self.clock.now()).into()
            });
            let row = RowReplacement {
                id: overview_row_id(&entry.service.service),
                html,
                trouble: has_trouble(&entry.service).then(|| entry.service.service.as_str()),
            };
            self.push_event(snapshot, "row", &row);
        }
        if !changed.is_empty() {
            let counts = snapshot.counts(&self.visible);
            self.push_event(snapshot, "counts", &counts);
        }
        self.sent = snapshot.revision;
    }

    fn push_event(&mut self, snapshot: &MatrixSnapshot, name: &str, data: &impl Serialize) {
        let data = serde_json::to_string(data).unwrap_or_default();
        let event = Event::default().event(name).data(data);
        self.waiting
            .push_back(event.id(snapshot.revision.to_string()));
    }
}
