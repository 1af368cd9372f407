//! The simulated policy: an environment of a `shipway.yaml` with its steps and rules, prepared for the simulated clock.

use std::{sync::Arc, time::Duration};

use shipway_analysis::{Analysis, AnalysisRule, Metric, SequentialComparison, evidence::Alpha};
use shipway_core::{
    config::{self, EnvironmentConfig, ServiceConfig, WatchDuration},
    ids::{Digest, EnvironmentName, ReleaseNumber, RolloutId, RolloutNumber},
    release::{Commit, Release},
    rollout::{
        Rollout, RolloutKind, RolloutPace, RolloutSpec, RolloutSubject, StableRelease,
        StableTraffic,
        plan::{HoldReason, PlanAction, TrafficSplit},
        strategy::{self, HoldPolicy, ObservedState},
    },
};
use shipway_syntax::SourceFile;

use crate::reading::{beginning, usual_p99_ms};

/// The default: a service with the default canary.
const DEFAULT: &str = "service: service
artifact: source
run: { command: ./service }
environments:
  production: { strategy: canary }
";

/// The release that is rolled out.
pub const CANDIDATE: ReleaseNumber = ReleaseNumber(2);
/// The release that is there.
pub const STABLE: ReleaseNumber = ReleaseNumber(1);

/// An environment's policy.
#[derive(Clone, Debug)]
pub struct SimulatedPolicy {
    config: ServiceConfig,
    environment: EnvironmentConfig,
    /// Differences from the file, such as a replaced strategy, for the user.
    pub notes: Vec<String>,
}

/// A share of the traffic, and how long it is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HoldStep {
    /// The share of the new release; 0 to 1.
    pub weight: f64,
    /// How long it is held if nothing ends it earlier.
    pub hold: Duration,
}

/// An environment that can't be tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There is none of this name.
    #[error("no environment `{requested}`: the environments are {known}")]
    NoEnvironment {
        /// The requested name.
        requested: String,
        /// The existing environments.
        known: String,
    },
}

impl Default for SimulatedPolicy {
    fn default() -> Self {
        let (config, _) = config::parse(&SourceFile::new("shipway.yaml", DEFAULT))
            .expect("a configuration of ours is right");
        Self::for_environment(config, None).expect("it has an environment")
    }
}

impl SimulatedPolicy {
    /// The default canary that compares error rates alone: what other controllers' settings are compared with.
    #[must_use]
    pub fn comparing_error_rates() -> Self {
        Self::default().judged_by(Analysis::new(vec![default_comparison()]))
    }

    /// The policy of this environment of `config`; none named: the last one whose releases are held and judged, else the last one.
    ///
    /// # Errors
    /// When there is no such environment.
    pub fn for_environment(
        config: ServiceConfig,
        requested: Option<&EnvironmentName>,
    ) -> Result<Self, PolicyError> {
        let is_held = |environment: &&EnvironmentConfig| !steps_of(&config, environment).is_empty();
        let found = match requested {
            Some(requested) => config.environments.iter().find(|it| it.name == *requested),
            None => config
                .environments
                .iter()
                .rev()
                .find(is_held)
                .or(config.environments.last()),
        };
        let Some(environment) = found.cloned() else {
            let names: Vec<String> = config
                .environments
                .iter()
                .map(|it| it.name.to_string())
                .collect();
            let requested = requested.map(ToString::to_string).unwrap_or_default();
            return Err(PolicyError::NoEnvironment {
                requested,
                known: names.join(", "),
            });
        };
        let mut policy = Self {
            config,
            environment,
            notes: Vec::new(),
        };
        policy.fill_in();
        Ok(policy)
    }

