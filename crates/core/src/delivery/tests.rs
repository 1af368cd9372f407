//! Pushes, promotions and failures as counts.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use shipway_syntax::SourceFile;

use super::*;
use crate::{
    access::Principal,
    config,
    ids::Digest,
    release::Commit,
    rollout::{
        PlanDirection, RolloutOutcome, RolloutPace, RolloutSubject, plan::TrafficSplit,
        strategy::ObservedState,
    },
    service::{Push, PushedCommit},
};

const FILE: &str =
    "service: shop\nrun: { command: ./shop }\nenvironments:\n  staging: {}\n  production: {}\n";

fn at(time: &str) -> Timestamp {
    format!("2026-11-{time}:00Z").parse().unwrap()
}

fn commit(number: u64, time: &str) -> PushedCommit {
    PushedCommit {
        id: format!("{number:040}").parse().unwrap(),
        authored_at: at(time),
    }
}

/// The log of a service as the projection sees it: each event is read from its text.
#[derive(Default)]
struct Story {
    counts: DeliveryCounts,
    rows: BTreeMap<String, DeliveryDay>,
}

impl Story {
    fn append_event(&mut self, stream: &str, time: &str, body: impl Serialize) {
        let event = Event {
            at: at(time),
            by: Principal::person("ada").actor(),
            body,
        };
        let text = serde_json::to_string(&event).unwrap();
        for row in self.counts.fold(stream, &text).unwrap() {
            assert_eq!(
                (row.kind.as_str(), row.service.as_str()),
                ("delivery", "shop")
            );
            let day = serde_json::from_value(row.doc).unwrap();
            self.rows.insert(row.key, day);
        }
        // What it remembers survives being stored after every event.
        let stored = serde_json::to_value(&self.counts).unwrap();
        self.counts = serde_json::from_value(stored).unwrap();
    }

    fn push(&mut self, sequence: u64, time: &str, branch: &str, commits: &[PushedCommit]) {
        let (config, _) = config::parse(&SourceFile::new("shipway.yaml", FILE)).unwrap();
        let push = Push {
            reference: format!("refs/heads/{branch}"),
            before: (sequence > 1).then(|| "a".repeat(40).parse().unwrap()),
            commit: head(),
            config: Some(Box::new(config)),
            unconfigured: None,
            tests: Vec::new(),
            source: None,
            location: None,
            commits: commits.to_vec(),
            commits_omitted: 0,
        };
        let push = Box::new(push);
        self.append_event(
            "service/shop",
            time,
            ServiceEvent::Pushed { sequence, push },
        );
    }

    /// A rollout of the release of a push, up to its whole traffic.
    fn roll_out(&mut self, number: u32, time: &str, environment: &str, kind: RolloutKind, of: u64) {
        let spec = Box::new(spec(number, environment, kind, of));
        let split = TrafficSplit::all_to(spec.release().number);
        self.append_event(&stream(number), time, RolloutEvent::Opened { spec });
        let planned = RolloutEvent::Planned {
            direction: PlanDirection::Forward,
            plan: RolloutPlan {
                actions: vec![PlanAction::Shift { split }],
                notes: Vec::new(),
            },
            cause: None,
            why: String::new(),
        };
        self.append_event(&stream(number), time, planned);
    }

    fn shifted(&mut self, number: u32, time: &str) {
        let done = RolloutEvent::ActionDone {
            index: 0,
            note: None,
            smoke: None,
        };
        self.append_event(&stream(number), time, done);
    }

    fn promoted(&mut self, number: u32, time: &str, environment: &str, of: u64) {
        let promoted = ServiceEvent::Promoted {
            environment: environment.parse().unwrap(),
            rollout: RolloutNumber(number),
            release: release(of),
        };
        self.append_event("service/shop", time, promoted);
    }

    fn ended(&mut self, number: u32, time: &str, outcome: RolloutOutcome) {
        let ended = RolloutEvent::Ended {
            outcome,
            cause: None,
            why: String::new(),
        };
        self.append_event(&stream(number), time, ended);
    }

    fn deploy(&mut self, number: u32, time: &str, environment: &str, of: u64) {
        self.roll_out(number, time, environment, RolloutKind::Deploy, of);
        self.shifted(number, time);
        self.promoted(number, time, environment, of);
        self.ended(number, time, RolloutOutcome::Promoted);
    }

    /// Each day: deployments, change failures, those before a promotion, and commits by lead time in minutes.
    fn days(&self) -> Vec<String> {
        let lead_time = |day: &DeliveryDay| {
            let buckets = day.lead_time.buckets().iter();
            let shown = buckets.map(|bucket| match bucket.up_to_seconds {
                Some(seconds) => format!(" {}×{}m", bucket.commits, seconds / 60),
                None => format!(" {}×longer", bucket.commits),
            });
            shown.collect::<String>()
        };
        let shown = self.rows.iter().map(|(key, day)| {
            format!(
                "{key}: {} {} {}{}",
                day.deployments,
                day.change_failures,
                day.failures_before_promotion,
                lead_time(day)
            )
        });
        shown.collect()
    }
}

fn stream(number: u32) -> String {
    format!("rollout/shop/{number}")
}

fn head() -> Commit {
    Commit {
        id: "b".repeat(40).parse().unwrap(),
        subject: "a change".to_owned(),
        author: "ada".to_owned(),
        committer: None,
        at: at("01T00:00"),
    }
}

