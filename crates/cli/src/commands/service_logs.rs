//! `shipway logs SERVICE`: the output of the running instances of a service. Followed, it continues over restarts, releases and a
//! restart of the server.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use shipway_api::{ApiClient, EnvironmentStatus};
use shipway_core::target::InstanceId;

use crate::{
    client::{ClientError, ServerConnection},
    exit::Failure,
    print::line,
};

/// How long a server that can't be reached is waited for: long enough for an upgrade.
const UNREACHABLE_MAX: Duration = Duration::from_secs(300);
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// The instances whose logs are shown.
pub struct InstanceSelection {
    service: String,
    /// `None`: all environments.
    environment: Option<String>,
}

/// How much of a log is shown.
#[derive(Clone, Copy, Debug)]
pub struct LogExtent {
    /// Lines of each log that was written before.
    pub tail: usize,
    /// Whether new lines are shown as they are written.
    pub follow: bool,
}

impl InstanceSelection {
    /// Parses `shop` and `shop/production`; `environment` is that of an option.
    pub fn parse(text: &str, environment: Option<&str>) -> Result<Self, Failure> {
        let (service, named) = match text.split_once('/') {
            Some((service, environment)) => (service, Some(environment)),
            None => (text, None),
        };
        if let (Some(named), Some(option)) = (named, environment)
            && named != option
        {
            return Err(Failure::usage(format!(
                "{text} names the environment {named}, and --env names {option}"
            )));
        }
        Ok(Self {
            service: service.to_owned(),
            environment: named.or(environment).map(str::to_owned),
        })
    }

    /// Shows the logs of the selected instances.
    pub fn show(&self, server: &ServerConnection, extent: LogExtent) -> Result<(), Failure> {
        if extent.follow {
            return self.follow(server, extent.tail);
        }
        let environments = self.environments(server)?;
        let instances = instance_ids(&environments);
        if instances.is_empty() {
            return Err(self.nothing_runs(&environments));
        }
        for id in &instances {
            let log = LastLogLines::read(server, id, extent.tail)?;
            log.print(id);
        }
        Ok(())
    }

    /// The selected environments; an error if there is none.
    fn environments(&self, server: &ServerConnection) -> Result<Vec<EnvironmentStatus>, Failure> {
        let mut found = server.service_environments(&self.service)?;
        if found.is_empty() {
            self.check_service(server)?;
        }
        let names: Vec<String> = found.iter().map(|it| it.environment.to_string()).collect();
        let Some(wanted) = &self.environment else {
            return Ok(found);
        };
        found.retain(|it| it.environment.as_str() == wanted);
        if found.is_empty() {
            return Err(Failure::usage_with(
                format!("{} has no environment {wanted:?}", self.service),
                format!("its environments are {}", names.join(", ")),
            ));
        }
        Ok(found)
    }

    /// A service may exist without an environment.
    fn check_service(&self, server: &ServerConnection) -> Result<(), Failure> {
        match server.service(&self.service) {
            Err(ClientError::Refused(_)) => Err(Failure::usage_with(
                format!(
                    "{:?} is not a service, a run, a rollout or an instance",
                    self.service
                ),
                "ids look like shop, r12, ro7 and shop.production.3.1; list them with `shipway status`",
            )),
            other => Ok(other.map(drop)?),
        }
    }

    fn nothing_runs(&self, environments: &[EnvironmentStatus]) -> Failure {
        let last = environments.iter().find_map(|it| it.last_rollout.as_ref());
        let next = match last {
            Some(last) => format!(
                "logs of stopped instances: shipway logs {}/{}",
                self.service, last.number
            ),
            None => format!("what there is: shipway status {}", self.service),
        };
        Failure::Failed(format!(
            "no instance of {} is running; {next}",
            self.service
        ))
    }

    /// Follows all instances. Events of the service tell when to search for new ones.
    fn follow(&self, server: &ServerConnection, tail: usize) -> Result<(), Failure> {
        let mut followed = FollowedLogs::new(server, tail);
        let mut reached = Instant::now();
        // The first attempt fails with the server's message.
        followed.attach(instance_ids(&self.environments(server)?));
        loop {
            match self.follow_events(server, &mut followed) {
                Ok(()) => reached = Instant::now(),
                Err(Failure::Client(ClientError::Unreachable { .. }))
                    if reached.elapsed() < UNREACHABLE_MAX => {}
                Err(error) => return Err(error),
            }
            thread::sleep(RECONNECT_PAUSE);
        }
    }

