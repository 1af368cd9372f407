//! A log in memory, for tests and simulations. It passes the conformance tests of [`Store`], but loses everything at exit.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use shipway_core::aggregate::ViewRow;
use tokio::sync::watch;

use crate::store::{
    Append, AppendError, EarlierRows, OrderedRow, ProjectionSave, Recorded, RowFilter, RowPage,
    RowQuery, RowScope, Snapshot, Store, StoreError, Subscription, row_order,
};

/// Events per read of a subscriber.
const CHUNK: usize = 500;

/// A log in memory. Clones share it, like connections to a database.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    log: Arc<Mutex<MemoryLog>>,
    position: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct MemoryLog {
    events: Vec<Recorded>,
    /// Streams in order of creation.
    streams: Vec<String>,
    by_name: BTreeMap<String, MemoryStream>,
    rows: BTreeMap<(String, String), (u64, ViewRow)>,
}

#[derive(Debug, Default)]
struct MemoryStream {
    /// Indices of its events in the log.
    events: Vec<usize>,
    live: bool,
    snapshot: Option<Snapshot>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            log: Arc::default(),
            position: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl MemoryStore {
    /// A copy of the log as a crash after `count` events leaves it, without caches.
    #[must_use]
    pub fn cut(&self, count: usize) -> Self {
        let cut = Self::default();
        for event in self.lock().events.iter().take(count) {
            // Liveness is unknown; loading an idle stream does no harm.
            cut.lock()
                .append(Append {
                    stream: event.stream.clone(),
                    expected: event.version - 1,
                    events: vec![event.event.clone()],
                    rows: Vec::new(),
                    snapshot: None,
                    live: true,
                })
                .expect("events are in the order of their versions");
        }
        cut.publish();
        cut
    }

    /// All events, in log order.
    #[must_use]
    pub fn events(&self) -> Vec<Recorded> {
        self.lock().events.clone()
    }

    fn lock(&self) -> MutexGuard<'_, MemoryLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let last = self.lock().events.len() as u64;
        self.position.send_replace(last);
    }
}

impl MemoryLog {
    fn append(&mut self, append: Append) -> Result<(), AppendError> {
        let actual = self
            .by_name
            .get(&append.stream)
            .map_or(0, |stream| stream.events.len() as u64);
        if actual != append.expected {
            return Err(AppendError::Conflict { actual });
        }
        if !self.by_name.contains_key(&append.stream) {
            self.streams.push(append.stream.clone());
        }
        let stream = self.by_name.entry(append.stream.clone()).or_default();
        for event in append.events {
            stream.events.push(self.events.len());
            self.events.push(Recorded {
                position: self.events.len() as u64 + 1,
                stream: append.stream.clone(),
                version: stream.events.len() as u64,
                event,
            });
        }
        stream.live = append.live;
        if let Some(state) = append.snapshot {
            let version = stream.events.len() as u64;
            stream.snapshot = Some(Snapshot { version, state });
        }
        self.upsert_rows(self.events.len() as u64, append.rows);
        Ok(())
    }

    /// Rows of an append or a save at this position.
    fn upsert_rows(&mut self, position: u64, rows: Vec<ViewRow>) {
        let ordered = (0..).zip(rows).map(|(index, row)| OrderedRow {
            order: row_order(position, index),
            row,
        });
        self.upsert_ordered_rows(ordered.collect());
    }

    fn upsert_ordered_rows(&mut self, rows: Vec<OrderedRow>) {
        for OrderedRow { order, row } in rows {
            let key = (row.kind.clone(), row.key.clone());
            match row.doc.is_null() {
                true => drop(self.rows.remove(&key)),
                false => {
                    let known = self.rows.get(&key).map(|(place, _)| *place);
                    let place = known
                        .filter(|_| row.is_listed_by_creation())
                        .unwrap_or(order);
                    self.rows.insert(key, (place, row));
                }
            }
        }
    }

    /// Positions of other events don't change: the removed events leave gaps.
    fn remove_stream(&mut self, name: &str) {
        let Some(stream) = self.by_name.remove(name) else {
            return;
        };
        self.streams.retain(|it| it != name);
        for index in stream.events {
            self.events[index].stream = String::new();
        }
    }

    fn streams_of_kind(&self, kind: &str, wanted: impl Fn(&MemoryStream) -> bool) -> Vec<String> {
        self.streams
            .iter()
            .filter(|name| name.split('/').next() == Some(kind) && wanted(&self.by_name[*name]))
            .cloned()
            .collect()
    }
}

