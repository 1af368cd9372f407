//! blue-green: a full new set beside the old one, smoke-tested, switched at once; the old set stays warm so that going back is one shift.
//!
//! After the switch the analysis goes on, against what stable was before it: with `bake`, the release is promoted only once
//! that is good enough; and as long as the old set is kept warm a fail goes back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields, YamlNode};

use super::{Brief, Compiler, Holds, bring_up, first_deployment, take_down};
use crate::rollout::plan::{Action, HoldReason, Plan, Split};

/// How long the previous set stays warm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlueGreen {
    /// Default 60 min.
    pub keep: Duration,
    /// How long the evidence after the switch is awaited before the release is promoted; default not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Duration>,
    /// How its holds end.
    #[serde(flatten)]
    pub holds: Holds,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(3_600),
            bake: None,
            holds: Holds::default(),
        }
    }
}

impl Compiler for BlueGreen {
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
        blue_green.holds = Holds::read(&fields, problems);
        blue_green
    }

    fn schema() -> Value {
        let mut properties = Holds::schema();
        properties["keep"] = json!({ "$ref": "#/$defs/duration", "default": "60m", "description": "How long the old set stays warm." });
        properties["bake"] = json!({ "$ref": "#/$defs/duration", "description": "How long the evidence after the switch is awaited before the release is promoted." });
        json!({ "type": "object", "additionalProperties": false, "properties": properties })
    }

    fn holds(&self) -> Holds {
        self.holds
    }

    fn longest_hold(&self) -> Option<Duration> {
        self.bake
    }

    /// Start, await, smoke, shift, bake, promote; keep; drain, stop.
    fn compile(&self, brief: &Brief) -> Plan {
        let Some(stable) = brief.stable else {
            return first_deployment(brief);
        };
        let mut actions = bring_up(brief, brief.instances);
        actions.push(Action::Shift {
            split: Split::all_to(brief.release),
        });
        if let Some(duration) = self.bake {
            let why = HoldReason::Evidence;
            actions.push(Action::Hold { duration, why });
        }
        actions.push(Action::Promote {
            release: brief.release,
        });
        actions.push(Action::Hold {
            duration: self.keep,
            why: HoldReason::KeepWarm,
        });
        actions.extend(take_down(stable, 0, brief.drain));
        let both = brief.instances + brief.stable_count;
        Plan {
            actions,
            notes: vec![format!(
                "blue-green: {both} instances run while both sets are up"
            )],
        }
    }
}
