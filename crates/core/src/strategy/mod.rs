//! Strategies are compilers from a brief to a plan. A strategy touches no target and carries nothing out.
//!
//! A fifth one is one file here (its parameters, how they are read, its schema, its `compile`) and one line in the list below.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shipway_syntax::{Diagnostic, YamlNode};

use crate::{
    address::EnvironmentAddresses,
    gate::{ApprovalPolicy, GateSpec},
    ids::{ReleaseNumber, ServiceName},
};

/// Makes the closed set of strategies of their list.
macro_rules! strategies {
    ($($module:ident::$name:ident),* $(,)?) => {
        $(mod $module; pub use $module::$name;)*

        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Strategy {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
        }

        impl Strategy {
            /// The words of all strategies.
            pub const WORDS: &[&str] = &[$($name::WORD),*];

            /// Its word in `shipway.yaml`.
            #[must_use]
            pub const fn keyword(&self) -> &'static str {
                match self { $(Self::$name(_) => $name::WORD,)* }
            }

            /// The strategy of this word with its parameters; `None` when there is no such word.
            pub(crate) fn read(word: &str, parameters: Option<&YamlNode>, problems: &mut Vec<Diagnostic>) -> Option<Self> {
                match word {
                    $($name::WORD => Some(Self::$name($name::read(parameters, problems))),)*
                    _ => None,
                }
            }

            /// The JSON Schemas of their parameters, by word.
            pub(crate) fn schemas() -> serde_json::Map<String, Value> {
                [$(($name::WORD.to_owned(), $name::schema())),*].into_iter().collect()
            }

            #[must_use]
            pub fn holds(&self) -> HoldPolicy {
                match self { $(Self::$name(it) => it.holds(),)* }
            }

            /// Whether it waits for approval between its steps.
            #[must_use]
            pub fn needs_approvals(&self) -> bool {
                match self { $(Self::$name(it) => it.needs_approvals(),)* }
            }

            /// How long its longest hold for evidence lasts; none: it has no such hold.
            #[must_use]
            pub fn longest_hold(&self) -> Option<Duration> {
                match self { $(Self::$name(it) => it.longest_hold(),)* }
            }

            fn compile(&self, brief: &StrategyInput) -> RolloutPlan {
                match self { $(Self::$name(it) => it.compile(brief),)* }
            }
        }
    };
}

pub mod canary_match;
mod holds;
pub mod plan;
pub mod reverse_canary;
pub mod rollback_plan;
mod stable_traffic;
mod traffic;
mod variant;

strategies! {
    recreate::Recreate,
    rolling::Rolling,
    blue_green::BlueGreen,
    canary::Canary,
}

pub use canary::CanaryStep;
pub use holds::{HoldPolicy, OnInconclusive};
use plan::{HoldReason, PlanAction, RolloutPlan, TrafficSplit};
pub use stable_traffic::StableTraffic;
pub use traffic::describe_needed_traffic;
pub use variant::RolloutVariant;

pub trait PlanCompiler: Default {
    /// Its word in `shipway.yaml`.
    const WORD: &'static str;

    /// Its parameters, read from the file; none given: its defaults.
    fn read(parameters: Option<&YamlNode>, problems: &mut Vec<Diagnostic>) -> Self;

    /// The JSON Schema of its parameters.
    fn schema() -> Value;

    /// The plan for `brief`.
    fn compile(&self, brief: &StrategyInput) -> RolloutPlan;

    fn holds(&self) -> HoldPolicy {
        HoldPolicy::default()
    }

    /// How long its longest hold for evidence lasts; none: it has no such hold.
    fn longest_hold(&self) -> Option<Duration> {
        None
    }

    /// Whether it waits for approval between its steps.
    fn needs_approvals(&self) -> bool {
        false
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self::Rolling(Rolling::default())
    }
}

/// What a strategy needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct StrategyInput {
    pub release: ReleaseNumber,
    /// What serves now; `None` at a first deployment.
    pub stable: Option<ReleaseNumber>,
    /// How many instances of stable run.
    pub stable_count: u32,
    /// How many instances there shall be.
    pub instances: u32,
    /// Whether there are smoke tests.
    pub has_smoke: bool,
    /// Whether there is an analysis.
    pub is_judged: bool,
    /// The most requests of the new release that a rule needs before it passes.
    pub min_requests: u64,
    /// Whether from when on an answer is slow is measured.
    pub needs_slow_limit: bool,
    /// What stable answered in the last hour.
    pub stable_traffic: Option<StableTraffic>,
    /// How long open requests may take to finish.
    pub drain: Duration,
    /// Approvals for the gates of the steps.
    pub approvals: Option<ApprovalPolicy>,
    /// Gates that time opens, after the approvals and before everything else.
    pub time_gates: Vec<GateSpec>,
    /// Other releases that still run here, left by a rollout that failed; they are taken down at the end.
    pub leftovers: Vec<ReleaseNumber>,
    /// Services whose rollouts are promoted together with this one.
    pub peers: Vec<ServiceName>,
    /// The addresses that the release asks for, where they are not those of stable.
    pub address_change: Option<AddressChange>,
    /// How long the release is judged after its promotion.
    pub watch: Duration,
}

