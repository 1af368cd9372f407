//! Changes of deliveries, and decisions at gates.

use super::{AuditArea, DescribedChange, with_reason};
use crate::{
    ids::EnvironmentName,
    rollout::{RolloutEvent, RolloutKind},
    run::{GateFact, RunEvent},
    service::{RolloutRequest, RolloutTrigger, ServiceEvent},
    testing::TestingEvent,
};

fn delivery(change: impl Into<String>) -> DescribedChange {
    DescribedChange::new(AuditArea::Delivery, change)
}

fn decision(change: String, reason: Option<&str>) -> DescribedChange {
    DescribedChange::new(AuditArea::Gates, with_reason(change, reason))
}

/// Something that a person did to an environment.
fn environment_change(
    verb: &str,
    environment: &EnvironmentName,
    reason: Option<&str>,
) -> DescribedChange {
    let change = with_reason(format!("{verb} {environment}"), reason);
    delivery(change).in_environment(environment)
}

fn describe_testing(event: &TestingEvent) -> Option<DescribedChange> {
    Some(match event {
        TestingEvent::Quarantined { request } => {
            delivery(format!("put test {} into quarantine", request.test))
        }
        TestingEvent::Left { test, .. } => {
            delivery(format!("released test {test} from quarantine"))
        }
        TestingEvent::RunSeen { .. } => return None,
    })
}

/// A request, hold, rejection or deletion.
pub(super) fn describe_service(event: &ServiceEvent) -> Option<DescribedChange> {
    Some(match event {
        ServiceEvent::RolloutRequested { request, .. } => return describe_request(request),
        ServiceEvent::ReleaseRejected { release, reason } => delivery(with_reason(
            format!("rejected release {release} in every environment"),
            Some(reason),
        )),
        ServiceEvent::ReleaseRejectionUndone { release, reason } => delivery(with_reason(
            format!("took back the rejection of release {release}"),
            reason.as_deref(),
        )),
        ServiceEvent::EnvironmentHeld {
            environment,
            reason,
        } => environment_change("held", environment, Some(reason)),
        ServiceEvent::EnvironmentResumed {
            environment,
            reason,
        } => {
            let verb = "resumed automatic promotion into";
            environment_change(verb, environment, reason.as_deref())
        }
        ServiceEvent::DeletionRequested { reason } => {
            let change = "deleted the service with all its environments".to_owned();
            delivery(with_reason(change, reason.as_deref()))
        }
        ServiceEvent::EnvironmentDeletionRequested {
            environment,
            reason,
        } => environment_change("deleted", environment, reason.as_deref()),
        ServiceEvent::Tests(event) => return describe_testing(event),
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
        | ServiceEvent::RequestDropped { .. }
        | ServiceEvent::RolloutOrdered { .. }
        | ServiceEvent::RolloutOpened { .. }
        | ServiceEvent::PreemptionRequested { .. }
        | ServiceEvent::PreemptionDelivered { .. }
        | ServiceEvent::Promoted { .. }
        | ServiceEvent::TestsPassed { .. }
        | ServiceEvent::PromotionBlocked { .. }
        | ServiceEvent::EnvironmentDegraded { .. }
        | ServiceEvent::EnvironmentRecovered { .. }
        | ServiceEvent::HealthNotificationFinished { .. }
        | ServiceEvent::PromotionGroupChanged { .. }
        | ServiceEvent::PeersNotified { .. }
        | ServiceEvent::AddressesReported { .. }
        | ServiceEvent::EnvironmentDeleted { .. }
        | ServiceEvent::Deleted { .. }
        | ServiceEvent::RolloutEnded { .. } => return None,
    })
}

/// A rollout that a person asked for.
fn describe_request(request: &RolloutRequest) -> Option<DescribedChange> {
    if request.trigger != RolloutTrigger::Person {
        return None;
    }
    let (number, environment) = (request.release.number, &request.environment);
    let change = match request.kind {
        RolloutKind::Deploy => format!("deployed release {number} to {environment}"),
        RolloutKind::Rollback => format!("rolled {environment} back to release {number}"),
        RolloutKind::Retry => format!("retried the rollout of release {number} to {environment}"),
    };
    let change = with_reason(change, Some(&request.why));
    Some(delivery(change).in_environment(environment))
}

