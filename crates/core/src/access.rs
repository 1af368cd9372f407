//! Authorization: the principal of a request, and the one rule that allows or forbids the request.
//!
//! # Invariants
//!
//! - A principal is made where a request is authenticated, and by parts of Shipway that act on their own.
//! - [`may`] is the only rule: every handler of the API asks it, and nothing else decides.

use std::fmt;

use serde::{Deserialize, Serialize};
use shipway_workflow::job::JobKey;

use crate::{
    aggregate::Actor,
    ids::{RolloutId, RunId, ServiceName},
    principal_id::PrincipalId,
    target::{InstanceId, ServiceEnvironment},
};

/// The name of a person who gives none.
const UNNAMED: &str = "someone";

/// One attempt at one job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobIdentity {
    pub run: RunId,
    pub key: JobKey,
    /// From 1.
    pub attempt: u32,
}

impl fmt::Display for JobIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.key, self.run)
    }
}

/// The kind of a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A person at this machine, of a server without a token. The name is what they say.
    Person,
    /// The server's token. The name is what its holder says.
    Token,
    /// A job, by its token.
    Job(JobIdentity),
    /// A process of a job that presents no token; described as `build of shop/r7`.
    JobProcess(String),
    /// A process of an instance; described as `shop.production.3.1`.
    InstanceProcess(String),
    /// Shipway itself.
    System,
}

/// A set of permissions that a principal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalRole {
    /// May do everything.
    Administrator,
}

/// The sender of a request, after authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub id: PrincipalId,
    pub kind: PrincipalKind,
    /// The name that the client gave, if it did.
    pub name: Option<String>,
    /// The groups it is a member of, for approvals.
    pub groups: Vec<String>,
    pub roles: Vec<PrincipalRole>,
}

impl Principal {
    fn new(id: String, kind: PrincipalKind, name: Option<String>, roles: &[PrincipalRole]) -> Self {
        Self {
            id: PrincipalId::from_trusted(id),
            kind,
            name,
            groups: Vec::new(),
            roles: roles.to_vec(),
        }
    }

    /// A person at this machine.
    #[must_use]
    pub fn person(name: &str) -> Self {
        let (id, name) = (format!("person:{name}"), Some(name.to_owned()));
        Self::new(
            id,
            PrincipalKind::Person,
            name,
            &[PrincipalRole::Administrator],
        )
    }

    /// A person at this machine who gives no name.
    #[must_use]
    pub fn unnamed_person() -> Self {
        let id = "person".to_owned();
        Self::new(
            id,
            PrincipalKind::Person,
            None,
            &[PrincipalRole::Administrator],
        )
    }

    /// The holder of the server's token, with the name they give.
    #[must_use]
    pub fn server_token(name: Option<String>) -> Self {
        let id = "token:server".to_owned();
        Self::new(
            id,
            PrincipalKind::Token,
            name,
            &[PrincipalRole::Administrator],
        )
    }

    /// A job that presented its token.
    #[must_use]
    pub fn job(job: JobIdentity) -> Self {
        let id = format!("job:{}/{}/{}", job.run, job.key, job.attempt);
        Self::new(id, PrincipalKind::Job(job), None, &[])
    }

    /// A process of a job, without its token.
    #[must_use]
    pub fn job_process(job: &str) -> Self {
        let kind = PrincipalKind::JobProcess(job.to_owned());
        Self::new(format!("job-process:{job}"), kind, None, &[])
    }

    /// A process of an instance.
    #[must_use]
    pub fn instance_process(instance: &str) -> Self {
        let kind = PrincipalKind::InstanceProcess(instance.to_owned());
        Self::new(format!("instance:{instance}"), kind, None, &[])
    }

    /// Shipway itself.
    #[must_use]
    pub fn system() -> Self {
        let id = PrincipalId::system().into();
        Self::new(
            id,
            PrincipalKind::System,
            None,
            &[PrincipalRole::Administrator],
        )
    }

