//! Approvals and rejections of a rollout.

use super::*;

#[test]
fn approvals_come_first_from_those_who_may_and_each_counts_once() {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.environment.approvals = Some(
        ApprovalRule {
            count: 2,
            from: vec!["ada".into(), "@ops".into()],
            not: Vec::new(),
        }
        .into(),
    );
    let mut stage = RolloutHarness::open(wanted);
    assert_eq!(stage.rollout().status(), RolloutStatus::Waiting);
    assert!(stage.carried().is_none(), "nothing starts before");
    let approve = |groups: &[&str]| RolloutInput::Approve {
        groups: groups.iter().map(|it| (*it).to_owned()).collect(),
        seen: SeenSubject::Unspecified,
        comment: None,
    };
    assert_eq!(stage.say(approve(&[])), Ok(1));
    assert_eq!(stage.say(approve(&[])), Ok(0), "one person is one approval");
    let refused = RolloutAggregate::decide(
        &stage.state,
        approve(&[]),
        Principal::person("eve").actor(),
        stage.now,
    );
    assert!(
        matches!(refused, Err(RolloutRejection::NotAllowed { .. })),
        "{refused:?}"
    );
    let events = RolloutAggregate::decide(
        &stage.state,
        approve(&["@ops"]),
        Principal::person("bob").actor(),
        stage.now,
    )
    .unwrap();
    fold::<RolloutAggregate>(&mut stage.state, &events);
    assert!(stage.carried().is_some());
    assert!(matches!(
        stage.say(approve(&[])),
        Err(RolloutRejection::NoPendingApproval { .. })
    ));
}

#[test]
fn an_approval_counts_for_the_plan_that_was_seen_and_a_gate_expires() {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.environment.approvals = Some(ApprovalRule::anyone().into());
    let mut stage = RolloutHarness::open(wanted);
    let seen = stage.rollout().gate.clone().unwrap().subject.unwrap();
    assert_eq!(seen, stage.rollout().plan.digest());
    let approve = |plan| RolloutInput::Approve {
        groups: Vec::new(),
        seen: SeenSubject::Plan(plan),
        comment: None,
    };
    let other = Digest::compute(b"another plan");
    let refused = stage.say(approve(other)).unwrap_err();
    assert!(matches!(refused, RolloutRejection::SubjectChanged { .. }));
    assert!(stage.carried().is_none());

    let mut late = stage.clone();
    late.now = late.rollout().gate.as_ref().unwrap().expires_at().unwrap();
    late.say(RolloutInput::TimerFired).unwrap();
    assert_eq!(
        late.rollout().rollback_start.as_ref().unwrap().why,
        "not approved within 30 days"
    );

    stage.say(approve(seen)).unwrap();
    assert!(stage.carried().is_some());
}

#[test]
fn a_plan_has_the_digest_of_its_actions_whatever_its_notes_say() {
    let plan = RolloutHarness::open(spec(canary(), 3, Some(3)))
        .rollout()
        .plan
        .clone();
    let mut noted = plan.clone();
    noted.notes.push("another sentence".to_owned());
    assert_eq!(plan.digest(), noted.digest());
    let mut shorter = plan.clone();
    shorter.actions.pop();
    assert_ne!(plan.digest(), shorter.digest());
}

#[test]
fn a_rejection_ends_it_before_anything_started() {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.environment.approvals = Some(ApprovalRule::anyone().into());
    let mut stage = RolloutHarness::open(wanted);
    stage
        .say(RolloutInput::Reject {
            groups: Vec::new(),
            seen: SeenSubject::Unspecified,
            reason: "not today".into(),
        })
        .unwrap();
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Rejected);
    assert!(matches!(
        stage.say(RolloutInput::Resume),
        Err(RolloutRejection::Ended { .. })
    ));
    assert_eq!(
        stage.say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "again".into()
        }),
        Ok(0),
        "abort of what has ended is a no-op"
    );
}
