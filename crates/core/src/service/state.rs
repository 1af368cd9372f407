//! What the facts of a service add up to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_workflow::job::Conclusion;

use super::event::{
    AutoPromotion, Preemption, ReleaseOrigin, RolloutGroups, RolloutRequest, RunArtifact, RunOrder,
    RunPurpose, ServiceEvent,
};
use super::{
    health::{EnvironmentDegradation, HealthNotice},
    hold::EnvironmentHold,
    push::Push,
    rejected_release::RejectedRelease,
    requested_deletion::RequestedDeletion,
    schedules::WorkflowSchedules,
};
use crate::{
    address::claims::AskedAddresses,
    aggregate::{Actor, Event},
    config::ServiceConfig,
    ids::{CommitId, EnvironmentName, ReleaseNumber, RolloutNumber, RunNumber, ServiceName},
    release::Release,
    repository::{DeliveredPush, ServiceLocation},
    rollout::{RollbackCause, RolloutKind, RolloutOutcome, RolloutSpec, strategy::ObservedState},
    testing::TestingState,
};

/// How many former stable releases of an environment are remembered for going back.
const FORMER_MAX: usize = 10;

/// How many red pushes, and how many red tests, are remembered for being run again.
const RED_MAX: usize = 20;

/// The state of a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name, once something was pushed.
    pub name: Option<ServiceName>,
    pub pushes: u64,
    /// Where each branch and tag stood when it was last pushed: what a repository holds beyond that was not heard of yet.
    pub references: BTreeMap<String, CommitId>,
    /// The last run's number.
    pub last_run: RunNumber,
    /// The last webhook of a forge that runs were started for.
    #[serde(default)]
    pub last_delivery: u64,
    /// The last release's number.
    pub last_release: ReleaseNumber,
    /// The last rollout's number.
    pub last_rollout: RolloutNumber,
    /// Pushes whose runs are not all over.
    pub open_pushes: BTreeMap<u64, OpenPush>,
    /// Runs that are not over.
    pub open_runs: BTreeMap<RunNumber, OpenRun>,
    /// The configuration as last pushed to the released branch.
    pub config: Option<Arc<ServiceConfig>>,
    /// Its environments, by name; the order is the configuration's.
    pub environments: BTreeMap<EnvironmentName, EnvironmentState>,
    /// Quarantine and flaky tests.
    pub testing: TestingState,
    /// The workflows that start by themselves.
    pub schedules: WorkflowSchedules,
    /// The rollout groups that other services' configurations put this one into, by the other service.
    pub promotion_groups: BTreeMap<ServiceName, RolloutGroups>,
    /// The groups that the services named in this one's `promote_with` know of.
    pub notified_groups: RolloutGroups,
    /// The addresses that it asked for when it last reported them.
    pub reported_addresses: AskedAddresses,
    /// Notices of the health of environments that are not delivered everywhere yet, the oldest first.
    pub health_notices: VecDeque<HealthNotice>,
    /// The number of the last one.
    pub last_health_notice: u64,
    /// Releases that wait for the tests of an environment.
    pub in_tests: BTreeMap<RunNumber, (EnvironmentName, Arc<Release>)>,
    /// Pushes that were not released as a run was red: it may be run again and be green then.
    pub red_pushes: BTreeMap<u64, OpenPush>,
    /// Releases that stay in an environment as its tests were red: they may be run again.
    pub red_tests: BTreeMap<RunNumber, (EnvironmentName, Arc<Release>)>,
    /// Where it is, if not at the root of the repository of its name.
    #[serde(default)]
    pub location: Option<ServiceLocation>,
    /// The newest push that was released.
    #[serde(default)]
    pub delivered: Option<DeliveredPush>,
    /// Set once the deletion of the whole service was requested.
    #[serde(default)]
    pub deletion: Option<RequestedDeletion>,
    /// Releases that no environment accepts.
    #[serde(default)]
    pub rejected_releases: BTreeMap<ReleaseNumber, RejectedRelease>,
}

/// A push whose runs are not all over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenPush {
    pub push: Push,
    /// Who pushed it; none in snapshots of before this was recorded.
    pub by: Option<Actor>,
    /// How many runs it has set off.
    pub runs: usize,
    /// Its runs that are not over.
    pub waiting: BTreeSet<RunNumber>,
    /// Its runs that were not green.
    pub red: BTreeSet<RunNumber>,
    pub artifacts: Vec<(RunNumber, RunArtifact)>,
    /// Whether a step has deployed by itself.
    pub deployed_by_step: Vec<Arc<Release>>,
}

