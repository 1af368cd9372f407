//! Plans: the ordered list of small actions a rollout executes. Data, shown before it runs and stored with the rollout.
//!
//! Strategies compile to actions, targets and routers carry them out; neither knows the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{canary_match::TrafficMatch, variant::RolloutVariant};
use crate::{
    address::PublicAddress,
    duration_text::DurationText,
    gate::GateSpec,
    ids::{Digest, ReleaseNumber, ServiceName},
    weight::Weight,
};

/// One small step of a plan. Each can be done again without harm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum PlanAction {
    /// Make the environment the owner of these addresses, and listen on their port. Requests reach it there once the release is
    /// promoted, at a first deployment with its first traffic.
    ClaimAddresses {
        /// The addresses that the release's configuration asks for.
        addresses: BTreeSet<PublicAddress>,
    },
    /// Bring instances up to `count`, none routed. With 0 the release is only prepared: its artifact fetched, its secrets checked.
    Start {
        release: ReleaseNumber,
        count: u32,
    },
    /// Wait until `count` instances answer readiness.
    Await {
        release: ReleaseNumber,
        count: u32,
    },
    /// Run the environment's smoke tests against exactly these instances.
    Smoke {
        release: ReleaseNumber,
    },
    /// Give each release its share of traffic.
    Shift {
        split: TrafficSplit,
    },
    /// Keep the weight for a time, until the evidence is conclusive.
    Hold {
        #[serde(rename = "for")]
        duration: Duration,
        /// Why: shown while it waits.
        why: HoldReason,
    },
    Ask {
        gate: GateSpec,
    },
    /// Wait until the rollouts of tied services have come as far.
    Barrier {
        with: Vec<ServiceName>,
    },
    /// No new requests for the instances beyond `keep`; wait for the open ones to finish.
    Drain {
        release: ReleaseNumber,
        /// Number of instances that keep serving.
        keep: u32,
        /// How long open requests may take to finish.
        grace: Duration,
    },
    /// Terminate the instances beyond `keep`: SIGTERM, grace, SIGKILL.
    Stop {
        release: ReleaseNumber,
        keep: u32,
    },
    /// The variant is the stable one from here on.
    Promote {
        #[serde(flatten)]
        variant: RolloutVariant,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// To gather evidence before the next step.
    Evidence,
    /// To give people time to look: nothing is judged.
    Time,
    /// The previous set is kept warm, so that going back is one shift.
    KeepWarm,
    /// The promoted release is judged on: a failure rolls back to the previous one.
    Watch,
    /// The previous release serves half of the users again, to learn whether a fault is the new release's.
    ReverseCanary,
}

/// Which share of the users each variant gets, the newcomer first: raising its weight then only ever adds users to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SerializedSplit", into = "SerializedSplit")]
pub struct TrafficSplit {
    pub shares: Vec<(RolloutVariant, Weight)>,
    /// Requests that reach the new release in addition to its weight.
    pub reach: Option<TrafficMatch>,
}

/// As a list where there is nothing but shares: so it was always written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SerializedSplit {
    Shares(Vec<SerializedShare>),
    More {
        shares: Vec<SerializedShare>,
        reach: Option<TrafficMatch>,
    },
}

/// A release is its number alone: so it was always written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SerializedShare {
    Release(ReleaseNumber, Weight),
    Variant(RolloutVariant, Weight),
}

impl From<SerializedShare> for (RolloutVariant, Weight) {
    fn from(written: SerializedShare) -> Self {
        match written {
            SerializedShare::Release(release, weight) => (release.into(), weight),
            SerializedShare::Variant(variant, weight) => (variant, weight),
        }
    }
}

impl From<(RolloutVariant, Weight)> for SerializedShare {
    fn from((variant, weight): (RolloutVariant, Weight)) -> Self {
        match variant {
            RolloutVariant::Release(release) => Self::Release(release, weight),
        }
    }
}

