//! Both sides of a rollout, read over the same instants and reported to it.

use std::{collections::VecDeque, time::Duration};

use shipway_analysis::{
    Analysis, AnalysisRule, BaselineSample, BusinessEventCount, FailedUsers, Histogram,
    InstanceTime, LatencyQuantiles, Metric, MetricKind, Observation, ProviderAnswer, ReleaseSample,
    RequiredMetrics, Sample, SlowCount, evidence::mean, shortest_interval,
};
use shipway_core::{
    ids::ReleaseNumber,
    rollout::{Rollout, RolloutAggregate, RolloutInput},
    target::{ReplicaSetKey, RouterKind, ServiceEnvironment},
};
use shipway_engine::{Engine, Work};
use shipway_proxy::protocol;
use shipway_targets::router::TrafficTotals;

use super::provider_polling::ProviderPolling;
use crate::{
    capabilities::MeasurementSources,
    set_reading::{SetReading, busiest, histogram, read_set, to_evidence_buckets},
};

/// The longest time between two readings, so that a person who watches the page sees progress.
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// SetReading both sides costs about a millisecond.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// ReadingPair that are kept: those of five minutes at the usual pace, a few megabytes.
const READINGS_MAX: usize = 300;

/// The releases that are compared, in one exposure.
#[derive(Clone, Copy)]
pub(super) struct MeasuredSides {
    pub(super) exposure: u32,
    pub(super) candidate: ReleaseNumber,
    pub(super) stable: Option<ReleaseNumber>,
}

/// Reports observations of both releases until the effect is cancelled.
pub(super) async fn run(
    sources: MeasurementSources<'_>,
    rollouts: &Engine<RolloutAggregate>,
    work: &Work<RolloutAggregate>,
    rollout: &Rollout,
    sides: MeasuredSides,
) {
    let MeasuredSides {
        exposure,
        candidate,
        stable,
    } = sides;
    let mut measurement = RolloutMeasurement::start(sources, rollout, candidate, stable).await;
    let interval = measuring_interval(&rollout.spec.environment.analysis);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = work.cancelled.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let seen = measurement.observe().await;
        // The current state, not the one of the effect: recording depends on when the current hold ends.
        let Ok(Some(current)) = rollouts.state(&work.stream).await else {
            continue;
        };
        let evaluation = current.0.as_deref().and_then(|current| {
            sources
                .observations
                .live_evidence
                .record_observation(current, exposure, seen)
        });
        let Some(evaluation) = evaluation else {
            continue;
        };
        let evaluation = Box::new(evaluation);
        let input = RolloutInput::Evaluated {
            exposure,
            evaluation,
        };
        if work.report.send(input).await.is_err() {
            return;
        }
    }
}

/// Reads the metrics that the analysis of a rollout needs, of both releases over the same instants.
struct RolloutMeasurement<'a> {
    sources: MeasurementSources<'a>,
    router: RouterKind,
    place: ServiceEnvironment,
    candidate: ReleaseNumber,
    stable: Option<ReleaseNumber>,
    required: RequiredMetrics,
    /// Providers answer in their own tasks, so that a slow one does not delay the readings.
    polling: ProviderPolling,
    before: ExposureReadings,
    /// Whether the candidate has all traffic: stable has only values from before the switch.
    has_switched: bool,
    /// Traffic of stable before the switch.
    history: Option<BaselineSample>,
}

impl<'a> RolloutMeasurement<'a> {
    async fn start(
        sources: MeasurementSources<'a>,
        rollout: &Rollout,
        candidate: ReleaseNumber,
        stable: Option<ReleaseNumber>,
    ) -> Self {
        let environment = &rollout.spec.environment;
        let polling = ProviderPolling::start(sources, rollout, candidate, stable);
        let switched_from = stable.filter(|_| rollout.has_all_traffic());
        let history = match switched_from {
            Some(stable) => read_baseline_history(sources, rollout, stable).await,
            None => None,
        };
        Self {
            sources,
            router: environment.router,
            place: rollout
                .spec
                .release()
                .service_environment(&environment.name),
            candidate,
            stable,
            required: RequiredMetrics::for_analysis(&environment.analysis),
            polling,
            before: ExposureReadings::new(&environment.analysis),
            has_switched: switched_from.is_some(),
            history,
        }
    }

