//! Polls metric providers in tasks of their own, so that a slow provider does not delay the readings of the proxy's counters.
//!
//! Each source has a task that queries both releases for the same moment, once in its interval. A task sends one query at a time, each
//! ends within its timeout, and all tasks end with the measurement.
//!
//! When stable has just lost its traffic, sources that support queries about the past are queried for its values before the switch.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use shipway_analysis::{Metric, MetricName, ProviderAnswer, evidence::mean::ValueSeries};
use shipway_core::{
    config::{MetricSource, ProviderQuery},
    ids::ReleaseNumber,
    rollout::Rollout,
    secret::SecretUser,
    target::{ReplicaSetKey, ServiceEnvironment},
};
use shipway_drivers::metrics::{MetricError, QuerySubject};
use shipway_targets::target::{CommandPlace, Target};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    baseline_history,
    capabilities::{MeasurementSources, MetricProviders},
    secrets::SecretPlace,
};

/// The last answers for both sides.
type ProviderAnswers = Arc<Mutex<BTreeMap<MetricName, (ProviderAnswer, Option<ProviderAnswer>)>>>;

/// Values of stable from before it lost its traffic.
type EarlierValues = Arc<Mutex<Vec<(Metric, ValueSeries)>>>;

/// Number of past moments that are queried: 15 minutes at the usual interval, as for the stored load.
const PAST_VALUES: u32 = 180;
/// So many moments in a row without an answer: stable is no older, or there will be none.
const UNANSWERED_MAX: u32 = 3;

/// Asks until it is dropped.
pub(super) struct ProviderPolling {
    answers: ProviderAnswers,
    past: EarlierValues,
    _tasks: JoinSet<()>,
}

/// What a task asks about.
#[derive(Clone)]
struct PolledReleases {
    canary: QuerySubject,
    stable: Option<QuerySubject>,
    set: ReplicaSetKey,
    /// Runs the commands of `exec` sources.
    target: Arc<dyn Target>,
}

impl PolledReleases {
    fn metric_commands(&self) -> CommandPlace<'_> {
        CommandPlace {
            runner: &*self.target,
            set: &self.set,
        }
    }

    fn find_secret(&self, providers: &MetricProviders, name: &str) -> Option<String> {
        let ServiceEnvironment {
            service,
            environment,
        } = &self.set.place;
        let place = SecretPlace {
            service,
            environment: Some(environment),
        };
        let user = SecretUser::MetricProvider {
            environment: environment.clone(),
        };
        providers.secrets.find(place, name, &user)
    }
}

impl ProviderPolling {
    pub(super) fn start(
        sources: MeasurementSources<'_>,
        rollout: &Rollout,
        candidate: ReleaseNumber,
        stable: Option<ReleaseNumber>,
    ) -> Self {
        let answers = ProviderAnswers::default();
        let past = EarlierValues::default();
        let mut tasks = JoinSet::new();
        let environment = &rollout.spec.environment;
        let Ok(target) = sources.workloads.targets.target(environment.target) else {
            return Self {
                answers,
                past,
                _tasks: tasks,
            };
        };
        let release = rollout.spec.release();
        let place = release.service_environment(&environment.name);
        let about = |release: ReleaseNumber| QuerySubject {
            release: release.released().0,
            stable: stable.map(|stable| stable.released().0),
            service: place.service.to_string(),
            environment: place.environment.to_string(),
        };
        let sides = PolledReleases {
            canary: about(candidate),
            stable: stable.map(about),
            set: ReplicaSetKey {
                place: place.clone(),
                release: candidate,
            },
            target: target.clone(),
        };
        let asked = environment.sources.iter();
        for source in asked.filter(|source| source.query != ProviderQuery::Events) {
            tasks.spawn(poll(
                sources.providers.clone(),
                source.clone(),
                sides.clone(),
                answers.clone(),
            ));
        }
        // After a restart of the server the time before this one isn't that before the switch any more.
        let has_just_switched = rollout.has_all_traffic() && rollout.evidence.last().is_none();
        if has_just_switched && let Some(stable) = &sides.stable {
            let compared: Vec<Metric> = baseline_history::compared(&environment.analysis).collect();
            let of_past = environment.sources.iter().filter(|source| {
                matches!(
                    source.query,
                    ProviderQuery::Prometheus { .. } | ProviderQuery::Datadog { .. }
                ) && !source.query.compares()
                    && compared.contains(&Metric::Value(source.metric))
            });
            for source in of_past {
                let (source, about) = (source.clone(), stable.clone());
                let providers = sources.providers.clone();
                let polling =
                    poll_earlier_values(providers, source, about, sides.clone(), past.clone());
                tasks.spawn(polling);
            }
        }
        Self {
            answers,
            past,
            _tasks: tasks,
        }
    }

    /// What stable was before it lost its traffic, once all of that is answered.
    pub(super) fn earlier_values(&self) -> Vec<(Metric, ValueSeries)> {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.clone()
    }

    /// The last answers for the canary.
    pub(super) fn canary_answers(&self) -> Vec<ProviderAnswer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.values().map(|(canary, _)| canary.clone()).collect()
    }

    /// The last answers for stable.
    pub(super) fn stable_answers(&self) -> Vec<ProviderAnswer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers
            .values()
            .filter_map(|(_, stable)| stable.clone())
            .collect()
    }
}

async fn poll(
    providers: MetricProviders,
    source: MetricSource,
    sides: PolledReleases,
    answers: ProviderAnswers,
) {
    let mut ticks = tokio::time::interval(source.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let place = sides.metric_commands();
    let secrets = |name: &str| sides.find_secret(&providers, name);
    // A query that names stable compares by itself.
    let stable = sides.stable.as_ref().filter(|_| !source.query.compares());
    loop {
        ticks.tick().await;
        let at = providers.clock.now();
        let about = |about| {
            providers
                .reader
                .read_metric(&source, about, at, place, &secrets)
        };
        let of_stable = async {
            match stable {
                Some(stable) => Some(about(stable).await),
                None => None,
            }
        };
        let (canary, stable) = tokio::join!(about(&sides.canary), of_stable);
        let answer = |read: Result<f64, MetricError>| match read {
            Ok(value) => ProviderAnswer::value(source.metric, at, value),
            Err(error) => ProviderAnswer::unknown(source.metric, at, error.to_string()),
        };
        let both = (answer(canary), stable.map(answer));
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(source.metric, both);
    }
}

/// Asks about moments before this one, further and further back.
async fn poll_earlier_values(
    providers: MetricProviders,
    source: MetricSource,
    stable: QuerySubject,
    sides: PolledReleases,
    past: EarlierValues,
) {
    let now = providers.clock.now();
    let place = sides.metric_commands();
    let secrets = |name: &str| sides.find_secret(&providers, name);
    let (mut found, mut unanswered) = (Vec::new(), 0);
    for back in 1..=PAST_VALUES {
        let Some(at) = source
            .interval
            .checked_mul(back)
            .and_then(|span| now.checked_sub(span).ok())
        else {
            break;
        };
        let said = providers
            .reader
            .read_metric(&source, &stable, at, place, &secrets);
        match said.await {
            Ok(value) => {
                found.push(value);
                unanswered = 0;
            }
            Err(_) => unanswered += 1,
        }
        if unanswered == UNANSWERED_MAX {
            break;
        }
    }
    let mut values = ValueSeries::default();
    for value in found.into_iter().rev() {
        values.add(value);
    }
    if values.moments().count() > 0 {
        let mut past = past.lock().unwrap_or_else(PoisonError::into_inner);
        past.push((Metric::Value(source.metric), values));
    }
}