    /// How messages call it.
    #[must_use]
    pub fn display_name(&self) -> String {
        match &self.kind {
            PrincipalKind::Person | PrincipalKind::Token => {
                self.name.clone().unwrap_or_else(|| UNNAMED.to_owned())
            }
            PrincipalKind::Job(job) => job.to_string(),
            PrincipalKind::JobProcess(name) | PrincipalKind::InstanceProcess(name) => name.clone(),
            PrincipalKind::System => "shipway".to_owned(),
        }
    }

    /// The actor of the events that its requests cause.
    #[must_use]
    pub fn actor(&self) -> Actor {
        let principal = self.id.clone();
        match &self.kind {
            PrincipalKind::Person | PrincipalKind::Token => Actor::Person {
                principal,
                name: self.display_name(),
            },
            PrincipalKind::Job(_)
            | PrincipalKind::JobProcess(_)
            | PrincipalKind::InstanceProcess(_) => Actor::Workload { principal },
            PrincipalKind::System => Actor::Shipway("its own request".to_owned()),
        }
    }

    /// Its pushes: the server's hook reports them, and says whose they are.
    #[must_use]
    pub fn pusher(&self) -> PushPrincipal {
        PushPrincipal {
            principal: self.id.clone(),
            name: self.name.clone(),
        }
    }
}

/// Whose push it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushPrincipal {
    pub principal: PrincipalId,
    /// The name that git gave, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl PushPrincipal {
    /// The actor of the events that the push causes; `unnamed` is its name when git gave none.
    #[must_use]
    pub fn actor(&self, unnamed: &str) -> Actor {
        Actor::Push {
            principal: self.principal.clone(),
            name: self.name.clone().unwrap_or_else(|| unnamed.to_owned()),
        }
    }
}

/// An operation that a request asks for. Its text is followed by the text of a [`Resource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Read,
    /// Read a web page.
    Browse,
    Push,
    /// Report a push, as git's hook does.
    ReportPush,
    Deploy,
    /// Deploy a release even if it was rolled back before.
    ForceDeploy,
    Rollback,
    Retry,
    Promote,
    Abort,
    Pause,
    Resume,
    Approve,
    Reject,
    CancelRun,
    Rerun,
    Dispatch,
    /// Put a test into quarantine, or take it out.
    Quarantine,
    /// Open a shell in the workspace of a job.
    OpenShell,
    /// Open a shell that has the secrets of the job.
    ShowSecrets,
    ReportMetrics,
    /// Fetch the source and the artifacts that a job works on.
    FetchInputs,
    /// Send the journal, the log and the files of a job.
    SendRecords,
    /// Delete a service or an environment.
    Delete,
    /// Remove files that the retention rule no longer covers.
    Prune,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Browse => "read the page of",
            Self::Push => "push to",
            Self::ReportPush => "report a push to",
            Self::Deploy => "deploy",
            Self::ForceDeploy => "force a deploy of",
            Self::Rollback => "roll back",
            Self::Retry => "retry",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::CancelRun => "cancel",
            Self::Rerun => "rerun",
            Self::Dispatch => "start a workflow of",
            Self::Quarantine => "change the quarantine of",
            Self::OpenShell => "open a shell in",
            Self::ShowSecrets => "open a shell with secrets in",
            Self::ReportMetrics => "report metrics of",
            Self::FetchInputs => "fetch the inputs of",
            Self::SendRecords => "send records of",
            Self::Delete => "delete",
            Self::Prune => "remove old files of",
        })
    }
}

