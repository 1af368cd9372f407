//! One replica set at one instant: its traffic, load and availability.

use shipway_analysis::Histogram;
use shipway_core::{
    ids::ReleaseNumber,
    target::{ReplicaSetKey, ResourceUsage, ServiceEnvironment, SetAvailability},
};
use shipway_proxy::protocol;
use shipway_targets::{
    router::{TrafficReading, TrafficTotals},
    target_registry::TargetRegistry,
};

/// One side at one instant.
pub(crate) struct SetReading {
    pub(crate) traffic: Option<TrafficTotals>,
    pub(crate) usage: Vec<(u32, ResourceUsage)>,
    pub(crate) availability: SetAvailability,
    pub(crate) ready: usize,
    pub(crate) at: std::time::Instant,
}

impl SetReading {
    /// Resident bytes of the largest instance.
    pub(crate) fn memory(&self) -> Option<f64> {
        let bytes = self
            .usage
            .iter()
            .map(|(_, usage)| usage.memory_bytes as f64);
        bytes.reduce(f64::max)
    }

    /// Requests open now, on average for each instance.
    pub(crate) fn saturation(&self) -> Option<f64> {
        let open = self.traffic.as_ref()?.open as f64;
        (self.ready > 0).then(|| open / self.ready as f64)
    }
}

/// Reads a set of instances and its traffic.
pub(crate) fn read_set(
    targets: &TargetRegistry,
    totals: Option<&TrafficReading>,
    place: &ServiceEnvironment,
    release: ReleaseNumber,
) -> SetReading {
    let set = ReplicaSetKey {
        place: place.clone(),
        release,
    };
    let mut instances = targets.instances();
    instances.retain(|status| status.id.set == set);
    let target = targets.target_of_set(&set);
    if let Some(target) = target {
        target.measure(&mut instances);
    }
    SetReading {
        traffic: totals.map(|totals| totals.totals_with_copies(place, release)),
        usage: instances
            .iter()
            .filter_map(|status| Some((status.pid?, status.usage?)))
            .collect(),
        availability: target.map_or_else(SetAvailability::default, |it| it.availability(&set)),
        ready: instances.iter().filter(|status| status.is_ready()).count(),
        at: std::time::Instant::now(),
    }
}

pub(crate) fn histogram(traffic: &TrafficTotals) -> Histogram {
    to_evidence_buckets(&traffic.latency)
}

/// Buckets of the proxy for each bucket of evidence.
const PROXY_BUCKETS: usize = protocol::LatencyHistogram::BUCKETS / Histogram::BUCKETS;

// Both scales end their buckets at the same durations, so that a count is moved and never split.
const _: () = {
    let mut bucket = 0;
    while bucket < Histogram::BUCKETS {
        let last = (bucket + 1) * PROXY_BUCKETS - 1;
        let upper_micros = protocol::LatencyHistogram::upper_micros(last);
        assert!(upper_micros == Histogram::upper_micros(bucket));
        bucket += 1;
    }
};

pub(crate) fn to_evidence_buckets(latency: &protocol::LatencyHistogram) -> Histogram {
    let counts = latency.0.iter();
    counts
        .map(|(bucket, count)| (bucket / PROXY_BUCKETS as u16, *count))
        .collect()
}

/// The share of a core that the busiest process used since `before`.
pub(crate) fn busiest(before: &SetReading, now: &SetReading) -> Option<f64> {
    let elapsed = now.at.duration_since(before.at).as_secs_f64();
    let share = |(pid, usage): &(u32, ResourceUsage)| {
        let earlier = before.usage.iter().find(|(it, _)| it == pid)?;
        Some((usage.cpu_seconds - earlier.1.cpu_seconds).max(0.0) / elapsed)
    };
    (elapsed > 0.0)
        .then(|| now.usage.iter().filter_map(share).reduce(f64::max))
        .flatten()
}
