//! The one rule that allows or forbids a request.

use std::collections::BTreeSet;

use super::{
    job_identity::JobIdentity,
    principal::{Principal, PrincipalKind},
    resource::{Resource, ResourceScope},
    role::{PrincipalRole, RoleBinding, VisibleServices},
    verb::Verb,
};
/// Why a request is refused, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error(
        "{job} may only deploy artifacts of its own run (`\"run\": \"{}\"`), without force",
        job.run.number.0
    )]
    NotOwnRun { job: JobIdentity },
    #[error(
        "a job may not {verb} {resource}: {job} may only deploy {} from its own run, and read its runs and rollouts; a person must do this",
        job.run.service
    )]
    Job {
        job: JobIdentity,
        verb: Verb,
        resource: Box<Resource>,
    },
    #[error(
        "this comes from a step of {job}, and a job may not change anything in a person's name; a step deploys with `uses: shipway/deploy`"
    )]
    JobProcess { job: String },
    #[error("this comes from the instance {instance}, and an instance may only report metrics")]
    InstanceProcess { instance: String },
    #[error(
        "{who} may not {verb} {resource}: this needs the role {role}, or admin, {place}; ask an administrator of this server for it (`shipway user set NAME --add-role {binding}`)"
    )]
    NoRole {
        who: String,
        verb: Verb,
        resource: Box<Resource>,
        role: PrincipalRole,
        /// Where the role must hold, in words.
        place: String,
        /// What an administrator can grant.
        binding: Box<RoleBinding>,
    },
}

/// Whether `principal` may do this.
///
/// # Errors
/// When it may not: who, what, and what to do about it.
pub fn may(principal: &Principal, verb: Verb, resource: &Resource) -> Result<(), Forbidden> {
    match &principal.kind {
        PrincipalKind::Person | PrincipalKind::Token | PrincipalKind::System => {
            let scope = resource.scope();
            let is_allowed =
                |roles: &[RoleBinding]| (roles.iter()).any(|binding| grants(binding, verb, &scope));
            if is_allowed(&principal.roles) && principal.limit.as_deref().is_none_or(is_allowed) {
                return Ok(());
            }
            Err(missing_role(principal, verb, resource))
        }
        PrincipalKind::Job(job) => job_may(job, verb, resource),
        PrincipalKind::JobProcess(job) => Err(Forbidden::JobProcess { job: job.clone() }),
        PrincipalKind::InstanceProcess(_) if verb == Verb::ReportMetrics => Ok(()),
        PrincipalKind::InstanceProcess(instance) => Err(Forbidden::InstanceProcess {
            instance: instance.clone(),
        }),
    }
}

/// The role that a verb needs.
#[must_use]
pub const fn required_role(verb: Verb) -> PrincipalRole {
    match verb {
        Verb::Read | Verb::Browse | Verb::UseAccount => PrincipalRole::Viewer,
        Verb::Push
        | Verb::Deploy
        | Verb::ForceDeploy
        | Verb::Rollback
        | Verb::Retry
        | Verb::Promote
        | Verb::Abort
        | Verb::Pause
        | Verb::Resume
        | Verb::CancelRun
        | Verb::Rerun
        | Verb::Dispatch
        | Verb::Quarantine
        | Verb::OpenShell
        | Verb::ReportMetrics
        | Verb::ReadSecrets => PrincipalRole::Deployer,
        Verb::Approve | Verb::Reject => PrincipalRole::Approver,
        Verb::ReportPush
        | Verb::ShowSecrets
        | Verb::FetchInputs
        | Verb::SendRecords
        | Verb::Delete
        | Verb::Prune
        | Verb::ChangeSecrets
        | Verb::ConnectForge
        | Verb::ReadAudit
        | Verb::ManageNotifications
        | Verb::ManageUsers => PrincipalRole::Admin,
    }
}

