//! One rollout of the release #4 over the stable release #3, with targets and routers in memory, on the paused clock of tokio.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use shipway_analysis::{Observation, ReleaseSample, Sample};
use shipway_core::{
    aggregate::{Actor, Aggregate as _, fold},
    config::{self, EnvironmentConfig, ServiceConfig},
    ids::{Digest, ReleaseNumber},
    release::{Commit, Release},
    rollout::{
        Rollout, RolloutAggregate, RolloutEffect, RolloutInput, RolloutKind, RolloutOutcome,
        RolloutPace, RolloutSpec, RolloutState, RolloutSubject, RolloutVariant, StableRelease,
        capacity::summarize_readiness,
        plan::{PlanAction, TrafficSplit},
        strategy::ObservedState,
    },
    target::{InstanceId, ReplicaSetKey, RouterKind, ServiceEnvironment, TargetKind},
    weight::Weight,
};
use shipway_syntax::SourceFile;
use shipway_targets::{
    TargetRegistry,
    action_executor::{ActionExecutor, ActionReport},
    memory::{InMemoryRouter, InMemoryTarget, MemoryEvent, MemoryHistory},
    router::TrafficReading,
    target::Target as _,
    traffic_registry::TrafficRegistry,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub const STABLE: ReleaseNumber = ReleaseNumber(3);
pub const CANDIDATE: ReleaseNumber = ReleaseNumber(4);

/// Instances of each release.
const INSTANCES: u32 = 2;
/// Between two observations; an instance becomes ready within one.
const STEP: Duration = Duration::from_secs(1);
/// Requests in each step.
const REQUESTS: u64 = 200;
/// More steps than any rollout here takes.
const STEPS_MAX: u32 = 5_000;

pub struct StrategyStage {
    /// The target and the router that the new release names.
    pub target: Arc<InMemoryTarget>,
    pub router: Arc<InMemoryRouter>,
    /// All of the registry.
    pub all_targets: BTreeMap<TargetKind, Arc<InMemoryTarget>>,
    pub all_routers: BTreeMap<RouterKind, Arc<InMemoryRouter>>,
    targets: Arc<TargetRegistry>,
    traffic: Arc<TrafficRegistry>,
    history: MemoryHistory,
    state: RolloutState,
    begin: tokio::time::Instant,
    _routing: AbortOnDropHandle<()>,
}

impl StrategyStage {
    /// Opens the rollout, after its stable release was started and routed.
    pub async fn open(environment: &str) -> Self {
        Self::open_over(environment, environment).await
    }

    /// [`StrategyStage::open`] over a stable release with an environment of its own.
    pub async fn open_over(stable_environment: &str, environment: &str) -> Self {
        let (stable, config) = (config(stable_environment), config(environment));
        let environment = &config.environments[0];
        let history = MemoryHistory::default();
        let mut targets = TargetRegistry::default();
        let (mut all_targets, mut all_routers) = (BTreeMap::new(), BTreeMap::new());
        for (target, router) in [
            (TargetKind::Process, RouterKind::Proxy),
            (TargetKind::Docker, RouterKind::Istio),
        ] {
            let in_memory = Arc::new(InMemoryTarget::new(history.clone()));
            targets = targets.with_target(target, in_memory.clone());
            all_targets.insert(target, in_memory);
            let in_memory = Arc::new(InMemoryRouter::new(history.clone()));
            targets = targets.with_router(router, in_memory.clone());
            all_routers.insert(router, in_memory);
        }
        let targets = Arc::new(targets);
        let traffic = Arc::new(TrafficRegistry::new(targets.clone()));
        let routing = traffic.clone();
        let mut stage = Self {
            target: all_targets[&environment.target].clone(),
            router: all_routers[&environment.router].clone(),
            all_targets,
            all_routers,
            targets,
            traffic,
            history,
            state: RolloutState::default(),
            begin: tokio::time::Instant::now(),
            _routing: AbortOnDropHandle::new(tokio::spawn(async move { routing.run().await })),
        };
        stage.start_stable(&stable, &stable.environments[0]).await;
        stage.send(RolloutInput::Open(Box::new(spec(&stable, &config))));
        stage
    }

    async fn start_stable(&self, config: &ServiceConfig, environment: &EnvironmentConfig) {
        let workload = release(config, STABLE).workload(environment);
        let target = &self.all_targets[&environment.target];
        let started = target.ensure(&set(STABLE), &workload, INSTANCES).await;
        started.unwrap();
        target.advance();
        let addresses = environment.addresses(&production());
        let split = TrafficSplit::all_to(STABLE);
        let place = production();
        let router = environment.router;
        let shifted = (self.traffic).shift(router, &place, environment, &addresses, &split, "");
        shifted.await.unwrap();
    }

    /// Carries out what is pending until the rollout has ended.
    pub async fn run_to_end(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.rollout().ended.is_some() {
                self.assert_observed();
                return;
            }
            match self.due_action() {
                Some(due) => self.carry_out(due).await,
                None => {
                    tokio::time::sleep(STEP).await;
                    self.observe().await;
                }
            }
        }
        panic!("it does not end: {:#?}", self.story());
    }

    fn due_action(&self) -> Option<(u32, usize, PlanAction)> {
        let pending = RolloutAggregate::pending(&self.state, self.now());
        let carried = |(_, effect): (_, RolloutEffect)| match effect {
            RolloutEffect::ExecuteAction {
                plan,
                index,
                action,
            } => Some((plan, index, action)),
            _ => None,
        };
        pending.effects.into_iter().find_map(carried)
    }

    /// Carries out an action while time passes, until it is done or no longer due.
    async fn carry_out(&mut self, due: (u32, usize, PlanAction)) {
        let (plan, index, action) = due.clone();
        let rollout = self.rollout().clone();
        let (targets, traffic) = (self.targets.clone(), self.traffic.clone());
        let executor = ActionExecutor {
            targets: &targets,
            traffic: &traffic,
            rollout: &rollout,
            proxy_address: ([127, 0, 0, 1], 8_080).into(),
            cancelled: &CancellationToken::new(),
        };
        let addresses = rollout.spec.environment.addresses(&production());
        let mut carried = pin!(executor.carry_out(&action, &addresses));
        while self.due_action().as_ref() == Some(&due) {
            tokio::select! {
                biased;
                result = &mut carried => {
                    return self.send(match result {
                        Ok(ActionReport { note, smoke }) => RolloutInput::Done { plan, index, note, smoke },
                        Err(error) => RolloutInput::Failed {
                            plan,
                            index,
                            why: error.to_string(),
                            smoke: error.into_smoke_report(),
                        },
                    });
                }
                () = tokio::time::sleep(STEP) => self.observe().await,
            }
        }
    }

    /// One step of time: instances, requests, and the reports of the observers that are pending.
    async fn observe(&mut self) {
        for target in self.all_targets.values() {
            target.advance();
        }
        // A router without a route counts nothing.
        for router in self.all_routers.values() {
            router.send_requests(&production(), REQUESTS, self.now());
        }
        let totals = self.targets.read_all_totals().await.unwrap();
        let pending = RolloutAggregate::pending(&self.state, self.now());
        for (_, effect) in pending.effects {
            match effect {
                RolloutEffect::WatchInstances { release, stable } => {
                    self.send_readiness(release, stable)
                }
                RolloutEffect::Measure {
                    exposure,
                    candidate,
                    stable,
                } => {
                    let seen = Box::new(Observation {
                        at: self.now(),
                        canary: sample(&totals, candidate),
                        stable: stable.map(|stable| sample(&totals, stable)),
                    });
                    self.send(RolloutInput::Measured { exposure, seen });
                }
                RolloutEffect::ExecuteAction { .. }
                | RolloutEffect::WatchPeers { .. }
                | RolloutEffect::NotifyService { .. }
                | RolloutEffect::Notify { .. } => {}
            }
        }
        if pending.wake_at.is_some_and(|at| at <= self.now()) {
            self.send(RolloutInput::TimerFired);
        }
    }

    fn send_readiness(&mut self, release: ReleaseNumber, stable: Option<ReleaseNumber>) {
        let input = match self.targets.crash_loop(&set(release)) {
            Some(why) => RolloutInput::CrashLoop { why },
            None => {
                let releases: Vec<_> = std::iter::once(release).chain(stable).collect();
                let instances = self.targets.instances();
                RolloutInput::Readiness(summarize_readiness(&instances, &production(), &releases).0)
            }
        };
        self.send(input);
    }

    fn send(&mut self, input: RolloutInput) {
        let by = Actor::Shipway("a test".to_owned());
        let events = RolloutAggregate::decide(&self.state, input, by, self.now());
        fold::<RolloutAggregate>(&mut self.state, &events.unwrap());
    }

    fn now(&self) -> Timestamp {
        start() + SignedDuration::try_from(self.begin.elapsed()).unwrap()
    }

    /// Simulated time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    fn rollout(&self) -> &Rollout {
        self.state.0.as_deref().unwrap()
    }

    pub fn outcome(&self) -> RolloutOutcome {
        self.rollout().ended.as_ref().unwrap().outcome
    }

    /// Why the rollout ended as it did.
    pub fn why(&self) -> &str {
        &self.rollout().ended.as_ref().unwrap().why
    }

    pub fn split(&self) -> TrafficSplit {
        self.traffic.split(&production())
    }

    pub fn instances(&self) -> BTreeSet<InstanceId> {
        let instances = self.targets.instances();
        instances.into_iter().map(|status| status.id).collect()
    }

    /// Requests to either release that were answered with an error.
    pub fn failed_requests(&self) -> u64 {
        let totals = ready_output(self.targets.read_all_totals()).unwrap();
        let errors = |release| totals.totals_for(&production(), release).errors();
        errors(STABLE) + errors(CANDIDATE)
    }

    /// The largest share that a release ever had.
    pub fn most_traffic_of(&self, release: ReleaseNumber) -> Weight {
        let events = self.history.events().into_iter();
        let weights = events.filter_map(|event| match event {
            MemoryEvent::Routed { split, .. } => Some(split.weight_of(release)),
            _ => None,
        });
        weights.max().unwrap_or(Weight::ZERO)
    }

    /// What happened after the stable release was routed, a line for each change.
    pub fn story(&self) -> Vec<String> {
        let all: Vec<String> = self.history.events().iter().map(line).collect();
        let stable_is_routed = all.iter().position(|line| line.starts_with("routed"));
        all[stable_is_routed.map_or(0, |at| at + 1)..].to_vec()
    }

    /// A weight rises only for a release with ready instances, and an instance is stopped only when no route leads to it.
    pub fn assert_safe_order(&self) {
        let mut ready: BTreeSet<InstanceId> = BTreeSet::new();
        let mut routed: BTreeMap<ReleaseNumber, Vec<InstanceId>> = BTreeMap::new();
        let mut last = TrafficSplit::default();
        for event in self.history.events() {
            match event {
                MemoryEvent::Ready(id) => drop(ready.insert(id)),
                MemoryEvent::Crashed(id) => drop(ready.remove(&id)),
                MemoryEvent::Stopped(id) => {
                    let has_traffic = routed.iter().any(|(release, ids)| {
                        !last.weight_of(*release).is_zero() && ids.contains(&id)
                    });
                    assert!(
                        !has_traffic,
                        "{id} is stopped with traffic: {:#?}",
                        self.story()
                    );
                    ready.remove(&id);
                }
                MemoryEvent::Routed {
                    split, instances, ..
                } => {
                    for (release, weight) in split.releases() {
                        let serving = &instances[&release];
                        assert!(serving.iter().all(|id| ready.contains(id)));
                        let rises = weight > last.weight_of(release);
                        assert!(
                            !rises || !serving.is_empty(),
                            "{release} gets traffic without an instance: {:#?}",
                            self.story()
                        );
                    }
                    (last, routed) = (split, instances);
                }
                MemoryEvent::Started(_) | MemoryEvent::Drained { .. } => {}
            }
        }
    }

    /// The rollout reports what the target and the router really have.
    fn assert_observed(&self) {
        let observed = &self.rollout().observed;
        let mut counts: BTreeMap<ReleaseNumber, u32> = BTreeMap::new();
        for id in self.instances() {
            *counts.entry(id.set.release).or_default() += 1;
        }
        assert_eq!(observed.counts, counts);
        assert_eq!(observed.split, self.split());
    }
}

