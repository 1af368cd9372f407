//! Groups asked and left in every order.

use proptest::prelude::*;
use shipway_workflow::model::QueueMode;

use super::*;
use crate::aggregate::fold;

#[derive(Default)]
struct Log {
    state: GroupState,
    events: Vec<Event<GroupEvent>>,
}

impl Log {
    fn say(&mut self, input: GroupInput) -> usize {
        let events = ConcurrencyGroups::decide(
            &self.state,
            input,
            Actor::Shipway("test".to_owned()),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        fold::<ConcurrencyGroups>(&mut self.state, &events);
        let count = events.len();
        self.events.extend(events);
        count
    }

    fn ask(&mut self, name: &str, queue: QueueMode, cancel_in_progress: bool) -> SlotPosition {
        let holder = holder(name);
        self.say(GroupInput::RequestSlot(SlotRequest {
            holder: holder.clone(),
            ticket: 1,
            cancel_in_progress,
            queue,
            again: false,
        }));
        self.state.position_of(&holder)
    }

    fn leave(&mut self, name: &str) {
        self.say(GroupInput::ReleaseSlot(holder(name)));
    }

    /// Who is told what, oldest first; all have heard afterwards.
    fn change(&mut self) -> Vec<String> {
        let effects = ConcurrencyGroups::pending(&self.state, Timestamp::UNIX_EPOCH).effects;
        effects
            .into_iter()
            .map(|(_, effect)| {
                self.say(GroupInput::NoticeDelivered(effect.number));
                let what = match effect.notice.change {
                    SlotChange::Stands(SlotPosition::Entered) => "goes on".to_owned(),
                    SlotChange::Stands(SlotPosition::Waiting { held_by }) => {
                        format!("waits for {held_by}")
                    }
                    SlotChange::Stands(SlotPosition::Dropped { why }) => format!("dropped: {why}"),
                    SlotChange::Stop { why } => format!("stop: {why}"),
                };
                format!("{} {what}", effect.notice.holder)
            })
            .collect()
    }
}

/// `r12`, or `r12:deploy`.
fn holder(name: &str) -> GroupMemberId {
    let (run, job) = name
        .split_once(':')
        .map_or((name, None), |(run, job)| (run, Some(job)));
    GroupMemberId {
        run: format!("shop/{run}").parse().unwrap(),
        job: job.map(|job| job.parse().unwrap()),
    }
}

fn waits(held_by: &str) -> SlotPosition {
    SlotPosition::Waiting {
        held_by: held_by.to_owned(),
    }
}

#[test]
fn one_goes_on_one_waits_and_a_newer_one_takes_the_place_of_who_waits() {
    let mut log = Log::default();
    assert_eq!(
        log.ask("r1", QueueMode::Single, false),
        SlotPosition::Entered
    );
    assert_eq!(log.ask("r2", QueueMode::Single, false), waits("r1"));
    assert_eq!(log.ask("r3", QueueMode::Single, false), waits("r1"));
    assert_eq!(
        log.change(),
        ["r2 dropped: r3 is newer and has taken its place in the concurrency group"]
    );
    log.leave("r2");
    log.leave("r1");
    assert_eq!(log.change(), ["r3 goes on"]);
    log.leave("r3");
    assert_eq!(log.state.members, []);
    assert!(!ConcurrencyGroups::pending(&log.state, Timestamp::UNIX_EPOCH).live);
}

#[test]
fn cancel_in_progress_stops_who_goes_on_and_waits_until_it_has_left() {
    let mut log = Log::default();
    log.ask("r1", QueueMode::Single, true);
    assert_eq!(log.ask("r2", QueueMode::Single, true), waits("r1"));
    assert_eq!(log.ask("r3", QueueMode::Single, true), waits("r1"));
    let why = "is in the same concurrency group, with `cancel-in-progress`";
    assert_eq!(
        log.change(),
        [
            format!("r1 stop: r2 {why}"),
            "r2 dropped: r3 is newer and has taken its place in the concurrency group".to_owned()
        ]
    );
    log.leave("r1");
    assert_eq!(log.change(), ["r3 goes on"]);
}

#[test]
fn a_queue_of_all_keeps_the_order_and_drops_nothing() {
    let mut log = Log::default();
    log.ask("r1", QueueMode::Max, false);
    for name in ["r3", "r2", "r4", "r5"] {
        assert_eq!(log.ask(name, QueueMode::Max, false), waits("r1"));
    }
    log.leave("r1");
    assert_eq!(
        log.change(),
        [
            "r2 goes on",
            "r3 waits for r2",
            "r4 waits for r2",
            "r5 waits for r2"
        ]
    );
    for (left, next) in [("r2", "r3"), ("r3", "r4"), ("r4", "r5")] {
        log.leave(left);
        assert_eq!(log.change()[0], format!("{next} goes on"));
    }
}

#[test]
fn runs_that_ask_out_of_order_end_as_if_they_had_asked_in_order() {
    let mut log = Log::default();
    log.ask("r1", QueueMode::Single, false);
    log.ask("r3", QueueMode::Single, false);
    assert!(matches!(
        log.ask("r2", QueueMode::Single, false),
        SlotPosition::Dropped { .. }
    ));
    let mut log = Log::default();
    log.ask("r2", QueueMode::Single, true);
    assert!(matches!(
        log.ask("r1", QueueMode::Single, true),
        SlotPosition::Dropped { .. }
    ));
    assert_eq!(log.change(), [""; 0]);
    // A run that is tried again is as new as its asking.
    let mut log = Log::default();
    log.ask("r2", QueueMode::Single, true);
    log.say(GroupInput::RequestSlot(SlotRequest {
        holder: holder("r1"),
        ticket: 4,
        cancel_in_progress: true,
        queue: QueueMode::Single,
        again: true,
    }));
    assert_eq!(log.state.position_of(&holder("r1")), waits("r2"));
}

#[test]
fn a_job_in_the_group_of_its_own_run_is_told_that_it_would_wait_for_itself() {
    let mut log = Log::default();
    log.ask("r1", QueueMode::Single, false);
    let SlotPosition::Dropped { why } = log.ask("r1:deploy", QueueMode::Single, false) else {
        panic!("it waits")
    };
    assert!(why.contains("wait for itself"), "{why}");
    assert_eq!(log.events.len(), 1);
    // A job of another run shares the names of groups, and waits.
    assert_eq!(log.ask("r2:deploy", QueueMode::Single, false), waits("r1"));
}

#[test]
fn names_ignore_case_and_belong_to_a_service() {
    let shop = "shop".parse().unwrap();
    assert_eq!(stream(&shop, "Deploy Ä"), stream(&shop, "deploy ä"));
    assert_ne!(stream(&shop, "a"), stream(&shop, "b"));
    assert_ne!(stream(&shop, "a"), stream(&"blog".parse().unwrap(), "a"));
    assert!(stream(&shop, "a/b ${{").starts_with("group/shop/"));
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u32, Option<u32>, bool, bool),
    Leave(u32, Option<u32>),
    Tell,
}