    /// Removes notifications and smoke tests; replaces strategies without holds and metrics that can't be simulated.
    fn fill_in(&mut self) {
        let name = self.environment.name.clone();
        self.environment.notify.clear();
        let analysis = std::mem::take(&mut self.environment.analysis);
        self.environment.analysis = analysis.with_slow_limit(usual_traffic().slow_limit_micros());
        self.environment.smoke.clear();
        if self.steps().is_empty() {
            self.notes.push(format!(
                "{name} is rolled out by `{}`, which holds nothing for evidence: the default canary (1% for 2 min, 10% and 50% for 5 min each) is tried instead",
                self.environment.strategy.keyword()
            ));
            self.environment.strategy = config::Strategy::Canary(strategy::Canary::default());
        }
        // Provider values and business events can't be simulated from requests.
        let is_known = |rule: &AnalysisRule| {
            let elsewhere = |metric: &Metric| matches!(metric, Metric::Value(_) | Metric::Event(_));
            !rule.metrics().iter().any(elsewhere)
        };
        let (known, others): (Vec<AnalysisRule>, Vec<AnalysisRule>) =
            self.analysis().rules().iter().cloned().partition(is_known);
        if !others.is_empty() {
            let names: Vec<String> = others
                .iter()
                .map(|rule| rule.metric().to_string())
                .collect();
            self.notes.push(format!(
                "left out, since only requests are simulated: {}",
                names.join(", ")
            ));
            self.environment.analysis = Analysis::new(known);
        }
        if !self.analysis().rules().iter().any(AnalysisRule::compares) {
            self.notes.push(format!(
                "{name} compares nothing with stable: `{{ metric: error-rate, worse_than: stable }}` is tried beside its limits; write it under `analysis` to have it"
            ));
            let mut rules = self.analysis().rules().to_vec();
            rules.push(default_comparison());
            self.environment.analysis = Analysis::new(rules);
        }
    }

    /// The same with this one step instead of its own, as when a release is watched for as long as it takes; nothing ends the hold
    /// before `min`.
    #[must_use]
    pub fn held_at(mut self, percent: f64, hold: Duration, min: Duration) -> Option<Self> {
        let weight = shipway_core::weight::Weight::from_percent(percent).ok()?;
        let step = strategy::CanaryStep {
            weight,
            hold: Some(hold),
            smoke: false,
            ask: false,
            scale: None,
        };
        let canary = strategy::Canary {
            steps: vec![step],
            holds: HoldPolicy {
                min,
                ..HoldPolicy::default()
            },
            ..strategy::Canary::default()
        };
        self.environment.strategy = config::Strategy::Canary(canary);
        Some(self)
    }

    /// The same with these rules.
    #[must_use]
    pub fn judged_by(mut self, analysis: Analysis) -> Self {
        self.environment.analysis = analysis;
        self
    }

    /// The environment's name.
    #[must_use]
    pub const fn name(&self) -> &EnvironmentName {
        &self.environment.name
    }

    /// The rules.
    #[must_use]
    pub const fn analysis(&self) -> &Analysis {
        &self.environment.analysis
    }

    /// How probable it may be that a good release is rolled back, all comparisons together.
    #[must_use]
    pub fn alpha(&self) -> f64 {
        let shares = self
            .analysis()
            .rules()
            .iter()
            .filter_map(|rule| match rule {
                AnalysisRule::Sequential { sequential } => Some(sequential.alpha.get()),
                _ => None,
            });
        shares.sum()
    }

    /// The steps, as the strategy compiles them.
    #[must_use]
    pub fn steps(&self) -> Vec<HoldStep> {
        steps_of(&self.config, &self.environment)
    }

    /// How its holds end.
    #[must_use]
    pub fn holds(&self) -> HoldPolicy {
        self.environment.strategy.holds()
    }

    /// A rollout of it, as the log would have it.
    #[must_use]
    pub fn spec(&self) -> RolloutSpec {
        spec(&self.config, &self.environment)
    }
}

/// What stable is taken to have answered in the hour before a simulated rollout.
fn usual_traffic() -> StableTraffic {
    StableTraffic {
        requests: 10_000,
        counted_for: Duration::from_secs(3_600),
        p99_micros: Some((usual_p99_ms() * 1_000.0) as u64),
    }
}

