//! blue-green: a full new replica set next to the old one, smoke-tested, switched at once; the old one stays warm, so that a
//! rollback is one shift.
//!
//! The analysis continues after the switch, against stable's values from before: with `bake` the release is promoted only once
//! they are good enough; a fail rolls back for as long as the old replica set is kept warm.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields, YamlNode};

use super::{StrategyInput, PlanCompiler, HoldPolicy, bring_up, first_deployment, take_down};
use super::plan::{PlanAction, HoldReason, RolloutPlan, TrafficSplit};

/// How long the previous set stays warm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlueGreen {
    /// Default 60 min.
    pub keep: Duration,
    /// How long the evidence after the switch is awaited before the release is promoted; default not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Duration>,
    #[serde(flatten)]
    pub holds: HoldPolicy,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(3_600),
            bake: None,
            holds: HoldPolicy::default(),
        }
    }
}

impl PlanCompiler for BlueGreen {
    const WORD: &'static str = "blue-green";

    fn read(parameters: Option<&YamlNode>, problems: &mut Vec<Diagnostic>) -> Self {
        let keys = ["keep", "bake", "on_inconclusive", "min_hold"];
        let mut blue_green = Self::default();
        let fields = parameters.and_then(|node| MappingFields::read(node, Self::WORD, &keys, problems));
        let Some(fields) = fields else {
            return blue_green;
        };
        blue_green.keep = fields.duration("keep", problems).unwrap_or(blue_green.keep);
        blue_green.bake = fields.duration("bake", problems);
        blue_green.holds = HoldPolicy::read(&fields, problems);
        blue_green
    }

    fn schema() -> Value {
        let mut properties = HoldPolicy::schema();
        properties["keep"] = json!({ "$ref": "#/$defs/duration", "default": "60m", "description": "How long the previous instances are kept warm." });
        properties["bake"] = json!({ "$ref": "#/$defs/duration", "x-default": "no bake", "description": "How long the release is judged after the switch before it is promoted." });
        json!({ "type": "object", "additionalProperties": false, "properties": properties })
    }

    fn holds(&self) -> HoldPolicy {
        self.holds
    }

    fn longest_hold(&self) -> Option<Duration> {
        self.bake
    }

    /// Start, await, smoke, shift, bake, promote; keep; drain, stop.
    fn compile(&self, brief: &StrategyInput) -> RolloutPlan {
        let Some(stable) = brief.stable else {
            return first_deployment(brief);
        };
        let mut actions = bring_up(brief, brief.instances);
        actions.push(PlanAction::Shift {
            split: TrafficSplit::all_to(brief.release),
        });
        if let Some(duration) = self.bake {
            let why = HoldReason::Evidence;
            actions.push(PlanAction::Hold { duration, why });
        }
        actions.push(PlanAction::promote(brief.release));
        actions.push(PlanAction::Hold {
            duration: self.keep,
            why: HoldReason::KeepWarm,
        });
        actions.extend(take_down(stable, 0, brief.drain));
        let both = brief.instances + brief.stable_count;
        RolloutPlan {
            actions,
            notes: vec![format!(
                "blue-green: {both} instances run while both sets are up"
            )],
        }
    }
}
