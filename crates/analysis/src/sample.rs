//! What drivers measure and judges look at: both sides of a rollout at one moment.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Histogram, Metric, MetricName, counter_window::WindowCounts, evidence::mean::ValueSeries,
};

/// Both sides of a rollout as seen at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was taken.
    pub at: Timestamp,
    /// The release being judged.
    pub canary: ReleaseSample,
    /// The release it would replace; absent at a first deployment.
    pub stable: Option<ReleaseSample>,
}

/// One release within an observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseSample {
    /// How people call it: `#3`.
    pub release: String,
    /// The measurements; `None` when the source could not be read.
    pub sample: Option<Sample>,
}

/// Measurements of one release. Counters are monotonic; if a counter was restarted and is smaller than before,
/// all it says is counted as new, as Prometheus' `increase` does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Requests answered, from any fixed point in time on.
    pub requests: u64,
    /// Those of them that were answered with 5xx, or in the release's place because it did not answer.
    pub errors: u64,
    /// Requests that their client gave up without an answer, from any fixed point in time on; not in `requests`.
    #[serde(skip_serializing_if = "is_zero")]
    pub abandoned: u64,
    /// Requests without an error whose answer came later than the environment's `answer_within`, from any fixed point in time
    /// on; they are in `requests`.
    #[serde(skip_serializing_if = "is_zero")]
    pub late: u64,
    /// Requests that are open now and have waited for an answer for longer than that; not in `requests`. Such a request becomes
    /// one of `errors`, `late` or `abandoned` when it ends, so their sum only grows.
    #[serde(skip_serializing_if = "is_zero")]
    pub overdue: u64,
    /// Latency quantiles. Quantiles can't be subtracted as counts can, so the sampler reports those of recent requests: since the last measurement ([`crate::threshold::MeasurementState::measured_at`]) where it can tell, otherwise
    /// those of about the last `interval`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyQuantiles>,
    /// Share of one core that the busiest instance used lately: 1.0 is one core.
    #[serde(with = "any_float", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Resident bytes of the largest instance.
    #[serde(with = "any_float", skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<f64>,
    /// Unplanned restarts of all instances, from any fixed point in time on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u64>,
    /// How long the instances should have been ready, and were not; `None` where the target doesn't say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_time: Option<InstanceTime>,
    /// How many answers took how long, from any fixed point in time on; present if a rule compares quantiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// How old requests were that ended without an answer, from any fixed point in time on; those are not in `histogram`.
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub unfinished: Histogram,
    /// How old the requests are that are open now; there with `histogram`.
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub open_ages: Histogram,
    /// For each limit of a rule: how many requests took longer, from any fixed point in time on. A request without an
    /// answer counts when it is older than the limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slow: Vec<SlowCount>,
    /// Those of `slow` that have no answer: open now, or ended without one. They are not in `requests`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slow_unanswered: Vec<SlowCount>,
    /// Requests open now, on average for each instance.
    #[serde(with = "any_float", skip_serializing_if = "Option::is_none")]
    pub saturation: Option<f64>,
    /// How often business events happened, from any fixed point in time on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<BusinessEventCount>,
    /// What providers said last, one answer for each metric.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<ProviderAnswer>,
    /// Users with failed requests; present if users are identified, each user has one side, and a rule compares them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<FailedUsers>,
    /// Of a release that has lost its traffic: what it was while it had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BaselineSample>,
}

/// Time of all instances together, from any fixed point in time on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTime {
    /// Milliseconds in which an instance should have been ready, summed over the instances.
    pub observed_ms: u64,
    /// Milliseconds of these in which it was not.
    pub unavailable_ms: u64,
}

/// Users who failed, each counted once over the rollout, by the side on which they first did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUsers {
    /// Of 10,000 users, how many this side is given.
    pub weight: u32,
    /// Users with a 5xx, a late or a missing answer, from any fixed point in time on.
    pub errors: u64,
    /// For each limit of a rule: users who waited longer, from any fixed point in time on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slow: Vec<SlowCount>,
}

impl FailedUsers {
    /// How many met what a metric counts; `None` when that isn't counted by user.
    pub(crate) fn failed(&self, metric: Metric) -> Option<u64> {
        match metric {
            Metric::ErrorRate => Some(self.errors),
            Metric::SlowRate { over_micros } => SlowCount::count_in(&self.slow, over_micros),
            // Users with a 5xx and users without an answer share one counter.
            Metric::AnsweredErrorRate
            | Metric::Event(_)
            | Metric::LatencyP50
            | Metric::LatencyP90
            | Metric::LatencyP99
            | Metric::Requests
            | Metric::Saturation
            | Metric::Cpu
            | Metric::Memory
            | Metric::Restarts
            | Metric::Availability
            | Metric::Value(_) => None,
        }
    }
}