/// Other addresses than those of stable.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressChange {
    /// Those of stable; `None` at a first deployment.
    pub from: Option<EnvironmentAddresses>,
    /// Those that the release asks for.
    pub to: EnvironmentAddresses,
}

impl AddressChange {
    /// The change from the addresses of stable; none when the release asks for the same.
    #[must_use]
    pub fn between(from: Option<EnvironmentAddresses>, to: EnvironmentAddresses) -> Option<Self> {
        let is_same = from
            .as_ref()
            .is_some_and(|from| from.claims() == to.claims());
        (!is_same).then_some(Self { from, to })
    }
}

/// Running instances and traffic split, as a result of the rollout's own actions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedState {
    /// Instances asked for, by release.
    pub counts: BTreeMap<ReleaseNumber, u32>,
    pub split: TrafficSplit,
    /// The last release this rollout has declared stable.
    pub promoted: Option<ReleaseNumber>,
}

impl ObservedState {
    /// Instances of `release`.
    #[must_use]
    pub fn count(&self, release: ReleaseNumber) -> u32 {
        self.counts.get(&release).copied().unwrap_or(0)
    }

    /// Folds in that `action` has been done.
    pub fn done(&mut self, action: &PlanAction) {
        match action {
            PlanAction::Start { release, count } => {
                self.counts.insert(*release, *count);
            }
            PlanAction::Stop { release, keep: 0 } => {
                self.counts.remove(release);
            }
            PlanAction::Stop { release, keep } => {
                self.counts.insert(*release, *keep);
            }
            PlanAction::Shift { split } => self.split = split.clone(),
            PlanAction::Drain {
                release, keep: 0, ..
            } => self.split.remove(*release),
            PlanAction::Promote { variant } => {
                let RolloutVariant::Release(release) = variant;
                self.promoted = Some(*release);
            }
            PlanAction::ClaimAddresses { .. }
            | PlanAction::Await { .. }
            | PlanAction::Smoke { .. }
            | PlanAction::Hold { .. }
            | PlanAction::Ask { .. }
            | PlanAction::Barrier { .. }
            | PlanAction::Drain { .. } => {}
        }
    }
}

/// The plan of `strategy` for `brief`. Approvals of the environment come before everything else.
#[must_use]
pub fn compile(strategy: &Strategy, brief: &StrategyInput) -> RolloutPlan {
    let is_new = brief.stable != Some(brief.release);
    let mut plan = if is_new {
        strategy.compile(brief)
    } else {
        already_stable(brief)
    };
    plan.actions.extend(take_leftovers_down(brief));
    if is_new {
        plan.watch_after_promotion(brief.watch);
    }
    match (is_new, brief.is_judged) {
        (false, _) => {}
        (true, true) => traffic::describe(&mut plan, brief),
        (true, false) => hold_by_time(&mut plan),
    }
    insert_barrier(&mut plan, &brief.peers);
    claim_addresses(&mut plan, brief);
    let approvals = brief.approvals.clone().map(GateSpec::Approval);
    // A freeze comes last: it is looked at in the moment before the first action.
    let gates = approvals
        .into_iter()
        .chain(brief.time_gates.iter().cloned());
    let gates = gates.map(|gate| PlanAction::Ask { gate });
    plan.actions.splice(0..0, gates);
    plan
}

/// Without metrics nothing is analysed: the holds end by time, and say that.
fn hold_by_time(plan: &mut RolloutPlan) {
    let mut is_held = false;
    for action in &mut plan.actions {
        if let PlanAction::Hold { why, .. } = action
            && *why == HoldReason::Evidence
        {
            *why = HoldReason::Time;
            is_held = true;
        }
    }
    let note = if is_held {
        "`analysis: none`: nothing is judged, holds end by time alone; leave `analysis` out for the default rules"
    } else {
        "`analysis: none`: nothing is judged; leave `analysis` out for the default rules"
    };
    plan.notes.push(note.to_owned());
}

