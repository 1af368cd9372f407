//! The rules of an environment in addition to its approvals: branches, times, and people for emergencies.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shipway_workflow::model::FilterPattern;

use super::freeze::FreezeCalendar;

/// Requirements of an environment in addition to approvals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRules {
    /// A delay between the order of a rollout and its first action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Duration>,
    /// Patterns of the branches whose releases may go there; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<FilterPattern>,
    #[serde(default, skip_serializing_if = "FreezeCalendar::is_empty")]
    pub freeze: FreezeCalendar,
    /// Names, and groups as `@name`, that may open all gates at once in an emergency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub break_glass: Vec<String>,
}

impl DeploymentRules {
    /// Whether nothing is required.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether releases of this branch may go there; a branch that is not known may not where the rules name some.
    #[must_use]
    pub fn accept_branch(&self, branch: Option<&str>) -> bool {
        if self.branches.is_empty() {
            return true;
        }
        let Some(branch) = branch else { return false };
        // The last pattern that matches decides, as in workflows.
        let mut patterns = self.branches.iter().rev();
        let deciding = patterns.find(|it| it.glob.matches(branch));
        deciding.is_some_and(|pattern| !pattern.negated)
    }

    /// The patterns as they were written.
    #[must_use]
    pub fn branch_list(&self) -> String {
        let patterns = self.branches.iter().cloned().map(String::from);
        patterns.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_matches_decides_and_an_unknown_branch_is_refused() {
        let patterns = ["main", "release/*", "!release/old"];
        let rules = DeploymentRules {
            branches: patterns.map(|it| it.parse().unwrap()).to_vec(),
            ..DeploymentRules::default()
        };
        for (branch, accepted) in [
            (Some("main"), true),
            (Some("release/2"), true),
            (Some("release/old"), false),
            (Some("mainline"), false),
            (None, false),
        ] {
            assert_eq!(rules.accept_branch(branch), accepted, "{branch:?}");
        }
        assert!(DeploymentRules::default().accept_branch(None));
        assert_eq!(rules.branch_list(), "main, release/*, !release/old");
    }
}