/// A decision about a rollout.
pub(super) fn describe_rollout(event: &RolloutEvent) -> Option<DescribedChange> {
    Some(match event {
        RolloutEvent::Approved { comment, .. } => {
            decision("approved the rollout".to_owned(), comment.as_deref())
        }
        RolloutEvent::Rejected { reason } => {
            decision("rejected the rollout".to_owned(), Some(reason))
        }
        RolloutEvent::GlassBroken { reason, .. } => decision(
            "opened all gates of the rollout in an emergency".to_owned(),
            Some(reason),
        ),
        RolloutEvent::GlassReviewed { comment } => decision(
            "reviewed the emergency of the rollout".to_owned(),
            comment.as_deref(),
        ),
        RolloutEvent::Paused { reason, .. } => {
            delivery(with_reason("paused the rollout".to_owned(), Some(reason)))
        }
        RolloutEvent::Resumed => delivery("resumed the rollout"),
        RolloutEvent::HoldsSkipped { reason } => {
            delivery(with_reason("promoted the rollout".to_owned(), Some(reason)))
        }
        RolloutEvent::Planned {
            cause: Some(_),
            why,
            ..
        } => delivery(with_reason("aborted the rollout".to_owned(), Some(why))),
        RolloutEvent::Opened { .. }
        | RolloutEvent::Planned { cause: None, .. }
        | RolloutEvent::ActionDone { .. }
        | RolloutEvent::ActionFailed { .. }
        | RolloutEvent::Measured { .. }
        | RolloutEvent::CapacityLost { .. }
        | RolloutEvent::CapacityRestored { .. }
        | RolloutEvent::RollbackBlocked { .. }
        | RolloutEvent::FaultNotAttributed { .. }
        | RolloutEvent::RollbackDelayed { .. }
        | RolloutEvent::KeepEnded { .. }
        | RolloutEvent::SuccessorWaiting { .. }
        | RolloutEvent::Ended { .. }
        | RolloutEvent::ServiceNotified
        | RolloutEvent::NotificationFinished { .. } => return None,
    })
}

/// A decision about a run or one of its jobs.
pub(super) fn describe_run(event: &RunEvent) -> Option<DescribedChange> {
    Some(match event {
        RunEvent::CancellationRequested { reason } => {
            delivery(with_reason("cancelled the run".to_owned(), Some(reason)))
        }
        RunEvent::RerunStarted { attempt, .. } => {
            delivery(format!("ran jobs again (attempt {attempt})"))
        }
        RunEvent::SecretsShown { key, .. } => DescribedChange::new(
            AuditArea::Secrets,
            format!("opened a shell with the secrets of job {key}"),
        ),
        RunEvent::Gate(fact) => return describe_gate(fact),
        RunEvent::Opened { .. }
        | RunEvent::JobReady { .. }
        | RunEvent::JobStarted { .. }
        | RunEvent::StepFinished { .. }
        | RunEvent::Annotated { .. }
        | RunEvent::ArtifactStored { .. }
        | RunEvent::StorageDelayed { .. }
        | RunEvent::TestsReported { .. }
        | RunEvent::StopRequested { .. }
        | RunEvent::JobEnded { .. }
        | RunEvent::JobRetried { .. }
        | RunEvent::JobCompleted { .. }
        | RunEvent::Ended { .. }
        | RunEvent::ServiceNotified => return None,
    })
}

fn describe_gate(fact: &GateFact) -> Option<DescribedChange> {
    Some(match fact {
        GateFact::Approved { key, comment, .. } => {
            decision(format!("approved job {key}"), comment.as_deref())
        }
        GateFact::Rejected { key, reason } => decision(format!("rejected job {key}"), Some(reason)),
        GateFact::GlassBroken { key, reason } => decision(
            format!("opened all gates of job {key} in an emergency"),
            Some(reason),
        ),
        GateFact::GlassReviewed { key, comment } => decision(
            format!("reviewed the emergency of job {key}"),
            comment.as_deref(),
        ),
        GateFact::SlotRequested { .. }
        | GateFact::SlotRequestAnswered { .. }
        | GateFact::SlotPositionChanged { .. }
        | GateFact::SlotReleased { .. }
        | GateFact::ApprovalRequested { .. }
        | GateFact::EnvironmentUrlSet { .. }
        | GateFact::EnvironmentReached { .. }
        | GateFact::EnvironmentFrozen { .. }
        | GateFact::EnvironmentOpened { .. } => return None,
    })
}
