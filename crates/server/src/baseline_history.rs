//! What releases did lately while they had traffic: their load each few seconds, how long their answers took. A release that
//! was switched to is compared with it (docs/adr/0012): when a rollout has switched it is too late to look.
//!
//! Nothing of it is on disk. After a restart of the server it begins anew, and comparisons that have too little of it are
//! inconclusive.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shipway_analysis::{
    Analysis, AnalysisRule, BaselineSample, Histogram, Metric, RequiredMetrics,
    evidence::mean::ValueSeries,
};
use shipway_core::{
    rollout::{RolloutPace, RolloutSpec, StableTraffic},
    target::ReplicaSetKey,
};
use shipway_targets::{target_registry::TargetRegistry, traffic_registry::TrafficRegistry};
use tokio::time::MissedTickBehavior;

use crate::set_reading::{self, SetReading};

/// How far back the traffic of stable is counted when a rollout is opened.
const TRAFFIC_SPAN: Duration = Duration::from_secs(3600);
/// Traffic of less time says too little about an hour.
const TRAFFIC_SPAN_MIN: Duration = Duration::from_secs(60);
/// From one look to the next; values of neighbours differ by then, and a look at a hundred sets is a few milliseconds.
const INTERVAL: Duration = Duration::from_secs(5);
/// Number of stored values, about 15 minutes at the usual interval. Older values say little about the present.
const VALUES_MAX: usize = 180;
/// Looks from one distribution of answers to the next that is kept, since those are long: a minute.
const READINGS_TO_DISTRIBUTION: usize = 12;
/// Distributions of a quarter of an hour, which a release that was switched to is compared with.
const DISTRIBUTIONS_COMPARED: usize = VALUES_MAX / READINGS_TO_DISTRIBUTION + 1;
/// Distributions that are kept: those of an hour.
const DISTRIBUTIONS_MAX: usize = 61;
/// What lost its traffic is of use until it is compared with; a switched rollout asks at once.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// The history of all replica sets that have or had traffic.
#[derive(Default)]
pub struct BaselineHistory(Mutex<BTreeMap<ReplicaSetKey, SetHistory>>);

/// One set.
struct SetHistory {
    last: SetReading,
    readings: usize,
    loads: VecDeque<LoadSample>,
    /// As counted since ever, the oldest first, with the moment.
    took: VecDeque<(Instant, Histogram)>,
}

/// The load at one moment, as far as it is known.
#[derive(Clone, Copy)]
struct LoadSample {
    cpu: Option<f64>,
    memory: Option<f64>,
    saturation: Option<f64>,
}

impl LoadSample {
    fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Cpu => self.cpu,
            Metric::Memory => self.memory,
            Metric::Saturation => self.saturation,
            _ => None,
        }
    }
}

impl SetHistory {
    fn start(reading: SetReading) -> Self {
        let mut recent = Self {
            last: reading,
            readings: 0,
            loads: VecDeque::new(),
            took: VecDeque::new(),
        };
        recent.record_distribution();
        recent
    }

    fn record(&mut self, reading: SetReading) {
        self.loads.push_back(LoadSample {
            cpu: set_reading::busiest(&self.last, &reading),
            memory: reading.memory(),
            saturation: reading.saturation(),
        });
        if self.loads.len() > VALUES_MAX {
            self.loads.pop_front();
        }
        self.last = reading;
        self.readings += 1;
        if self.readings.is_multiple_of(READINGS_TO_DISTRIBUTION) {
            self.record_distribution();
        }
    }

    fn record_distribution(&mut self) {
        if let Some(traffic) = &self.last.traffic {
            let histogram = set_reading::histogram(traffic);
            self.took.push_back((self.last.at, histogram));
        }
        if self.took.len() > DISTRIBUTIONS_MAX {
            self.took.pop_front();
        }
    }

    /// The requests answered in the last hour, or since the server started.
    fn traffic(&self, now: Instant, all: &Histogram) -> Option<StableTraffic> {
        let is_recent = |at: &Instant| now.duration_since(*at) <= TRAFFIC_SPAN;
        let (at, first) = self.took.iter().find(|(at, _)| is_recent(at))?;
        let counted_for = now.duration_since(*at);
        let last = all.since(first);
        (counted_for >= TRAFFIC_SPAN_MIN).then(|| StableTraffic {
            requests: last.total(),
            counted_for: Duration::from_secs(counted_for.as_secs()),
            p99_micros: last.quantile_micros(0.99),
        })
    }

