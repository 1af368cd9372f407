//! canary: a growing share of users, held at each step until the evidence is good enough.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, Fields, Node};

use super::{Brief, Compiler, MIN_HOLD, OnInconclusive, bring_up, finish, first_deployment};
use crate::{
    config::{
        Approvals, Count,
        decode::{count, word},
    },
    exposure::Weight,
    rollout::plan::{Action, HoldReason, Plan, Split},
};

/// Keys of a step.
const STEP_KEYS: &[&str] = &["weight", "hold", "smoke", "ask", "scale"];

/// The steps of a canary; default 1 → 10 → 50 → 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Rising weights; 100 % need not be named.
    pub steps: Vec<CanaryStep>,
    /// What happens when the evidence of a hold is inconclusive at its deadline; default pause.
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
    /// How long a hold lasts at least, however good the evidence is.
    #[serde(default = "min_hold")]
    pub min_hold: Duration,
}

const fn min_hold() -> Duration {
    MIN_HOLD
}

/// One step of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStep {
    /// The share of the new release.
    pub weight: Weight,
    /// How long to hold it.
    pub hold: Option<Duration>,
    /// Run the smoke tests again before this step.
    #[serde(default)]
    pub smoke: bool,
    /// Ask before this step.
    #[serde(default)]
    pub ask: bool,
    /// How many instances of the new release there shall be; default its share of them.
    #[serde(default)]
    pub scale: Option<Count>,
}

impl Default for Canary {
    fn default() -> Self {
        let step = |percent: u32, minutes: u64| CanaryStep {
            weight: Weight::ratio(percent, 100),
            hold: Some(Duration::from_secs(60 * minutes)),
            smoke: false,
            ask: false,
            scale: None,
        };
        Self { steps: vec![step(1, 2), step(10, 5), step(50, 5)], on_inconclusive: OnInconclusive::Pause, min_hold: MIN_HOLD }
    }
}

impl Compiler for Canary {
    const WORD: &'static str = "canary";

    fn read(parameters: Option<&Node>, problems: &mut Vec<Diagnostic>) -> Self {
        let mut canary = Self::default();
        let fields = parameters.and_then(|node| Fields::of(node, Self::WORD, &["steps", "on_inconclusive", "min_hold"], problems));
        let Some(fields) = fields else { return canary };
        canary.on_inconclusive = word(&fields, "on_inconclusive", &OnInconclusive::WORDS, problems).unwrap_or_default();
        canary.min_hold = fields.duration("min_hold", problems).unwrap_or(MIN_HOLD);
        if let Some(steps) = fields.get("steps") {
            let nodes = fields.list("steps", problems);
            canary.steps = nodes.iter().filter_map(|node| step(node, problems)).collect();
            if canary.steps.is_empty() {
                problems.push(Diagnostic::error("bad-value", steps.span, "a canary has at least one step").help("leave `steps` out for 1 → 10 → 50 → 100"));
            }
            for (pair, node) in canary.steps.windows(2).zip(nodes.iter().skip(1)) {
                if pair[1].weight <= pair[0].weight {
                    problems.push(Diagnostic::error("bad-value", node.span, format!("the weights of the steps must rise: {} comes after {}", pair[1].weight, pair[0].weight)));
                }
            }
        }
        canary
    }

    fn schema() -> Value {
        let step = json!({
            "type": "object", "required": ["weight"], "additionalProperties": false,
            "properties": {
                "weight": { "type": ["string", "number"] }, "hold": { "$ref": "#/$defs/duration" },
                "smoke": { "type": "boolean" }, "ask": { "type": "boolean" }, "scale": { "$ref": "#/$defs/count" }
            }
        });
        json!({ "type": "object", "additionalProperties": false, "properties": {
            "steps": { "type": "array", "minItems": 1, "items": step },
            "on_inconclusive": { "enum": OnInconclusive::WORDS.map(|(word, _)| word), "default": "pause" },
            "min_hold": { "$ref": "#/$defs/duration", "default": "10s", "description": "How long a hold lasts at least, however good the evidence is." }
        } })
    }

    fn on_inconclusive(&self) -> OnInconclusive {
        self.on_inconclusive
    }

    fn min_hold(&self) -> Duration {
        self.min_hold
    }

    /// For each step: shift, smoke, ask, hold; then everything, promote, and the old set goes.
    fn compile(&self, brief: &Brief) -> Plan {
        let Some(stable) = brief.stable else {
            return first_deployment(brief);
        };
        let mut actions = Vec::new();
        let mut running = 0;
        for step in &self.steps {
            let needed = step
                .scale
                .map_or_else(
                    || step.weight.share_of(brief.instances),
                    |scale| scale.round_up(brief.instances),
                )
                .max(1);
            if needed > running {
                running = needed;
                let mut up = bring_up(brief, running);
                if actions.is_empty() {
                    actions.append(&mut up);
                } else {
                    actions.extend(
                        up.into_iter()
                            .filter(|action| !matches!(action, Action::Smoke { .. })),
                    );
                }
            }
            if step.smoke && !matches!(actions.last(), Some(Action::Smoke { .. })) {
                actions.push(Action::Smoke {
                    release: brief.release,
                });
            }
            if step.ask {
                actions.push(Action::Ask {
                    gate: brief.approvals.clone().unwrap_or_else(Approvals::anyone),
                });
            }
            actions.push(Action::Shift {
                split: Split::between(brief.release, step.weight, stable),
            });
            if let Some(duration) = step.hold {
                actions.push(Action::Hold {
                    duration,
                    why: HoldReason::Evidence,
                });
            }
        }
        if running < brief.instances {
            let up = bring_up(brief, brief.instances);
            let again = running > 0;
            actions.extend(
                up.into_iter()
                    .filter(|action| !again || !matches!(action, Action::Smoke { .. })),
            );
        }
        if self.steps
            .last()
            .is_none_or(|step| step.weight != Weight::FULL)
        {
            actions.push(Action::Shift {
                split: Split::all_to(brief.release),
            });
        }
        actions.extend(finish(brief, Some(stable)));
        Plan {
            actions,
            notes: Vec::new(),
        }
    }
}

fn step(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<CanaryStep> {
    let fields = Fields::of(node, "a step", STEP_KEYS, problems)?;
    fields.require("weight", problems);
    let text = fields.string("weight", problems)?;
    let weight = text
        .value
        .parse::<Weight>()
        .map_err(|error| {
            problems.push(Diagnostic::error("bad-value", text.span, error.to_string()))
        })
        .ok()?;
    if weight.is_zero() {
        problems.push(
            Diagnostic::error(
                "bad-value",
                text.span,
                "a step without traffic shows nothing",
            )
            .help("give it a weight above 0"),
        );
    }
    Some(CanaryStep {
        weight,
        hold: fields.duration("hold", problems),
        smoke: fields.bool("smoke", problems).unwrap_or(false),
        ask: fields.bool("ask", problems).unwrap_or(false),
        scale: count(&fields, "scale", problems),
    })
}