impl From<SerializedSplit> for TrafficSplit {
    fn from(written: SerializedSplit) -> Self {
        let (shares, reach) = match written {
            SerializedSplit::Shares(shares) => (shares, None),
            SerializedSplit::More { shares, reach } => (shares, reach),
        };
        Self {
            shares: shares.into_iter().map(Into::into).collect(),
            reach,
        }
    }
}

impl From<TrafficSplit> for SerializedSplit {
    fn from(TrafficSplit { shares, reach }: TrafficSplit) -> Self {
        let shares = shares.into_iter().map(Into::into).collect();
        match reach {
            None => Self::Shares(shares),
            reach => Self::More { shares, reach },
        }
    }
}

impl TrafficSplit {
    /// Everything to one variant.
    #[must_use]
    pub fn all_to(variant: impl Into<RolloutVariant>) -> Self {
        Self {
            shares: vec![(variant.into(), Weight::FULL)],
            reach: None,
        }
    }

    /// `weight` to `newcomer`, the rest to `stable`.
    #[must_use]
    pub fn between(
        newcomer: impl Into<RolloutVariant>,
        weight: Weight,
        stable: impl Into<RolloutVariant>,
    ) -> Self {
        if weight == Weight::FULL {
            Self::all_to(newcomer)
        } else {
            Self {
                shares: vec![(newcomer.into(), weight), (stable.into(), weight.rest())],
                reach: None,
            }
        }
    }

    /// `weight` each to `newcomer` and the baseline of `stable`, the rest to `stable`; half of everything at most. The baseline
    /// comes last, so that both sides only ever gain users.
    #[must_use]
    pub fn with_baseline(newcomer: ReleaseNumber, weight: Weight, stable: ReleaseNumber) -> Self {
        let rest = weight.rest().less(weight);
        Self {
            shares: vec![
                (newcomer.into(), weight),
                (stable.into(), rest),
                (stable.baseline().into(), weight),
            ],
            reach: None,
        }
    }

    /// Adds requests that reach the new release in addition to its weight.
    #[must_use]
    pub fn reached_by(mut self, reach: TrafficMatch) -> Self {
        self.reach = Some(reach).filter(|reach| !reach.is_nobody());
        self
    }

    /// The shares of releases, for those that bring requests to instances.
    pub fn releases(&self) -> impl Iterator<Item = (ReleaseNumber, Weight)> {
        self.shares.iter().map(|(variant, weight)| {
            let RolloutVariant::Release(release) = variant;
            (*release, *weight)
        })
    }

    /// The share of `variant`.
    #[must_use]
    pub fn weight_of(&self, variant: impl Into<RolloutVariant>) -> Weight {
        let variant = variant.into();
        self.shares
            .iter()
            .find(|(it, _)| *it == variant)
            .map_or(Weight::ZERO, |(_, weight)| *weight)
    }

    /// Whether users get `variant`: by its share, or because their requests match.
    #[must_use]
    pub fn serves(&self, variant: impl Into<RolloutVariant>) -> bool {
        let variant = variant.into();
        let reach = self.reach_of(variant);
        !self.weight_of(variant).is_zero() || reach.is_some_and(|it| !it.matches.is_empty())
    }

    /// Whether there is anything to see of `variant`: answers to users, or to copies of their requests.
    #[must_use]
    pub fn shows(&self, variant: impl Into<RolloutVariant>) -> bool {
        let variant = variant.into();
        !self.weight_of(variant).is_zero() || self.reach_of(variant).is_some()
    }

    fn reach_of(&self, variant: RolloutVariant) -> Option<&TrafficMatch> {
        let RolloutVariant::Release(release) = variant;
        self.reach.as_ref().filter(|it| it.release == release)
    }

    /// Without `release`.
    pub fn remove(&mut self, release: ReleaseNumber) {
        self.shares.retain(|(it, _)| *it != release.into());
        self.reach.take_if(|it| it.release == release);
    }
}