fn has_match(row: &ViewRow, filter: RowFilter<'_>) -> bool {
    let (RowFilter::Equals { path, .. } | RowFilter::StartsWith { path, .. }) = filter;
    let text = match row.doc.pointer(&format!("/{}", path.replace('.', "/"))) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => return false,
    };
    match filter {
        RowFilter::Equals { value, .. } => text == value,
        RowFilter::StartsWith { prefix, .. } => text.starts_with(prefix),
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(&self, append: Append) -> Result<(), AppendError> {
        self.lock().append(append)?;
        self.publish();
        Ok(())
    }

    async fn read(&self, stream: &str, after: u64) -> Result<Vec<String>, StoreError> {
        let log = self.lock();
        let events = log.by_name.get(stream).map(|stream| &stream.events);
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(events
            .into_iter()
            .flatten()
            .skip(after)
            .map(|index| log.events[*index].event.clone())
            .collect())
    }

    async fn snapshot(&self, stream: &str) -> Result<Option<Snapshot>, StoreError> {
        let log = self.lock();
        let stream = log.by_name.get(stream);
        Ok(stream.and_then(|stream| stream.snapshot.clone()))
    }

    async fn forget_snapshots(&self) -> Result<(), StoreError> {
        for stream in self.lock().by_name.values_mut() {
            stream.snapshot = None;
        }
        Ok(())
    }

    async fn forget_streams(&self, streams: Vec<String>) -> Result<(), StoreError> {
        let mut log = self.lock();
        let newest = log.events.last().map(|event| event.stream.clone());
        for name in streams.iter().filter(|name| newest.as_ref() != Some(name)) {
            log.remove_stream(name);
        }
        Ok(())
    }

    async fn live(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.lock().streams_of_kind(kind, |stream| stream.live))
    }

    async fn streams(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.lock().streams_of_kind(kind, |_| true))
    }

    async fn has_stream(&self, stream: &str) -> Result<bool, StoreError> {
        Ok(self.lock().by_name.contains_key(stream))
    }

    async fn subscribe(&self, after: u64) -> Result<Subscription, StoreError> {
        let (log, position) = (self.log.clone(), self.position.subscribe());
        let start = (log, position, after, VecDeque::new());
        let told = stream::unfold(
            start,
            |(log, mut position, mut after, mut waiting)| async move {
                while waiting.is_empty() {
                    let come = position.wait_for(|position| *position > after).await;
                    drop(come.ok()?);
                    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    let from = usize::try_from(after).unwrap_or(usize::MAX);
                    let chunk = log.events.iter().skip(from).take(CHUNK);
                    after = chunk
                        .clone()
                        .next_back()
                        .map_or(after, |event| event.position);
                    // Events of removed streams have an empty name.
                    waiting.extend(chunk.filter(|event| !event.stream.is_empty()).cloned());
                }
                let event: Recorded = waiting.pop_front()?;
                after = event.position;
                Some((Ok(event), (log, position, after, waiting)))
            },
        );
        Ok(told.boxed())
    }

    async fn last_position(&self) -> Result<u64, StoreError> {
        Ok(*self.position.borrow())
    }

    async fn row(&self, kind: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
        let key = (kind.to_owned(), key.to_owned());
        Ok(self.lock().rows.get(&key).map(|(_, row)| row.clone()))
    }

    async fn rows(&self, query: RowQuery<'_>) -> Result<RowPage, StoreError> {
        let facets = query.facets.normalized();
        let log = self.lock();
        let mut found: Vec<&(u64, ViewRow)> = log
            .rows
            .values()
            .filter(|(changed, row)| {
                row.kind == query.kind
                    && query.service.is_none_or(|service| row.service == service)
                    && query.visible.is_none_or(|visible| {
                        visible
                            .iter()
                            .any(|service| service.as_str() == row.service)
                    })
                    && (query.scope == RowScope::All || row.live)
                    && query.cursor.is_none_or(|cursor| *changed < cursor)
                    && query.floor.is_none_or(|floor| *changed >= floor)
                    && facets
                        .iter()
                        .all(|(facet, value)| row.facet(*facet).as_ref() == Some(value))
                    && query.filter.is_none_or(|filter| has_match(row, filter))
            })
            .collect();
        found.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
        let is_last = found.len() <= query.limit as usize;
        found.truncate(query.limit as usize);
        let next = found.last().map(|(changed, _)| *changed);
        Ok(RowPage {
            rows: found.iter().map(|(_, row)| row.clone()).collect(),
            next: next.filter(|_| !is_last),
        })
    }

    async fn position_at(&self, at: Timestamp) -> Result<u64, StoreError> {
        let log = self.lock();
        let is_earlier =
            |recorded: &Recorded| recorded.recorded_at().is_none_or(|moment| moment < at);
        let earlier = log.events.iter().take_while(|event| is_earlier(event));
        Ok(earlier.count() as u64 + 1)
    }

    async fn replace_ordered_rows(
        &self,
        kind: &str,
        rows: Vec<OrderedRow>,
    ) -> Result<(), StoreError> {
        let mut log = self.lock();
        log.rows.retain(|(of, _), _| of != kind);
        log.upsert_ordered_rows(rows);
        Ok(())
    }

    async fn save_projection(&self, save: ProjectionSave) -> Result<(), StoreError> {
        let mut log = self.lock();
        if save.earlier == EarlierRows::Delete {
            log.rows.retain(|(kind, _), _| *kind != save.name);
        }
        let checkpoint = save.checkpoint_row();
        log.upsert_rows(save.checkpoint.position, save.rows);
        log.upsert_rows(save.checkpoint.position, vec![checkpoint]);
        Ok(())
    }
}