fn step() -> impl Strategy<Value = Step> {
    let who = (1..8u32, prop::option::weighted(0.3, 0..3u32));
    prop_oneof![
        4 => (who.clone(), any::<bool>(), any::<bool>()).prop_map(|((run, job), cancel, all)| Step::Ask(run, job, cancel, all)),
        3 => who.prop_map(|(run, job)| Step::Leave(run, job)),
        1 => Just(Step::Tell),
    ]
}

fn named(run: u32, job: Option<u32>) -> String {
    job.map_or_else(|| format!("r{run}"), |job| format!("r{run}:job{job}"))
}

proptest! {
    #[test]
    fn never_two_go_on_none_waits_for_nobody_and_what_waits_for_ever_is_not_dropped(steps in prop::collection::vec(step(), 1..60)) {
        let mut log = Log::default();
        for step in steps {
            match step {
                Step::Ask(run, job, cancel, all) => {
                    let queue = if all { QueueMode::Max } else { QueueMode::Single };
                    // Said twice, as after a crash: the second time changes nothing.
                    let first = log.ask(&named(run, job), queue, cancel && !all);
                    let length = log.events.len();
                    prop_assert_eq!(log.ask(&named(run, job), queue, cancel && !all), first);
                    prop_assert_eq!(log.events.len(), length);
                }
                Step::Leave(run, job) => {
                    log.leave(&named(run, job));
                    prop_assert_eq!(log.say(GroupInput::ReleaseSlot(holder(&named(run, job)))), 0);
                }
                Step::Tell => drop(log.change()),
            }
            let inside = log.state.members.iter().filter(|member| member.place == MemberPlace::Inside).count();
            prop_assert!(inside <= 1);
            prop_assert!(inside == 1 || log.state.waiting().count() == 0);
            prop_assert!(log.state.waiting().filter(|member| member.ask.queue == QueueMode::Single).count() <= 1);
        }
        // Read back at every length, it is what it was.
        let mut state = GroupState::default();
        for event in &log.events {
            if let GroupEvent::Dropped { holder, .. } = &event.body {
                prop_assert_eq!(state.member(holder).map(|member| member.ask.queue), Some(QueueMode::Single));
            }
            fold::<ConcurrencyGroups>(&mut state, [event]);
            let text = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<GroupState>(&text).unwrap(), &state);
            prop_assert_eq!(ConcurrencyGroups::pending(&state, Timestamp::UNIX_EPOCH).live, !state.notices.is_empty());
        }
        prop_assert_eq!(state, log.state);
    }

    #[test]
    fn of_runs_that_come_in_any_order_the_newest_is_the_one_that_waits(order in Just((2..12u32).collect::<Vec<_>>()).prop_shuffle()) {
        let mut log = Log::default();
        log.ask("r1", QueueMode::Single, false);
        for run in order {
            log.ask(&named(run, None), QueueMode::Single, false);
        }
        let waiting: Vec<String> = log.state.waiting().map(|member| member.ask.holder.to_string()).collect();
        prop_assert_eq!(waiting, ["r11"]);
    }

    #[test]
    fn all_that_wait_in_a_queue_of_all_go_on_in_the_order_of_their_runs(order in Just((2..12u32).collect::<Vec<_>>()).prop_shuffle()) {
        let mut log = Log::default();
        log.ask("r1", QueueMode::Max, false);
        for run in order {
            log.ask(&named(run, None), QueueMode::Max, false);
        }
        for run in 1..12 {
            prop_assert_eq!(log.state.slot_holder().map(|member| member.ask.holder.to_string()), Some(format!("r{run}")));
            log.leave(&named(run, None));
        }
        prop_assert_eq!(log.state.members, []);
    }
}
