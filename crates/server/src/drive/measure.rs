//! Both sides of a rollout, read over the same instants and reported to it.

use std::{sync::Arc, time::Duration};

use shipway_analysis::{Latency, Observation, Sample, Side};
use shipway_core::{
    ids::ReleaseNumber,
    rollout::{Input, Rollout, Rollouts},
    target::{Place, Usage},
};
use shipway_drivers::data_plane::meter::Totals;
use shipway_engine::Work;

use crate::app::App;

/// From one reading to the next; limits with a longer interval look at those they need.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reports a reading of both sides each second until the effect is cancelled.
pub(super) async fn run(
    app: &Arc<App>,
    work: &Work<Rollouts>,
    rollout: &Rollout,
    exposure: u32,
    candidate: ReleaseNumber,
    stable: Option<ReleaseNumber>,
) {
    let place = rollout.spec.release.place(&rollout.spec.environment.name);
    let mut before: Option<(Reading, Option<Reading>)> = None;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = work.cancelled.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let totals = app.meter.read().await.ok();
        let now = (
            read(app, totals.as_ref(), &place, candidate),
            stable.map(|stable| read(app, totals.as_ref(), &place, stable)),
        );
        let (canary_before, stable_before) =
            before.as_ref().map_or((None, None), |(canary, stable)| {
                (Some(canary), stable.as_ref())
            });
        let seen = Observation {
            at: app.now(),
            canary: side(candidate, canary_before, &now.0),
            stable: stable
                .zip(now.1.as_ref())
                .map(|(release, now)| side(release, stable_before, now)),
        };
        before = Some(now);
        if work
            .report
            .send(Input::Measured {
                exposure,
                seen: Box::new(seen),
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

/// One side at one instant.
struct Reading {
    traffic: Option<Totals>,
    usage: Vec<(u32, Usage)>,
    restarts: u64,
    at: std::time::Instant,
}

fn read(
    app: &App,
    totals: Option<&shipway_drivers::data_plane::meter::Reading>,
    place: &Place,
    release: ReleaseNumber,
) -> Reading {
    let mut instances: Vec<_> = app
        .target
        .instances()
        .into_iter()
        .filter(|status| status.id.set.place == *place && status.id.set.release == release)
        .collect();
    app.target.measure(&mut instances);
    Reading {
        traffic: totals.map(|totals| totals.of(place, release)),
        usage: instances
            .iter()
            .filter_map(|status| Some((status.pid?, status.usage?)))
            .collect(),
        restarts: instances
            .iter()
            .map(|status| u64::from(status.restarts))
            .sum(),
        at: std::time::Instant::now(),
    }
}

fn side(release: ReleaseNumber, before: Option<&Reading>, now: &Reading) -> Side {
    let sample = now.traffic.as_ref().map(|traffic| Sample {
        requests: traffic.requests,
        errors: traffic.errors,
        latency: before
            .and_then(|before| before.traffic.as_ref())
            .map(|before| latency(traffic, before)),
        cpu: before.and_then(|before| busiest(before, now)),
        memory_bytes: now
            .usage
            .iter()
            .map(|(_, usage)| usage.memory_bytes as f64)
            .reduce(f64::max),
        restarts: Some(now.restarts),
    });
    Side {
        release: release.to_string(),
        sample,
    }
}

fn latency(now: &Totals, before: &Totals) -> Latency {
    let since = now.latency.subtract(&before.latency);
    let millis = |quantile| {
        since
            .quantile(quantile)
            .map(|took| took.as_secs_f64() * 1_000.0)
    };
    Latency {
        p50_ms: millis(0.5),
        p90_ms: millis(0.9),
        p99_ms: millis(0.99),
    }
}

/// The share of a core that the busiest process used since `before`.
fn busiest(before: &Reading, now: &Reading) -> Option<f64> {
    let elapsed = now.at.duration_since(before.at).as_secs_f64();
    let share = |(pid, usage): &(u32, Usage)| {
        let earlier = before.usage.iter().find(|(it, _)| it == pid)?;
        Some((usage.cpu_seconds - earlier.1.cpu_seconds).max(0.0) / elapsed)
    };
    (elapsed > 0.0)
        .then(|| now.usage.iter().filter_map(share).reduce(f64::max))
        .flatten()
}
