//! The judgements of a rollout over time, read from its log, for plots and the API.
//!
//! A pure read model: it stores nothing and causes nothing. The log has each measurement with its judgement, so the plot of last
//! year's rollout shows the judgements of that time.

use jiff::Timestamp;
use shipway_analysis::{
    AnalysisRule, Metric, ProviderReply, Sample, SlowCount,
    evidence::{Alpha, proportion},
    plot::{Estimate, MetricSeries, POINTS_MAX, RolloutDecision, SeriesPoint, thin_points},
};

use super::{
    event::{PlanDirection, RolloutEvent, RolloutSpec},
    outcome::RolloutOutcome,
    plan::{PlanAction, RolloutPlan},
    strategy::ObservedState,
};
use crate::aggregate::Event;

/// One minus the confidence of the intervals, which holds at all times simultaneously.
const ALPHA: f64 = 0.05;
/// At how many requests they are tightest: some seconds of a service that is worth a canary.
const TIGHTEST_AT: f64 = 1_000.0;

/// The series of a rollout, one for each metric that is judged, in the order of its rules. Empty when nothing was measured.
#[must_use]
pub fn series<'e>(events: impl IntoIterator<Item = &'e Event<RolloutEvent>>) -> Vec<MetricSeries> {
    let mut story = SeriesBuilder::default();
    for event in events {
        story.add_event(event);
    }
    story.series()
}

/// What matters of a log for its plots.
#[derive(Default)]
struct SeriesBuilder {
    spec: Option<RolloutSpec>,
    /// All that is judged, in the order of the rules, each once.
    metrics: Vec<Metric>,
    plan: RolloutPlan,
    is_back: bool,
    observed: ObservedState,
    readings: Vec<SeriesReading>,
    decision: Option<RolloutDecision>,
}

/// Both sides at one moment, as counted since the first reading.
#[derive(Clone)]
struct SeriesReading {
    at: Timestamp,
    weight: f64,
    canary: Option<SideCounts>,
    stable: Option<SideCounts>,
}

#[derive(Clone)]
struct SideCounts {
    sample: Sample,
    /// Since the first reading.
    requests: u64,
    /// How often each of the counted metrics' events happened, in the story's order.
    happened: Vec<u64>,
    /// Since the reading before.
    per_second: Option<f64>,
}

impl SeriesBuilder {
    fn add_event(&mut self, event: &Event<RolloutEvent>) {
        match &event.body {
            RolloutEvent::Opened { spec } => {
                self.observed = spec.observed.clone();
                for metric in spec
                    .environment
                    .analysis
                    .rules()
                    .iter()
                    .flat_map(AnalysisRule::metrics)
                {
                    if !self.metrics.contains(&metric) {
                        self.metrics.push(metric);
                    }
                }
                self.spec = Some(RolloutSpec::clone(spec));
            }
            RolloutEvent::Planned {
                direction,
                plan,
                why,
                cause: _,
            } => {
                self.plan = plan.clone();
                self.is_back = *direction == PlanDirection::Back;
                if self.is_back {
                    self.decide_against(event.at, why);
                }
            }
            RolloutEvent::ActionDone { index, .. } => {
                let Some(action) = self.plan.actions.get(*index) else {
                    return;
                };
                self.observed.done(action);
                if let PlanAction::Promote { variant } = action
                    && !self.is_back
                {
                    self.decide_for(event.at, &format!("{variant} is promoted"));
                }
            }
            RolloutEvent::Measured { seen, .. } => self.measured(seen),
            RolloutEvent::Ended {
                outcome,
                why,
                cause: _,
            } => match outcome {
                RolloutOutcome::Promoted => self.decide_for(event.at, why),
                RolloutOutcome::RolledBack
                | RolloutOutcome::Aborted
                | RolloutOutcome::Rejected
                | RolloutOutcome::Superseded
                | RolloutOutcome::Failed => self.decide_against(event.at, why),
            },
            _ => {}
        }
    }

    /// The plot marks the first decision.
    fn decide_for(&mut self, at: Timestamp, why: &str) {
        self.decision.get_or_insert_with(|| RolloutDecision {
            at,
            is_bad: false,
            why: why.to_owned(),
        });
    }

    /// A rollback replaces an earlier promotion: the release did not stay.
    fn decide_against(&mut self, at: Timestamp, why: &str) {
        if self.decision.as_ref().is_none_or(|known| !known.is_bad) {
            self.decision = Some(RolloutDecision {
                at,
                is_bad: true,
                why: why.to_owned(),
            });
        }
    }

    fn measured(&mut self, seen: &shipway_analysis::Observation) {
        let Some(spec) = &self.spec else { return };
        let weight = self
            .observed
            .split
            .weight_of(spec.subject.candidate())
            .percent()
            / 100.0;
        let before = self.readings.last();
        let seconds = before.map(|before| seen.at.duration_since(before.at).as_secs_f64());
        let counted = |sample: Option<&Sample>, before: Option<&SideCounts>| {
            Some(SideCounts::since(before, sample?, &self.metrics, seconds))
        };
        let last = |side: fn(&SeriesReading) -> Option<&SideCounts>| {
            self.readings.iter().rev().find_map(side)
        };
        let canary = counted(seen.canary.sample.as_ref(), last(|it| it.canary.as_ref()));
        let of_stable = seen.stable.as_ref().and_then(|side| side.sample.as_ref());
        let stable = counted(of_stable, last(|it| it.stable.as_ref()));
        self.readings.push(SeriesReading {
            at: seen.at,
            weight,
            canary,
            stable,
        });
    }