/// A run that is not over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenRun {
    pub order: Arc<RunOrder>,
    /// Whether its stream exists.
    pub opened: bool,
}

/// What an environment of a service is doing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EnvironmentState {
    pub stable: Option<Arc<Release>>,
    pub stable_since: Option<Timestamp>,
    /// What served before, the latest last.
    pub former: VecDeque<Arc<Release>>,
    pub active: Option<ActiveRollout>,
    /// Queued requests, the next first.
    pub queue: VecDeque<RolloutRequest>,
    /// Releases that were taken out here, by how.
    pub blocked_releases: BTreeMap<ReleaseNumber, RolloutOutcome>,
    /// Set while automatic promotion into it is stopped.
    pub hold: Option<EnvironmentHold>,
    /// Set while its stable release lacks ready instances and no rollout guards it.
    pub degradation: Option<EnvironmentDegradation>,
    /// When each of `former` stopped to serve; unknown to logs of before this was recorded.
    pub replaced_at: BTreeMap<ReleaseNumber, Timestamp>,
    /// The newest push that was sent here.
    pub last_push: u64,
    /// Remaining instances and traffic split after the last rollout.
    pub observed: ObservedState,
    /// The last rollout that has ended here.
    pub last_ended: Option<EndedRollout>,
    /// Set once its deletion was requested.
    #[serde(default)]
    pub deletion: Option<RequestedDeletion>,
}

/// The end of a rollout, shown with its environment afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRollout {
    pub number: RolloutNumber,
    /// The release that it rolled out.
    pub release: ReleaseNumber,
    pub outcome: RolloutOutcome,
    pub why: String,
    pub at: Timestamp,
}

/// The running rollout of an environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActiveRollout {
    pub spec: Arc<RolloutSpec>,
    /// Where the release goes afterwards.
    pub auto_promotion: AutoPromotion,
    /// Whether its stream exists.
    pub opened: bool,
    /// Whether its release has been declared stable.
    pub promoted: bool,
    pub preemption: Option<Preemption>,
    /// Whether it has heard so.
    pub preemption_delivered: bool,
}

impl EnvironmentState {
    /// Rollbacks come before all other requests.
    fn enqueue(&mut self, request: &RolloutRequest) {
        self.last_push = self.last_push.max(request.release.sequence);
        match request.kind {
            RolloutKind::Rollback => self.queue.push_front(request.clone()),
            RolloutKind::Deploy | RolloutKind::Retry => self.queue.push_back(request.clone()),
        }
    }

    /// Removes the first request of this kind for this release from the queue.
    fn dequeue(&mut self, release: ReleaseNumber, kind: RolloutKind) {
        let mut queued = self.queue.iter();
        let found = queued.position(|it| it.release.number == release && it.kind == kind);
        if let Some(position) = found {
            self.queue.remove(position);
        }
    }
}

impl ServiceState {
    /// The environments in order of promotion, by the last configuration; those it no longer names come last.
    #[must_use]
    pub fn in_order(&self) -> Vec<(&EnvironmentName, &EnvironmentState)> {
        let position = |name: &EnvironmentName| {
            let known = self.config.as_ref().map(|config| &config.environments);
            known
                .and_then(|known| known.iter().position(|it| it.name == *name))
                .unwrap_or(usize::MAX)
        };
        let mut ordered: Vec<_> = self.environments.iter().collect();
        ordered.sort_by_key(|(name, _)| position(name));
        ordered
    }

    /// The running rollout with this number.
    #[must_use]
    pub fn active(&self, number: RolloutNumber) -> Option<(&EnvironmentName, &ActiveRollout)> {
        self.environments.iter().find_map(|(name, environment)| {
            environment
                .active
                .as_ref()
                .filter(|active| active.spec.id.number == number)
                .map(|active| (name, active))
        })
    }

    fn active_mut(&mut self, number: RolloutNumber) -> Option<&mut ActiveRollout> {
        self.environments
            .values_mut()
            .filter_map(|environment| environment.active.as_mut())
            .find(|active| active.spec.id.number == number)
    }

    fn environment(&mut self, name: &EnvironmentName) -> &mut EnvironmentState {
        self.environments.entry(name.clone()).or_default()
    }