/// `routed 10% to #4 (1), 90% to #3 (1 2)`
fn line(event: &MemoryEvent) -> String {
    let name = |id: &InstanceId| format!("{}.{}", id.set.release, id.slot);
    match event {
        MemoryEvent::Started(id) => format!("started {}", name(id)),
        MemoryEvent::Ready(id) => format!("ready {}", name(id)),
        MemoryEvent::Crashed(id) => format!("crashed {}", name(id)),
        MemoryEvent::Stopped(id) => format!("stopped {}", name(id)),
        MemoryEvent::Drained { set, keep } => format!("drained {} down to {keep}", set.release),
        MemoryEvent::Routed {
            split, instances, ..
        } => {
            let shares = split.releases().map(|(release, weight)| {
                let slots: Vec<String> = instances[&release]
                    .iter()
                    .map(|id| id.slot.to_string())
                    .collect();
                format!("{weight} to {release} ({})", slots.join(" "))
            });
            let shares: Vec<String> = shares.collect();
            match shares.is_empty() {
                true => "routed nothing".to_owned(),
                false => format!("routed {}", shares.join(", ")),
            }
        }
    }
}

/// The output of a future that never waits.
fn ready_output<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

fn sample(totals: &TrafficReading, variant: RolloutVariant) -> ReleaseSample {
    let RolloutVariant::Release(release) = variant;
    let totals = totals.totals_for(&production(), release);
    ReleaseSample {
        release: release.to_string(),
        sample: Some(Sample {
            requests: totals.requests,
            errors: totals.errors(),
            ..Sample::default()
        }),
    }
}

