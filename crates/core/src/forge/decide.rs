//! Which webhooks are accepted, and which reports are queued.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    ForgeAggregate,
    event::{AcceptedDelivery, ForgeEvent, ForgeInput, ForgeRejection},
    report::ForgeReport,
    state::ForgeState,
};
use crate::aggregate::{self, Actor, Event};

/// Deliveries that may wait; each is small, but that of a pull request has the forge's whole description of it.
const DELIVERIES_MAX: usize = 500;
/// Reports that may wait while the forge is down; the oldest are given up.
const REPORTS_MAX: usize = 2_000;

type ForgeDecider = aggregate::Decider<ForgeAggregate>;

/// Facts that follow from an input.
pub(super) fn decide(
    state: &ForgeState,
    input: ForgeInput,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<ForgeEvent>>, ForgeRejection> {
    let mut decider = ForgeDecider::new(state, by, now);
    match input {
        ForgeInput::Connect {
            connection,
            position,
        } => {
            if state.connection.as_ref() != Some(&*connection) {
                decider.emit(ForgeEvent::Connected {
                    connection,
                    position,
                });
            }
        }
        ForgeInput::Disconnect => {
            require_connection(state)?;
            decider.emit(ForgeEvent::Disconnected);
        }
        ForgeInput::AcceptDelivery(delivery) => {
            check_delivery(state, &delivery)?;
            decider.emit(ForgeEvent::DeliveryAccepted { delivery });
        }
        ForgeInput::DeliveryHandled { number, outcome } => {
            if state.deliveries.contains_key(&number) {
                decider.emit(ForgeEvent::DeliveryHandled { number, outcome });
            }
        }
        ForgeInput::QueueReports { position, reports } => {
            if state.connection.is_some() && position > state.reported_to {
                decider.queue_reports(position, reports);
            }
        }
        ForgeInput::ReportSent { number, remote } => {
            if state.reports.contains_key(&number) {
                decider.emit(ForgeEvent::ReportSent { number, remote });
            }
        }
        ForgeInput::ReportFailed { number, why } => {
            if state.reports.contains_key(&number) {
                decider.emit(ForgeEvent::ReportFailed { number, why });
            }
        }
        ForgeInput::TimerFired => {}
    }
    Ok(decider.decided())
}

const fn require_connection(state: &ForgeState) -> Result<(), ForgeRejection> {
    match state.connection {
        Some(_) => Ok(()),
        None => Err(ForgeRejection::NotConnected),
    }
}

fn check_delivery(state: &ForgeState, delivery: &AcceptedDelivery) -> Result<(), ForgeRejection> {
    require_connection(state)?;
    if state.has_received(delivery) {
        return Err(ForgeRejection::Repeated);
    }
    if state.deliveries.len() >= DELIVERIES_MAX {
        return Err(ForgeRejection::TooMany(state.deliveries.len()));
    }
    Ok(())
}

impl ForgeDecider {
    /// Queues reports, and a comment for each pull request whose comment changes by them.
    fn queue_reports(&mut self, position: u64, mut reports: Vec<ForgeReport>) {
        if reports.is_empty() {
            return;
        }
        let mut changed = BTreeSet::new();
        for report in &reports {
            match report {
                ForgeReport::Status(status) => changed.extend(status.pull_request),
                ForgeReport::Deployment(deployment) => {
                    changed.extend(deployment.pull_requests.iter().copied());
                }
                ForgeReport::Comment { .. } => {}
            }
        }
        changed.retain(|number| !self.state.has_queued_comment(*number));
        let comments = changed.into_iter();
        reports.extend(comments.map(|pull_request| ForgeReport::Comment { pull_request }));
        self.emit(ForgeEvent::ReportsQueued { position, reports });
        while self.state.reports.len() > REPORTS_MAX {
            let Some(number) = self.state.reports.keys().next().copied() else {
                return;
            };
            let why = format!("{REPORTS_MAX} newer reports wait for the forge");
            self.emit(ForgeEvent::ReportFailed { number, why });
        }
    }
}