/// The object of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The server: lists over all services, its descriptions.
    Server,
    Service(ServiceName),
    Environment(ServiceEnvironment),
    /// The git repository of a service.
    Repository(ServiceName),
    Run(RunId),
    /// The artifacts that a run has stored.
    Artifacts(RunId),
    /// The logs of a run's jobs.
    JobLogs(RunId),
    /// An attempt at a job, as its worker knows it.
    Job(JobIdentity),
    /// The test results of a run, and why it failed.
    RunTests(RunId),
    Rollout(RolloutId),
    /// The analysis of a rollout over time.
    Analysis(RolloutId),
    Instance(InstanceId),
    /// Events of the log; of one stream, or of all.
    Events {
        stream: Option<String>,
    },
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("this server"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Environment(place) => write!(f, "{place}"),
            Self::Repository(name) => write!(f, "the repository of {name}"),
            Self::Run(id) => write!(f, "run {id}"),
            Self::Artifacts(id) => write!(f, "the artifacts of {id}"),
            Self::JobLogs(id) => write!(f, "the logs of {id}"),
            Self::Job(job) => write!(f, "job {job}"),
            Self::RunTests(id) => write!(f, "the test results of {id}"),
            Self::Rollout(id) => write!(f, "rollout {id}"),
            Self::Analysis(id) => write!(f, "the analysis of {id}"),
            Self::Instance(id) => write!(f, "instance {id}"),
            Self::Events { stream: None } => f.write_str("all events"),
            Self::Events {
                stream: Some(stream),
            } => write!(f, "the events of {stream}"),
        }
    }
}

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
    #[error("{who} may not {verb} {resource}; ask an administrator of this server to do it")]
    NoRole {
        who: String,
        verb: Verb,
        resource: Box<Resource>,
    },
}

/// Whether `principal` may do this.
///
/// # Errors
/// When it may not: who, what, and what to do about it.
pub fn may(principal: &Principal, verb: Verb, resource: &Resource) -> Result<(), Forbidden> {
    match &principal.kind {
        PrincipalKind::Person | PrincipalKind::Token | PrincipalKind::System => {
            if principal.roles.contains(&PrincipalRole::Administrator) {
                return Ok(());
            }
            Err(Forbidden::NoRole {
                who: principal.display_name(),
                verb,
                resource: Box::new(resource.clone()),
            })
        }
        PrincipalKind::Job(job) => job_may(job, verb, resource),
        PrincipalKind::JobProcess(job) => Err(Forbidden::JobProcess { job: job.clone() }),
        PrincipalKind::InstanceProcess(_) if verb == Verb::ReportMetrics => Ok(()),
        PrincipalKind::InstanceProcess(instance) => Err(Forbidden::InstanceProcess {
            instance: instance.clone(),
        }),
    }
}

