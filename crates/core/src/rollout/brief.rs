//! The brief of a rollout: what its strategy needs to know, from the rollout's spec or from a configuration alone.

use std::time::Duration;

use super::{Rollout, RolloutKind, RolloutSpec};
use crate::{
    config::EnvironmentConfig,
    gate::GateSpec,
    ids::ReleaseNumber,
    strategy::{AddressChange, StrategyInput, describe_needed_traffic},
};

impl Rollout {
    /// What a strategy needs to know of this rollout.
    #[must_use]
    pub fn brief(spec: &RolloutSpec) -> StrategyInput {
        let stable = spec.stable().map(|stable| stable.release.number);
        StrategyInput {
            release: spec.release().number,
            stable,
            stable_count: stable.map_or(0, |stable| spec.observed.count(stable)),
            instances: spec.environment.instances,
            has_smoke: !spec.environment.smoke.is_empty(),
            is_judged: !spec.environment.analysis.is_empty(),
            min_requests: spec.environment.analysis.min_requests(),
            needs_slow_limit: spec.is_slow_limit_measured,
            stable_traffic: spec.stable_traffic,
            drain: spec.environment.drain,
            approvals: spec.environment.approvals.clone(),
            time_gates: time_gates(spec),
            leftovers: spec
                .observed
                .counts
                .keys()
                .copied()
                .filter(|it| *it != spec.release().number && Some(*it) != stable)
                .collect(),
            peers: spec.peers.clone(),
            address_change: address_change(spec),
            watch: spec.environment.watch.duration(),
        }
    }
}

/// The wait and the freeze before a rollout. A rollback is always allowed.
fn time_gates(spec: &RolloutSpec) -> Vec<GateSpec> {
    match spec.kind {
        RolloutKind::Rollback => return Vec::new(),
        RolloutKind::Deploy | RolloutKind::Retry => {}
    }
    let rules = &spec.environment.rules;
    let freeze = Some(&rules.freeze).filter(|it| !it.is_empty());
    let wait = rules.wait.map(GateSpec::Wait);
    wait.into_iter()
        .chain(freeze.cloned().map(GateSpec::Freeze))
        .collect()
}

/// The change of addresses that a rollout brings, if it brings one.
fn address_change(spec: &RolloutSpec) -> Option<AddressChange> {
    let name = &spec.environment.name;
    let place = spec.release().service_environment(name);
    let stable = spec.stable();
    let from = stable.and_then(|stable| stable.release.environment(name));
    let from = from.map(|environment| environment.addresses(&place));
    AddressChange::between(from, spec.environment.addresses(&place))
}

/// How much traffic each hold of a rollout into this environment needs, as far as the configuration alone says.
#[must_use]
pub fn needed_traffic(environment: &EnvironmentConfig) -> Vec<String> {
    let brief = StrategyInput {
        release: ReleaseNumber(2),
        stable: Some(ReleaseNumber(1)),
        stable_count: environment.instances,
        instances: environment.instances,
        has_smoke: false,
        is_judged: !environment.analysis.is_empty(),
        min_requests: environment.analysis.min_requests(),
        needs_slow_limit: false,
        stable_traffic: None,
        drain: environment.drain,
        approvals: None,
        time_gates: Vec::new(),
        leftovers: Vec::new(),
        peers: Vec::new(),
        address_change: None,
        watch: Duration::ZERO,
    };
    describe_needed_traffic(&environment.strategy, &brief)
}
