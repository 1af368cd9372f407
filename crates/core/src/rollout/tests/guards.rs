//! Waits, freezes and break-glass of a rollout, and supersession at a gate.

use super::*;
use crate::gate::{
    ApprovalBinding, BoundPart, ChangeRole, DeploymentRules, FreezeCalendar, FreezeWindow,
    WindowStarts,
};

/// Frozen on the day of the tests from 09:00 to 11:00 UTC, when the rollout is opened.
fn frozen() -> DeploymentRules {
    DeploymentRules {
        freeze: FreezeCalendar {
            windows: vec![FreezeWindow {
                starts: WindowStarts::Cron("0 9 21 11 *".to_owned()),
                lasts: Duration::from_secs(7200),
                zone: None,
                reason: Some("inventory".to_owned()),
            }],
        },
        break_glass: vec!["ada".to_owned(), "@oncall".to_owned()],
        ..DeploymentRules::default()
    }
}

fn guarded(rules: DeploymentRules) -> RolloutSpec {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.environment.rules = rules;
    wanted
}

fn at(time: &str) -> Timestamp {
    format!("2026-11-21T{time}Z").parse().unwrap()
}

fn send_as(
    stage: &mut RolloutHarness,
    who: &str,
    input: RolloutInput,
) -> Result<(), RolloutRejection> {
    let by = Principal::person(who).actor();
    let events = RolloutAggregate::decide(&stage.state, input, by, stage.now)?;
    fold::<RolloutAggregate>(&mut stage.state, &events);
    stage.check_approval_row(&events);
    stage.log.extend(events);
    Ok(())
}

fn break_glass(groups: &[&str], reason: &str) -> RolloutInput {
    RolloutInput::BreakGlass {
        groups: groups.iter().map(ToString::to_string).collect(),
        seen: SeenSubject::Unspecified,
        reason: reason.to_owned(),
    }
}

fn approve(seen: SeenSubject) -> RolloutInput {
    RolloutInput::Approve {
        groups: Vec::new(),
        seen,
        comment: None,
    }
}

/// A server killed after any event of the log continues with the same work, from the events and from a snapshot alike.
fn assert_resumes_at_every_length(stage: &RolloutHarness) {
    for length in 1..=stage.log.len() {
        let mut state = RolloutState::default();
        fold::<RolloutAggregate>(&mut state, &stage.log[..length]);
        let snapshot = serde_json::to_string(&state).unwrap();
        let mut restored: RolloutState = serde_json::from_str(&snapshot).unwrap();
        let pending = RolloutAggregate::pending(&state, stage.now);
        assert_eq!(pending, RolloutAggregate::pending(&restored, stage.now));
        fold::<RolloutAggregate>(&mut restored, &stage.log[length..]);
        let whole = serde_json::to_value(&stage.state).unwrap();
        assert_eq!(serde_json::to_value(&restored).unwrap(), whole, "{length}");
    }
}

#[test]
fn a_rollout_waits_for_people_then_for_time_then_for_the_end_of_a_freeze_and_continues_by_itself() {
    let mut rules = frozen();
    rules.wait = Some(Duration::from_secs(1800));
    let mut wanted = guarded(rules);
    wanted.environment.approvals = Some(ApprovalRule::anyone().into());
    let mut stage = RolloutHarness::open(wanted);
    let wake = |stage: &RolloutHarness| RolloutAggregate::pending(&stage.state, stage.now).wake_at;
    stage.now = at("09:10:00");
    stage.say(approve(SeenSubject::Unspecified)).unwrap();
    assert_eq!(stage.rollout().status(), RolloutStatus::Waiting);
    assert_eq!(wake(&stage), Some(at("09:30:00")), "counted from the order");
    stage.now = at("09:30:00");
    stage.say(RolloutInput::TimerFired).unwrap();
    assert_eq!(wake(&stage), Some(at("11:00:00")));
    assert_eq!(
        stage.rollout().gate.as_ref().unwrap().opens_at,
        Some(at("11:00:00"))
    );
    let refused = stage.say(approve(SeenSubject::Unspecified)).unwrap_err();
    assert!(
        matches!(refused, RolloutRejection::NoPendingApproval { .. }),
        "people do not open a freeze: {refused}"
    );
    // A clock that goes back opens nothing.
    stage.now = at("08:00:00");
    assert_eq!(wake(&stage), Some(stage.now), "outside of the window");
    stage.now = at("10:00:00");
    assert_eq!(stage.say(RolloutInput::TimerFired), Ok(0));
    assert!(stage.carried().is_none());
    stage.now = at("11:00:00");
    stage.say(RolloutInput::TimerFired).unwrap();
    assert!(stage.carried().is_some());
    assert_resumes_at_every_length(&stage);
}