impl fmt::Display for TrafficSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shares.is_empty() {
            return f.write_str("no traffic");
        }
        for (index, (variant, weight)) in self.shares.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{weight} to {variant}")?;
        }
        match &self.reach {
            Some(reach) => write!(f, "{reach}"),
            None => Ok(()),
        }
    }
}

/// An ordered list of actions, and what a person should know before it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutPlan {
    pub actions: Vec<PlanAction>,
    /// Sentences such as "there will be downtime between stop and start".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl RolloutPlan {
    /// Identifies the plan by what it does, whatever its notes say: SHA-256 of the actions as JSON with sorted keys.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let actions = serde_json::to_value(&self.actions).unwrap_or_default();
        let mut canonical = String::new();
        write_canonical(&actions, &mut canonical);
        Digest::compute(canonical.as_bytes())
    }

    /// Judges the release on for `watch` after its promotion, holds that come after it included.
    pub(super) fn watch_after_promotion(&mut self, watch: Duration) {
        let Some(promoted) =
            (self.actions.iter()).position(|it| matches!(it, PlanAction::Promote { .. }))
        else {
            return;
        };
        let held: Duration = (self.actions[promoted..].iter())
            .map(|action| match action {
                PlanAction::Hold { duration, .. } => *duration,
                _ => Duration::ZERO,
            })
            .sum();
        let duration = watch.saturating_sub(held);
        if !duration.is_zero() {
            let why = HoldReason::Watch;
            self.actions.push(PlanAction::Hold { duration, why });
        }
    }
}

/// Writes JSON with sorted keys and without spaces.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            for (index, (name, field)) in sorted.into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(field, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

impl PlanAction {
    /// Declares a release stable.
    #[must_use]
    pub fn promote(release: ReleaseNumber) -> Self {
        Self::Promote {
            variant: release.into(),
        }
    }

    /// Whether this is a hold with that reason.
    #[must_use]
    pub fn holds_for(&self, reason: HoldReason) -> bool {
        matches!(self, Self::Hold { why, .. } if *why == reason)
    }
}

impl fmt::Display for PlanAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClaimAddresses { addresses } => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let noun = if all.len() == 1 {
                    "address"
                } else {
                    "addresses"
                };
                write!(f, "claim {noun}: {}", all.join(", "))
            }
            Self::Start { release, count: 0 } => write!(f, "prepare {release}"),
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
            Self::Hold { duration, why } => write_hold(f, DurationText(*duration), *why),
            Self::Ask { gate } => write!(f, "wait for {gate}"),
            Self::Barrier { with } => {
                let names: Vec<&str> = with.iter().map(ServiceName::as_str).collect();
                write!(f, "wait for the rollouts of {}", names.join(", "))
            }
            Self::Drain {
                release,
                keep: 0,
                grace,
            } => write!(f, "drain {release}, up to {}", DurationText(*grace)),
            Self::Drain {
                release,
                keep,
                grace,
            } => write!(
                f,
                "drain {release} down to {keep}, up to {}",
                DurationText(*grace)
            ),
            Self::Stop { release, keep: 0 } => write!(f, "stop {release}"),
            Self::Stop { release, keep } => {
                write!(f, "stop {release} down to {keep} {}", instances(*keep))
            }
            Self::Promote {
                variant: RolloutVariant::Release(release),
            } => write!(f, "{release} becomes the stable release"),
        }
    }
}

fn write_hold(f: &mut fmt::Formatter<'_>, duration: DurationText, why: HoldReason) -> fmt::Result {
    match why {
        HoldReason::Evidence => write!(f, "hold for {duration} and judge"),
        HoldReason::Time => write!(f, "hold for {duration}"),
        HoldReason::KeepWarm => write!(f, "keep the previous instances warm for {duration}"),
        HoldReason::Watch => write!(f, "watch the release for {duration}"),
        HoldReason::ReverseCanary => write!(f, "compare both releases for up to {duration}"),
    }
}

const fn instances(count: u32) -> &'static str {
    if count == 1 { "instance" } else { "instances" }
}
