//! A step of a run deploys (`shipway/deploy`). The release belongs to the run, whichever attempt at it asks: what one attempt has
//! made of an artifact the next one deploys again.

use std::sync::Arc;

use super::{
    ServiceDecider,
    event::{
        AutoPromotion, DeployingRun, ReleaseOrigin, RolloutRequest, RolloutTrigger, RunArtifact,
        RunPurpose, ServiceEvent,
    },
    rejection::ServiceRejection,
    release_check::require_environment,
    state::{OpenPush, ServiceState},
};
use crate::{
    ids::EnvironmentName,
    release::Release,
    rollout::{RolloutKind, RolloutPace},
};

impl ServiceState {
    /// The push of this number, while something of it may still be released.
    fn push(&self, sequence: u64) -> Option<&OpenPush> {
        let open = self.open_pushes.get(&sequence);
        open.or_else(|| self.red_pushes.get(&sequence))
    }
}

impl ServiceDecider {
    pub(super) fn deploy_step(
        &mut self,
        run: &DeployingRun,
        artifact: RunArtifact,
        environment: &EnvironmentName,
    ) -> Result<(), ServiceRejection> {
        if run.number > self.state.last_run {
            return Err(ServiceRejection::UnknownRun(run.number));
        }
        let push = match run.purpose {
            RunPurpose::Push { sequence } => self.state.push(sequence).cloned(),
            RunPurpose::PullRequest { number, .. } => {
                return Err(ServiceRejection::PullRequest(number));
            }
            RunPurpose::Dispatch | RunPurpose::ByItself | RunPurpose::Tests { .. } => None,
        };
        let by_push = push.iter().flat_map(|push| &push.deployed_by_step);
        let mut made = by_push.chain(&run.made);
        let release = match made.find(|release| release.artifact == artifact.digest) {
            Some(release) => release.clone(),
            None => {
                let release = self.release_by_step(run, artifact, push)?;
                require_environment(&release, environment)?;
                self.emit(ServiceEvent::ReleaseCreated {
                    release: release.clone(),
                    origin: ReleaseOrigin::DeployStep,
                });
                release
            }
        };
        require_environment(&release, environment)?;
        let why = format!("a step of run {}", run.number);
        self.request_by_itself(RolloutRequest {
            kind: RolloutKind::Deploy,
            pace: RolloutPace::ByStrategy,
            trigger: RolloutTrigger::Automation,
            retry_of: None,
            by: release.by.clone().or_else(|| self.requester(&release)),
            release,
            environment: environment.clone(),
            auto_promotion: AutoPromotion::Stay,
            why,
        });
        Ok(())
    }

    /// What a step makes of an artifact. Of a push that is settled the configuration is that of what an earlier attempt made.
    fn release_by_step(
        &self,
        run: &DeployingRun,
        artifact: RunArtifact,
        push: Option<OpenPush>,
    ) -> Result<Arc<Release>, ServiceRejection> {
        let before = run.made.last();
        let pushed = push.as_ref().and_then(|push| push.push.config.as_deref());
        let config = pushed
            .or_else(|| before.map(|release| &release.config))
            .or(self.state.config.as_deref());
        let config = config
            .ok_or(ServiceRejection::NoConfig(run.number))?
            .clone();
        let sequence = match run.purpose {
            RunPurpose::Push { sequence } => sequence,
            RunPurpose::Dispatch
            | RunPurpose::ByItself
            | RunPurpose::PullRequest { .. }
            | RunPurpose::Tests { .. } => self.state.pushes,
        };
        let branch = match (&push, before) {
            (Some(push), _) => push.push.branch().map(str::to_owned),
            (None, before) => before.and_then(|it| it.branch.clone()),
        };
        let (tests, by) = match (push, before) {
            (Some(push), _) => (push.push.tests, push.by),
            (None, Some(before)) => (before.tests.clone(), before.by.clone()),
            (None, None) => Default::default(),
        };
        Ok(Arc::new(Release {
            service: config.service.clone(),
            number: self.state.last_release.next(),
            sequence,
            commit: run.commit.clone(),
            branch,
            artifact: artifact.digest,
            run: Some(run.number),
            config,
            tests,
            by,
            created_at: self.now,
        }))
    }
}
