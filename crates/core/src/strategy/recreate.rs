//! recreate: stop the old, then start the new. One version at a time; downtime is expected and said beforehand.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields, YamlNode};

use super::{StrategyInput, PlanCompiler, bring_up, finish, take_down};
use super::plan::{PlanAction, RolloutPlan, TrafficSplit};

/// It has no parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recreate {}

impl PlanCompiler for Recreate {
    const WORD: &'static str = "recreate";

    fn read(parameters: Option<&YamlNode>, problems: &mut Vec<Diagnostic>) -> Self {
        if let Some(node) = parameters {
            MappingFields::read(node, Self::WORD, &[], problems);
        }
        Self {}
    }

    fn schema() -> Value {
        json!({ "type": "null" })
    }

    /// Prepare the new, drain and stop the old, then start, await, smoke, shift.
    fn compile(&self, brief: &StrategyInput) -> RolloutPlan {
        let mut actions = Vec::new();
        let mut notes = Vec::new();
        if let Some(stable) = brief.stable {
            // An artifact or a secret that is missing is noticed while stable still serves.
            let (release, count) = (brief.release, 0);
            actions.push(PlanAction::Start { release, count });
            actions.extend(take_down(stable, 0, brief.drain));
            notes.push(format!(
                "downtime: {stable} stops before {} is ready; the proxy holds requests meanwhile",
                brief.release
            ));
        }
        actions.extend(bring_up(brief, brief.instances));
        actions.push(PlanAction::Shift {
            split: TrafficSplit::all_to(brief.release),
        });
        actions.extend(finish(brief, None));
        RolloutPlan { actions, notes }
    }
}
