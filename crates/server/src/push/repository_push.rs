//! Delivers a pushed reference of a repository to each of its services.
//!
//! # Failure modes
//!
//! - The server dies between two services of one push: the stream of the repository's name records the reference last, also where no
//!   service has that name. The next start finds the reference missing there, and repeats the push; services that have it are skipped.
//! - The push can't be delivered to one service, or its files have mistakes: the others get it. The service gets the change with the
//!   next push, because it is compared with its last release.

use std::collections::{BTreeMap, BTreeSet};

use shipway_core::{
    access::PushPrincipal,
    aggregate::Actor,
    config::{self, ServiceConfig},
    ids::ServiceName,
    repository::{LocatedService, ServiceLocation},
    service::{
        ScheduledWorkflow, ServiceAggregate, ServiceEvent, ServiceInput, ServiceState, ServiceView,
    },
};
use shipway_drivers::git::RefUpdate;
use shipway_engine::Outcome;
use shipway_syntax::SourceFile;
use tokio::task::block_in_place;

use super::{
    PushError, PushOutcome, PushReceiver, PushTerminal,
    commit_files::{CommitFile, CommitFiles},
    describe_push_event,
    read::{CommitContents, PathChanges, ServiceReader, ServiceReading, commit_of},
    repository_services::find_services,
};
use crate::read_models::services_in_repository;

impl PushReceiver {
    /// Delivers one reference to the services of its repository.
    pub(super) async fn take_in(
        &self,
        repository: &ServiceName,
        update: &RefUpdate,
        pusher: &PushPrincipal,
        terminal: &PushTerminal,
        outcome: &mut PushOutcome,
    ) -> Result<(), PushError> {
        let repo = self.repositories.ensure(repository).await?;
        let known = services_in_repository(&*self.store, repository).await?;
        let Some(pushed) = &update.new else {
            let names = known.into_iter().map(|view| view.name);
            let names: BTreeSet<_> = names.chain([repository.clone()]).collect();
            self.record_deletion(&names, update, pusher).await?;
            let name = &update.name;
            let line = format!("{name} deleted; releases and running instances are not affected");
            outcome.print(terminal, line);
            return Ok(());
        };
        // An annotated tag is about the commit it points at.
        let Some(commit) = repo.resolve(pushed.as_str()).await? else {
            return Err(PushError::NoCommit);
        };
        let info = commit_of(&repo, &commit).await?;
        let mut push = RepositoryPush {
            receiver: self,
            repository,
            files: CommitFiles::new(&repo, update, &commit),
            by: pusher.actor(&info.author),
            peers: BTreeMap::new(),
            printed: BTreeSet::new(),
            outcome,
        };
        let mut problems = Vec::new();
        let services = find_services(&mut push.files, repository, &mut problems).await?;
        push.print(terminal, problems);
        if let ([only], true) = (services.services.as_slice(), services.is_single()) {
            return push.deliver_to_service(only, terminal).await;
        }
        let name = update.branch().unwrap_or(&update.name);
        let line = format!("{name} {} {}", commit.short(), info.subject);
        push.outcome.print(terminal, line);
        push.peers = push.read_configs(&services.services).await?;
        for located in &services.services {
            let terminal = terminal.for_service(&located.service);
            if let Err(why) = push.deliver_to_service(located, &terminal).await {
                push.outcome.print(&terminal, format!("✗ {why}"));
            }
        }
        push.record_for_others(&services.services, known, terminal)
            .await
    }

    async fn record_deletion(
        &self,
        services: &BTreeSet<ServiceName>,
        update: &RefUpdate,
        pusher: &PushPrincipal,
    ) -> Result<(), PushError> {
        for service in services {
            let input = ServiceInput::Deleted {
                reference: update.name.clone(),
            };
            let by = pusher.actor("someone");
            (self.engines.send_to_service(service, input, by).await)
                .map_err(|error| PushError::Refused(error.to_string()))?;
        }
        Ok(())
    }
}

/// A reference that was moved to a commit.
struct RepositoryPush<'a> {
    receiver: &'a PushReceiver,
    repository: &'a ServiceName,
    files: CommitFiles<'a>,
    by: Actor,
    peers: BTreeMap<ServiceName, ServiceConfig>,
    /// Problems that were printed: services share files, and each is printed once.
    printed: BTreeSet<String>,
    outcome: &'a mut PushOutcome,
}