    /// Reads both releases now, and remembers the readings for the next observation.
    async fn observe(&mut self) -> Observation {
        let (sources, place) = (self.sources, &self.place);
        let totals = sources
            .workloads
            .targets
            .read_totals(self.router)
            .await
            .ok();
        let route = sources.workloads.traffic.route(place);
        let split = route.filter(|route| route.users().is_some());
        let split = split.map(|route| route.split);
        let weight = |release| Some(split.as_ref()?.weight_of(release).basis_points());
        let now = ReadingPair {
            canary: read_set(
                &sources.workloads.targets,
                totals.as_ref(),
                place,
                self.candidate,
            ),
            stable: (self.stable)
                .map(|stable| read_set(&sources.workloads.targets, totals.as_ref(), place, stable)),
        };
        let before = &self.before;
        let canary_metrics = self.metrics(self.candidate, self.polling.canary_answers());
        let mut seen = Observation {
            at: sources.providers.clock.now(),
            canary: side(
                self.candidate,
                &self.required,
                (before, |pair| Some(&pair.canary)),
                &now.canary,
                (weight(self.candidate), canary_metrics),
            ),
            stable: self.stable.zip(now.stable.as_ref()).map(|(release, now)| {
                let metrics = self.metrics(release, self.polling.stable_answers());
                side(
                    release,
                    &self.required,
                    (before, |pair| pair.stable.as_ref()),
                    now,
                    (weight(release), metrics),
                )
            }),
        };
        if self.has_switched {
            let values = self.polling.earlier_values();
            add_values_before_switch(&mut seen, self.history.as_ref(), values);
        }
        self.before.remember(now);
        seen
    }

    /// The business events and provider answers of a release.
    fn metrics(&self, release: ReleaseNumber, answers: Vec<ProviderAnswer>) -> ReleaseMetrics {
        let events = match self.required.events {
            true => self
                .sources
                .observations
                .business_events
                .counts(&self.place, release),
            false => Vec::new(),
        };
        ReleaseMetrics { events, answers }
    }
}

/// What a release that has just lost its traffic was.
async fn read_baseline_history(
    sources: MeasurementSources<'_>,
    rollout: &Rollout,
    stable: ReleaseNumber,
) -> Option<BaselineSample> {
    let environment = &rollout.spec.environment;
    let release = rollout.spec.release();
    let place = release.service_environment(&environment.name);
    let totals = sources
        .workloads
        .targets
        .read_totals(environment.router)
        .await
        .ok();
    let took = totals.map(|totals| histogram(&totals.totals_with_copies(&place, stable)));
    let set = ReplicaSetKey {
        place,
        release: stable,
    };
    sources
        .observations
        .baseline_history
        .baseline(&set, took, &environment.analysis)
}

/// Adds stable's values from before the switch: its own traffic, and answers of providers about that time.
fn add_values_before_switch(
    seen: &mut Observation,
    history: Option<&BaselineSample>,
    values: Vec<(Metric, mean::ValueSeries)>,
) {
    let side = seen.stable.as_mut().and_then(|side| side.sample.as_mut());
    if let Some(sample) = side {
        let mut before = history.cloned().unwrap_or_default();
        before.values.extend(values);
        sample.before = (before != BaselineSample::default()).then_some(before);
    }
}

