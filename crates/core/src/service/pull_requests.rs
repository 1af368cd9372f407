//! Runs for pull requests of a forge. They make no release.

use std::collections::BTreeMap;

use super::{
    ServiceDecider,
    event::{PullRequestRuns, RunOrder, RunPurpose, ServiceEvent},
};

impl ServiceDecider {
    /// Starts the runs of a pull request, once for each webhook: webhooks are handled in their order, the last one again after a crash.
    pub(super) fn start_pull_request(&mut self, runs: PullRequestRuns) {
        if runs.delivery <= self.state.last_delivery {
            return;
        }
        for workflow in runs.workflows {
            let config = self.state.config.as_ref();
            let order = RunOrder {
                number: self.state.last_run.next(),
                purpose: RunPurpose::PullRequest {
                    number: runs.number,
                    head: runs.head.clone(),
                    origin: runs.origin,
                    delivery: runs.delivery,
                },
                workflow,
                commit: runs.commit.clone(),
                reference: runs.reference.clone(),
                before: None,
                event: "pull_request".to_owned(),
                by: Some(self.by.clone()),
                inputs: BTreeMap::new(),
                reports: config
                    .map(|config| config.reports.clone())
                    .unwrap_or_default(),
                environments: self.rules(None),
                event_payload: Some(runs.payload.clone()),
                repository: config.and_then(|config| config.repository.clone()),
                default_branch: config.map(|config| config.branch.clone()),
                location: self.state.location.clone(),
                chain: 0,
            };
            self.emit(ServiceEvent::RunOrdered {
                order: Box::new(order),
            });
        }
    }
}
