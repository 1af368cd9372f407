//! canary: a growing share of users, with a hold at each step until the evidence is good enough.
//!
//! In addition to its weight, a canary may be reached by requests that match, from the first step on, and by copies of requests
//! while its weight is zero. With `baseline` it is compared with fresh instances of stable that get the same weight.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields, YamlNode};

use super::{
    HoldPolicy, PlanCompiler, StrategyInput, bring_up,
    canary_match::{self, MirrorScope, RequestMatch, TrafficMatch, TrafficMirror},
    first_deployment,
    plan::{HoldReason, PlanAction, RolloutPlan, TrafficSplit},
    take_down,
};
use crate::{
    field_values::{InstanceCount, count},
    gate::{ApprovalRule, GateSpec},
    weight::Weight,
    ids::ReleaseNumber,
};

/// Keys of `canary`.
const KEYS: &[&str] = &[
    "steps",
    "match",
    "mirror",
    "baseline",
    "on_inconclusive",
    "min_hold",
];
/// Keys of a step.
const STEP_KEYS: &[&str] = &["weight", "hold", "smoke", "ask", "scale"];

/// The steps of a canary; default 1 → 10 → 50 → 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Rising weights; 100% need not be named.
    pub steps: Vec<CanaryStep>,
    #[serde(flatten)]
    pub holds: HoldPolicy,
    /// Requests that go to it from the first step on.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RequestMatch>,
    /// Copies of requests, as long as its weight is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<TrafficMirror>,
    /// Whether it is compared with fresh instances of stable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
}

/// One step of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStep {
    /// The share of the new release.
    pub weight: Weight,
    pub hold: Option<Duration>,
    /// Run the smoke tests again before this step.
    pub smoke: bool,
    /// Ask before this step.
    pub ask: bool,
    /// How many instances of the new release there shall be; default its share of them.
    pub scale: Option<InstanceCount>,
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
        Self {
            steps: vec![step(1, 2), step(10, 5), step(50, 5)],
            holds: HoldPolicy::default(),
            matches: Vec::new(),
            mirror: None,
            baseline: false,
        }
    }
}

impl PlanCompiler for Canary {
    const WORD: &'static str = "canary";

    fn read(parameters: Option<&YamlNode>, problems: &mut Vec<Diagnostic>) -> Self {
        let mut canary = Self::default();
        let fields = parameters.and_then(|node| MappingFields::read(node, Self::WORD, KEYS, problems));
        let Some(fields) = fields else { return canary };
        canary.holds = HoldPolicy::read(&fields, problems);
        if let Some(node) = fields.get("match") {
            canary.matches = canary_match::matches(node, problems);
        }
        canary.mirror = fields
            .get("mirror")
            .and_then(|node| canary_match::mirror(node, problems));
        canary.baseline = fields.bool("baseline", problems).unwrap_or(false);
        if let Some(steps) = fields.get("steps") {
            canary.read_steps(steps, &fields, problems);
        }
        canary.mirror_first();
        canary
    }

