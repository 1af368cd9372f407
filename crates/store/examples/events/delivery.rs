//! Pushes and rollouts as the real aggregates decide them, without an engine and without a world.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shipway_core::{
    access::Principal,
    aggregate::{Aggregate, Event},
    config::{
        ArtifactSource, EnvironmentConfig, RunConfig, ServiceConfig, StickyKey, StickyScope,
        Strategy,
    },
    ids::{CommitId, Digest, ServiceName},
    release::Commit,
    rollout::{self, RolloutSpec},
    service::{self, Push, ServiceAggregate},
};
use shipway_engine::{Append, Options};

pub fn start() -> Timestamp {
    "2024-01-01T00:00:00Z".parse().expect("a time")
}

/// One stream, decided and folded in memory.
pub struct Stream<A: Aggregate> {
    name: String,
    pub state: A::State,
    version: u64,
    snapshot: u64,
    new: Vec<Event<A::Body>>,
}

impl<A: Aggregate> Stream<A> {
    pub fn new(name: String) -> Self {
        Self {
            name,
            state: A::State::default(),
            version: 0,
            snapshot: 0,
            new: Vec::new(),
        }
    }

    pub fn say(&mut self, input: A::Input, now: Timestamp) {
        let by = Principal::person("ada").actor();
        let events = A::decide(&self.state, input, by, now).expect("all of this is allowed");
        for event in events {
            A::apply(&mut self.state, &event);
            self.new.push(event);
        }
    }

    /// What has been decided since the last time, as the engine would append it.
    pub fn append(&mut self, now: Timestamp) -> Append {
        let events = std::mem::take(&mut self.new);
        let expected = self.version;
        self.version += events.len() as u64;
        let due = self.version - self.snapshot >= Options::default().snapshot_every;
        if due {
            self.snapshot = self.version;
        }
        let text = |event| serde_json::to_string(event).expect("an event is plain data");
        Append {
            stream: self.name.clone(),
            expected,
            rows: A::rows(&self.state, &events),
            events: events.iter().map(text).collect(),
            snapshot: due.then(|| serde_json::to_string(&self.state).expect("plain data")),
            live: A::pending(&self.state, now).live,
        }
    }
}

fn config(service: &ServiceName) -> ServiceConfig {
    let environment = EnvironmentConfig {
        name: "production".parse().expect("a name"),
        target: Default::default(),
        router: Default::default(),
        instances: 2,
        strategy: Strategy::Recreate(rollout::strategy::Recreate::default()),
        hosts: Vec::new(),
        path: None,
        strip_prefix: true,
        port: None,
        sticky: StickyKey::default(),
        sticky_to: StickyScope::default(),
        approvals: None,
        rules: Default::default(),
        smoke: Vec::new(),
        tests: None,
        analysis: Default::default(),
        analysis_source: Default::default(),
        sources: Vec::new(),
        env: Default::default(),
        when_busy: Default::default(),
        rollback_window: None,
        promote_with: Vec::new(),
        notify: Vec::new(),
        watch: Default::default(),
        unready_grace: None,
        progress_deadline: Duration::from_secs(600),
        drain: Duration::from_secs(30),
        timeouts: Default::default(),
    };
    ServiceConfig {
        service: service.clone(),
        branch: "main".to_owned(),
        repository: None,
        workflows: Vec::new(),
        artifact: ArtifactSource::Source,
        run: RunConfig {
            command: "./shop --port $PORT".to_owned(),
            env: Default::default(),
            health: Default::default(),
            limits: Default::default(),
            grace: Duration::from_secs(10),
            stop_signal: Default::default(),
        },
        reports: Default::default(),
        paths: Vec::new(),
        environments: vec![environment],
    }
}

/// A push of a commit that is its own artifact.
pub fn push(service: &ServiceName, number: usize) -> service::ServiceInput {
    let id: CommitId = format!("{number:040x}").parse().expect("a commit");
    let push = Push {
        reference: "refs/heads/main".to_owned(),
        before: None,
        source: Some(Digest::compute(id.as_str().as_bytes())),
        commit: Commit {
            id,
            subject: format!("change number {number}"),
            author: "Ada <ada@example.com>".to_owned(),
            committer: None,
            at: start(),
        },
        config: Some(Box::new(config(service))),
        unconfigured: None,
        tests: Vec::new(),
        location: None,
        commits: Vec::new(),
        commits_omitted: 0,
    };
    service::ServiceInput::Pushed {
        service: service.clone(),
        push: Box::new(push),
        workflows: Vec::new(),
        standing: None,
    }
}

/// The rollout that a service wants opened.
pub fn wanted(service: &Stream<ServiceAggregate>, now: Timestamp) -> RolloutSpec {
    let pending = ServiceAggregate::pending(&service.state, now);
    let wanted = pending
        .effects
        .into_iter()
        .find_map(|(_, effect)| match effect {
            service::ServiceEffect::OpenRollout(spec) => Some(*spec),
            service::ServiceEffect::OpenRun(_)
            | service::ServiceEffect::SendPreemption { .. }
            | service::ServiceEffect::NotifyHealth { .. }
            | service::ServiceEffect::RemoveEnvironment(_)
            | service::ServiceEffect::RemoveService
            | service::ServiceEffect::NotifyPeers { .. }
            | service::ServiceEffect::ReportAddresses(_) => None,
        });
    wanted.expect("a push makes a release, and that wants to be rolled out")
}

pub fn later(now: Timestamp, seconds: i64) -> Timestamp {
    now + SignedDuration::from_secs(seconds)
}
