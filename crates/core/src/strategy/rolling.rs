//! rolling: replace instances in batches, never more than `max_surge` above nor `max_unavailable` below the wanted number.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields, YamlNode};

use super::{
    HoldPolicy, PlanCompiler, StrategyInput, bring_up, finish, first_deployment,
    plan::{HoldReason, PlanAction, RolloutPlan, TrafficSplit},
    take_down,
};
use crate::{
    field_values::{InstanceCount, count},
    weight::Weight,
};

const KEYS: &[&str] = &[
    "max_surge",
    "max_unavailable",
    "hold",
    "on_inconclusive",
    "min_hold",
];

/// How far a rolling rollout may go above and below the wanted number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolling {
    /// Above; default 25%.
    pub max_surge: InstanceCount,
    /// Below; default 0.
    pub max_unavailable: InstanceCount,
    /// How long the evidence is awaited after each batch but the last; default not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
    #[serde(flatten)]
    pub holds: HoldPolicy,
}

impl Default for Rolling {
    fn default() -> Self {
        Self {
            max_surge: InstanceCount::Percent(Weight::ratio(1, 4)),
            max_unavailable: InstanceCount::Number(0),
            hold: None,
            holds: HoldPolicy::default(),
        }
    }
}

impl PlanCompiler for Rolling {
    const WORD: &'static str = "rolling";

    fn read(parameters: Option<&YamlNode>, problems: &mut Vec<Diagnostic>) -> Self {
        let mut rolling = Self::default();
        let fields = parameters.and_then(|node| MappingFields::read(node, Self::WORD, KEYS, problems));
        let Some(fields) = fields else { return rolling };
        rolling.max_surge = count(&fields, "max_surge", problems).unwrap_or(rolling.max_surge);
        rolling.max_unavailable =
            count(&fields, "max_unavailable", problems).unwrap_or(rolling.max_unavailable);
        rolling.hold = fields.duration("hold", problems);
        rolling.holds = HoldPolicy::read(&fields, problems);
        let zero = |count: InstanceCount| {
            matches!(count, InstanceCount::Number(0)) || count == InstanceCount::Percent(Weight::ZERO)
        };
        if zero(rolling.max_surge) && zero(rolling.max_unavailable) {
            problems.push(Diagnostic::error(
                "bad-value",
                fields.span,
                "`max_surge` and `max_unavailable` can't both be 0: no instance could be replaced",
            ));
        }
        rolling
    }

    fn schema() -> Value {
        let count = |default: &str, description: &str| json!({ "$ref": "#/$defs/count", "default": default, "description": description });
        let mut properties = HoldPolicy::schema();
        properties["max_surge"] = count("25%", "Instances above `instances` during the rollout: a number or a percentage.");
        properties["max_unavailable"] = count("0", "Instances below `instances` during the rollout: a number or a percentage.");
        properties["hold"] = json!({ "$ref": "#/$defs/duration", "x-default": "no hold", "description": "How long the release is judged after each batch except the last." });
        json!({ "type": "object", "additionalProperties": false, "properties": properties })
    }

    fn holds(&self) -> HoldPolicy {
        self.holds
    }

    fn longest_hold(&self) -> Option<Duration> {
        self.hold
    }

    /// Batches of start, await, shift, drain, stop. Traffic follows the instances: each release gets the share it has of them.
    fn compile(&self, brief: &StrategyInput) -> RolloutPlan {
        let Some(stable) = brief.stable else {
            return first_deployment(brief);
        };
        let wanted = brief.instances;
        let surge = self.max_surge.round_up(wanted);
        let unavailable = self.max_unavailable.round_down(wanted);
        // Kubernetes refuses 0 and 0; the file reader does too, and this keeps a percentage that rounds to 0 from standing still.
        let surge = if surge == 0 && unavailable == 0 {
            1
        } else {
            surge
        };
        let (mut old, mut new) = (brief.stable_count, 0);
        let mut actions = Vec::new();
        while new < wanted || old > 0 {
            let removable = (old + new)
                .saturating_sub(wanted.saturating_sub(unavailable))
                .min(old);
            let addable = (wanted + surge).saturating_sub(old + new).min(wanted - new);
            if addable > 0 {
                let is_first = new == 0;
                new += addable;
                let mut batch = bring_up(brief, new);
                // Later batches have the same bytes: one smoke test is enough.
                if !is_first {
                    batch.retain(|action| !matches!(action, PlanAction::Smoke { .. }));
                }
                actions.extend(batch);
            } else {
                old -= removable.max(1).min(old);
                let weight = Weight::ratio(new, old + new);
                actions.push(PlanAction::Shift {
                    split: TrafficSplit::between(brief.release, weight, stable),
                });
                if let Some(duration) = self.hold.filter(|_| weight != Weight::FULL) {
                    let why = HoldReason::Evidence;
                    actions.push(PlanAction::Hold { duration, why });
                }
                actions.extend(take_down(stable, old, brief.drain));
            }
        }
        if brief.stable_count == 0 {
            // There was nothing to replace, so no batch has shifted traffic.
            actions.push(PlanAction::Shift {
                split: TrafficSplit::all_to(brief.release),
            });
        }
        actions.extend(finish(brief, None));
        RolloutPlan {
            actions,
            notes: vec![format!(
                "rolling: up to {} instances at once, never fewer than {} ready",
                wanted + surge,
                wanted.saturating_sub(unavailable)
            )],
        }
    }
}
