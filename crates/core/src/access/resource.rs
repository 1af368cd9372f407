//! What requests are about.

use std::fmt;

use super::job_identity::JobIdentity;
use crate::{
    ids::{EnvironmentName, RolloutId, RunId, ServiceName},
    target::{InstanceId, ServiceEnvironment},
};

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
    /// A rollout that a request acts on.
    RolloutControl {
        rollout: RolloutId,
        environment: EnvironmentName,
    },
    /// The approval that a job waits for, and the environment that the job goes to.
    JobApproval {
        run: RunId,
        environment: Option<EnvironmentName>,
    },
    /// The deployment of what a run built.
    RunDeployment {
        run: RunId,
        environment: Option<EnvironmentName>,
    },
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
            Self::RolloutControl {
                rollout,
                environment,
            } => write!(f, "rollout {rollout} to {environment}"),
            Self::JobApproval {
                run,
                environment: Some(environment),
            } => write!(f, "the job of run {run} to {environment}"),
            Self::JobApproval { run, .. } | Self::RunDeployment { run, .. } => {
                write!(f, "run {run}")
            }
            Self::Analysis(id) => write!(f, "the analysis of {id}"),
            Self::Instance(id) => write!(f, "instance {id}"),
            Self::Events { stream: None } => f.write_str("all events"),
            Self::Events {
                stream: Some(stream),
            } => write!(f, "the events of {stream}"),
        }
    }
}

/// Where a resource is: what the roles of a principal are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResourceScope {
    /// The server; its lists return what the caller may read.
    Server,
    /// Facts of several services together.
    AllServices,
    /// Facts for administrators of the server alone.
    Administration,
    Service(ServiceName),
    Environment(ServiceEnvironment),
    /// Data of users: for principals of this environment alone.
    PrivateEnvironment(ServiceEnvironment),
}

impl ResourceScope {
    fn within(service: &ServiceName, environment: Option<&EnvironmentName>) -> Self {
        match environment {
            Some(environment) => Self::Environment(ServiceEnvironment {
                service: service.clone(),
                environment: environment.clone(),
            }),
            None => Self::Service(service.clone()),
        }
    }

    /// Whose events a stream has, by its name: `rollout/shop/7`. An unknown kind is for administrators.
    fn from_stream(stream: &str) -> Self {
        let mut parts = stream.split('/');
        let kind = parts.next().unwrap_or_default();
        match kind {
            "service" | "run" | "rollout" | "group" => match parts.next().map(str::parse) {
                Some(Ok(service)) => Self::Service(service),
                Some(Err(_)) | None => Self::AllServices,
            },
            "addresses" => Self::AllServices,
            _ => Self::Administration,
        }
    }
}

impl Resource {
    pub(super) fn scope(&self) -> ResourceScope {
        match self {
            Self::Server | Self::Events { stream: None } => ResourceScope::Server,
            Self::Service(service) | Self::Repository(service) => {
                ResourceScope::Service(service.clone())
            }
            Self::Environment(place) => ResourceScope::Environment(place.clone()),
            Self::Run(run) | Self::Artifacts(run) | Self::JobLogs(run) | Self::RunTests(run) => {
                ResourceScope::Service(run.service.clone())
            }
            Self::Job(job) => ResourceScope::Service(job.run.service.clone()),
            Self::Rollout(rollout) | Self::Analysis(rollout) => {
                ResourceScope::Service(rollout.service.clone())
            }
            Self::RolloutControl {
                rollout,
                environment,
            } => ResourceScope::within(&rollout.service, Some(environment)),
            Self::JobApproval { run, environment } | Self::RunDeployment { run, environment } => {
                ResourceScope::within(&run.service, environment.as_ref())
            }
            Self::Instance(instance) => {
                ResourceScope::PrivateEnvironment(instance.set.place.clone())
            }
            Self::Events {
                stream: Some(stream),
            } => ResourceScope::from_stream(stream),
        }
    }
}
