//! Deletion of environments and services.

use super::*;

fn delete(environment: Option<&str>) -> ServiceInput {
    let named = |name: &str| DeletionScope::Environment(name.parse().unwrap());
    ServiceInput::Delete {
        scope: environment.map_or(DeletionScope::Service, named),
        reason: None,
    }
}

fn effects(stage: &Stage) -> Vec<String> {
    let pending = ServiceAggregate::pending(&stage.state, stage.now);
    pending.effects.into_iter().map(|(key, _)| key.0).collect()
}

/// `shop` with release #1 in staging and production, and its addresses on record.
fn delivered() -> Stage {
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    stage.deliver(1, 1, 1);
    report_addresses(&mut stage);
    stage
}

fn report_addresses(stage: &mut Stage) {
    let asked = stage.state.requested_addresses();
    stage.say(ServiceInput::AddressesReported(asked));
}

fn removed(stage: &mut Stage, environment: &str) {
    stage.say(ServiceInput::EnvironmentRemoved(
        environment.parse().unwrap(),
    ));
}

#[test]
fn a_deleted_environment_loses_its_instances_and_then_its_addresses() {
    let mut stage = delivered();
    stage.say(delete(Some("production")));
    assert_eq!(effects(&stage), ["remove-production"]);
    let production = "production".parse().unwrap();
    assert_eq!(stage.state.served_addresses(&production), None);
    let asked = stage.state.requested_addresses().addresses;
    assert!(
        asked.contains_key(&production),
        "nobody gets them meanwhile"
    );
    assert_eq!(stage.say(delete(Some("production"))), [""; 0], "idempotent");

    removed(&mut stage, "production");
    assert_eq!(effects(&stage), ["addresses"]);
    assert!(
        !stage
            .state
            .requested_addresses()
            .addresses
            .contains_key(&production)
    );
    assert!(
        stage
            .state
            .environments
            .contains_key(&"staging".parse().unwrap())
    );
    let missing = stage.try_say(delete(Some("production")));
    assert!(matches!(
        missing,
        Err(ServiceRejection::UnknownEnvironment { .. })
    ));
}

#[test]
fn what_is_in_progress_refuses_a_deletion_and_a_watched_rollout_ends_for_it() {
    let mut stage = delivered();
    stage.push(2, FILE, 1);
    let running = stage.try_say(delete(None)).unwrap_err();
    assert_eq!(
        running.to_string(),
        "run shop/r3 is in progress; cancel it first: shipway cancel shop/r3"
    );
    stage.run_ends(3, true, &["shop"]);
    for scope in [None, Some("staging")] {
        let refused = stage.try_say(delete(scope)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "rollout shop/ro3 is in progress; abort it first: shipway abort shop/ro3"
        );
    }
    stage.promoted(3, 2);
    let told = stage.say(delete(Some("staging")));
    assert!(
        told.contains(&"preemption ro3 finish".to_owned()),
        "{told:?}"
    );
    assert!(!effects(&stage).contains(&"remove-staging".to_owned()));
    stage.say(ServiceInput::PreemptionDelivered(RolloutNumber(3)));
    stage.ends(3, RolloutOutcome::Promoted, 2);
    assert!(effects(&stage).contains(&"remove-staging".to_owned()));
}

#[test]
fn nothing_is_requested_where_a_deletion_is_under_way() {
    let mut stage = delivered();
    stage.say(delete(Some("production")));
    let back = ServiceInput::Rollback {
        environment: "production".parse().unwrap(),
        to: None,
        force: Override::No,
        why: "bad".to_owned(),
    };
    assert_eq!(
        stage.try_say(back),
        Err(ServiceRejection::EnvironmentDeleted(
            "production".parse().unwrap()
        ))
    );
    // The next release stops before it.
    stage.push(2, FILE, 1);
    stage.run_ends(3, true, &["shop"]);
    stage.promoted(3, 2);
    stage.ends(3, RolloutOutcome::Promoted, 2);
    let told = stage.run_ends(4, true, &[]);
    let dropped = "dropped #2: production is being deleted; try again in a moment".to_owned();
    assert!(told.contains(&dropped), "{told:?}");
}

#[test]
fn a_deleted_service_leaves_its_numbers_and_a_push_makes_it_anew() {
    let mut stage = delivered();
    stage.say(delete(None));
    let name = stage.state.name.clone();
    let pushed = ServiceInput::Dispatch {
        workflow: WorkflowFile::new("e2e.yml".into(), String::new()),
        commit: stage
            .place("staging")
            .stable
            .as_ref()
            .unwrap()
            .commit
            .clone(),
        reference: "refs/heads/main".into(),
        inputs: Default::default(),
    };
    assert_eq!(stage.try_say(pushed), Err(ServiceRejection::ServiceDeleted));
    assert_eq!(effects(&stage), ["remove-production", "remove-staging"]);
    removed(&mut stage, "staging");
    removed(&mut stage, "production");
    assert_eq!(effects(&stage), ["addresses"], "before the repository goes");
    report_addresses(&mut stage);
    assert_eq!(effects(&stage), ["remove"]);
    stage.say(ServiceInput::ServiceRemoved(RepositoryRemoval::Removed));
    assert_eq!((effects(&stage).len(), &stage.state.name), (0, &None));
    let last = stage.log.last().unwrap();
    let rows = ServiceAggregate::rows(&stage.state, std::slice::from_ref(last));
    assert!(
        rows.iter()
            .all(|row| row.doc.is_null() && row.key == "shop")
    );

    stage.push(1, FILE, 1);
    assert_eq!(stage.state.name, name);
    let told = stage.run_ends(3, true, &["shop"]);
    assert!(told.contains(&"release #2".to_owned()), "{told:?}");
}

#[test]
fn a_deletion_cut_anywhere_asks_for_the_same_removals_again() {
    let mut stage = delivered();
    stage.say(delete(None));
    removed(&mut stage, "staging");
    removed(&mut stage, "production");
    report_addresses(&mut stage);
    stage.say(ServiceInput::ServiceRemoved(RepositoryRemoval::Removed));
    for length in 0..=stage.log.len() {
        let mut state = ServiceState::default();
        let text: Vec<String> = stage.log[..length]
            .iter()
            .map(|event| serde_json::to_string(event).unwrap())
            .collect();
        let events: Vec<Event<ServiceEvent>> = text
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect();
        fold::<ServiceAggregate>(&mut state, &events);
        let is_under_way = state.deletion.is_some();
        let pending = ServiceAggregate::pending(&state, stage.now);
        assert!(!is_under_way || pending.live, "after {length} events");
    }
}

#[test]
fn a_list_of_environments_has_them_in_the_order_of_promotion_without_the_deleted_ones() {
    let mut stage = delivered();
    let names = |stage: &Stage| -> Vec<String> {
        let listed = stage.listed_environments().into_iter();
        listed
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&stage), ["staging", "production"]);
    let events = &stage.log[..1];
    let rows = ServiceAggregate::rows(&stage.state, events).into_iter();
    let newest_last: Vec<String> = rows
        .filter(|row| row.kind == EnvironmentRow::KIND)
        .map(|row| row.key)
        .collect();
    assert_eq!(newest_last, ["shop/production", "shop/staging"]);
    stage.say(delete(Some("staging")));
    assert_eq!(names(&stage), ["staging", "production"], "until it is gone");
    removed(&mut stage, "staging");
    assert_eq!(names(&stage), ["production"]);
    stage.say(delete(None));
    removed(&mut stage, "production");
    assert_eq!(names(&stage), [""; 0]);
}
