//! What the facts of a connection add up to.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    change::{ForgeChange, PullRequestChange},
    connection::ForgeConnection,
    event::{AcceptedDelivery, ForgeEvent},
    pull_request::PullRequestRecord,
    report::ForgeReport,
};
use crate::aggregate::Event;

/// Deliveries by which a replay is recognised. An older one changes nothing: references and pull requests are compared with their state.
const RECEIVED_MAX: usize = 2_000;
/// Handled deliveries that are shown.
const HANDLED_MAX: usize = 20;
/// Reports that were given up and are shown.
const FAILED_MAX: usize = 20;
/// Pull requests and deployments whose ids at the forge are remembered.
const REMEMBERED_MAX: usize = 300;

/// The state of a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ForgeState {
    pub connection: Option<ForgeConnection>,
    /// Digests of the bodies of accepted deliveries, the oldest first.
    pub received: VecDeque<String>,
    pub last_delivery: u64,
    /// Deliveries that are not handled yet, by number.
    pub deliveries: BTreeMap<u64, AcceptedDelivery>,
    /// Handled deliveries, the oldest first.
    pub handled: VecDeque<HandledDelivery>,
    /// The position of the log up to which reports were queued.
    pub reported_to: u64,
    pub last_report: u64,
    /// Reports that the forge doesn't have yet, by number.
    pub reports: BTreeMap<u64, QueuedReport>,
    /// Failed reports, the oldest first.
    pub failed: VecDeque<FailedReport>,
    /// The forge's ids of deployments, by rollout.
    pub deployments: BTreeMap<String, u64>,
    /// Pull requests, by number.
    pub pull_requests: BTreeMap<u64, PullRequestRecord>,
}

/// A delivery after it was handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandledDelivery {
    pub at: Timestamp,
    pub id: String,
    pub outcome: String,
}

/// A report that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedReport {
    pub at: Timestamp,
    pub report: ForgeReport,
}

/// A report that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedReport {
    pub at: Timestamp,
    pub report: ForgeReport,
    pub why: String,
}

impl ForgeState {
    /// Whether a delivery with this body was accepted before.
    #[must_use]
    pub fn has_received(&self, delivery: &AcceptedDelivery) -> bool {
        let digest = delivery.body.hex();
        self.received.iter().any(|known| known == digest)
    }

    /// Whether a newer change of the pull request is known, so that this one must not start anything.
    #[must_use]
    pub fn is_outdated(&self, change: &PullRequestChange) -> bool {
        let known = self.pull_requests.get(&change.number);
        let known = known.and_then(|record| record.updated_at);
        matches!((known, change.updated_at), (Some(known), Some(given)) if given < known)
    }

    /// Whether a comment on the pull request is queued.
    pub(super) fn has_queued_comment(&self, number: u64) -> bool {
        let comment = ForgeReport::Comment {
            pull_request: number,
        };
        self.reports.values().any(|queued| queued.report == comment)
    }

    pub(super) fn apply(&mut self, event: &Event<ForgeEvent>) {
        match &event.body {
            ForgeEvent::Connected {
                connection,
                position,
            } => self.connect(connection, *position),
            ForgeEvent::Disconnected => {
                let received = std::mem::take(&mut self.received);
                *self = Self {
                    received,
                    last_delivery: self.last_delivery,
                    last_report: self.last_report,
                    ..Self::default()
                };
            }
            ForgeEvent::DeliveryAccepted { delivery } => {
                self.last_delivery += 1;
                push_bounded(
                    &mut self.received,
                    delivery.body.hex().to_owned(),
                    RECEIVED_MAX,
                );
                self.deliveries
                    .insert(self.last_delivery, (**delivery).clone());
            }
            ForgeEvent::DeliveryHandled { number, outcome } => {
                self.delivery_handled(*number, outcome, event.at);
            }
            ForgeEvent::ReportsQueued { position, reports } => {
                self.reported_to = (*position).max(self.reported_to);
                for report in reports {
                    self.queue(report, event.at);
                }
            }
            ForgeEvent::ReportSent { number, remote } => self.report_sent(*number, *remote),
            ForgeEvent::ReportFailed { number, why } => {
                if let Some(queued) = self.reports.remove(number) {
                    let failed = FailedReport {
                        at: event.at,
                        report: queued.report,
                        why: why.clone(),
                    };
                    push_bounded(&mut self.failed, failed, FAILED_MAX);
                }
            }
        }
    }

    fn connect(&mut self, connection: &ForgeConnection, position: u64) {
        let is_same = self.connection.as_ref().is_some_and(|known| {
            (known.forge, &known.url, &known.project)
                == (connection.forge, &connection.url, &connection.project)
        });
        if !is_same {
            // Ids of another repository.
            self.deployments.clear();
            self.pull_requests.clear();
            self.reports.clear();
        }
        self.connection = Some(connection.clone());
        self.reported_to = position.max(self.reported_to);
    }

    fn delivery_handled(&mut self, number: u64, outcome: &str, at: Timestamp) {
        let Some(delivery) = self.deliveries.remove(&number) else {
            return;
        };
        if let ForgeChange::PullRequest(change) = &delivery.change {
            let is_outdated = self.is_outdated(change);
            let record = self.pull_requests.entry(change.number).or_default();
            if !is_outdated {
                record.update(change);
            }
            drop_lowest(&mut self.pull_requests);
        }
        let handled = HandledDelivery {
            at,
            id: delivery.id,
            outcome: outcome.to_owned(),
        };
        push_bounded(&mut self.handled, handled, HANDLED_MAX);
    }

    fn queue(&mut self, report: &ForgeReport, at: Timestamp) {
        match report {
            ForgeReport::Status(status) => {
                if let Some(number) = status.pull_request {
                    let record = self.pull_requests.entry(number).or_default();
                    record.show_run(status);
                    drop_lowest(&mut self.pull_requests);
                }
            }
            ForgeReport::Deployment(deployment) => {
                for number in &deployment.pull_requests {
                    if let Some(record) = self.pull_requests.get_mut(number) {
                        record.show_deployment(deployment);
                    }
                }
            }
            ForgeReport::Comment { .. } => {}
        }
        self.last_report += 1;
        let report = report.clone();
        self.reports
            .insert(self.last_report, QueuedReport { at, report });
    }

    fn report_sent(&mut self, number: u64, remote: Option<u64>) {
        let Some(queued) = self.reports.remove(&number) else {
            return;
        };
        let Some(remote) = remote else {
            return;
        };
        match queued.report {
            ForgeReport::Deployment(deployment) => {
                self.deployments.insert(deployment.key(), remote);
                while self.deployments.len() > REMEMBERED_MAX {
                    let lowest = self.deployments.values().min().copied();
                    self.deployments.retain(|_, id| Some(*id) != lowest);
                }
            }
            ForgeReport::Comment { pull_request } => {
                if let Some(record) = self.pull_requests.get_mut(&pull_request) {
                    record.comment = Some(remote);
                }
            }
            ForgeReport::Status(_) => {}
        }
    }
}

fn push_bounded<T>(list: &mut VecDeque<T>, value: T, length_max: usize) {
    if list.len() >= length_max {
        list.pop_front();
    }
    list.push_back(value);
}

fn drop_lowest(records: &mut BTreeMap<u64, PullRequestRecord>) {
    while records.len() > REMEMBERED_MAX {
        records.pop_first();
    }
}