fn release(sequence: u64) -> Arc<Release> {
    let (config, _) = config::parse(&SourceFile::new("shipway.yaml", FILE)).unwrap();
    Arc::new(Release {
        service: "shop".parse().unwrap(),
        number: ReleaseNumber(u32::try_from(sequence).unwrap()),
        sequence,
        commit: head(),
        branch: None,
        artifact: Digest::compute(b"tree"),
        run: None,
        config,
        tests: Vec::new(),
        by: None,
        created_at: at("01T00:00"),
    })
}

fn spec(number: u32, environment: &str, kind: RolloutKind, sequence: u64) -> RolloutSpec {
    let release = release(sequence);
    let environment = release.environment(&environment.parse().unwrap());
    RolloutSpec {
        id: RolloutId {
            service: "shop".parse().unwrap(),
            number: RolloutNumber(number),
        },
        kind,
        pace: RolloutPace::ByStrategy,
        retry_of: None,
        environment: environment.unwrap().clone(),
        subject: RolloutSubject::Release {
            release,
            stable: None,
        },
        observed: ObservedState::default(),
        stable_traffic: None,
        is_slow_limit_measured: false,
        why: String::new(),
        by: None,
        peers: Vec::new(),
    }
}

#[test]
fn commits_have_their_lead_time_to_each_environment_once() {
    let mut story = Story::default();
    // The history of the first push was not delivered by Shipway.
    let history = [commit(2, "01T09:50"), commit(1, "01T00:00")];
    story.push(1, "01T10:00", "main", &history);
    story.deploy(1, "01T10:00", "staging", 1);
    story.push(2, "01T11:00", "main", &[commit(3, "01T10:00")]);
    story.push(3, "01T11:00", "feature", &[commit(9, "01T01:00")]);
    story.push(
        4,
        "01T12:00",
        "main",
        &[commit(5, "01T11:59"), commit(4, "01T09:00")],
    );
    // The release of the second push was superseded: its commits come with the next one.
    story.deploy(2, "01T12:00", "staging", 4);
    story.deploy(3, "02T12:00", "production", 4);
    story.deploy(4, "02T12:00", "production", 4);
    assert_eq!(
        story.days(),
        [
            "shop/production/2026-11-02: 2 0 0 4×2880m",
            "shop/staging/2026-11-01: 2 0 0 1×5m 1×10m 1×120m 1×240m",
        ]
    );
    assert!(story.counts.rollouts.is_empty());
}

#[test]
fn failures_count_as_the_rollout_counts_them() {
    let mut story = Story::default();
    story.push(1, "01T10:00", "main", &[commit(1, "01T10:00")]);
    story.deploy(1, "01T10:00", "production", 1);
    for (number, outcome) in [
        (2, RolloutOutcome::RolledBack),
        (3, RolloutOutcome::Failed),
        (4, RolloutOutcome::Aborted),
        (5, RolloutOutcome::Superseded),
    ] {
        story.roll_out(number, "03T10:00", "production", RolloutKind::Deploy, 1);
        story.shifted(number, "03T10:00");
        story.ended(number, "03T10:00", outcome);
    }
    // Users never got an answer of it.
    story.roll_out(6, "03T10:00", "production", RolloutKind::Deploy, 1);
    story.ended(6, "03T10:00", RolloutOutcome::Failed);
    // It failed its watch.
    story.roll_out(7, "03T10:00", "production", RolloutKind::Deploy, 1);
    story.shifted(7, "03T10:00");
    story.promoted(7, "03T10:00", "production", 1);
    story.ended(7, "04T10:00", RolloutOutcome::RolledBack);
    assert_eq!(
        story.days(),
        [
            "shop/production/2026-11-01: 1 0 0 1×5m",
            "shop/production/2026-11-03: 1 2 2",
            "shop/production/2026-11-04: 0 1 0",
        ]
    );
}

#[test]
fn a_rollback_is_no_deployment() {
    let mut story = Story::default();
    story.deploy(1, "01T10:00", "production", 1);
    story.deploy(2, "01T10:00", "production", 2);
    story.roll_out(3, "01T10:00", "production", RolloutKind::Rollback, 1);
    story.promoted(3, "01T10:00", "production", 1);
    // A rollout that goes back declares the release before stable.
    story.roll_out(4, "01T10:00", "production", RolloutKind::Deploy, 2);
    story.promoted(4, "01T10:00", "production", 1);
    assert_eq!(story.days(), ["shop/production/2026-11-01: 2 0 0"]);
}

#[test]
fn what_is_remembered_of_pushes_is_bounded() {
    let mut story = Story::default();
    let many: Vec<PushedCommit> = (0..250).map(|number| commit(number, "01T09:00")).collect();
    for sequence in 1..=20 {
        story.push(sequence, "01T10:00", "main", &many);
    }
    story.deploy(1, "01T10:00", "production", 20);
    assert_eq!(story.days(), ["shop/production/2026-11-01: 1 0 0 1000×60m"]);
}

#[test]
fn lead_times_beyond_every_bound_have_a_bucket() {
    let mut histogram = LeadTimeHistogram::default();
    for seconds in [u64::MAX, 0, 300, 301, u64::MAX] {
        histogram.record(seconds);
    }
    let written = serde_json::to_value(&histogram).unwrap();
    let expected = serde_json::json!([
        { "up_to_seconds": 300, "commits": 2 },
        { "up_to_seconds": 600, "commits": 1 },
        { "up_to_seconds": null, "commits": 2 },
    ]);
    assert_eq!(written, expected);
}
