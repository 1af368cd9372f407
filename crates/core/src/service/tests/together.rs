//! Services that are rolled out together: who is told, and what the rollouts know.

use super::*;
use crate::config::ServiceConfig;

fn pending(stage: &Stage) -> Vec<ServiceEffect> {
    let pending = ServiceAggregate::pending(&stage.state, stage.now);
    pending
        .effects
        .into_iter()
        .map(|(_, effect)| effect)
        .collect()
}

#[test]
fn whoever_is_named_is_told_until_it_knows_and_told_again_when_that_changes() {
    let mut stage = Stage::new();
    let file = FILE.replace(
        "production: {}",
        "production: { promote_with: [cart, mail] }",
    );
    stage.push(1, &file, 1);
    let told = pending(&stage).into_iter().find_map(|effect| match effect {
        ServiceEffect::NotifyPeers { peers, groups } => Some((peers, groups)),
        _ => None,
    });
    let (peers, groups) = told.unwrap();
    assert_eq!(
        peers.iter().map(|it| it.as_str()).collect::<Vec<_>>(),
        ["cart", "mail"]
    );
    assert_eq!(
        stage.say(ServiceInput::PeersNotified(groups.clone())),
        ["PeersNotified"]
    );
    assert_eq!(
        stage.say(ServiceInput::PeersNotified(groups)),
        Vec::<String>::new()
    );
    let tells = |effect: &ServiceEffect| matches!(effect, ServiceEffect::NotifyPeers { .. });
    assert!(!pending(&stage).iter().any(tells));
    stage.push(2, FILE, 1);
    assert!(pending(&stage).iter().any(tells), "they are no longer tied");
}

#[test]
fn the_rollouts_of_leader_and_peer_know_the_whole_group() {
    let mut leader = Stage::new();
    let file = "service: shop\nrun: { command: ./shop }\nenvironments:\n  production: { promote_with: [cart, mail] }\n";
    leader.push(1, file, 1);
    leader.run_ends(1, true, &["shop"]);
    let tied = |stage: &Stage| {
        let spec = stage
            .place("production")
            .active
            .as_ref()
            .unwrap()
            .spec
            .clone();
        spec.peers
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(tied(&leader), ["cart", "mail"]);
    let mut peer = Stage::new();
    peer.push(
        1,
        &file
            .replace("shop", "cart")
            .replace("{ promote_with: [cart, mail] }", "{}"),
        1,
    );
    let group = ["shop", "cart", "mail"]
        .map(|name| name.parse().unwrap())
        .to_vec();
    let groups: RolloutGroups = [("production".parse().unwrap(), group)].into();
    let leader = "shop".parse().unwrap();
    let said = peer.say(ServiceInput::PromotionGroupChanged { leader, groups });
    assert_eq!(said, ["PromotionGroupChanged"]);
    peer.run_ends(1, true, &["shop"]);
    assert_eq!(tied(&peer), ["mail", "shop"]);
}

#[test]
fn a_group_that_makes_no_sense_is_named_with_what_to_do() {
    let parse = |text: &str| {
        config::parse(&SourceFile::new("shipway.yaml", text))
            .unwrap()
            .0
    };
    let file = |name: &str, with: &str| {
        parse(&format!(
            "service: {name}\nrun: {{ command: ./run }}\nenvironments:\n  production: {{{with}}}\n"
        ))
    };
    let shop = file("shop", " promote_with: [cart] ");
    let wrong = |cart: Option<ServiceConfig>| {
        config::check_promotion_groups(&shop, |_| cart.as_ref())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        wrong(None),
        "production: `promote_with` names cart, and no such service exists here; push it first, or leave it out"
    );
    let circle = file("cart", " promote_with: [shop] ");
    assert_eq!(
        wrong(Some(circle)),
        "production: `promote_with` names cart, whose own `promote_with` names shop; only one service of a group may name the others"
    );
    let elsewhere = parse("service: cart\nrun: { command: ./run }\nenvironments:\n  live: {}\n");
    assert_eq!(
        wrong(Some(elsewhere)),
        "production: `promote_with` names cart, which has no environment production; add one there, or leave it out"
    );
    let cart = file("cart", "");
    assert_eq!(
        config::check_promotion_groups(&shop, |_| Some(&cart)),
        Ok(())
    );
}