    fn schema() -> Value {
        let step = json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "weight": { "type": ["string", "number"], "default": 0, "description": "Share of the traffic for the new release; 0 only with `match` or `mirror`." },
                "hold": { "$ref": "#/$defs/duration", "description": "How long the release is judged at this weight." },
                "smoke": { "type": "boolean", "default": false, "description": "Run the smoke tests again before this step." },
                "ask": { "type": "boolean", "default": false, "description": "Wait for an approval before this step." },
                "scale": { "$ref": "#/$defs/count", "x-default": "in proportion to the weight", "description": "Instances of the new release in this step: a number or a percentage." }
            }
        });
        let mut properties = HoldPolicy::schema();
        properties["steps"] = json!({ "type": "array", "minItems": 1, "items": step, "x-default": "1%, 10%, 50%, 100%", "description": "The steps, in order." });
        properties["match"] = canary_match::match_schema();
        properties["mirror"] = canary_match::mirror_schema();
        properties["baseline"] = json!({ "type": "boolean", "default": false, "description": "Compare with new instances of stable, as many as the canary has and with the same share of the traffic." });
        json!({ "type": "object", "additionalProperties": false, "properties": properties })
    }

    fn holds(&self) -> HoldPolicy {
        self.holds
    }

    fn longest_hold(&self) -> Option<Duration> {
        self.steps.iter().filter_map(|step| step.hold).max()
    }

    fn needs_approvals(&self) -> bool {
        self.steps.iter().any(|step| step.ask)
    }

    /// For each step: instances, smoke, ask, shift, hold; then everything, promote, and the old sets go.
    fn compile(&self, brief: &StrategyInput) -> RolloutPlan {
        let Some(stable) = brief.stable else {
            return first_deployment(brief);
        };
        let mut walk = CanaryPlanBuilder {
            brief,
            stable,
            actions: Vec::new(),
            running: 0,
            baseline: 0,
        };
        for step in &self.steps {
            walk.step(self, step);
        }
        walk.grow(brief.instances);
        if self
            .steps
            .last()
            .is_none_or(|step| step.weight != Weight::FULL)
        {
            walk.actions.push(PlanAction::Shift {
                split: TrafficSplit::all_to(brief.release),
            });
        }
        walk.actions.push(PlanAction::promote(brief.release));
        if walk.baseline > 0 {
            walk.actions
                .extend(take_down(stable.baseline(), 0, brief.drain));
        }
        walk.actions.extend(take_down(stable, 0, brief.drain));
        RolloutPlan {
            actions: walk.actions,
            notes: self.notes(stable),
        }
    }
}

impl Canary {
    fn read_steps(&mut self, steps: &YamlNode, fields: &MappingFields<'_>, problems: &mut Vec<Diagnostic>) {
        let nodes = fields.list("steps", problems);
        let read: Vec<(CanaryStep, &YamlNode)> = (nodes.iter())
            .filter_map(|node| Some((step(node, problems)?, node)))
            .collect();
        if nodes.is_empty() {
            problems.push(
                Diagnostic::error("bad-value", steps.span, "a canary needs at least one step")
                    .help("leave `steps` out for 1 → 10 → 50 → 100"),
            );
        }
        let is_reached = !self.matches.is_empty() || self.mirror.is_some();
        for (step, node) in &read {
            if step.weight.is_zero() && !is_reached {
                problems.push(
                    Diagnostic::error(
                        "bad-value",
                        node.span,
                        "this step sends no traffic to the canary, so nothing can be measured",
                    )
                    .help("set a weight above 0, or add `match` or `mirror` to the canary"),
                );
            }
            if self.baseline && step.weight > HALF && step.weight != Weight::FULL {
                let message = format!(
                    "a baseline gets the same share of the traffic as the canary, so {} is too much",
                    step.weight
                );
                problems.push(
                    Diagnostic::error("bad-value", node.span, message)
                        .help("go up to 50% by steps, or leave `baseline` out"),
                );
            }
        }
        for pair in read.windows(2) {
            let ((before, _), (step, node)) = (&pair[0], &pair[1]);
            let rises =
                step.weight > before.weight || step.weight.is_zero() && before.weight.is_zero();
            if !rises {
                problems.push(Diagnostic::error(
                    "bad-value",
                    node.span,
                    format!(
                        "the weights of the steps must increase: {} comes after {}",
                        step.weight, before.weight
                    ),
                ));
            }
        }
        self.steps = read.into_iter().map(|(step, _)| step).collect();
    }

    /// A mirror needs a step without weight; where none is written, there is one as long as the first.
    fn mirror_first(&mut self) {
        let Some(first) = self.steps.first() else {
            return;
        };
        if self.mirror.is_some() && !first.weight.is_zero() {
            let first = CanaryStep {
                weight: Weight::ZERO,
                hold: first.hold.or(Some(Duration::from_secs(120))),
                smoke: false,
                ask: false,
                scale: None,
            };
            self.steps.insert(0, first);
        }
    }

