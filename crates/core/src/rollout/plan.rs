//! Plans: the ordered list of small actions a rollout executes. Data, shown before it runs and stored with the rollout.
//!
//! Strategies compile to actions, targets and routers carry them out; neither knows the other.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{config::Approvals, exposure::Weight, ids::ReleaseNumber};

/// One small step of a plan. Each can be done again without harm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Action {
    /// Bring instances up to `count`, none routed.
    Start {
        /// Of which release.
        release: ReleaseNumber,
        /// How many there shall be.
        count: u32,
    },
    /// Wait until `count` instances answer readiness.
    Await {
        /// Of which release.
        release: ReleaseNumber,
        /// How many must be ready.
        count: u32,
    },
    /// Run the environment's smoke tests against exactly these instances.
    Smoke {
        /// Of which release.
        release: ReleaseNumber,
    },
    /// Give each release its share of traffic.
    Shift {
        /// The shares.
        split: Split,
    },
    /// Keep the exposure until the time is over and the evidence is enough.
    Hold {
        /// How long at least.
        #[serde(rename = "for")]
        duration: Duration,
        /// Why: shown while it waits.
        why: HoldReason,
    },
    /// Wait for people.
    Ask {
        /// Who may say yes, and how many must.
        gate: Approvals,
    },
    /// No new requests for the instances beyond `keep`; wait for the open ones to finish.
    Drain {
        /// Of which release.
        release: ReleaseNumber,
        /// How many instances go on serving.
        keep: u32,
        /// How long open requests may take to finish.
        grace: Duration,
    },
    /// Terminate the instances beyond `keep`: SIGTERM, grace, SIGKILL.
    Stop {
        /// Of which release.
        release: ReleaseNumber,
        /// How many instances stay.
        keep: u32,
    },
    /// This release is now the stable one.
    Promote {
        /// Which.
        release: ReleaseNumber,
    },
}

/// Why an exposure is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// To gather evidence before the next step.
    Evidence,
    /// The previous set is kept warm, so that going back is one shift.
    KeepWarm,
}

/// Which share of the traffic each release gets, the newcomer first: raising its weight then only ever adds users to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split(pub Vec<(ReleaseNumber, Weight)>);

impl Split {
    /// Everything to one release.
    #[must_use]
    pub fn all_to(release: ReleaseNumber) -> Self {
        Self(vec![(release, Weight::FULL)])
    }

    /// `weight` to `newcomer`, the rest to `stable`.
    #[must_use]
    pub fn between(newcomer: ReleaseNumber, weight: Weight, stable: ReleaseNumber) -> Self {
        if weight == Weight::FULL {
            Self::all_to(newcomer)
        } else {
            Self(vec![(newcomer, weight), (stable, weight.rest())])
        }
    }

    /// The share of `release`.
    #[must_use]
    pub fn weight_of(&self, release: ReleaseNumber) -> Weight {
        self.0
            .iter()
            .find(|(it, _)| *it == release)
            .map_or(Weight::ZERO, |(_, weight)| *weight)
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no traffic");
        }
        for (index, (release, weight)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{weight} to {release}")?;
        }
        Ok(())
    }
}

/// An ordered list of actions, and what a person should know before it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What is done, in order.
    pub actions: Vec<Action>,
    /// Sentences such as "there will be downtime between stop and start".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { release, count } => write!(
                f,
                "start {count} {} of {release}, without traffic",
                instances(*count)
            ),
            Self::Await { release, count } => write!(
                f,
                "wait until {count} {} of {release} {} ready",
                instances(*count),
                if *count == 1 { "is" } else { "are" }
            ),
            Self::Smoke { release } => write!(f, "smoke tests against {release}"),
            Self::Shift { split } => write!(f, "shift traffic: {split}"),
            Self::Hold {
                duration,
                why: HoldReason::Evidence,
            } => write!(f, "hold for {} and judge", Span(*duration)),
            Self::Hold {
                duration,
                why: HoldReason::KeepWarm,
            } => write!(
                f,
                "keep the previous instances warm for {}",
                Span(*duration)
            ),
            Self::Ask { gate } => write!(f, "wait for {gate}"),
            Self::Drain {
                release,
                keep: 0,
                grace,
            } => write!(f, "drain {release}, up to {}", Span(*grace)),
            Self::Drain {
                release,
                keep,
                grace,
            } => write!(f, "drain {release} down to {keep}, up to {}", Span(*grace)),
            Self::Stop { release, keep: 0 } => write!(f, "stop {release}"),
            Self::Stop { release, keep } => {
                write!(f, "stop {release} down to {keep} {}", instances(*keep))
            }
            Self::Promote { release } => write!(f, "{release} becomes the stable release"),
        }
    }
}

const fn instances(count: u32) -> &'static str {
    if count == 1 { "instance" } else { "instances" }
}

/// A duration as people write it in the file: `90s` is `1m 30s`.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis < 1_000 {
            return write!(f, "{millis} ms");
        }
        if millis < 10_000 && !millis.is_multiple_of(1_000) {
            return write!(f, "{:.1} s", self.0.as_secs_f64());
        }
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(n, _)| *n > 0)
            .take(2)
            .map(|(n, unit)| format!("{n} {unit}"))
            .collect();
        f.write_str(&shown.join(" "))
    }
}