/// What a release was lately while it had its traffic, for comparisons once it has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaselineSample {
    /// Metrics that have a value at each moment, each with its values in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<(Metric, ValueSeries)>,
    /// How many answers took how long.
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub took: Histogram,
}

/// How many requests took longer than a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowCount {
    /// The limit, in microseconds.
    pub over_micros: u64,
    /// How many took longer.
    pub count: u64,
}

impl SlowCount {
    /// The count of this limit; `None` if it wasn't counted.
    #[must_use]
    pub fn count_in(counted: &[Self], over_micros: u64) -> Option<u64> {
        let found = counted.iter().find(|it| it.over_micros == over_micros);
        found.map(|it| it.count)
    }
}

/// How often a business event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusinessEventCount {
    /// What.
    pub event: MetricName,
    /// How often.
    pub count: u64,
}

/// The latest answer of a metric provider. It is repeated in observations until there is a newer one, and judged once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderAnswer {
    /// The metric of the query.
    pub metric: MetricName,
    /// The evaluation time of the query; the same for both sides.
    pub at: Timestamp,
    /// The value or the reason why there is none.
    pub said: ProviderReply,
}

/// What a provider said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderReply {
    /// A finite number.
    Value(f64),
    /// Nothing that could be used, and why, in words.
    Unknown(String),
}

impl ProviderAnswer {
    /// A number; one that isn't finite is no answer.
    #[must_use]
    pub fn value(metric: MetricName, at: Timestamp, value: f64) -> Self {
        let said = match value {
            finite if finite.is_finite() => ProviderReply::Value(finite),
            nan if nan.is_nan() => ProviderReply::Unknown("the provider returned NaN".to_owned()),
            _ => ProviderReply::Unknown("the provider returned an infinite number".to_owned()),
        };
        Self { metric, at, said }
    }

    /// No number.
    #[must_use]
    pub const fn unknown(metric: MetricName, at: Timestamp, why: String) -> Self {
        Self {
            metric,
            at,
            said: ProviderReply::Unknown(why),
        }
    }
}

impl Sample {
    /// The counts that a metric of this release is made of; `None` when this one isn't counted.
    pub(crate) fn counts(&self, metric: Metric) -> Option<WindowCounts> {
        if let Metric::Availability = metric {
            let time = self.instance_time?;
            return Some(WindowCounts {
                requests: time.observed_ms,
                events: time.unavailable_ms,
                ..WindowCounts::default()
            });
        }
        let (requests, restarts) = match metric {
            // Counted by the time of the instances, where that is known: so releases of different sizes compare.
            Metric::Restarts => (
                self.instance_time.map_or(0, |time| time.observed_ms),
                self.restarts?,
            ),
            _ => (self.requests_of_metric(metric), 0),
        };
        let is_of_errors = metric == Metric::ErrorRate;
        let unanswered = self.late + self.overdue;
        Some(WindowCounts {
            requests,
            events: self.events_of_metric(metric)?,
            restarts,
            abandoned: if is_of_errors { self.abandoned } else { 0 },
            unanswered: if is_of_errors { unanswered } else { 0 },
        })
    }

    /// The requests that the events of a metric are a share of.
    fn requests_of_metric(&self, metric: Metric) -> u64 {
        match metric {
            Metric::SlowRate { over_micros } => {
                let unanswered = SlowCount::count_in(&self.slow_unanswered, over_micros);
                self.requests + unanswered.unwrap_or(0)
            }
            Metric::AnsweredErrorRate | Metric::Requests => self.requests,
            Metric::ErrorRate
            | Metric::Event(_)
            | Metric::LatencyP50
            | Metric::LatencyP90
            | Metric::LatencyP99
            | Metric::Saturation
            | Metric::Cpu
            | Metric::Memory
            | Metric::Restarts
            | Metric::Availability
            | Metric::Value(_) => self.classified_requests(),
        }
    }

    /// The events that a metric counts; `None` when they aren't counted.
    fn events_of_metric(&self, metric: Metric) -> Option<u64> {
        Some(match metric {
            Metric::SlowRate { over_micros } => SlowCount::count_in(&self.slow, over_micros)?,
            Metric::ErrorRate => self.failed_requests(),
            // An event that never happened need not be listed.
            Metric::Event(name) => {
                let happened = self.events.iter().find(|happened| happened.event == name);
                happened.map_or(0, |happened| happened.count)
            }
            Metric::AnsweredErrorRate => self.errors,
            Metric::LatencyP50
            | Metric::LatencyP90
            | Metric::LatencyP99
            | Metric::Requests
            | Metric::Saturation
            | Metric::Cpu
            | Metric::Memory
            | Metric::Restarts
            | Metric::Availability
            | Metric::Value(_) => 0,
        })
    }

    /// Requests of which anything is known: those answered, and those known to be too slow for some limit without an answer.
    #[must_use]
    pub fn judged_requests(&self) -> u64 {
        let slow = self.slow_unanswered.iter().map(|slow| slow.count).max();
        let slow = self.requests + slow.unwrap_or(0);
        slow.max(self.classified_requests())
    }