/// The services that a principal may read.
#[must_use]
pub fn visible_services(principal: &Principal) -> VisibleServices {
    match &principal.kind {
        PrincipalKind::Person | PrincipalKind::Token | PrincipalKind::System => {
            let own = VisibleServices::from_roles(&principal.roles);
            let limit = principal.limit.as_deref().map(VisibleServices::from_roles);
            own.intersect(limit.unwrap_or(VisibleServices::All))
        }
        PrincipalKind::Job(job) => VisibleServices::Only([job.run.service.clone()].into()),
        PrincipalKind::JobProcess(_) | PrincipalKind::InstanceProcess(_) => {
            VisibleServices::Only(BTreeSet::new())
        }
    }
}

/// Whether a role lets its principal do this.
fn grants(binding: &RoleBinding, verb: Verb, scope: &ResourceScope) -> bool {
    let required = required_role(verb);
    let is_within = match (required, scope) {
        (PrincipalRole::Viewer, ResourceScope::Server) => true,
        (PrincipalRole::Viewer, ResourceScope::Service(service)) => {
            binding.concerns_service(service)
        }
        (PrincipalRole::Viewer, ResourceScope::Environment(place)) => {
            binding.concerns_service(&place.service)
        }
        (_, ResourceScope::Service(service)) => binding.covers_service(service),
        (_, ResourceScope::Environment(place) | ResourceScope::PrivateEnvironment(place)) => {
            binding.covers_environment(&place.service, &place.environment)
        }
        (_, ResourceScope::Server | ResourceScope::AllServices) => binding.covers_everything(),
        (_, ResourceScope::Administration) => {
            return binding.role == PrincipalRole::Admin && binding.covers_everything();
        }
    };
    is_within && binding.role.includes(required)
}

fn missing_role(principal: &Principal, verb: Verb, resource: &Resource) -> Forbidden {
    let scope = resource.scope();
    let role = match scope {
        ResourceScope::Administration => PrincipalRole::Admin,
        _ => required_role(verb),
    };
    let (place, service, environment) = match scope {
        ResourceScope::Server | ResourceScope::AllServices | ResourceScope::Administration => {
            ("for the whole server".to_owned(), None, None)
        }
        ResourceScope::Service(service) => (
            format!("for all environments of {service}"),
            Some(service),
            None,
        ),
        ResourceScope::Environment(at) | ResourceScope::PrivateEnvironment(at) => {
            (format!("for {at}"), Some(at.service), Some(at.environment))
        }
    };
    Forbidden::NoRole {
        who: principal.display_name(),
        verb,
        resource: Box::new(resource.clone()),
        role,
        place,
        binding: Box::new(RoleBinding {
            role,
            service,
            environment,
        }),
    }
}

/// A job may do what `shipway/deploy` and `actions/download-artifact` need, in its own service, and what its worker needs, for itself.
fn job_may(job: &JobIdentity, verb: Verb, resource: &Resource) -> Result<(), Forbidden> {
    let own = &job.run.service;
    let is_allowed = match (verb, resource) {
        (Verb::Deploy, Resource::RunDeployment { run, .. }) => *run == job.run,
        (Verb::FetchInputs | Verb::SendRecords, Resource::Job(named)) => named == job,
        (Verb::Read, Resource::Run(run) | Resource::Artifacts(run)) => run.service == *own,
        (Verb::Read, Resource::Rollout(rollout)) => rollout.service == *own,
        (
            Verb::Read,
            Resource::Events {
                stream: Some(stream),
            },
        ) => {
            let rollout = stream.strip_prefix("rollout/");
            let service = rollout.and_then(|it| it.split_once('/'));
            service.is_some_and(|(service, _)| service == own.as_str())
        }
        _ => false,
    };
    if is_allowed {
        return Ok(());
    }
    let is_own_service = match resource {
        Resource::Service(service) => service == own,
        Resource::Environment(place) => place.service == *own,
        Resource::RunDeployment { run, .. } => run.service == *own,
        _ => false,
    };
    let job = job.clone();
    Err(match verb {
        Verb::Deploy | Verb::ForceDeploy if is_own_service => Forbidden::NotOwnRun { job },
        _ => Forbidden::Job {
            job,
            verb,
            resource: Box::new(resource.clone()),
        },
    })
}
