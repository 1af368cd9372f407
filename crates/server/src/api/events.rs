//! The log as server-sent events, old ones first, then new ones. A client that reconnects misses no event and gets none twice.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt, future};
use serde::Deserialize;
use serde_json::value::RawValue;
use shipway_core::access::{Resource, Verb};
use shipway_engine::{Recorded, Store};
use utoipa::IntoParams;

use super::{ApiError, Caller};

/// Which events, from where on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Events after this position; from now on when neither this nor `Last-Event-ID` is given.
    after: Option<u64>,
    /// Only of this stream: `rollout/shop/7`.
    stream: Option<String>,
    /// Only of this service.
    service: Option<String>,
}

/// Streams the events of the log. `id` is the position, the event's name is the kind of its stream.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "stream_events", params(EventQuery), responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(super) async fn events(
    State(store): State<Arc<dyn Store>>,
    Query(from): Query<EventQuery>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let stream = from.stream.clone();
    caller.require(Verb::Read, &Resource::Events { stream })?;
    if let Some(stream) = &from.stream
        && !store.has_stream(stream).await?
    {
        let detail = format!(
            "the log has no stream {stream}; streams are service/NAME, run/NAME/NUMBER, rollout/NAME/NUMBER and the like"
        );
        return Err(ApiError::missing(detail));
    }
    let seen = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    let after = match seen.or(from.after) {
        Some(after) => after,
        None => store.last_position().await?,
    };
    let log = store.subscribe(after).await?;
    let is_visible = move |stream: &str| caller.may_read_events(stream);
    let events = log
        .take_while(|recorded| future::ready(recorded.is_ok()))
        .filter_map(move |recorded| {
            future::ready(
                recorded
                    .ok()
                    .filter(|recorded| matches_query(&from, &recorded.stream))
                    .filter(|recorded| is_visible(&recorded.stream))
                    .map(|recorded| Ok(to_event(&recorded))),
            )
        });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

fn matches_query(from: &EventQuery, stream: &str) -> bool {
    from.stream.as_ref().is_none_or(|wanted| wanted == stream)
        && from
            .service
            .as_ref()
            .is_none_or(|service| stream.split('/').nth(1) == Some(service))
}

fn to_event(recorded: &Recorded) -> Event {
    #[derive(serde::Serialize)]
    struct EventData<'e> {
        position: u64,
        stream: &'e str,
        version: u64,
        event: Box<RawValue>,
    }
    let kind = recorded.stream.split('/').next().unwrap_or_default();
    let event = RawValue::from_string(recorded.event.clone()).unwrap_or_default();
    let data = EventData {
        position: recorded.position,
        stream: &recorded.stream,
        version: recorded.version,
        event,
    };
    Event::default()
        .id(recorded.position.to_string())
        .event(kind)
        .data(serde_json::to_string(&data).unwrap_or_default())
}