    fn pushed(&mut self, sequence: u64, push: &Push, by: &Actor) {
        self.pushes = sequence;
        self.references
            .insert(push.reference.clone(), push.commit.id.clone());
        self.location.clone_from(&push.location);
        if let Some(config) = push.config.as_deref().filter(|_| push.is_released()) {
            self.name = Some(config.service.clone());
            self.config = Some(Arc::new(config.clone()));
            for environment in &config.environments {
                self.environment(&environment.name);
            }
        }
        let open = OpenPush {
            // Nothing that a service decides depends on the commits that a push brought.
            push: Push {
                commits: Vec::new(),
                commits_omitted: 0,
                ..push.clone()
            },
            by: Some(by.clone()),
            runs: 0,
            waiting: BTreeSet::new(),
            red: BTreeSet::new(),
            artifacts: Vec::new(),
            deployed_by_step: Vec::new(),
        };
        self.open_pushes.insert(sequence, open);
    }

    fn run_ordered(&mut self, order: &RunOrder) {
        self.last_run = order.number;
        match &order.purpose {
            RunPurpose::Push { sequence } => {
                if let Some(push) = self.open_pushes.get_mut(sequence) {
                    push.runs += 1;
                    push.waiting.insert(order.number);
                }
            }
            RunPurpose::Tests { environment, .. } => {
                if let Some(stable) = self.environment(environment).stable.clone() {
                    self.in_tests
                        .insert(order.number, (environment.clone(), stable));
                }
            }
            RunPurpose::PullRequest { delivery, .. } => self.last_delivery = *delivery,
            RunPurpose::Dispatch | RunPurpose::ByItself => {}
        }
        self.open_runs.insert(
            order.number,
            OpenRun {
                order: Arc::new(order.clone()),
                opened: false,
            },
        );
    }

    fn remove_push(&mut self, sequence: u64) {
        let Some(push) = self.open_pushes.remove(&sequence) else {
            return;
        };
        if push.red.is_empty() && !push.deployed_by_step.is_empty() {
            self.push_delivered(sequence, &push.push.commit.id);
        }
        if !push.red.is_empty() && push.push.is_released() {
            self.red_pushes.insert(sequence, push);
        }
        while self.red_pushes.len() > RED_MAX {
            self.red_pushes.pop_first();
        }
    }

    fn run_ended(&mut self, number: RunNumber, conclusion: Conclusion, artifacts: &[RunArtifact]) {
        let is_green = conclusion == Conclusion::Success;
        if let Some(tested) = self.in_tests.remove(&number).filter(|_| !is_green) {
            self.red_tests.insert(number, tested);
            while self.red_tests.len() > RED_MAX {
                self.red_tests.pop_first();
            }
        }
        let Some(run) = self.open_runs.remove(&number) else {
            if is_green {
                self.run_again_green(number, artifacts);
            }
            return;
        };
        if let RunPurpose::Push { sequence } = run.order.purpose
            && let Some(push) = self.open_pushes.get_mut(&sequence)
        {
            push.waiting.remove(&number);
            if !is_green {
                push.red.insert(number);
            }
            push.artifacts
                .extend(artifacts.iter().map(|artifact| (number, artifact.clone())));
        }
    }

    fn rollout_ordered(&mut self, spec: &RolloutSpec, auto_promotion: AutoPromotion) {
        self.last_rollout = spec.id.number;
        let environment = self.environment(&spec.environment.name);
        environment.dequeue(spec.release().number, spec.kind);
        environment.active = Some(ActiveRollout {
            spec: Arc::new(spec.clone()),
            auto_promotion,
            opened: false,
            promoted: false,
            preemption: None,
            preemption_delivered: false,
        });
    }

    fn release_created(&mut self, release: &Arc<Release>, origin: ReleaseOrigin) {
        self.last_release = release.number;
        match origin {
            ReleaseOrigin::Push => {
                self.open_pushes.remove(&release.sequence);
                self.push_delivered(release.sequence, &release.commit.id);
            }
            ReleaseOrigin::DeployStep => {
                let open = self.open_pushes.get_mut(&release.sequence);
                let push = open.or_else(|| self.red_pushes.get_mut(&release.sequence));
                if let Some(push) = push {
                    push.deployed_by_step.push(release.clone());
                }
            }
        }
    }

    fn promoted(
        &mut self,
        name: &EnvironmentName,
        rollout: RolloutNumber,
        release: &Arc<Release>,
        at: Timestamp,
    ) {
        let environment = self.environment(name);
        if let Some(active) = environment
            .active
            .as_mut()
            .filter(|active| active.spec.id.number == rollout)
        {
            active.promoted = active.spec.release().number == release.number;
        }
        if environment
            .stable
            .as_ref()
            .is_some_and(|stable| stable.number == release.number)
        {
            return;
        }
        if let Some(former) = environment.stable.replace(release.clone()) {
            environment
                .former
                .retain(|it| it.number != release.number && it.number != former.number);
            environment.replaced_at.insert(former.number, at);
            environment.former.push_back(former);
            while environment.former.len() > FORMER_MAX {
                environment.former.pop_front();
            }
            let known: BTreeSet<ReleaseNumber> =
                environment.former.iter().map(|it| it.number).collect();
            environment
                .replaced_at
                .retain(|number, _| known.contains(number));
        }
        environment.stable_since = Some(at);
    }

