//! Connections of repositories to GitHub, GitLab and Gitea: their webhooks, and the reports to them.
//!
//! # Why
//!
//! A webhook is acknowledged once and not sent again, so its change is recorded before. Reports must arrive in order and survive
//! restarts, and a forge that is down must hold no rollout: reports wait in this stream, apart from runs and rollouts.
//!
//! # Invariants
//!
//! - One stream for each repository. Reports are sent one after the other, and so are deliveries handled.
//! - A delivery is accepted once: its body is recognised, because no signature covers the forge's id of it.
//! - A payload says that something changed; the change itself is fetched from the forge.
//! - Reports follow from the log: of each position they are queued once.

mod change;
mod connection;
mod decide;
mod event;
mod payload;
mod pull_request;
mod report;
mod state;
#[cfg(test)]
mod tests;
mod view;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use change::{ForgeChange, PullRequestChange, PullRequestOrigin};
pub use connection::{
    ConnectionError, ConnectionRequest, ForgeConnection, ForgeKind, ForkPolicy, ParseForgeKindError,
};
pub use event::{AcceptedDelivery, ForgeEffect, ForgeEvent, ForgeInput, ForgeRejection};
pub use payload::{PayloadError, WebhookMeaning, read_webhook};
pub use pull_request::{CommentLine, DeployedLine, PullRequestRecord, comment_marker};
pub use report::{
    CommitStatusReport, DeploymentReport, ForgeReport, ReportedProgress, workflow_context,
};
pub use state::{FailedReport, ForgeState, HandledDelivery, QueuedReport};
pub use view::ForgeView;

use crate::{
    aggregate::{Actor, Aggregate, Event, PendingWork, ViewRow},
    ids::ServiceName,
};

/// The aggregate of connections to forges; its streams are those of [`forge_stream`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ForgeAggregate;

/// The stream of a repository.
#[must_use]
pub fn forge_stream(repository: &ServiceName) -> String {
    format!("{}/{repository}", ForgeAggregate::KIND)
}

impl Aggregate for ForgeAggregate {
    const KIND: &'static str = "forge";
    type State = ForgeState;
    type Body = ForgeEvent;
    type Input = ForgeInput;
    type Effect = ForgeEffect;
    type Rejection = ForgeRejection;

    fn decide(
        state: &ForgeState,
        input: ForgeInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<ForgeEvent>>, ForgeRejection> {
        decide::decide(state, input, by, now)
    }

    fn apply(state: &mut ForgeState, event: &Event<ForgeEvent>) {
        state.apply(event);
    }

    fn pending(state: &ForgeState, _now: Timestamp) -> PendingWork<ForgeEffect> {
        let mut effects = Vec::new();
        if let Some((number, delivery)) = state.deliveries.first_key_value() {
            let effect = ForgeEffect::HandleDelivery {
                number: *number,
                change: Box::new(delivery.change.clone()),
            };
            effects.push((format!("delivery-{number}").into(), effect));
        }
        if let Some((number, queued)) = state.reports.first_key_value() {
            let effect = ForgeEffect::SendReport {
                number: *number,
                report: queued.report.clone(),
            };
            effects.push((format!("report-{number}").into(), effect));
        }
        PendingWork {
            live: !effects.is_empty(),
            effects,
            wake_at: None,
        }
    }

    fn rows(_state: &ForgeState, _events: &[Event<ForgeEvent>]) -> Vec<ViewRow> {
        Vec::new()
    }

    fn timer_fired() -> ForgeInput {
        ForgeInput::TimerFired
    }
}
