//! Destinations of notifications: their queues and dead letters, and test messages.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use jiff::Timestamp;
use serde_json::Value;
use shipway_api::{EmptyRequest, Page, PageQuery, QueuedTestMessage, ResendRequest};
use shipway_core::{
    access::{Resource, Verb},
    outbox::{
        ChannelId, ChannelView, DeadLetterView, OutboxEvent, OutboxInput, OutboxState,
        ParseChannelIdError,
    },
    target::ServiceEnvironment,
};
use shipway_drivers::notify::{Notification, NotificationSeverity};
use shipway_engine::{Clock, RowQuery, Store};

use super::{
    ApiError, Caller,
    json_body::OptionalJson,
    lists::{page_limit, read_page},
};
use crate::{capabilities::ServerAddresses, delivery_engines::DeliveryEngines};

/// Destinations that had a message, most recently changed first. `label` is the address without its secret parts, `queued` the number of
/// messages that wait, `last_delivery` the last message that the receiver accepted, `failing` why the last attempt failed.
#[utoipa::path(get, path = "/api/v1/notifications", operation_id = "list_notification_channels", params(PageQuery), responses((status = 200, body = Page<Value>)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    Query(query): Query<PageQuery>,
    caller: Caller,
) -> Result<Json<Page<Value>>, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    let visible = caller.visible_services();
    let rows = RowQuery {
        visible: visible.names(),
        ..RowQuery::new(ChannelView::ROWS)
    };
    Ok(Json(read_page(&*store, rows, &query).await?))
}