    /// Requests that were answered with an error, not in time, or not at all.
    #[must_use]
    pub const fn failed_requests(&self) -> u64 {
        self.errors + self.abandoned + self.late + self.overdue
    }

    /// Requests of which it is known whether they were answered in time: those answered, abandoned or overdue.
    #[must_use]
    pub const fn classified_requests(&self) -> u64 {
        self.requests + self.abandoned + self.overdue
    }

    /// What a metric that has a value at each moment has now; the error says why it has none.
    pub(crate) fn value(&self, metric: Metric) -> Result<f64, &str> {
        match metric {
            Metric::Cpu => self.cpu.ok_or("the target reports no CPU use"),
            Metric::Memory => self.memory_bytes.ok_or("the target reports no memory"),
            Metric::Saturation => self.saturation.ok_or("no instance is ready"),
            Metric::Value(name) => match self.answer(name).map(|answer| &answer.said) {
                Some(ProviderReply::Value(value)) => Ok(*value),
                Some(ProviderReply::Unknown(why)) => Err(why),
                None => Err("the provider hasn't answered yet"),
            },
            Metric::ErrorRate
            | Metric::AnsweredErrorRate
            | Metric::SlowRate { .. }
            | Metric::Event(_)
            | Metric::LatencyP50
            | Metric::LatencyP90
            | Metric::LatencyP99
            | Metric::Requests
            | Metric::Restarts
            | Metric::Availability => Err("it has no value of its own"),
        }
    }

    /// The values it had while it had traffic.
    pub(crate) fn before(&self, metric: Metric) -> Option<&ValueSeries> {
        let values = &self.before.as_ref()?.values;
        values
            .iter()
            .find_map(|(of, values)| (*of == metric).then_some(values))
    }

    /// What a provider said last.
    pub(crate) fn answer(&self, metric: MetricName) -> Option<&ProviderAnswer> {
        self.answers.iter().find(|answer| answer.metric == metric)
    }
}

/// Quantiles of the time an answer took, in milliseconds. `None` or NaN where there was nothing to take them of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyQuantiles {
    /// Half of the answers were at least this fast.
    #[serde(with = "any_float")]
    pub p50_ms: Option<f64>,
    /// Nine tenths of the answers were at least this fast.
    #[serde(with = "any_float")]
    pub p90_ms: Option<f64>,
    /// 99 of 100 answers were at least this fast.
    #[serde(with = "any_float")]
    pub p99_ms: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Serializes NaN and infinities as text, which JSON numbers can't represent. As `null`, a NaN would be read back as "no value" and
/// the replayed judgement would differ.
mod any_float {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    enum NonFiniteNumber {
        NaN,
        #[serde(rename = "+Inf")]
        Infinite,
        #[serde(rename = "-Inf")]
        MinusInfinite,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum LoggedNumber {
        Finite(f64),
        NonFinite(NonFiniteNumber),
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let written = value.map(|value| match value {
            v if v.is_nan() => LoggedNumber::NonFinite(NonFiniteNumber::NaN),
            f64::INFINITY => LoggedNumber::NonFinite(NonFiniteNumber::Infinite),
            f64::NEG_INFINITY => LoggedNumber::NonFinite(NonFiniteNumber::MinusInfinite),
            finite => LoggedNumber::Finite(finite),
        });
        written.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Ok(
            Option::<LoggedNumber>::deserialize(deserializer)?.map(|written| match written {
                LoggedNumber::Finite(value) => value,
                LoggedNumber::NonFinite(NonFiniteNumber::NaN) => f64::NAN,
                LoggedNumber::NonFinite(NonFiniteNumber::Infinite) => f64::INFINITY,
                LoggedNumber::NonFinite(NonFiniteNumber::MinusInfinite) => f64::NEG_INFINITY,
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_from_json_as_they_were_even_the_odd_ones() {
        for odd in [
            None,
            Some(1.5),
            Some(f64::NAN),
            Some(f64::INFINITY),
            Some(f64::NEG_INFINITY),
        ] {
            let latency = Some(LatencyQuantiles {
                p99_ms: odd,
                ..LatencyQuantiles::default()
            });
            let sample = Sample {
                requests: 7,
                latency,
                cpu: odd,
                memory_bytes: Some(4096.0),
                ..Sample::default()
            };
            let json = serde_json::to_string(&sample).unwrap();
            let back: Sample = serde_json::from_str(&json).unwrap();
            // NaN is not equal to itself; what it prints as is.
            assert_eq!(format!("{back:?}"), format!("{sample:?}"), "{json}");
        }
        assert_eq!(
            serde_json::from_str::<Sample>("{}").unwrap(),
            Sample::default(),
            "what is absent is unknown"
        );
    }
}
