//! The demo's summary.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use shipway_core::{ids::ReleaseNumber, rollout::RolloutView};

use super::traffic::Counted;
use crate::print::enum_text;

/// One version and what became of it.
pub(super) struct Shipped {
    version: String,
    release: ReleaseNumber,
    status: String,
    why: String,
    took: Duration,
    /// From the verdict to all traffic on stable.
    rollback_took: Option<Duration>,
    /// From the first user to the verdict.
    exposed: Option<Duration>,
    traffic: Option<Counted>,
}

impl Shipped {
    pub(super) fn read(
        version: &str,
        rollout: &RolloutView,
        took: Duration,
        traffic: Option<(Counted, Counted)>,
    ) -> Self {
        let turn = rollout.rollback_start.as_ref();
        let turned_at = turn.map(|turn| turn.at);
        let between = |from: Option<Timestamp>, to: Option<Timestamp>| {
            Duration::try_from(to?.duration_since(from?)).ok()
        };
        Self {
            version: version.to_owned(),
            release: rollout.release,
            status: enum_text(&rollout.status),
            why: turn.map(|turn| turn.why.clone()).unwrap_or_default(),
            took,
            rollback_took: between(turned_at, rollout.rolled_back_at),
            exposed: between(rollout.served_at, turned_at),
            traffic: traffic.map(|(before, after)| after.since(before)),
        }
    }
}

/// How a demo differed from what it promises.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenPromise {
    #[error("{version} is {status}, but the demo expects {wanted}")]
    UnexpectedStatus {
        version: &'static str,
        status: String,
        wanted: &'static str,
    },
    #[error("{0} requests failed because of Shipway itself")]
    FailedRequests(u64),
}

/// The whole demo.
pub(super) struct Summary {
    pub(super) shipped: Vec<Shipped>,
    pub(super) counted: Counted,
    pub(super) page: String,
}

impl Summary {
    /// Whether it went as the demo promises.
    pub(super) fn verdict(&self) -> Result<(), BrokenPromise> {
        let status = |version: &str| {
            self.shipped
                .iter()
                .find(|it| it.version == version)
                .map_or("not shipped", |it| it.status.as_str())
        };
        for (version, wanted) in [
            ("1.0", "promoted"),
            ("1.1", "promoted"),
            ("1.2", "rolled back"),
        ] {
            if status(version) != wanted {
                return Err(BrokenPromise::UnexpectedStatus {
                    version,
                    status: status(version).to_owned(),
                    wanted,
                });
            }
        }
        match self.counted.failed_by_shipway {
            0 => Ok(()),
            failed => Err(BrokenPromise::FailedRequests(failed)),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "What happened")?;
        for it in &self.shipped {
            writeln!(
                f,
                "  {} ({})  {:<12} {:>5.1} s from the push to the end of its production rollout",
                it.version,
                it.release,
                it.status,
                it.took.as_secs_f64()
            )?;
            if !it.why.is_empty() {
                writeln!(f, "            why: {}", it.why)?;
            }
            if let Some(exposed) = it.exposed {
                writeln!(
                    f,
                    "            detected as bad {:.1} s after its first user",
                    exposed.as_secs_f64()
                )?;
            }
            if let Some(back) = it.rollback_took {
                writeln!(
                    f,
                    "            rolled back in {} ms: all traffic was on the previous release",
                    back.as_millis()
                )?;
            }
            if let Some(traffic) = it.traffic {
                writeln!(
                    f,
                    "            {} requests were served during this time, {} of them failed",
                    traffic.sent(),
                    traffic.failed_by_service + traffic.failed_by_shipway
                )?;
            }
        }
        let Counted {
            good,
            failed_by_service,
            failed_by_shipway,
        } = self.counted;
        writeln!(
            f,
            "\nRequests     {} sent: {good} succeeded, {failed_by_service} answered with 500 by release 1.2",
            self.counted.sent()
        )?;
        writeln!(
            f,
            "             {failed_by_shipway} failed because of Shipway itself"
        )?;
        write!(f, "The page     {}", self.page)
    }
}
