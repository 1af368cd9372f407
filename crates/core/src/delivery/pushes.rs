//! Commits of one service that some environment doesn't have yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ids::EnvironmentName, service::Push};

/// Commits that are remembered of a service; the oldest pushes are forgotten beyond that. They have no lead time then.
const COMMITS_MAX: usize = 1_000;

/// Pushes to the released branch, until all environments have them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct UndeliveredPushes {
    /// The branch that is released, by the newest configuration.
    branch: Option<String>,
    environments: BTreeSet<EnvironmentName>,
    /// In the order of their sequence.
    pushes: VecDeque<UndeliveredPush>,
    /// The newest push that each environment has.
    delivered: BTreeMap<EnvironmentName, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct UndeliveredPush {
    sequence: u64,
    /// When its commits were authored, in seconds.
    authored: Vec<i64>,
}

impl UndeliveredPushes {
    pub(super) fn add(&mut self, sequence: u64, push: &Push) {
        if let Some(config) = push.config.as_ref().filter(|_| push.is_released()) {
            self.branch = Some(config.branch.clone());
            self.environments = (config.environments.iter())
                .map(|environment| environment.name.clone())
                .collect();
        }
        // A push whose configuration has errors is released with the push that mends it.
        if push.branch().is_none() || push.branch() != self.branch.as_deref() {
            return;
        }
        let counted = match push.before {
            Some(_) => usize::MAX,
            None => 1,
        };
        let commits = push.commits.iter().take(counted);
        self.pushes.push_back(UndeliveredPush {
            sequence,
            authored: commits
                .map(|commit| commit.authored_at.as_second())
                .collect(),
        });
        let mut total: usize = self.pushes.iter().map(|it| it.authored.len()).sum();
        // A push without commits takes room too.
        while total > COMMITS_MAX || self.pushes.len() > COMMITS_MAX {
            total -= self
                .pushes
                .pop_front()
                .map_or(total, |it| it.authored.len());
        }
    }

    /// The author times of the commits that an environment has now for the first time. Nothing for a push of another branch, or one
    /// that the environment had already.
    pub(super) fn deliver(
        &mut self,
        environment: &EnvironmentName,
        sequence: u64,
    ) -> Vec<Timestamp> {
        let before = self.delivered.get(environment).copied().unwrap_or(0);
        let is_tracked = self.pushes.iter().any(|it| it.sequence == sequence);
        if sequence <= before || !is_tracked {
            return Vec::new();
        }
        let new =
            (self.pushes.iter()).filter(|push| push.sequence > before && push.sequence <= sequence);
        let authored = new.flat_map(|push| &push.authored);
        let authored = authored
            .filter_map(|seconds| Timestamp::from_second(*seconds).ok())
            .collect();
        self.delivered.insert(environment.clone(), sequence);
        self.forget_delivered();
        authored
    }

    fn forget_delivered(&mut self) {
        let newest = |environment| self.delivered.get(environment).copied().unwrap_or(0);
        let everywhere = self.environments.iter().map(newest).min().unwrap_or(0);
        self.pushes.retain(|push| push.sequence > everywhere);
    }
}
