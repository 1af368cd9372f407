//! Strategies are compilers from a brief to a plan. A strategy touches no target and carries nothing out.
//!
//! A fifth one is one file here with its `compile`, and one line in [`compile`].

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Approvals, Strategy},
    ids::ReleaseNumber,
    rollout::plan::{Action, Plan, Split},
};

mod blue_green;
mod canary;
mod recreate;
mod rolling;
pub mod way_back;

/// What a strategy needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Brief {
    /// What is rolled out.
    pub release: ReleaseNumber,
    /// What serves now; `None` at a first deployment.
    pub stable: Option<ReleaseNumber>,
    /// How many instances of stable run.
    pub stable_count: u32,
    /// How many instances there shall be.
    pub instances: u32,
    /// Whether there are smoke tests.
    pub has_smoke: bool,
    /// How long open requests may take to finish.
    pub drain: Duration,
    /// Who is asked where a step asks.
    pub approvals: Option<Approvals>,
    /// Other releases that still run here, left by a rollout that failed; they are taken down at the end.
    pub leftovers: Vec<ReleaseNumber>,
}

/// What runs and who gets traffic, as far as the rollout's own actions tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Instances asked for, by release.
    pub counts: BTreeMap<ReleaseNumber, u32>,
    /// Who gets traffic.
    pub split: Split,
    /// The last release this rollout has declared stable.
    pub promoted: Option<ReleaseNumber>,
}

impl Observed {
    /// Instances of `release`.
    #[must_use]
    pub fn count(&self, release: ReleaseNumber) -> u32 {
        self.counts.get(&release).copied().unwrap_or(0)
    }

    /// Folds in that `action` has been done.
    pub fn done(&mut self, action: &Action) {
        match action {
            Action::Start { release, count } => {
                self.counts.insert(*release, *count);
            }
            Action::Stop { release, keep: 0 } => {
                self.counts.remove(release);
            }
            Action::Stop { release, keep } => {
                self.counts.insert(*release, *keep);
            }
            Action::Shift { split } => self.split = split.clone(),
            Action::Drain {
                release, keep: 0, ..
            } => self.split.0.retain(|(it, _)| it != release),
            Action::Promote { release } => self.promoted = Some(*release),
            Action::Await { .. }
            | Action::Smoke { .. }
            | Action::Hold { .. }
            | Action::Ask { .. }
            | Action::Drain { .. } => {}
        }
    }
}

/// The plan of `strategy` for `brief`. Approvals of the environment come before everything else.
#[must_use]
pub fn compile(strategy: &Strategy, brief: &Brief) -> Plan {
    let mut plan = match strategy {
        _ if brief.stable == Some(brief.release) => already_stable(brief),
        Strategy::Recreate => recreate::compile(brief),
        Strategy::Rolling(params) => rolling::compile(params, brief),
        Strategy::BlueGreen(params) => blue_green::compile(params, brief),
        Strategy::Canary(params) => canary::compile(params, brief),
    };
    if let Some(gate) = &brief.approvals {
        plan.actions.insert(0, Action::Ask { gate: gate.clone() });
    }
    plan.actions.extend(
        brief
            .leftovers
            .iter()
            .flat_map(|left| take_down(*left, 0, brief.drain)),
    );
    plan
}

/// Going to a release that has been good before, as fast as is safe: no steps, no analysis.
#[must_use]
pub fn straight(brief: &Brief) -> Plan {
    let mut plan = match brief.stable {
        None => first_deployment(brief),
        Some(stable) if stable == brief.release => already_stable(brief),
        Some(stable) => {
            let mut actions = bring_up(brief, brief.instances);
            actions.push(Action::Shift {
                split: Split::all_to(brief.release),
            });
            actions.extend(finish(brief, Some(stable)));
            Plan {
                actions,
                notes: Vec::new(),
            }
        }
    };
    plan.actions.extend(
        brief
            .leftovers
            .iter()
            .flat_map(|left| take_down(*left, 0, brief.drain)),
    );
    plan
}

/// Nothing to be careful with yet: checks only.
fn first_deployment(brief: &Brief) -> Plan {
    let mut actions = bring_up(brief, brief.instances);
    actions.push(Action::Shift {
        split: Split::all_to(brief.release),
    });
    actions.extend(finish(brief, None));
    Plan {
        actions,
        notes: vec![
            "first deployment: there is no release to compare with or to go back to".to_owned(),
        ],
    }
}

/// The release is the stable one already: make sure of it, without steps or analysis.
fn already_stable(brief: &Brief) -> Plan {
    let mut actions = bring_up(brief, brief.instances);
    actions.push(Action::Shift {
        split: Split::all_to(brief.release),
    });
    if brief.stable_count > brief.instances {
        actions.extend(take_down(brief.release, brief.instances, brief.drain));
    }
    actions.push(Action::Promote {
        release: brief.release,
    });
    Plan {
        actions,
        notes: vec![format!(
            "{} is the stable release already: no steps, no analysis",
            brief.release
        )],
    }
}

/// Start, await, and smoke where there are tests. `count` is the number there shall be, not the number added.
fn bring_up(brief: &Brief, count: u32) -> Vec<Action> {
    let release = brief.release;
    let mut actions = vec![
        Action::Start { release, count },
        Action::Await { release, count },
    ];
    if brief.has_smoke {
        actions.push(Action::Smoke { release });
    }
    actions
}

/// Drain, then stop, down to `keep`.
fn take_down(release: ReleaseNumber, keep: u32, grace: Duration) -> Vec<Action> {
    vec![
        Action::Drain {
            release,
            keep,
            grace,
        },
        Action::Stop { release, keep },
    ]
}

/// Promote, and take the old set down where one still runs.
fn finish(brief: &Brief, old: Option<ReleaseNumber>) -> Vec<Action> {
    let mut actions = vec![Action::Promote {
        release: brief.release,
    }];
    if let Some(old) = old {
        actions.extend(take_down(old, 0, brief.drain));
    }
    actions
}