/// Addresses are claimed before anything is started: what can't be had fails the rollout at no cost.
fn claim_addresses(plan: &mut RolloutPlan, brief: &StrategyInput) {
    let Some(change) = &brief.address_change else {
        return;
    };
    let addresses = change.to.claims();
    plan.actions
        .insert(0, PlanAction::ClaimAddresses { addresses });
    if let Some(from) = &change.from {
        let (to, release) = (&change.to, brief.release);
        plan.notes.push(format!(
            "the address changes from {from} to {to} when {release} is promoted"
        ));
    }
}

/// Services of a promotion group wait for each other before the last shift that leads to a promotion: until then each can go back at no cost.
fn insert_barrier(plan: &mut RolloutPlan, peers: &[ServiceName]) {
    if peers.is_empty() {
        return;
    }
    let until = (plan.actions.iter()).position(|it| matches!(it, PlanAction::Promote { .. }));
    let before = &plan.actions[..until.unwrap_or(plan.actions.len())];
    let at = (before.iter()).rposition(|it| matches!(it, PlanAction::Shift { .. }));
    if let Some(at) = at {
        let with = peers.to_vec();
        plan.actions.insert(at, PlanAction::Barrier { with });
    }
}

/// Going to a release that has been good before, as fast as is safe: no steps, no analysis.
#[must_use]
pub fn straight(brief: &StrategyInput) -> RolloutPlan {
    let mut plan = match brief.stable {
        None => first_deployment(brief),
        Some(stable) if stable == brief.release => already_stable(brief),
        Some(stable) => {
            let mut actions = bring_up(brief, brief.instances);
            actions.push(PlanAction::Shift {
                split: TrafficSplit::all_to(brief.release),
            });
            actions.extend(finish(brief, Some(stable)));
            RolloutPlan {
                actions,
                notes: Vec::new(),
            }
        }
    };
    claim_addresses(&mut plan, brief);
    plan.actions.extend(take_leftovers_down(brief));
    plan
}

/// Nothing to be careful with yet: checks only.
fn first_deployment(brief: &StrategyInput) -> RolloutPlan {
    let mut actions = bring_up(brief, brief.instances);
    actions.push(PlanAction::Shift {
        split: TrafficSplit::all_to(brief.release),
    });
    actions.extend(finish(brief, None));
    RolloutPlan {
        actions,
        notes: vec![
            "first deployment: there is no release to compare with or to roll back to".to_owned(),
        ],
    }
}

/// The release is the stable one already: make sure of it, without steps or analysis.
fn already_stable(brief: &StrategyInput) -> RolloutPlan {
    let mut actions = bring_up(brief, brief.instances);
    actions.push(PlanAction::Shift {
        split: TrafficSplit::all_to(brief.release),
    });
    if brief.stable_count > brief.instances {
        actions.extend(take_down(brief.release, brief.instances, brief.drain));
    }
    actions.push(PlanAction::promote(brief.release));
    RolloutPlan {
        actions,
        notes: vec![format!(
            "{} is the stable release already: no steps, no analysis",
            brief.release
        )],
    }
}

/// Start, await, and smoke where there are tests. `count` is the number there shall be, not the number added.
fn bring_up(brief: &StrategyInput, count: u32) -> Vec<PlanAction> {
    let release = brief.release;
    let mut actions = vec![
        PlanAction::Start { release, count },
        PlanAction::Await { release, count },
    ];
    if brief.has_smoke {
        actions.push(PlanAction::Smoke { release });
    }
    actions
}

/// Drain, then stop, down to `keep`.
fn take_down(release: ReleaseNumber, keep: u32, grace: Duration) -> Vec<PlanAction> {
    vec![
        PlanAction::Drain {
            release,
            keep,
            grace,
        },
        PlanAction::Stop { release, keep },
    ]
}

/// What a rollout that failed has left running goes last.
fn take_leftovers_down(brief: &StrategyInput) -> impl Iterator<Item = PlanAction> {
    let leftovers = brief.leftovers.iter();
    leftovers.flat_map(|left| take_down(*left, 0, brief.drain))
}

/// Promote, and take the old set down where one still runs.
fn finish(brief: &StrategyInput, old: Option<ReleaseNumber>) -> Vec<PlanAction> {
    let mut actions = vec![PlanAction::promote(brief.release)];
    if let Some(old) = old {
        actions.extend(take_down(old, 0, brief.drain));
    }
    actions
}