    fn before(&self, now: Option<Histogram>, analysis: &Analysis) -> BaselineSample {
        let oldest = self.took.len().saturating_sub(DISTRIBUTIONS_COMPARED);
        let took = match (self.took.get(oldest), now) {
            (Some((_, first)), Some(now)) if RequiredMetrics::for_analysis(analysis).histogram => {
                now.since(first)
            }
            _ => Histogram::default(),
        };
        let mut values: Vec<(Metric, ValueSeries)> = Vec::new();
        for metric in compared(analysis) {
            let mut series = ValueSeries::default();
            for value in self.loads.iter().filter_map(|load| load.value(metric)) {
                series.add(value);
            }
            let is_new = values.iter().all(|(known, _)| *known != metric);
            if is_new && series.moments().count() > 0 {
                values.push((metric, series));
            }
        }
        BaselineSample { values, took }
    }
}

/// The metrics that are compared with stable.
pub(crate) fn compared(analysis: &Analysis) -> impl Iterator<Item = Metric> {
    let rules = analysis.rules().iter().filter(|rule| rule.compares());
    rules.flat_map(AnalysisRule::metrics)
}

impl BaselineHistory {
    /// What `set` was until now, as far as `analysis` compares with it. `None` where nothing is known.
    pub(crate) fn baseline(
        &self,
        set: &ReplicaSetKey,
        now: Option<Histogram>,
        analysis: &Analysis,
    ) -> Option<BaselineSample> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(set)?.before(now, analysis);
        (before != BaselineSample::default()).then_some(before)
    }

    fn traffic(&self, set: &ReplicaSetKey, all: &Histogram) -> Option<StableTraffic> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(set)?.traffic(Instant::now(), all)
    }

    fn record(&self, set: ReplicaSetKey, reading: SetReading) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.entry(set) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(SetHistory::start(reading));
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                known.get_mut().record(reading);
            }
        }
    }

    fn forget(&self, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, recent| now.duration_since(recent.last.at) < KEPT_FOR);
    }
}

/// The same rollout with what stable answered in the last hour. A server that was started lately takes all that the proxy has
/// counted of it: from when on an answer is slow is known then, and how much traffic there is in an hour is not.
pub(crate) async fn with_stable_traffic(
    targets: &TargetRegistry,
    history: &BaselineHistory,
    spec: RolloutSpec,
) -> RolloutSpec {
    if spec.pace == RolloutPace::Direct || spec.environment.analysis.is_empty() {
        return spec;
    }
    let Some(stable) = spec.stable() else {
        return spec.with_stable_traffic(StableTraffic::default());
    };
    let number = stable.release.number;
    let set = ReplicaSetKey {
        place: spec.release().service_environment(&spec.environment.name),
        release: number,
    };
    let router = stable.release.environment(&spec.environment.name);
    let router = router.unwrap_or(&spec.environment).router;
    let all = match targets.read_totals(router).await {
        Ok(totals) => set_reading::histogram(&totals.totals_with_copies(&set.place, number)),
        Err(error) => {
            tracing::warn!(%error, rollout = %spec.id, "the traffic of stable could not be read");
            Histogram::default()
        }
    };
    let traffic = history.traffic(&set, &all);
    spec.with_stable_traffic(traffic.unwrap_or_else(|| StableTraffic {
        requests: all.total(),
        counted_for: Duration::ZERO,
        p99_micros: all.quantile_micros(0.99),
    }))
}

/// Looks at all that has traffic, for ever.
pub(crate) async fn record_history(
    history: Arc<BaselineHistory>,
    targets: Arc<TargetRegistry>,
    traffic: Arc<TrafficRegistry>,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let serving = traffic.serving();
        if serving.is_empty() {
            continue;
        }
        let totals = targets.read_all_totals().await;
        for set in serving {
            let reading = set_reading::read_set(&targets, totals.as_ref(), &set.place, set.release);
            history.record(set, reading);
        }
        history.forget(Instant::now());
    }
}