    /// Returns when the connection ends.
    fn follow_events(
        &self,
        server: &ServerConnection,
        followed: &mut FollowedLogs,
    ) -> Result<(), Failure> {
        let events = server.lines(&format!("/api/v1/events?service={}", self.service))?;
        followed.attach(instance_ids(&self.environments(server)?));
        for text in events {
            let Ok(text) = text else {
                return Ok(());
            };
            if text.starts_with("data:") {
                followed.attach(instance_ids(&self.environments(server)?));
            }
        }
        Ok(())
    }
}

fn instance_ids(environments: &[EnvironmentStatus]) -> Vec<InstanceId> {
    let instances = environments.iter().flat_map(|it| &it.instances);
    instances.map(|it| it.id.clone()).collect()
}

/// The logs that are followed, each by a thread of its own.
struct FollowedLogs {
    server: ServerConnection,
    tail: usize,
    /// Bytes shown of each log, and whether a thread follows it now.
    positions: Arc<Mutex<HashMap<InstanceId, LogPosition>>>,
}

#[derive(Clone, Copy, Default)]
struct LogPosition {
    offset: u64,
    is_followed: bool,
}

impl FollowedLogs {
    fn new(server: &ServerConnection, tail: usize) -> Self {
        Self {
            server: server.clone(),
            tail,
            positions: Arc::default(),
        }
    }

    /// Follows those of these instances that are not followed yet.
    fn attach(&mut self, instances: Vec<InstanceId>) {
        for id in instances {
            let known = {
                let mut positions = lock(&self.positions);
                let known = positions.get(&id).copied();
                positions.entry(id.clone()).or_default().is_followed = true;
                known
            };
            if known.is_some_and(|it| it.is_followed) {
                continue;
            }
            let (server, positions) = (self.server.clone(), self.positions.clone());
            let tail = known.is_none().then_some(self.tail);
            thread::spawn(move || follow_instance(&server, &id, tail, &positions));
        }
    }
}

/// Shows new lines of a log until the instance is stopped or the connection ends; with `tail` the last old ones first.
fn follow_instance(
    server: &ServerConnection,
    id: &InstanceId,
    tail: Option<usize>,
    positions: &Mutex<HashMap<InstanceId, LogPosition>>,
) {
    let set_offset = |offset| lock(positions).entry(id.clone()).or_default().offset = offset;
    if let Some(tail) = tail
        && let Ok(log) = LastLogLines::read(server, id, tail)
    {
        log.print(id);
        set_offset(log.bytes);
    }
    let mut offset = lock(positions).get(id).map_or(0, |it| it.offset);
    let path = format!("/api/v1/instances/{id}/log?follow=true&offset={offset}");
    if let Ok(body) = server.stream(&path) {
        let mut reader = BufReader::new(body);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(read) if read > 0) {
            print_line(id, &bytes);
            offset += bytes.len() as u64;
            set_offset(offset);
            bytes.clear();
        }
    }
    lock(positions).entry(id.clone()).or_default().is_followed = false;
}

/// The end of a log.
struct LastLogLines {
    lines: VecDeque<Vec<u8>>,
    /// Size of the whole log.
    bytes: u64,
}

impl LastLogLines {
    fn read(
        server: &ServerConnection,
        id: &InstanceId,
        lines_max: usize,
    ) -> Result<Self, ClientError> {
        let path = format!("/api/v1/instances/{id}/log?follow=false");
        let mut reader = BufReader::new(server.stream(&path)?);
        let (mut lines, mut bytes, mut text) = (VecDeque::new(), 0, Vec::new());
        while matches!(reader.read_until(b'\n', &mut text), Ok(read) if read > 0) {
            bytes += text.len() as u64;
            lines.push_back(std::mem::take(&mut text));
            if lines.len() > lines_max {
                lines.pop_front();
            }
        }
        Ok(Self { lines, bytes })
    }

    fn print(&self, id: &InstanceId) {
        self.lines.iter().for_each(|text| print_line(id, text));
    }
}

/// `production.3.1 │ listening on port 4123`
fn print_line(id: &InstanceId, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let (place, release) = (&id.set.place, id.set.release.plain());
    line(&format!(
        "{}.{release}.{} │ {}",
        place.environment,
        id.slot,
        text.trim_end_matches(['\r', '\n'])
    ));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
