//! Environments that no rollout guards: a shortage of ready instances is reported once, and its end.

use std::time::Duration;

use super::*;

const FILE: &str = "service: shop\nrun: { command: ./shop }\nenvironments:\n  production:\n    instances: 2\n    unready_grace: 5s\n    notify: [{ webhook: 'http://a.example.com/' }, { webhook: 'http://b.example.com/' }]\n";

impl Stage {
    /// `ready` of two instances of the release are ready, the others not since `seconds` ago.
    fn report_ready(&mut self, release: u32, ready: u32, seconds: u64) -> Vec<String> {
        let since = self.now - Duration::from_secs(seconds);
        self.say(ServiceInput::HealthReported(HealthReport {
            environment: "production".parse().unwrap(),
            release: ReleaseNumber(release),
            ready,
            unready_since: (ready < 2).then_some(since),
            problem: (ready < 2).then(|| "instance 2: exit code 1".to_owned()),
        }))
    }

    /// The keys of pending deliveries with the titles of their notices.
    fn deliveries(&self) -> Vec<String> {
        let effects = ServiceAggregate::pending(&self.state, self.now).effects;
        let deliveries = effects.iter().filter_map(|(key, effect)| match effect {
            ServiceEffect::NotifyHealth { notice, .. } => {
                Some(format!("{}: {}", key.0, notice.notice.title))
            }
            _ => None,
        });
        deliveries.collect()
    }

    fn deliver_notice(&mut self, number: u64, destination: usize) -> Vec<String> {
        self.say(ServiceInput::HealthNotificationFinished {
            number,
            destination,
            failed: None,
        })
    }
}

#[test]
fn a_shortage_is_reported_once_it_outlasts_the_grace_period_and_again_when_nothing_is_left() {
    let mut stage = Stage::promoted_hourly(FILE, 1);
    assert_eq!(stage.report_ready(1, 2, 0), [""; 0]);
    assert_eq!(
        stage.report_ready(1, 1, 4),
        [""; 0],
        "within the grace period"
    );
    assert_eq!(stage.report_ready(1, 1, 5), ["EnvironmentDegraded"]);
    assert_eq!(stage.report_ready(1, 1, 60), [""; 0], "known");
    let degradation = stage.place("production").degradation.clone().unwrap();
    assert_eq!(
        degradation.to_string(),
        "1 of 2 instances of #1 ready: instance 2: exit code 1"
    );
    assert_eq!(stage.report_ready(1, 0, 60), ["EnvironmentDegraded"]);
    assert_eq!(
        stage.report_ready(1, 1, 60),
        [""; 0],
        "better, but not healthy"
    );
    assert_eq!(stage.report_ready(1, 2, 0), ["EnvironmentRecovered"]);
    assert_eq!(stage.report_ready(1, 2, 0), [""; 0]);
    assert_eq!(stage.place("production").degradation, None);
}

#[test]
fn each_destination_gets_the_notices_in_order_whatever_the_others_do() {
    let mut stage = Stage::promoted_hourly(FILE, 1);
    stage.report_ready(1, 0, 5);
    stage.report_ready(1, 2, 0);
    let down = [
        "health-notice-1-0: shop production is down",
        "health-notice-1-1: shop production is down",
    ];
    assert_eq!(stage.deliveries(), down);
    assert_eq!(stage.deliver_notice(1, 1), ["HealthNotificationFinished"]);
    assert_eq!(stage.deliver_notice(1, 1), [""; 0], "settled");
    assert_eq!(
        stage.deliveries(),
        [
            down[0],
            "health-notice-2-1: shop production is healthy again"
        ]
    );
    for (number, destination) in [(1, 0), (2, 0), (2, 1)] {
        stage.deliver_notice(number, destination);
    }
    assert_eq!(stage.deliveries(), [""; 0]);
}

#[test]
fn while_a_rollout_guards_the_environment_its_guard_reports() {
    let mut stage = Stage::promoted_hourly(FILE, 1);
    stage.push(7, FILE, 1);
    let run = stage.state.last_run.0;
    stage.run_ends(run, true, &["shop"]);
    assert!(stage.place("production").active.is_some());
    assert_eq!(stage.report_ready(1, 0, 60), [""; 0]);
}

#[test]
fn a_release_that_is_not_stable_is_not_reported() {
    let mut stage = Stage::promoted_hourly(FILE, 2);
    assert_eq!(stage.report_ready(1, 0, 60), [""; 0]);
}