    fn series(self) -> Vec<MetricSeries> {
        let Some(spec) = &self.spec else {
            return Vec::new();
        };
        if self.readings.is_empty() {
            return Vec::new();
        }
        let readings = thin_points(&self.readings, POINTS_MAX);
        let stable = spec.subject.stable();
        let rules = spec.environment.analysis.rules();
        let limit = |metric| rules.iter().find_map(|rule| limit_of(rule, metric));
        let drawn = self
            .metrics
            .iter()
            .enumerate()
            .map(|(place, &metric)| MetricSeries {
                metric: metric.to_string(),
                unit: metric.into(),
                canary: spec.subject.candidate().to_string(),
                stable: stable.map(|number| number.to_string()),
                limit: limit(metric),
                points: readings
                    .iter()
                    .map(|reading| point(metric, place, reading))
                    .collect(),
                decision: self.decision.clone(),
            });
        drawn.collect()
    }
}

/// The limit that this rule sets to this metric.
fn limit_of(rule: &AnalysisRule, metric: Metric) -> Option<f64> {
    match rule {
        AnalysisRule::Threshold(threshold) if threshold.metric == metric => {
            let (min, max) = threshold.bound.ends();
            max.or(min)
        }
        AnalysisRule::Threshold(_)
        | AnalysisRule::Sequential { .. }
        | AnalysisRule::MannWhitney { .. }
        | AnalysisRule::Expression { .. } => None,
    }
}

impl SideCounts {
    /// Counts since the first reading of this side. Counters that are smaller than before were restarted: all they say is new.
    fn since(
        before: Option<&Self>,
        sample: &Sample,
        metrics: &[Metric],
        seconds: Option<f64>,
    ) -> Self {
        let Some(before) = before else {
            return Self {
                sample: sample.clone(),
                requests: 0,
                happened: vec![0; metrics.len()],
                per_second: None,
            };
        };
        let restarted = sample.requests < before.sample.requests;
        let more = |now: u64, then: u64| {
            if restarted {
                now
            } else {
                now.saturating_sub(then)
            }
        };
        let known = (
            sample.classified_requests(),
            before.sample.classified_requests(),
        );
        let requests = more(known.0, known.1);
        let happened = metrics.iter().zip(&before.happened).map(|(metric, sum)| {
            sum + more(events(*metric, sample), events(*metric, &before.sample))
        });
        Self {
            sample: sample.clone(),
            requests: before.requests + requests,
            happened: happened.collect(),
            per_second: seconds
                .filter(|it| *it > 0.0)
                .map(|seconds| requests as f64 / seconds),
        }
    }
}

/// How often what this metric counts has happened, as far as it counts anything.
fn events(metric: Metric, sample: &Sample) -> u64 {
    match metric {
        Metric::ErrorRate => sample.failed_requests(),
        Metric::AnsweredErrorRate => sample.errors,
        Metric::SlowRate { over_micros } => {
            SlowCount::count_in(&sample.slow, over_micros).unwrap_or_default()
        }
        Metric::Event(name) => {
            let happened = sample.events.iter().find(|it| it.event == name);
            happened.map_or(0, |it| it.count)
        }
        _ => 0,
    }
}

fn point(metric: Metric, place: usize, reading: &SeriesReading) -> SeriesPoint {
    let side = |counted: Option<&SideCounts>| {
        let counted = counted?;
        estimate(
            metric,
            counted,
            counted.happened.get(place).copied().unwrap_or(0),
        )
    };
    SeriesPoint {
        at: reading.at,
        weight: reading.weight,
        canary: side(reading.canary.as_ref()),
        stable: side(reading.stable.as_ref()),
    }
}

fn estimate(metric: Metric, counted: &SideCounts, happened: u64) -> Option<Estimate> {
    let sample = &counted.sample;
    let value = match metric {
        // Open requests may be known to be slow that aren't known to be failures yet.
        Metric::ErrorRate | Metric::AnsweredErrorRate | Metric::SlowRate { .. } => {
            return rate(happened.min(counted.requests), counted.requests);
        }
        Metric::Event(_) => return rate(happened, counted.requests),
        Metric::LatencyP50 => sample.latency?.p50_ms,
        Metric::LatencyP90 => sample.latency?.p90_ms,
        Metric::LatencyP99 => sample.latency?.p99_ms,
        Metric::Requests => counted.per_second,
        Metric::Saturation => sample.saturation,
        Metric::Cpu => sample.cpu,
        Metric::Memory => sample.memory_bytes,
        Metric::Restarts => sample.restarts.map(|it| it as f64),
        Metric::Availability => sample.instance_time.map(|time| {
            let observed = time.observed_ms.max(1) as f64;
            1.0 - time.unavailable_ms as f64 / observed
        }),
        Metric::Value(name) => {
            let answer = sample.answers.iter().find(|answer| answer.metric == name)?;
            match answer.said {
                ProviderReply::Value(value) => Some(value),
                ProviderReply::Unknown(_) => None,
            }
        }
    };
    let value = value.filter(|value| value.is_finite())?;
    Some(Estimate {
        value,
        low: value,
        high: value,
    })
}

/// The share of all requests since the first reading, with its anytime-valid confidence interval. Events that
/// aren't requests, such as orders, may be more than those; then there is a rate and no range.
fn rate(happened: u64, requests: u64) -> Option<Estimate> {
    if requests == 0 {
        return None;
    }
    let value = happened as f64 / requests as f64;
    if happened > requests {
        return Some(Estimate {
            value,
            low: value,
            high: value,
        });
    }
    let alpha = Alpha::new(ALPHA).expect("a constant that is a probability");
    let range = proportion::interval(happened, requests, alpha, TIGHTEST_AT);
    Some(Estimate {
        value,
        low: range.low,
        high: range.high,
    })
}
