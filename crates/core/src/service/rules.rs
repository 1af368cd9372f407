//! What must hold before a job of a run goes to an environment.

use super::ServiceDecider;
use crate::{config::ServiceConfig, gate::EnvironmentRules};

impl ServiceDecider {
    /// The environments a run may use: those of the released branch with their rules, and those that only its own commit names.
    /// So a branch can add an environment, but can't open the gates of an existing one.
    pub(super) fn rules(&self, of_commit: Option<&ServiceConfig>) -> Vec<EnvironmentRules> {
        let mut rules: Vec<EnvironmentRules> = Vec::new();
        let known = self.state.config.as_deref().into_iter().chain(of_commit);
        for environment in known.flat_map(|config| &config.environments) {
            let name = environment.name.as_str();
            if !rules.iter().any(|known| known.environment == name) {
                rules.push(EnvironmentRules {
                    environment: name.to_owned(),
                    approvals: environment.approvals.clone(),
                    rules: environment.rules.clone(),
                });
            }
        }
        rules
    }
}