    fn rollout_ended(
        &mut self,
        name: &EnvironmentName,
        number: RolloutNumber,
        (outcome, cause): (RolloutOutcome, Option<RollbackCause>),
        observed: &ObservedState,
    ) {
        let environment = self.environment(name);
        environment.observed = observed.clone();
        let Some(active) = environment
            .active
            .take_if(|active| active.spec.id.number == number)
        else {
            return;
        };
        let release = active.spec.release().number;
        match outcome {
            RolloutOutcome::Promoted => {
                environment.blocked_releases.remove(&release);
                // A release that was just rolled back from is no target of the next rollback.
                if let (RolloutKind::Rollback, Some(left)) =
                    (active.spec.kind, active.spec.stable())
                    && left.release.number != release
                {
                    (environment.blocked_releases)
                        .insert(left.release.number, RolloutOutcome::RolledBack);
                    environment
                        .former
                        .retain(|it| it.number != left.release.number);
                }
            }
            // A superseded release was not found bad.
            RolloutOutcome::Superseded => {}
            RolloutOutcome::Failed if cause == Some(RollbackCause::Superseded) => {}
            RolloutOutcome::RolledBack
            | RolloutOutcome::Aborted
            | RolloutOutcome::Rejected
            | RolloutOutcome::Failed => {
                environment.blocked_releases.insert(release, outcome);
                environment.former.retain(|it| it.number != release);
            }
        }
    }
}

pub(super) fn apply(state: &mut ServiceState, event: &Event<ServiceEvent>) {
    match &event.body {
        ServiceEvent::Pushed { sequence, push } => state.pushed(*sequence, push, &event.by),
        ServiceEvent::ReferenceMoved {
            reference,
            commit,
            location,
        } => {
            state.references.insert(reference.clone(), commit.clone());
            state.location.clone_from(location);
        }
        ServiceEvent::ReferenceDeleted { reference } => {
            state.references.remove(reference);
        }
        ServiceEvent::SchedulesSet { head, workflows } => {
            (state.schedules).set(head.clone(), workflows.clone(), event.at);
        }
        ServiceEvent::ScheduleFired { schedule, at } => state.schedules.came(schedule, *at),
        ServiceEvent::RunOrdered { order } => state.run_ordered(order),
        ServiceEvent::RunOpened { number } => {
            if let Some(run) = state.open_runs.get_mut(number) {
                run.opened = true;
            }
        }
        ServiceEvent::RunEnded {
            number,
            conclusion,
            artifacts,
        } => state.run_ended(*number, *conclusion, artifacts),
        ServiceEvent::PushNotReleased { sequence, .. } => state.remove_push(*sequence),
        ServiceEvent::ReleaseCreated { release, origin } => state.release_created(release, *origin),
        ServiceEvent::PromotionGroupChanged { leader, groups } if groups.is_empty() => {
            drop(state.promotion_groups.remove(leader))
        }
        ServiceEvent::PromotionGroupChanged { leader, groups } => drop(
            state
                .promotion_groups
                .insert(leader.clone(), groups.clone()),
        ),
        ServiceEvent::PeersNotified { groups } => state.notified_groups.clone_from(groups),
        ServiceEvent::AddressesReported { asked } => state.reported_addresses.clone_from(asked),
        ServiceEvent::Tests(fact) => state.testing.apply(fact, &event.by.to_string(), event.at),
        ServiceEvent::TestsPassed { .. } | ServiceEvent::PromotionBlocked { .. } => {}
        ServiceEvent::DeletionRequested { reason } => {
            state.deletion_requested(RequestedDeletion::new(event.at, &event.by, reason.clone()));
        }
        ServiceEvent::EnvironmentDeletionRequested {
            environment,
            reason,
        } => {
            let deletion = RequestedDeletion::new(event.at, &event.by, reason.clone());
            state.environment(environment).deletion = Some(deletion);
        }
        ServiceEvent::EnvironmentDeleted { environment } => state.environment_deleted(environment),
        ServiceEvent::Deleted { .. } => state.deleted(),
        of_environment => apply_to_environment(state, event, of_environment),
    }
}

