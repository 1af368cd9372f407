//! blue-green: a full new set beside the old one, smoke-tested, switched at once; the old set stays warm so that going back is one shift.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, Fields, Node};

use super::{Brief, Compiler, bring_up, first_deployment, take_down};
use crate::rollout::plan::{Action, HoldReason, Plan, Split};

/// How long the previous set stays warm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlueGreen {
    /// Default 60 min.
    pub keep: Duration,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self { keep: Duration::from_secs(3_600) }
    }
}

impl Compiler for BlueGreen {
    const WORD: &'static str = "blue-green";

    fn read(parameters: Option<&Node>, problems: &mut Vec<Diagnostic>) -> Self {
        let fields = parameters.and_then(|node| Fields::of(node, Self::WORD, &["keep"], problems));
        let keep = fields.and_then(|fields| fields.duration("keep", problems));
        keep.map_or_else(Self::default, |keep| Self { keep })
    }

    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": false, "properties": { "keep": { "$ref": "#/$defs/duration", "default": "60m" } } })
    }

    /// Start, await, smoke, shift, promote; keep; drain, stop.
    fn compile(&self, brief: &Brief) -> Plan {
        let Some(stable) = brief.stable else { return first_deployment(brief) };
        let mut actions = bring_up(brief, brief.instances);
        actions.push(Action::Shift { split: Split::all_to(brief.release) });
        actions.push(Action::Promote { release: brief.release });
        actions.push(Action::Hold { duration: self.keep, why: HoldReason::KeepWarm });
        actions.extend(take_down(stable, 0, brief.drain));
        let both = brief.instances + brief.stable_count;
        Plan { actions, notes: vec![format!("blue-green: {both} instances run while both sets are up")] }
    }
}