    fn reach(&self, release: ReleaseNumber, weight: Weight) -> TrafficMatch {
        if weight == Weight::FULL {
            return TrafficMatch::default();
        }
        TrafficMatch {
            matches: self.matches.clone(),
            mirror: self.mirror.filter(|_| weight.is_zero()),
            release,
        }
    }

    fn notes(&self, stable: ReleaseNumber) -> Vec<String> {
        let mut notes = Vec::new();
        if self.baseline {
            notes.push(format!("baseline: new instances of {stable}, as many as the canary has, get the same share of the traffic for the comparison"));
        }
        match self.mirror.map(|mirror| mirror.methods) {
            Some(MirrorScope::Safe) => notes.push("mirror: GET, HEAD and OPTIONS without a body are copied; other requests are not".to_owned()),
            Some(MirrorScope::All) => notes.push("mirror: requests of all methods are copied, with bodies up to 64 KiB; their side effects happen twice".to_owned()),
            None => {}
        }
        notes
    }
}

/// The largest share that a canary and its baseline can both have.
const HALF: Weight = Weight::HALF;

/// A plan in the making.
struct CanaryPlanBuilder<'b> {
    brief: &'b StrategyInput,
    stable: ReleaseNumber,
    actions: Vec<PlanAction>,
    /// Instances of the canary so far.
    running: u32,
    /// And of its baseline.
    baseline: u32,
}

impl CanaryPlanBuilder<'_> {
    fn step(&mut self, canary: &Canary, step: &CanaryStep) {
        let instances = self.brief.instances;
        let needed = step.scale.map_or_else(
            || step.weight.share_of(instances),
            |scale| scale.round_up(instances),
        );
        self.grow(needed.max(1));
        let (release, stable, weight) = (self.brief.release, self.stable, step.weight);
        let beside = canary.baseline && !weight.is_zero() && weight <= HALF;
        if beside && self.baseline < self.running {
            self.baseline = self.running;
            let (release, count) = (stable.baseline(), self.running);
            self.actions.push(PlanAction::Start { release, count });
            self.actions.push(PlanAction::Await { release, count });
        }
        if step.smoke && !matches!(self.actions.last(), Some(PlanAction::Smoke { .. })) {
            self.actions.push(PlanAction::Smoke { release });
        }
        if step.ask {
            let gate = self.brief.approvals.clone();
            let gate = gate.unwrap_or_else(|| ApprovalRule::anyone().into());
            let gate = GateSpec::Approval(gate);
            self.actions.push(PlanAction::Ask { gate });
        }
        let split = if beside {
            TrafficSplit::with_baseline(release, weight, stable)
        } else {
            TrafficSplit::between(release, weight, stable)
        };
        let split = split.reached_by(canary.reach(release, weight));
        self.actions.push(PlanAction::Shift { split });
        if let Some(duration) = step.hold {
            let why = HoldReason::Evidence;
            self.actions.push(PlanAction::Hold { duration, why });
        }
    }

    /// Brings the canary up to `count` instances; only the first of them are smoke-tested: later ones are the same bytes.
    fn grow(&mut self, count: u32) {
        if count <= self.running {
            return;
        }
        let mut up = bring_up(self.brief, count);
        if self.running > 0 {
            up.retain(|action| !matches!(action, PlanAction::Smoke { .. }));
        }
        self.running = count;
        self.actions.extend(up);
    }
}

fn step(node: &YamlNode, problems: &mut Vec<Diagnostic>) -> Option<CanaryStep> {
    let fields = MappingFields::read(node, "a step", STEP_KEYS, problems)?;
    let weight = match fields.string("weight", problems) {
        None => Weight::ZERO,
        Some(text) => text
            .value
            .parse::<Weight>()
            .map_err(|error| {
                problems.push(Diagnostic::error("bad-value", text.span, error.to_string()))
            })
            .ok()?,
    };
    Some(CanaryStep {
        weight,
        hold: fields.duration("hold", problems),
        smoke: fields.bool("smoke", problems).unwrap_or(false),
        ask: fields.bool("ask", problems).unwrap_or(false),
        scale: count(&fields, "scale", problems),
    })
}