/// Dead letters of a destination, the newest first: messages that the receiver refused, or did not accept within 100 attempts.
#[utoipa::path(get, path = "/api/v1/notifications/{channel}/dead-letters", operation_id = "list_dead_letters", params(("channel" = String, Path), PageQuery),
    responses((status = 200, body = Page<Value>), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn dead_letters(
    State(engines): State<Arc<DeliveryEngines>>,
    Path(channel): Path<String>,
    Query(query): Query<PageQuery>,
    caller: Caller,
) -> Result<Json<Page<DeadLetterView>>, ApiError> {
    let channel = permitted_channel(&caller, Verb::Read, &channel)?;
    let state = channel_state(&engines, &channel).await?;
    Ok(Json(dead_letter_page(channel, &state, &query)))
}

/// Sends dead letters again, as the newest messages of the destination: one, or all in their order. Answers with the destination.
#[utoipa::path(post, path = "/api/v1/notifications/{channel}/resend", operation_id = "resend_dead_letters", params(("channel" = String, Path)), request_body = ResendRequest,
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn resend(
    State(engines): State<Arc<DeliveryEngines>>,
    Path(channel): Path<String>,
    caller: Caller,
    OptionalJson(ResendRequest { number }): OptionalJson<ResendRequest>,
) -> Result<Json<ChannelView>, ApiError> {
    let channel = permitted_channel(&caller, Verb::ManageNotifications, &channel)?;
    change_channel(&engines, channel, OutboxInput::Resend { number }, &caller).await
}

/// Removes a dead letter. Answers with the destination.
#[utoipa::path(delete, path = "/api/v1/notifications/{channel}/dead-letters/{number}", operation_id = "remove_dead_letter",
    params(("channel" = String, Path), ("number" = u64, Path)), request_body = EmptyRequest,
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn remove_dead_letter(
    State(engines): State<Arc<DeliveryEngines>>,
    Path((channel, number)): Path<(String, u64)>,
    caller: Caller,
    OptionalJson(EmptyRequest {}): OptionalJson<EmptyRequest>,
) -> Result<Json<ChannelView>, ApiError> {
    let channel = permitted_channel(&caller, Verb::ManageNotifications, &channel)?;
    let number = Some(number);
    change_channel(&engines, channel, OutboxInput::Remove { number }, &caller).await
}

/// Queues a test message for a destination, after the messages that wait. The list of destinations has its result.
#[utoipa::path(post, path = "/api/v1/notifications/{channel}/test", operation_id = "send_test_message", params(("channel" = String, Path)), request_body = EmptyRequest,
    responses((status = 200, body = QueuedTestMessage), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn send_test(
    State(engines): State<Arc<DeliveryEngines>>,
    State(clock): State<Arc<dyn Clock>>,
    State(addresses): State<ServerAddresses>,
    Path(channel): Path<String>,
    caller: Caller,
    OptionalJson(EmptyRequest {}): OptionalJson<EmptyRequest>,
) -> Result<Json<QueuedTestMessage>, ApiError> {
    let channel = permitted_channel(&caller, Verb::ManageNotifications, &channel)?;
    let state = channel_state(&engines, &channel).await?;
    let address = state.address.clone();
    let address = address.ok_or_else(|| unknown_channel(&channel))?;
    let message = test_notification(&channel, &caller.name(), &addresses.url, clock.now());
    let input = OutboxInput::Enqueue {
        address: Box::new(address),
        message: Box::new(message.to_message()),
    };
    let stream = channel.stream();
    let sent = engines.outbox.send(&stream, input, caller.actor());
    let queued = sent.await?.events.into_iter().find_map(|event| {
        let OutboxEvent::MessageQueued { number, .. } = event.body else {
            return None;
        };
        Some(number)
    });
    // Only a second request within the same nanosecond has the same id.
    let number = queued.ok_or_else(|| ApiError::conflict("this test message is queued already"))?;
    Ok(Json(QueuedTestMessage {
        channel: channel.to_string(),
        number,
    }))
}

/// The channel of a request, if the caller may do this with the notifications of its environment.
fn permitted_channel(caller: &Caller, verb: Verb, channel: &str) -> Result<ChannelId, ApiError> {
    let channel: ChannelId = channel
        .parse()
        .map_err(|error: ParseChannelIdError| ApiError::bad_request(error.to_string()))?;
    caller.require(verb, &channel_resource(&channel))?;
    Ok(channel)
}

fn channel_resource(channel: &ChannelId) -> Resource {
    match channel.owner() {
        Some((service, Some(environment))) => Resource::Environment(ServiceEnvironment {
            service,
            environment,
        }),
        Some((service, None)) => Resource::Service(service),
        None => Resource::Server,
    }
}

async fn channel_state(
    engines: &DeliveryEngines,
    channel: &ChannelId,
) -> Result<Arc<OutboxState>, ApiError> {
    let state = engines.outbox.state(&channel.stream()).await?;
    let state = state.filter(|state| state.address.is_some());
    state.ok_or_else(|| unknown_channel(channel))
}

fn unknown_channel(channel: &ChannelId) -> ApiError {
    ApiError::missing(format!(
        "there is no destination {channel}: see `shipway notify list`"
    ))
}

/// Sends an input to a channel that exists, and answers with the channel.
async fn change_channel(
    engines: &DeliveryEngines,
    channel: ChannelId,
    input: OutboxInput,
    caller: &Caller,
) -> Result<Json<ChannelView>, ApiError> {
    channel_state(engines, &channel).await?;
    let stream = channel.stream();
    let sent = engines.outbox.send(&stream, input, caller.actor());
    let state = sent.await?.state;
    Ok(Json(ChannelView::new(channel, &state)))
}

/// A page of dead letters, the newest first; its cursor is the number of its last one.
fn dead_letter_page(
    channel: ChannelId,
    state: &OutboxState,
    query: &PageQuery,
) -> Page<DeadLetterView> {
    let view = ChannelView::new(channel, state);
    let before = query.cursor.unwrap_or(u64::MAX);
    let mut letters = state.dead_letters.range(..before).rev();
    let newest = letters.by_ref().take(page_limit(query) as usize);
    let items: Vec<_> = newest
        .map(|(number, letter)| DeadLetterView::new(&view, *number, letter))
        .collect();
    let has_more = letters.next().is_some();
    let last = items.last().map(|it| it.number);
    Page {
        next: last.filter(|_| has_more),
        items,
    }
}

fn test_notification(
    channel: &ChannelId,
    caller: &str,
    pages_url: &str,
    at: Timestamp,
) -> Notification {
    let (service, environment) = channel.owner().unzip();
    Notification {
        id: format!("test/{channel}/{}", at.as_nanosecond()),
        title: "Test message of Shipway".to_owned(),
        text: format!("{caller} tests this destination. No action is necessary."),
        severity: NotificationSeverity::Info,
        service,
        environment: environment.flatten(),
        release: None,
        rollout: None,
        url: Some(pages_url.to_owned()),
        at,
        plot: None,
        facts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shipway_core::outbox::DeadLetter;

    use super::*;

    #[test]
    fn pages_of_dead_letters_have_each_one_once_the_newest_first() {
        let channel: ChannelId = "shop.production.0123456789abcdef".parse().unwrap();
        let letter = DeadLetter {
            queued_at: Timestamp::UNIX_EPOCH,
            died_at: Timestamp::UNIX_EPOCH,
            message: test_notification(&channel, "ann", "", Timestamp::UNIX_EPOCH).to_message(),
            attempts: 1,
            why: "404".to_owned(),
        };
        let numbers = [1, 2, 5, 7, 9];
        let state = OutboxState {
            dead_letters: BTreeMap::from(numbers.map(|number| (number, letter.clone()))),
            ..OutboxState::default()
        };
        for limit in 1..=6 {
            let (mut shown, mut cursor) = (Vec::new(), None);
            loop {
                let query = PageQuery {
                    limit: Some(limit),
                    cursor,
                };
                let page = dead_letter_page(channel.clone(), &state, &query);
                assert!(!page.items.is_empty(), "an empty last page");
                shown.extend(page.items.iter().map(|it| it.number));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(shown, [9, 7, 5, 2, 1], "{limit}");
        }
    }

    #[test]
    fn a_channel_belongs_to_its_environment_or_to_the_server() {
        let resource = |id: &str| channel_resource(&id.parse().unwrap());
        let environment = ServiceEnvironment {
            service: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
        };
        let shop = Resource::Service("shop".parse().unwrap());
        assert_eq!(
            resource("shop.production.0123456789abcdef"),
            Resource::Environment(environment)
        );
        assert_eq!(resource("shop..0123456789abcdef"), shop);
        assert_eq!(resource("chat"), Resource::Server);
    }
}