#[test]
fn a_rollback_passes_a_freeze_and_a_promotion_by_a_person_does_not() {
    let mut back = guarded(frozen());
    back.kind = RolloutKind::Rollback;
    assert!(RolloutHarness::open(back).carried().is_some());

    // The freeze begins during the hold of the canary.
    let mut rules = frozen();
    rules.freeze.windows[0].starts = WindowStarts::Cron("5 9 21 11 *".to_owned());
    let mut stage = RolloutHarness::open(guarded(rules));
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    stage.now = at("09:05:00");
    let promote = || RolloutInput::Promote {
        reason: "now".to_owned(),
    };
    let refused = stage.say(promote()).unwrap_err().to_string();
    assert!(
        refused.contains("production is frozen until 2026-11-21 11:05 UTC (inventory)")
            && refused.contains("shipway break-glass shop/ro"),
        "{refused}"
    );
    stage.say(break_glass(&[], "prices are wrong")).unwrap();
    stage.say(promote()).unwrap();
    assert!(stage.rollout().holds_skipped);
}

#[test]
fn break_glass_opens_all_gates_needs_a_name_and_a_reason_and_is_reviewed_by_another_person() {
    let mut wanted = guarded(frozen());
    wanted.environment.approvals = Some(ApprovalRule::anyone().into());
    let mut stage = RolloutHarness::open(wanted);
    let refused = send_as(&mut stage, "eve", break_glass(&[], "please")).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("production allows it to ada, @oncall"),
        "{refused}"
    );
    let refused = send_as(&mut stage, "bob", break_glass(&["@oncall"], "  ")).unwrap_err();
    assert!(
        matches!(refused, RolloutRejection::NoReason(_)),
        "{refused}"
    );
    let review = || RolloutInput::ReviewBreakGlass { comment: None };
    let refused = send_as(&mut stage, "eve", review()).unwrap_err();
    assert!(
        matches!(refused, RolloutRejection::NoGlassBroken(_)),
        "{refused}"
    );
    let notices = stage.rollout().notices.len();
    send_as(&mut stage, "bob", break_glass(&["@oncall"], "shop is down")).unwrap();
    assert!(stage.carried().is_some(), "approval and freeze are open");
    let notice = &stage.rollout().notices[notices];
    assert_eq!(notice.tone, NoticeTone::Bad);
    assert!(notice.text.contains("shop is down") && notice.text.contains("shipway review shop/ro"));
    assert!(stage.has_live_approval, "the review is listed");
    let refused = send_as(&mut stage, "bob", review()).unwrap_err();
    assert!(
        matches!(refused, RolloutRejection::OwnReview { .. }),
        "{refused}"
    );
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "enough".to_owned(),
        })
        .unwrap();
    stage.carry();
    assert!(stage.rollout().ended.is_some());
    assert!(stage.has_live_approval, "also after the end");
    send_as(&mut stage, "eve", review()).unwrap();
    assert!(!stage.has_live_approval);
    let glass = stage.rollout().broken_glass.clone().unwrap();
    assert_eq!(
        (glass.by.name.as_str(), glass.review.unwrap().by.as_str()),
        ("bob", "eve")
    );
    assert_resumes_at_every_length(&stage);
}

#[test]
fn without_break_glass_in_the_file_the_glass_stays_whole() {
    let mut rules = frozen();
    rules.break_glass = Vec::new();
    let mut stage = RolloutHarness::open(guarded(rules));
    let refused = stage.say(break_glass(&[], "please")).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("names no one in `break_glass`"),
        "{refused}"
    );
}