/// As often as the shortest interval of a limit, within reason.
fn measuring_interval(analysis: &Analysis) -> Duration {
    let shortest = analysis
        .rules()
        .iter()
        .filter_map(AnalysisRule::interval)
        .min();
    shortest
        .unwrap_or(INTERVAL_MAX)
        .clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// Metrics of a release from other sources than the proxy.
struct ReleaseMetrics {
    events: Vec<BusinessEventCount>,
    answers: Vec<ProviderAnswer>,
}

/// Both sides at one instant.
struct ReadingPair {
    canary: SetReading,
    stable: Option<SetReading>,
}

/// Earlier readings of this exposure, the oldest first.
struct ExposureReadings {
    readings: VecDeque<ReadingPair>,
    /// The window of the latency quantiles: the longest interval of a latency limit, so that each of its evaluations covers all requests
    /// since the last one.
    window: Duration,
}

impl ExposureReadings {
    fn new(analysis: &Analysis) -> Self {
        let is_latency = |metric: &Metric| matches!(metric.kind(), MetricKind::Quantile(_));
        let rules = analysis.rules().iter();
        let intervals = rules
            .filter(|rule| rule.metrics().iter().any(is_latency))
            .filter_map(AnalysisRule::interval);
        Self {
            readings: VecDeque::new(),
            window: shortest_interval(intervals.max().unwrap_or(INTERVAL_MAX)),
        }
    }

    fn remember(&mut self, now: ReadingPair) {
        let window = self.window;
        let at = now.canary.at;
        self.readings.push_back(now);
        // The window begins at the first reading that is old enough; older ones are no longer needed.
        let is_old = |readings: &ReadingPair| at.duration_since(readings.canary.at) >= window;
        while self.readings.len() > READINGS_MAX || self.readings.get(1).is_some_and(is_old) {
            self.readings.pop_front();
        }
    }
}

fn side<'a>(
    release: ReleaseNumber,
    asked: &RequiredMetrics,
    (before, which): (
        &'a ExposureReadings,
        impl Fn(&'a ReadingPair) -> Option<&'a SetReading>,
    ),
    now: &SetReading,
    (weight, metrics): (Option<u32>, ReleaseMetrics),
) -> ReleaseSample {
    let begin = before.readings.front().and_then(&which);
    let last = before.readings.back().and_then(&which);
    let sample = now.traffic.as_ref().map(|traffic| Sample {
        requests: traffic.requests,
        errors: traffic.errors(),
        abandoned: traffic.abandoned,
        late: traffic.late,
        overdue: traffic.overdue,
        latency: begin
            .and_then(|begin| begin.traffic.as_ref())
            .map(|begin| latency(traffic, begin)),
        cpu: last.and_then(|last| busiest(last, now)),
        memory_bytes: now.memory(),
        restarts: Some(now.availability.restarts),
        instance_time: Some(InstanceTime {
            observed_ms: now.availability.observed_ms,
            unavailable_ms: now.availability.unavailable_ms,
        }),
        histogram: asked.histogram.then(|| histogram(traffic)),
        unfinished: if asked.histogram {
            to_evidence_buckets(&traffic.unfinished)
        } else {
            Histogram::default()
        },
        open_ages: if asked.histogram {
            to_evidence_buckets(&traffic.open_ages)
        } else {
            Histogram::default()
        },
        slow: asked.slow.iter().map(|over| slow(traffic, *over)).collect(),
        slow_unanswered: (asked.slow.iter())
            .map(|over| slow_unanswered(traffic, *over))
            .collect(),
        saturation: now.saturation(),
        events: metrics.events,
        answers: metrics.answers,
        users: weight.and_then(|weight| Some(users(traffic.users.as_ref()?, weight))),
        before: None,
    });
    ReleaseSample {
        release: release.to_string(),
        sample,
    }
}

/// Requests in buckets that lie beyond the limit as a whole: within 3% of it a request may count as quick.
fn slow(traffic: &TrafficTotals, over_micros: u64) -> SlowCount {
    let (_, count) = traffic.slower_than(Duration::from_micros(over_micros));
    SlowCount { over_micros, count }
}

/// Those of them that have no answer.
fn slow_unanswered(traffic: &TrafficTotals, over_micros: u64) -> SlowCount {
    let (known, _) = traffic.slower_than(Duration::from_micros(over_micros));
    let count = known.saturating_sub(traffic.latency.count());
    SlowCount { over_micros, count }
}

/// Users who failed, of a side that is given this weight.
fn users(counted: &protocol::FailedUserCounts, weight: u32) -> FailedUsers {
    let slow = counted.slow.iter();
    FailedUsers {
        weight,
        errors: counted.errors,
        slow: slow
            .map(|(&over_micros, &count)| SlowCount { over_micros, count })
            .collect(),
    }
}

fn latency(now: &TrafficTotals, before: &TrafficTotals) -> LatencyQuantiles {
    let millis = |quantile| {
        now.quantile_since(before, quantile)
            .map(|took| took.as_secs_f64() * 1_000.0)
    };
    LatencyQuantiles {
        p50_ms: millis(0.5),
        p90_ms: millis(0.9),
        p99_ms: millis(0.99),
    }
}