/// `error-rate worse_than stable`, with the defaults.
#[must_use]
pub fn default_comparison() -> AnalysisRule {
    let share = |value| Alpha::new(value).expect("the defaults are probabilities");
    let comparison = SequentialComparison::new(
        Metric::ErrorRate,
        share(SequentialComparison::ALPHA),
        share(SequentialComparison::BETA),
        1.0,
        SequentialComparison::TOLERANCE,
    );
    AnalysisRule::from(comparison.expect("errors are counted"))
}

fn steps_of(config: &ServiceConfig, environment: &EnvironmentConfig) -> Vec<HoldStep> {
    let spec = spec(config, environment);
    let plan = strategy::compile(&environment.strategy, &Rollout::brief(&spec));
    let (mut weight, mut steps) = (0.0, Vec::new());
    for action in &plan.actions {
        match action {
            PlanAction::Shift { split } => weight = split.weight_of(CANDIDATE).percent() / 100.0,
            PlanAction::Hold {
                duration,
                why: HoldReason::Evidence | HoldReason::Time,
            } => steps.push(HoldStep {
                weight,
                hold: *duration,
            }),
            _ => {}
        }
    }
    steps
}

/// The simulation ends with the promotion; the watch after it is not simulated.
fn spec(config: &ServiceConfig, environment: &EnvironmentConfig) -> RolloutSpec {
    let environment = EnvironmentConfig {
        watch: WatchDuration::For(Duration::ZERO),
        ..environment.clone()
    };
    let environment = &environment;
    let release = |number| Arc::new(release(config, number));
    let counts = [(STABLE, environment.instances)].into();
    RolloutSpec {
        id: RolloutId {
            service: config.service.clone(),
            number: RolloutNumber(1),
        },
        kind: RolloutKind::Deploy,
        pace: RolloutPace::ByStrategy,
        retry_of: None,
        subject: RolloutSubject::Release {
            release: release(CANDIDATE),
            stable: Some(StableRelease {
                release: release(STABLE),
                instances: environment.instances,
            }),
        },
        environment: environment.clone(),
        observed: ObservedState {
            counts,
            split: TrafficSplit::all_to(STABLE),
            promoted: Some(STABLE),
        },
        stable_traffic: None,
        is_slow_limit_measured: false,
        why: "a simulation".to_owned(),
        by: None,
        peers: Vec::new(),
    }
}

fn release(config: &ServiceConfig, number: ReleaseNumber) -> Release {
    let name = number.to_string();
    Release {
        service: config.service.clone(),
        number,
        sequence: u64::from(number.0),
        commit: Commit {
            id: "0123456789abcdef0123456789abcdef01234567"
                .parse()
                .expect("forty hexadecimal digits"),
            subject: "a simulated change".to_owned(),
            author: "simulation".to_owned(),
            committer: None,
            at: beginning(),
        },
        branch: None,
        artifact: Digest::compute(name.as_bytes()),
        run: None,
        config: config.clone(),
        tests: Vec::new(),
        by: None,
        created_at: beginning(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_default_canary_compared_with_stable() {
        let policy = SimulatedPolicy::default();
        let steps: Vec<(f64, u64)> = policy
            .steps()
            .iter()
            .map(|step| (step.weight, step.hold.as_secs()))
            .collect();
        assert_eq!(steps, [(0.01, 120), (0.1, 300), (0.5, 300)]);
        assert_eq!((policy.alpha(), policy.notes.len()), (0.01, 0));
    }

    #[test]
    fn what_a_file_lacks_is_filled_in_and_said() {
        let text = "service: shop\nartifact: source\nrun: { command: ./shop }\nenvironments:\n  staging: { strategy: recreate }\n";
        let (config, _) = config::parse(&SourceFile::new("shipway.yaml", text)).unwrap();
        let policy = SimulatedPolicy::for_environment(config.clone(), None).unwrap();
        assert_eq!(policy.steps().len(), 3);
        assert!(
            policy.notes[0].contains("staging is rolled out by `recreate`"),
            "{:?}",
            policy.notes
        );
        assert_eq!(policy.analysis(), SimulatedPolicy::default().analysis());
        let missing =
            SimulatedPolicy::for_environment(config, Some(&"prod".parse().unwrap())).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "no environment `prod`: the environments are staging"
        );
    }
}