fn start() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

pub fn production() -> ServiceEnvironment {
    ServiceEnvironment {
        service: "shop".parse().unwrap(),
        environment: "production".parse().unwrap(),
    }
}

fn set(release: ReleaseNumber) -> ReplicaSetKey {
    ReplicaSetKey {
        place: production(),
        release,
    }
}

pub fn instance(release: ReleaseNumber, slot: u32) -> InstanceId {
    InstanceId {
        set: set(release),
        slot,
    }
}

pub fn config(environment: &str) -> ServiceConfig {
    let text = format!(
        "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production: {{ instances: {INSTANCES}, progress_deadline: 1m, watch: none, analysis: [{{ metric: error-rate, max: 5% }}], {environment} }}\n"
    );
    let source = SourceFile::new("shipway.yaml", text);
    let read = config::parse(&source);
    let (config, _) = read.unwrap_or_else(|problems| {
        panic!(
            "{:#?}",
            problems
                .iter()
                .map(|it| it.one_line(&source))
                .collect::<Vec<_>>()
        )
    });
    config
}

pub fn release(config: &ServiceConfig, number: ReleaseNumber) -> Release {
    Release {
        by: None,
        service: config.service.clone(),
        number,
        sequence: number.0.into(),
        commit: Commit {
            id: format!("{:040}", number.0).parse().unwrap(),
            subject: "a change".into(),
            author: "ada".into(),
            committer: None,
            at: start(),
        },
        branch: None,
        artifact: Digest::compute(&number.0.to_be_bytes()),
        run: None,
        config: config.clone(),
        tests: Vec::new(),
        created_at: start(),
    }
}

fn spec(stable: &ServiceConfig, config: &ServiceConfig) -> RolloutSpec {
    RolloutSpec {
        by: None,
        id: "shop/ro7".parse().unwrap(),
        kind: RolloutKind::Deploy,
        pace: RolloutPace::ByStrategy,
        retry_of: None,
        subject: RolloutSubject::Release {
            release: Arc::new(release(config, CANDIDATE)),
            stable: Some(StableRelease {
                release: Arc::new(release(stable, STABLE)),
                instances: INSTANCES,
            }),
        },
        environment: config.environments[0].clone(),
        observed: ObservedState {
            counts: [(STABLE, INSTANCES)].into(),
            split: TrafficSplit::all_to(STABLE),
            promoted: Some(STABLE),
        },
        stable_traffic: None,
        is_slow_limit_measured: false,
        why: "run r12 succeeded".into(),
        peers: Vec::new(),
    }
}
