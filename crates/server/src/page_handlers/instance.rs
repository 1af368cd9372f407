//! The page of an instance with its log, and the lines that follow.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{Path, Query, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use serde::{Deserialize, Serialize};
use shipway_core::{
    access::{Resource, Verb},
    target::InstanceId,
};
use shipway_engine::Clock;
use shipway_pages::{InstanceLogPage, instance_log_lines};
use shipway_targets::target::{LogEnd, LogError};

use super::{html, page_error::PageError};
use crate::{
    api::{ApiError, Caller, logs::KEEP_ALIVE},
    capabilities::Workloads,
    instance_logs::{LineSplitter, read_log_tail},
};

fn parse_instance(name: &str) -> Result<InstanceId, PageError> {
    let parsed = name.parse::<InstanceId>();
    parsed.map_err(|_| PageError::NotFound(format!("No such instance: {name}.")))
}

fn log_problem(error: LogError) -> PageError {
    match error {
        LogError::Missing(id) => PageError::NotFound(format!(
            "There is no log of {id}: it was never started here, or its files were removed. The environment's page lists the instances that run: /services/{}/environments/{}",
            id.set.place.service, id.set.place.environment
        )),
        LogError::Io(_) => PageError::Failed(ApiError::conflict(error.to_string())),
    }
}

/// Shows an instance with the end of its log.
pub(super) async fn show(
    State(workloads): State<Workloads>,
    State(clock): State<Arc<dyn Clock>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, PageError> {
    let id = parse_instance(&name)?;
    caller.require(Verb::Read, &Resource::Instance(id.clone()))?;
    let tail = read_log_tail(&workloads.targets, &id).await;
    let tail = tail.map_err(log_problem)?;
    let mut instances = workloads.targets.instances();
    instances.retain(|status| status.id == id);
    if let Some(target) = workloads.targets.target_of_set(&id.set) {
        target.measure(&mut instances);
    }
    let page = InstanceLogPage {
        status: instances.pop(),
        crash_loop: workloads.targets.crash_loop(&id.set),
        lines: tail.lines,
        read_to: tail.complete_bytes,
        next_line: tail.next_line,
        now: clock.now(),
        id,
    };
    Ok(html(page.to_html()))
}

/// From where on the log is followed: the first byte of a line, with its number.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FollowedPosition {
    offset: u64,
    line: u64,
}

#[derive(Serialize)]
struct NewLines {
    html: String,
}

/// Streams the lines of an instance as HTML, until no target runs it any more.
pub(super) async fn follow(
    State(workloads): State<Workloads>,
    Path(name): Path<String>,
    Query(position): Query<FollowedPosition>,
    caller: Caller,
) -> Result<Response, PageError> {
    let id = parse_instance(&name)?;
    caller.require(Verb::Read, &Resource::Instance(id.clone()))?;
    let log = (workloads.targets).read_log(&id, position.offset, LogEnd::Stopped);
    let log = log.map_err(log_problem)?;
    let chunks = log
        .take_while(|chunk| future::ready(chunk.is_ok()))
        .filter_map(|chunk| future::ready(chunk.ok()));
    let end = stream::once(future::ready(None));
    let mut splitter = Some(LineSplitter::new(position.line.max(1)));
    let events = chunks.map(Some).chain(end).flat_map(move |chunk| {
        let events = new_events(&mut splitter, chunk.as_ref());
        stream::iter(events.into_iter().map(Ok::<Event, Infallible>))
    });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

/// The event of the lines that a chunk ends; without a chunk, of the last line, and the end.
fn new_events(splitter: &mut Option<LineSplitter>, chunk: Option<&Bytes>) -> Vec<Event> {
    let lines = match (chunk, splitter.as_mut()) {
        (Some(chunk), Some(splitter)) => splitter.split(chunk),
        _ => splitter
            .take()
            .and_then(LineSplitter::finish)
            .into_iter()
            .collect(),
    };
    let mut events = Vec::new();
    if !lines.is_empty() {
        let lines: Vec<_> = lines.into_iter().map(Into::into).collect();
        let html = instance_log_lines(&lines);
        let data = serde_json::to_string(&NewLines { html }).unwrap_or_default();
        events.push(Event::default().event("lines").data(data));
    }
    if chunk.is_none() {
        events.push(Event::default().event("end").data("{}"));
    }
    events
}
