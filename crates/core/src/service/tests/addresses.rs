//! Where environments are reached, and which addresses a service asks for.

use std::collections::BTreeSet;

use super::*;
use crate::address::claims::AskedAddresses;

const BEFORE: &str =
    "service: shop\nrun: { command: ./shop }\nenvironments:\n  staging: {}\n  production: {}\n";

impl Stage {
    fn served(&self, environment: &str) -> Option<String> {
        let name = environment.parse().unwrap();
        self.state.served_addresses(&name).map(|it| it.to_string())
    }

    fn asked(&self) -> BTreeSet<String> {
        let asked: AskedAddresses = self.state.requested_addresses();
        let all = asked.addresses.values().flatten();
        all.map(ToString::to_string).collect()
    }

    /// Through both environments, without tests between them.
    fn deliver_both(&mut self, run: u32, release: u32, rollout: u32) {
        self.run_ends(run, true, &["shop"]);
        for rollout in [rollout, rollout + 1] {
            self.promoted(rollout, release);
            self.ends(rollout, RolloutOutcome::Promoted, release);
        }
    }
}

fn texts(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn an_environment_that_is_appended_or_removed_changes_the_address_of_no_other() {
    let mut stage = Stage::new();
    stage.push(1, BEFORE, 1);
    stage.deliver_both(1, 1, 1);
    assert_eq!(stage.served("production").unwrap(), "shop.localhost");
    assert_eq!(stage.served("staging").unwrap(), "shop-staging.localhost");
    stage.push(2, &format!("{BEFORE}  production-eu: {{}}\n"), 1);
    assert_eq!(stage.served("production").unwrap(), "shop.localhost");
    assert_eq!(stage.served("production-eu"), None);
    // This one goes into staging alone.
    stage.run_ends(2, true, &["shop"]);
    stage.promoted(3, 2);
    stage.ends(3, RolloutOutcome::Promoted, 2);
    assert_eq!(stage.served("production").unwrap(), "shop.localhost");
    stage.push(
        3,
        "service: shop\nrun: { command: ./shop }\nenvironments:\n  staging: {}\n",
        1,
    );
    assert_eq!(stage.served("production").unwrap(), "shop.localhost");
    assert_eq!(stage.served("staging").unwrap(), "shop-staging.localhost");
}

#[test]
fn a_push_that_is_not_released_changes_no_address_and_asks_for_none_in_the_end() {
    let mut stage = Stage::new();
    stage.push(1, BEFORE, 1);
    stage.deliver_both(1, 1, 1);
    let before = stage.asked();
    let moved = BEFORE.replace("production: {}", "production: { hosts: [a.example] }");
    stage.push(2, &moved, 1);
    let with = before.union(&texts(&["a.example"])).cloned().collect();
    assert_eq!(stage.asked(), with, "as long as it may be released");
    stage.run_ends(2, false, &[]);
    assert_eq!(stage.asked(), before);
    assert_eq!(stage.served("production").unwrap(), "shop.localhost");
}

#[test]
fn an_address_changes_with_the_promotion_and_the_former_one_is_kept_as_long_as_a_rollback_may_need_it()
 {
    let mut stage = Stage::new();
    stage.push(
        1,
        "service: shop\nrun: { command: ./shop }\nenvironments:\n  live: {}\n",
        1,
    );
    assert_eq!(stage.served("live"), None);
    stage.run_ends(1, true, &["shop"]);
    assert_eq!(
        stage.served("live").unwrap(),
        "shop-live.localhost",
        "a first deployment"
    );
    stage.promoted(1, 1);
    stage.ends(1, RolloutOutcome::Promoted, 1);
    let next = "service: shop\nrun: { command: ./shop }\nenvironments:\n  live: { port: 9000 }\n";
    stage.push(2, next, 1);
    stage.run_ends(2, true, &["shop"]);
    assert_eq!(stage.served("live").unwrap(), "shop-live.localhost");
    stage.promoted(2, 2);
    assert_eq!(stage.served("live").unwrap(), "port 9000");
    let both = texts(&["/shop-live", "port 9000", "shop-live.localhost"]);
    assert_eq!(stage.asked(), both);
    stage.ends(2, RolloutOutcome::Promoted, 2);
    assert_eq!(stage.asked(), texts(&["port 9000"]));
}

#[test]
fn a_first_deployment_that_fails_leaves_no_address() {
    let mut stage = Stage::new();
    stage.push(1, BEFORE, 1);
    stage.run_ends(1, true, &["shop"]);
    stage.ends(1, RolloutOutcome::Failed, 1);
    assert_eq!(stage.served("staging"), None);
    assert_eq!(stage.asked(), BTreeSet::new());
}

#[test]
fn an_environment_that_is_no_longer_named_keeps_its_address_and_may_lose_it_to_another() {
    let mut stage = Stage::new();
    stage.push(1, BEFORE, 1);
    stage.deliver_both(1, 1, 1);
    let transferable = |stage: &Stage| stage.state.requested_addresses().transferable;
    assert_eq!(transferable(&stage), BTreeSet::new());
    stage.push(2, &BEFORE.replace("production", "live"), 1);
    stage.deliver_both(2, 2, 3);
    assert_eq!(stage.served("production").unwrap(), "shop.localhost");
    assert_eq!(stage.served("live").unwrap(), "shop-live.localhost");
    assert_eq!(
        transferable(&stage),
        BTreeSet::from(["production".parse().unwrap()])
    );
    assert!(stage.asked().contains("shop.localhost"));
}

#[test]
fn what_it_asks_for_is_reported_until_the_claims_follow() {
    let mut stage = Stage::new();
    stage.push(1, BEFORE, 1);
    let due = |stage: &Stage| {
        let pending = ServiceAggregate::pending(&stage.state, stage.now);
        pending
            .effects
            .into_iter()
            .find_map(|(_, effect)| match effect {
                ServiceEffect::ReportAddresses(asked) => Some(asked),
                _ => None,
            })
    };
    let asked = due(&stage).unwrap();
    assert_eq!(asked, stage.state.requested_addresses());
    stage.say(ServiceInput::AddressesReported(asked.clone()));
    assert_eq!(due(&stage), None);
    assert!(
        stage.say(ServiceInput::AddressesReported(asked)).is_empty(),
        "twice is once"
    );
    // A push that asks for the same, its release and its promotions report nothing new.
    stage.deliver_both(1, 1, 1);
    assert_eq!(due(&stage), None);
}
