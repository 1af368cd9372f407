//! What must hold before a job of a run goes to an environment.

use super::decide::Decider;
use crate::{config::Config, run::Rules};

impl Decider {
    /// The environments a run may know: those of the released branch, with the rules that hold there, and those that only its
    /// own commit names. So a branch can add an environment, but can't open the gates of one that is in use.
    pub(super) fn rules(&self, of_commit: Option<&Config>) -> Vec<Rules> {
        let mut rules: Vec<Rules> = Vec::new();
        let known = self.state.config.as_deref().into_iter().chain(of_commit);
        for environment in known.flat_map(|config| &config.environments) {
            let name = environment.name.as_str();
            if !rules.iter().any(|known| known.environment == name) {
                rules.push(Rules {
                    environment: name.to_owned(),
                    approvals: environment.approvals.clone(),
                });
            }
        }
        rules
    }
}