/// Facts about the releases of one environment.
fn apply_to_environment(
    state: &mut ServiceState,
    event: &Event<ServiceEvent>,
    fact: &ServiceEvent,
) {
    match fact {
        ServiceEvent::RolloutRequested { request, .. } => {
            state.environment(&request.environment).enqueue(request);
        }
        ServiceEvent::RequestDropped {
            environment,
            release,
            kind,
            ..
        } => state.environment(environment).dequeue(*release, *kind),
        ServiceEvent::RolloutOrdered {
            spec,
            auto_promotion,
        } => state.rollout_ordered(spec, *auto_promotion),
        ServiceEvent::EnvironmentHeld {
            environment,
            reason,
        } => state
            .environment(environment)
            .set_hold(event.at, &event.by, reason),
        ServiceEvent::EnvironmentResumed { environment, .. } => {
            state.environment(environment).hold = None;
        }
        ServiceEvent::EnvironmentDegraded {
            environment,
            release,
            ready,
            needed,
            problem,
        } => state.environment_degraded(
            environment,
            EnvironmentDegradation {
                since: event.at,
                release: *release,
                ready: *ready,
                needed: *needed,
                problem: problem.clone(),
            },
        ),
        ServiceEvent::EnvironmentRecovered {
            environment,
            release,
        } => state.environment_recovered(environment, *release, event.at),
        ServiceEvent::HealthNotificationFinished {
            number,
            destination,
            ..
        } => state.remove_health_notice(*number, *destination),
        ServiceEvent::Promoted {
            environment,
            rollout,
            release,
        } => state.promoted(environment, *rollout, release, event.at),
        of_rollout => apply_to_rollout(state, event, of_rollout),
    }
}

/// Facts about the active rollout of an environment.
fn apply_to_rollout(state: &mut ServiceState, event: &Event<ServiceEvent>, fact: &ServiceEvent) {
    match fact {
        ServiceEvent::RolloutOpened { number } => {
            if let Some(active) = state.active_mut(*number) {
                active.opened = true;
            }
        }
        ServiceEvent::PreemptionRequested { number, preemption } => {
            if let Some(active) = state.active_mut(*number) {
                active.preemption = Some(preemption.clone());
                active.preemption_delivered = false;
            }
        }
        ServiceEvent::PreemptionDelivered { number } => {
            if let Some(active) = state.active_mut(*number) {
                active.preemption_delivered = true;
            }
        }
        ServiceEvent::RolloutEnded { .. } => apply_rollout_end(state, event),
        ServiceEvent::Pushed { .. }
        | ServiceEvent::ReferenceMoved { .. }
        | ServiceEvent::ReferenceDeleted { .. }
        | ServiceEvent::SchedulesSet { .. }
        | ServiceEvent::ScheduleFired { .. }
        | ServiceEvent::RunOrdered { .. }
        | ServiceEvent::RunOpened { .. }
        | ServiceEvent::RunEnded { .. }
        | ServiceEvent::PushNotReleased { .. }
        | ServiceEvent::ReleaseCreated { .. }
        | ServiceEvent::PromotionGroupChanged { .. }
        | ServiceEvent::PeersNotified { .. }
        | ServiceEvent::AddressesReported { .. }
        | ServiceEvent::Tests(_)
        | ServiceEvent::TestsPassed { .. }
        | ServiceEvent::RolloutRequested { .. }
        | ServiceEvent::RequestDropped { .. }
        | ServiceEvent::RolloutOrdered { .. }
        | ServiceEvent::EnvironmentHeld { .. }
        | ServiceEvent::EnvironmentResumed { .. }
        | ServiceEvent::EnvironmentDegraded { .. }
        | ServiceEvent::EnvironmentRecovered { .. }
        | ServiceEvent::HealthNotificationFinished { .. }
        | ServiceEvent::Promoted { .. }
        | ServiceEvent::DeletionRequested { .. }
        | ServiceEvent::EnvironmentDeletionRequested { .. }
        | ServiceEvent::EnvironmentDeleted { .. }
        | ServiceEvent::Deleted { .. }
        | ServiceEvent::PromotionBlocked { .. } => {}
        ServiceEvent::ReleaseRejected { .. } | ServiceEvent::ReleaseRejectionUndone { .. } => {
            state.apply_release_rejection(event);
        }
    }
}

fn apply_rollout_end(state: &mut ServiceState, event: &Event<ServiceEvent>) {
    let ServiceEvent::RolloutEnded {
        number,
        environment,
        release,
        outcome,
        cause,
        why,
        observed,
    } = &event.body
    else {
        return;
    };
    state.rollout_ended(environment, *number, (*outcome, *cause), observed);
    state.environment(environment).last_ended = Some(EndedRollout {
        number: *number,
        release: *release,
        outcome: *outcome,
        why: why.clone(),
        at: event.at,
    });
}