impl RepositoryPush<'_> {
    fn print(&mut self, terminal: &PushTerminal, problems: Vec<String>) {
        for problem in problems {
            if self.printed.insert(problem.clone()) {
                self.outcome.print(terminal, problem);
            }
        }
    }

    /// The configurations without mistakes.
    async fn read_configs(
        &mut self,
        services: &[LocatedService],
    ) -> Result<BTreeMap<ServiceName, ServiceConfig>, PushError> {
        let mut configs = BTreeMap::new();
        for located in services {
            let path = located.location.config_path();
            if let CommitFile::Read(text) = self.files.read(&path).await? {
                let source = SourceFile::new(path, text);
                if let Ok((config, _)) = block_in_place(|| config::parse(&source)) {
                    configs.insert(located.service.clone(), config);
                }
            }
        }
        Ok(configs)
    }

    /// Delivers the reference to one service.
    async fn deliver_to_service(
        &mut self,
        located: &LocatedService,
        terminal: &PushTerminal,
    ) -> Result<(), PushError> {
        let service = &located.service;
        let state = self.receiver.engines.service(service).await?;
        let state = state.as_deref();
        if let Some(state) = state {
            // The next start after a crash repeats a push.
            let update = self.files.update;
            if state.references.get(&update.name) == Some(self.files.commit) {
                return Ok(());
            }
            // Before its files are read: reading claims addresses.
            state
                .require_repository(service, &located.location)
                .map_err(|error| PushError::Refused(error.to_string()))?;
        }
        let mut problems = Vec::new();
        let reader = ServiceReader {
            receiver: self.receiver,
            files: &mut self.files,
            located,
            state,
            peers: &self.peers,
            problems: &mut problems,
        };
        let reading = reader.read().await?;
        self.print(terminal, problems);
        match reading {
            ServiceReading::Concerned(contents) => {
                if let Some(changes) = &contents.changes {
                    let line = describe_changes(located, state, changes);
                    self.outcome.print(terminal, line);
                }
                self.send_push(located, *contents, terminal).await
            }
            ServiceReading::Unchanged(workflows) => {
                let location = located.location.clone();
                self.send_reference(service, location, workflows.standing)
                    .await?;
                self.outcome.print(terminal, "unchanged, not released");
                Ok(())
            }
            ServiceReading::Idle => Ok(()),
        }
    }

    async fn send_push(
        &mut self,
        located: &LocatedService,
        contents: CommitContents,
        terminal: &PushTerminal,
    ) -> Result<(), PushError> {
        let service = &located.service;
        let input = ServiceInput::Pushed {
            service: service.clone(),
            push: Box::new(contents.push),
            workflows: contents.workflows.matching,
            standing: contents.workflows.standing,
        };
        let outcome = self.send(service, input).await?;
        let mut sequence = None;
        let mut has_followers = false;
        for event in &outcome.events {
            match &event.body {
                ServiceEvent::Pushed {
                    sequence: number, ..
                } => {
                    sequence = Some(*number);
                    // Of several services the commit is printed once, before all of them.
                    if terminal.service.is_some() {
                        continue;
                    }
                }
                ServiceEvent::RunOrdered { .. } | ServiceEvent::ReleaseCreated { .. } => {
                    has_followers = true;
                }
                _ => {}
            }
            let url = &self.receiver.server.url;
            if let Some(line) = describe_push_event(url, service, &event.body) {
                self.outcome.print(terminal, line);
            }
        }
        if let Some(number) = sequence.filter(|_| has_followers) {
            self.outcome.follow(service, terminal, number);
        }
        Ok(())
    }

    async fn send(
        &self,
        service: &ServiceName,
        input: ServiceInput,
    ) -> Result<Outcome<ServiceAggregate>, PushError> {
        let engines = &self.receiver.engines;
        let sent = engines.send_to_service(service, input, self.by.clone());
        (sent.await).map_err(|error| PushError::Refused(error.to_string()))
    }

    /// Records that the reference has moved and changed nothing of a service.
    async fn send_reference(
        &self,
        service: &ServiceName,
        location: ServiceLocation,
        standing: Option<Vec<ScheduledWorkflow>>,
    ) -> Result<(), PushError> {
        let commit = commit_of(self.files.repo, self.files.commit).await?;
        let input = ServiceInput::ReferenceMoved {
            service: service.clone(),
            location,
            reference: self.files.update.name.clone(),
            commit,
            standing,
        };
        self.send(service, input).await.map(drop)
    }

    /// Ends the schedules of services whose file is gone from the commit, and records the reference in the stream of the repository's
    /// name.
    async fn record_for_others(
        &mut self,
        services: &[LocatedService],
        known: Vec<ServiceView>,
        terminal: &PushTerminal,
    ) -> Result<(), PushError> {
        let told: BTreeSet<&ServiceName> = services.iter().map(|it| &it.service).collect();
        let branch = self.files.update.branch();
        let mut own_schedules = None;
        for view in known {
            let is_released = branch == Some(view.branch.as_str());
            if told.contains(&view.name) || !is_released || !self.is_gone(&view).await? {
                continue;
            }
            let path = view.location().config_path();
            let line = format!(
                "{path} is gone, so nothing is released; what runs keeps running until: shipway delete {}",
                view.name
            );
            self.outcome.print(&terminal.for_service(&view.name), line);
            match view.name == *self.repository {
                true => own_schedules = Some(Vec::new()),
                false => {
                    let location = view.location();
                    self.send_reference(&view.name, location, Some(Vec::new()))
                        .await?;
                }
            }
        }
        if told.contains(self.repository) {
            return Ok(());
        }
        let root = ServiceLocation::root(self.repository.clone());
        self.send_reference(self.repository, root, own_schedules)
            .await
    }

    /// Whether the file of a service is missing, or names another service now. A file with mistakes is not gone.
    async fn is_gone(&mut self, view: &ServiceView) -> Result<bool, PushError> {
        let path = view.location().config_path();
        Ok(match self.files.read(&path).await? {
            CommitFile::Missing => true,
            CommitFile::Unusable(_) => false,
            CommitFile::Read(text) => {
                let name = config::parse_service_name(&SourceFile::new(path, text));
                name.is_ok_and(|name| name != view.name)
            }
        })
    }
}

/// Why a push concerns a service.
fn describe_changes(
    located: &LocatedService,
    state: Option<&ServiceState>,
    changes: &PathChanges,
) -> String {
    let PathChanges { first, count } = changes;
    if state.is_none_or(|state| state.name.is_none()) {
        return format!("new service in {}", located.location);
    }
    match count - 1 {
        0 => format!("changed: {first}"),
        others => format!("changed: {first} and {others} more"),
    }
}