#[test]
fn a_rollout_that_has_only_waited_ends_at_once_and_accepts_nothing_more() {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.environment.approvals = Some(ApprovalRule::anyone().into());
    let mut stage = RolloutHarness::open(wanted);
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Superseded,
            reason: "superseded by #5".to_owned(),
        })
        .unwrap();
    assert_eq!(stage.rollout().status(), RolloutStatus::Superseded);
    let refused = stage.say(approve(SeenSubject::Unspecified)).unwrap_err();
    assert!(
        refused.to_string().contains("superseded by #5"),
        "{refused}"
    );
    assert!(!stage.has_live_approval);
}

#[test]
fn a_decision_about_something_else_is_refused_with_each_part_that_differs() {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.environment.approvals = Some(ApprovalRule::anyone().into());
    let mut stage = RolloutHarness::open(wanted);
    let current = stage.rollout().approval_binding();
    let other = Digest::compute(b"other");
    for (seen, part) in [
        (
            ApprovalBinding {
                artifact: other.clone(),
                ..current.clone()
            },
            BoundPart::Artifact,
        ),
        (
            ApprovalBinding {
                configuration: other.clone(),
                ..current.clone()
            },
            BoundPart::Configuration,
        ),
        (
            ApprovalBinding {
                plan: other.clone(),
                ..current.clone()
            },
            BoundPart::Plan,
        ),
        (
            ApprovalBinding {
                environment: "staging".parse().unwrap(),
                ..current.clone()
            },
            BoundPart::Environment,
        ),
    ] {
        let seen = SeenSubject::Binding(Box::new(seen));
        let reject = RolloutInput::Reject {
            groups: Vec::new(),
            seen: seen.clone(),
            reason: "no".to_owned(),
        };
        for input in [approve(seen), reject] {
            let refused = stage.say(input).unwrap_err();
            let named = format!("the {part} of shop/ro");
            assert!(refused.to_string().contains(&named), "{refused}");
        }
    }
    stage
        .say(approve(SeenSubject::Binding(Box::new(current))))
        .unwrap();
    assert!(stage.carried().is_some());
}

#[test]
fn the_author_may_not_approve_and_two_rules_need_two_people() {
    let mut wanted = spec(canary(), 3, Some(3));
    let rule = |from: &str| ApprovalRule {
        count: 1,
        from: vec![from.to_owned()],
        not: vec![ChangeRole::Author],
    };
    wanted.environment.approvals = Some(crate::gate::ApprovalPolicy {
        rules: vec![rule("@platform"), rule("@security")],
        expires: Some(Duration::from_secs(86_400)),
    });
    let mut stage = RolloutHarness::open(wanted);
    let approve = || RolloutInput::Approve {
        groups: vec!["@platform".to_owned(), "@security".to_owned()],
        seen: SeenSubject::Unspecified,
        comment: Some("fine".to_owned()),
    };
    let refused = send_as(&mut stage, "ada", approve()).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("ada is the author of the change"),
        "{refused}"
    );
    send_as(&mut stage, "bob", approve()).unwrap();
    assert!(stage.carried().is_none(), "bob counts in one rule only");
    let view = RolloutView::from(stage.rollout());
    assert_eq!(view.approvals[0].approved_by, ["bob"]);
    assert_eq!(view.approvals[1].missing, 1);
    let mut late = stage.clone();
    late.now = start() + Duration::from_secs(86_400);
    late.say(RolloutInput::TimerFired).unwrap();
    let why = &late.rollout().rollback_start.as_ref().unwrap().why;
    assert_eq!(why, "not approved within 1 d");
    send_as(&mut stage, "eve", approve()).unwrap();
    assert!(stage.carried().is_some());
    assert_resumes_at_every_length(&stage);
}

#[test]
fn approvals_of_an_older_log_are_read_as_they_were_written() {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.environment.approvals = Some(ApprovalRule::anyone().into());
    let stage = RolloutHarness::open(wanted);
    let opened = serde_json::to_value(&stage.log[0].body).unwrap();
    let environment = &opened["opened"]["spec"]["environment"];
    assert_eq!(
        environment["approvals"],
        serde_json::json!({ "count": 1, "from": [] })
    );
    assert!(environment.get("rules").is_none());
    let approved = serde_json::json!({ "approved": { "plan": stage.rollout().plan.digest() } });
    let read: RolloutEvent = serde_json::from_value(approved).unwrap();
    assert!(matches!(read, RolloutEvent::Approved { groups, .. } if groups.is_empty()));
}
