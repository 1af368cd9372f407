//! What lists and pages show of the outbox.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ChannelId, DeadLetter, LastDelivery, OutboxAddress, OutboxEvent, OutboxState};
use crate::{
    aggregate::{Event, ViewRow},
    ids::{EnvironmentName, ServiceName},
};

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelView {
    pub id: ChannelId,
    /// `slack`; none for a destination of the settings, which know it.
    pub kind: Option<String>,
    /// The address for readers.
    pub label: String,
    pub service: Option<ServiceName>,
    pub environment: Option<EnvironmentName>,
    /// Messages that wait.
    pub queued: usize,
    pub dead_letters: usize,
    pub last_delivery: Option<LastDelivery>,
    /// Why the last attempt at the first message failed.
    pub failing: Option<String>,
    /// Failed attempts at the first message.
    pub attempts: u32,
    pub retry_at: Option<Timestamp>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterView {
    pub channel: ChannelId,
    pub number: u64,
    /// The address for readers.
    pub label: String,
    pub title: String,
    pub queued_at: Timestamp,
    pub died_at: Timestamp,
    pub attempts: u32,
    pub why: String,
}

impl ChannelView {
    /// The kind of its rows.
    pub const ROWS: &'static str = "outbox_channel";

    #[must_use]
    pub fn new(id: ChannelId, state: &OutboxState) -> Self {
        let first = state.queue.front();
        let (kind, label, service, environment) = match &state.address {
            Some(OutboxAddress::Configured {
                kind,
                label,
                service,
                environment,
                ..
            }) => (
                Some(kind.clone()),
                label.clone(),
                Some(service.clone()),
                environment.clone(),
            ),
            Some(OutboxAddress::Named { name }) => (None, name.clone(), None, None),
            None => (None, id.to_string(), None, None),
        };
        Self {
            id,
            kind,
            label,
            service,
            environment,
            queued: state.queue.len(),
            dead_letters: state.dead_letters.len(),
            last_delivery: state.last_delivery.clone(),
            failing: first.and_then(|it| it.why.clone()),
            attempts: first.map_or(0, |it| it.attempts),
            retry_at: first.and_then(|it| it.retry_at),
        }
    }
}

impl DeadLetterView {
    /// The kind of its rows.
    pub const ROWS: &'static str = "dead_letter";

    #[must_use]
    pub fn new(channel: &ChannelView, number: u64, letter: &DeadLetter) -> Self {
        Self {
            channel: channel.id.clone(),
            number,
            label: channel.label.clone(),
            title: letter.message.title.clone(),
            queued_at: letter.queued_at,
            died_at: letter.died_at,
            attempts: letter.attempts,
            why: letter.why.clone(),
        }
    }
}

/// A row for the channel, and one for each dead letter.
pub(super) fn rows(state: &OutboxState, events: &[Event<OutboxEvent>]) -> Vec<ViewRow> {
    let Some(id) = state.address.as_ref().map(ChannelId::for_address) else {
        return Vec::new();
    };
    let channel = ChannelView::new(id, state);
    let mut rows = vec![view_row(
        ChannelView::ROWS,
        &channel,
        channel.id.to_string(),
        &channel,
    )];
    for event in events {
        let number = match &event.body {
            OutboxEvent::DeadLettered { number, .. }
            | OutboxEvent::DeadLetterResent { number, .. }
            | OutboxEvent::DeadLetterRemoved { number } => *number,
            OutboxEvent::MessageQueued { .. }
            | OutboxEvent::MessageDelivered { .. }
            | OutboxEvent::AttemptFailed { .. } => continue,
        };
        let key = format!("{}/{number}", channel.id);
        rows.push(match state.dead_letters.get(&number) {
            Some(letter) => {
                let view = DeadLetterView::new(&channel, number, letter);
                view_row(DeadLetterView::ROWS, &channel, key, &view)
            }
            None => ViewRow::deleted(DeadLetterView::ROWS, &key),
        });
    }
    rows
}

fn view_row(kind: &str, channel: &ChannelView, key: String, view: &impl Serialize) -> ViewRow {
    let service = channel.service.as_ref().map(ToString::to_string);
    ViewRow {
        kind: kind.to_owned(),
        key,
        service: service.unwrap_or_default(),
        live: channel.queued > 0,
        doc: serde_json::to_value(view).expect("a view is plain data"),
    }
}