/// A job may do what `shipway/deploy` and `actions/download-artifact` need, in its own service, and what its worker needs, for itself.
fn job_may(job: &JobIdentity, verb: Verb, resource: &Resource) -> Result<(), Forbidden> {
    let own = &job.run.service;
    let is_allowed = match (verb, resource) {
        (Verb::Deploy, Resource::Run(run)) => *run == job.run,
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
        Resource::Run(run) => run.service == *own,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_job_with_a_long_name_is_read_again() {
        let job = JobIdentity {
            run: "shop/r7".parse().unwrap(),
            key: JobKey::new(&"a".repeat(5_000), None),
            attempt: 1,
        };
        let actor = Principal::job(job).actor();
        let text = serde_json::to_string(&actor).unwrap();
        assert_eq!(serde_json::from_str::<Actor>(&text).unwrap(), actor);
    }

    fn job() -> Principal {
        Principal::job(JobIdentity {
            run: "shop/r7".parse().unwrap(),
            key: "test.2".parse().unwrap(),
            attempt: 2,
        })
    }

    fn run(id: &str) -> RunId {
        id.parse().unwrap()
    }

    fn rollout(id: &str) -> Resource {
        Resource::Rollout(id.parse().unwrap())
    }

    fn events(stream: Option<&str>) -> Resource {
        let stream = stream.map(str::to_owned);
        Resource::Events { stream }
    }

    #[test]
    fn a_job_may_deploy_its_own_run_and_read_its_own_service_and_nothing_else() {
        let service = |name: &str| Resource::Service(name.parse().unwrap());
        let attempt = |run: &str, attempt| {
            Resource::Job(JobIdentity {
                run: run.parse().unwrap(),
                key: "test.2".parse().unwrap(),
                attempt,
            })
        };
        for (verb, resource, is_allowed) in [
            (Verb::Deploy, Resource::Run(run("shop/r7")), true),
            (Verb::Read, Resource::Run(run("shop/r6")), true),
            (Verb::Read, Resource::Artifacts(run("shop/r6")), true),
            (Verb::Read, rollout("shop/ro3"), true),
            (Verb::Read, events(Some("rollout/shop/3")), true),
            (Verb::FetchInputs, attempt("shop/r7", 2), true),
            (Verb::FetchInputs, attempt("shop/r7", 1), false),
            (Verb::FetchInputs, attempt("shop/r6", 2), false),
            (Verb::SendRecords, attempt("shop/r7", 2), true),
            (Verb::SendRecords, attempt("shop/r7", 1), false),
            (Verb::Read, attempt("shop/r7", 2), false),
            (Verb::Deploy, Resource::Run(run("shop/r6")), false),
            (Verb::Deploy, Resource::Run(run("cart/r7")), false),
            (Verb::ForceDeploy, Resource::Run(run("shop/r7")), false),
            (Verb::Deploy, service("shop"), false),
            (Verb::Read, service("shop"), false),
            (Verb::Read, Resource::Run(run("cart/r7")), false),
            (Verb::Read, Resource::JobLogs(run("shop/r7")), false),
            (Verb::Read, rollout("cart/ro3"), false),
            (Verb::Read, events(Some("rollout/cart/3")), false),
            (Verb::Read, events(Some("rollout/shopping/3")), false),
            (Verb::Read, events(Some("run/shop/7")), false),
            (Verb::Read, events(None), false),
            (Verb::Read, Resource::Server, false),
            (Verb::Approve, rollout("shop/ro3"), false),
            (Verb::Approve, Resource::Run(run("shop/r7")), false),
            (Verb::ShowSecrets, Resource::Run(run("shop/r7")), false),
            (
                Verb::Push,
                Resource::Repository("shop".parse().unwrap()),
                false,
            ),
        ] {
            let found = may(&job(), verb, &resource);
            assert_eq!(found.is_ok(), is_allowed, "{verb} {resource}: {found:?}");
        }
    }

    #[test]
    fn a_refusal_says_who_what_and_what_to_do() {
        let refused = |principal: &Principal, verb, resource: &Resource| {
            may(principal, verb, resource).unwrap_err().to_string()
        };
        let shop = Resource::Run(run("shop/r7"));
        assert_eq!(
            refused(&job(), Verb::Approve, &shop),
            "a job may not approve run shop/r7: test.2 of shop/r7 may only deploy shop from its own run, and read its runs and rollouts; a person must do this"
        );
        assert_eq!(
            refused(&job(), Verb::ForceDeploy, &shop),
            "test.2 of shop/r7 may only deploy artifacts of its own run (`\"run\": \"7\"`), without force"
        );
        let mut guest = Principal::person("eve");
        guest.roles.clear();
        assert_eq!(
            refused(&guest, Verb::Read, &Resource::Server),
            "eve may not read this server; ask an administrator of this server to do it"
        );
    }

    #[test]
    fn a_process_of_a_job_may_nothing_and_an_instance_may_report_metrics() {
        let shop = Resource::Service("shop".parse().unwrap());
        let process = Principal::job_process("build of shop/r7");
        let instance = Principal::instance_process("shop.production.3.1");
        assert!(may(&process, Verb::ReportMetrics, &shop).is_err());
        assert!(may(&instance, Verb::ReportMetrics, &shop).is_ok());
        assert!(may(&instance, Verb::Deploy, &shop).is_err());
        for principal in [
            Principal::person("ada"),
            Principal::unnamed_person(),
            Principal::server_token(None),
            Principal::system(),
        ] {
            assert!(may(&principal, Verb::ForceDeploy, &shop).is_ok());
        }
    }

    #[test]
    fn ids_are_stable_and_actors_have_them() {
        assert_eq!(job().id.as_str(), "job:shop/r7/test.2/2");
        assert_eq!(job().actor().principal(), job().id);
        let ada = Principal::person("ada");
        assert_eq!(ada.actor().principal().as_str(), "person:ada");
        assert_eq!(ada.actor().to_string(), "ada");
        assert_eq!(Principal::unnamed_person().actor().to_string(), "someone");
        assert_eq!(Principal::system().actor().principal().as_str(), "system");
        let read = serde_json::from_str::<PrincipalId>("\"person:ada\"");
        assert_eq!(read.unwrap(), ada.id);
        assert!("".parse::<PrincipalId>().is_err() && "a\nb".parse::<PrincipalId>().is_err());
    }
}
