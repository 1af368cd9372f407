//! Consecutive probe results of an instance, and the resulting phase. Pure: time is passed in.

use std::time::{Duration, Instant};

use shipway_core::{check::HealthCheck, target::InstancePhase};

use crate::checks::CheckError;

/// Pause between probes of an instance that isn't ready yet, so that a rollout needn't wait for a whole interval.
const EAGER: Duration = Duration::from_millis(50);
/// The pause grows by one unit after this many probes.
const EAGER_PROBES: u32 = 20;

/// The effect of a probe result.
#[derive(Debug, PartialEq)]
pub(super) enum ProbeChange {
    /// Nothing visible.
    Nothing,
    /// The same phase and reason; only the duration changed.
    Lasting(InstancePhase),
    /// Another phase or reason.
    Phase(InstancePhase),
}

/// The probe results of one run.
pub(super) struct ProbeHistory {
    ready: bool,
    /// It was ready before: failing probes make it unready, not starting.
    ever_ready: bool,
    good: u32,
    bad: u32,
    dead: u32,
    /// A liveness probe has succeeded.
    was_alive: bool,
    asked: u32,
    failing: Option<(Instant, String)>,
    started: Instant,
    liveness_asked: Option<Instant>,
}

impl ProbeHistory {
    /// For an instance that was started at this time, and that was never ready.
    pub(super) const fn new(started: Instant) -> Self {
        Self {
            ready: false,
            ever_ready: false,
            good: 0,
            bad: 0,
            dead: 0,
            was_alive: false,
            asked: 0,
            failing: None,
            started,
            liveness_asked: None,
        }
    }

    /// For an instance whose last known state is ready.
    pub(super) fn new_ready(started: Instant) -> Self {
        Self {
            ready: true,
            ever_ready: true,
            was_alive: true,
            ..Self::new(started)
        }
    }

    /// Pause before the next probe: none at first, then short and growing up to the interval. Successes that are counted are an
    /// interval apart.
    pub(super) fn next_wait(&self, health: &HealthCheck) -> Duration {
        match self.asked {
            0 => Duration::ZERO,
            _ if self.ready || self.good > 0 => health.interval,
            asked => (EAGER * (1 + asked / EAGER_PROBES)).min(health.interval),
        }
    }

    /// Whether a liveness probe is due: at most once per interval.
    pub(super) fn liveness_is_due(&mut self, health: &HealthCheck, now: Instant) -> bool {
        let due = self
            .liveness_asked
            .is_none_or(|last| now.duration_since(last) >= health.interval);
        if due {
            self.liveness_asked = Some(now);
        }
        due
    }

    /// Records a result of the readiness probe.
    pub(super) fn record_readiness(
        &mut self,
        health: &HealthCheck,
        answer: Result<(), CheckError>,
        last_words: impl FnOnce() -> Option<String>,
        now: Instant,
    ) -> ProbeChange {
        self.asked = self.asked.saturating_add(1);
        let Err(why) = answer.map_err(|error| error.to_string()) else {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            if self.ready || self.good < health.healthy_after {
                return ProbeChange::Nothing;
            }
            (self.ready, self.ever_ready, self.failing) = (true, true, None);
            return ProbeChange::Phase(InstancePhase::Ready);
        };
        (self.good, self.bad) = (0, self.bad.saturating_add(1));
        let turned = self.ready && self.bad >= health.unhealthy_after;
        if self.ready && !turned {
            return ProbeChange::Nothing;
        }
        self.ready = false;
        let (since, said) = match self.failing.take() {
            Some((since, said)) => (since, Some(said)),
            None => (now, None),
        };
        let same = said.as_ref() == Some(&why);
        let sentence = failure_reason(&why, now.duration_since(since), last_words());
        self.failing = Some((since, why));
        let phase = if self.ever_ready {
            InstancePhase::Unready { why: sentence }
        } else {
            InstancePhase::Starting { why: sentence }
        };
        if same && !turned {
            ProbeChange::Lasting(phase)
        } else {
            ProbeChange::Phase(phase)
        }
    }

    /// Records a result of the liveness probe; returns the reason if the instance must be restarted.
    ///
    /// The start period ends with the first success, like Docker's and Kubernetes' startup probe: from then on failures count.
    pub(super) fn record_liveness(
        &mut self,
        health: &HealthCheck,
        answer: Result<(), CheckError>,
        now: Instant,
    ) -> Option<String> {
        let Err(why) = answer.map_err(|error| error.to_string()) else {
            (self.dead, self.was_alive) = (0, true);
            return None;
        };
        if !self.was_alive && now.duration_since(self.started) < health.start_period {
            return None;
        }
        self.dead += 1;
        (self.dead >= health.unhealthy_after)
            .then(|| format!("restarted, liveness failed {} times: {why}", self.dead))
    }
}

/// `connection refused on 127.0.0.1:4123 for 12 s; last log line: …`
fn failure_reason(why: &str, lasted: Duration, last_words: Option<String>) -> String {
    let mut sentence = why.to_owned();
    if lasted.as_secs() > 0 {
        sentence.push_str(&format!(" for {} s", lasted.as_secs()));
    }
    if let Some(words) = last_words {
        sentence.push_str(&format!("; last log line: {words}"));
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> HealthCheck {
        HealthCheck {
            healthy_after: 2,
            unhealthy_after: 2,
            ..HealthCheck::default()
        }
    }

    fn refused() -> Result<(), CheckError> {
        Err(CheckError::Unhealthy("connection refused".to_owned()))
    }

    #[test]
    fn a_life_from_start_to_ready_to_unready_and_back() {
        let (health, start) = (health(), Instant::now());
        let mut probing = ProbeHistory::new(start);
        let at = |second| start + Duration::from_secs(second);
        let mut told = |answer, second| {
            probing.record_readiness(&health, answer, || Some("hm".to_owned()), at(second))
        };
        let starting = |why: &str| InstancePhase::Starting {
            why: why.to_owned(),
        };
        let unready = |why: &str| InstancePhase::Unready {
            why: why.to_owned(),
        };
        assert_eq!(
            told(refused(), 0),
            ProbeChange::Phase(starting("connection refused; last log line: hm"))
        );
        assert_eq!(
            told(refused(), 12),
            ProbeChange::Lasting(starting("connection refused for 12 s; last log line: hm"))
        );
        assert_eq!(told(Ok(()), 13), ProbeChange::Nothing);
        assert_eq!(told(Ok(()), 14), ProbeChange::Phase(InstancePhase::Ready));
        assert_eq!(
            told(refused(), 15),
            ProbeChange::Nothing,
            "one bad answer is none"
        );
        assert_eq!(
            told(refused(), 16),
            ProbeChange::Phase(unready("connection refused; last log line: hm"))
        );
        assert_eq!(
            told(Err(CheckError::Unhealthy("/ready answers 503".into())), 17),
            ProbeChange::Phase(unready("/ready answers 503 for 1 s; last log line: hm"))
        );
        assert_eq!(told(Ok(()), 18), ProbeChange::Nothing);
        assert_eq!(told(Ok(()), 19), ProbeChange::Phase(InstancePhase::Ready));
    }

    #[test]
    fn an_adopted_instance_stays_ready_until_it_has_failed_often_enough() {
        let (health, now) = (health(), Instant::now());
        let mut probing = ProbeHistory::new_ready(now);
        assert_eq!(probing.next_wait(&health), Duration::ZERO);
        let mut told = |answer| probing.record_readiness(&health, answer, || None, now);
        assert_eq!(told(refused()), ProbeChange::Nothing);
        assert_eq!(
            told(refused()),
            ProbeChange::Phase(InstancePhase::Unready {
                why: "connection refused".to_owned()
            })
        );
    }

    #[test]
    fn eager_at_first_then_patient() {
        let health = health();
        let mut probing = ProbeHistory::new(Instant::now());
        let waits: Vec<u128> = (0..1_000)
            .map(|_| {
                let wait = probing.next_wait(&health).as_millis();
                probing.asked += 1;
                wait
            })
            .collect();
        assert_eq!((waits[0], waits[1], waits[19], waits[20]), (0, 50, 50, 100));
        assert_eq!(*waits.last().unwrap(), health.interval.as_millis());
    }

    #[test]
    fn good_answers_that_are_counted_are_an_interval_apart() {
        let health = HealthCheck {
            healthy_after: 3,
            ..HealthCheck::default()
        };
        let now = Instant::now();
        let mut probing = ProbeHistory::new(now);
        let mut waited = Duration::ZERO;
        loop {
            waited += probing.next_wait(&health);
            if probing.record_readiness(&health, Ok(()), || None, now)
                == ProbeChange::Phase(InstancePhase::Ready)
            {
                break;
            }
        }
        assert_eq!(waited, health.interval * 2);
        let quick = HealthCheck::default();
        let mut probing = ProbeHistory::new(now);
        assert_eq!(probing.next_wait(&quick), Duration::ZERO);
        let ready = probing.record_readiness(&quick, Ok(()), || None, now);
        assert_eq!(
            ready,
            ProbeChange::Phase(InstancePhase::Ready),
            "one is enough"
        );
    }

    #[test]
    fn the_start_period_ends_with_the_first_good_answer() {
        let (health, start) = (health(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut probing = ProbeHistory::new(start);
        assert_eq!(probing.record_liveness(&health, refused(), at(1)), None);
        assert_eq!(probing.record_liveness(&health, refused(), at(3)), None);
        assert_eq!(probing.record_liveness(&health, Ok(()), at(5)), None);
        assert_eq!(probing.record_liveness(&health, refused(), at(7)), None);
        assert!(probing.record_liveness(&health, refused(), at(9)).is_some());
    }

    #[test]
    fn liveness_counts_after_the_start_period_and_at_its_own_pace() {
        let (health, start) = (health(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut probing = ProbeHistory::new(start);
        assert!(probing.liveness_is_due(&health, at(0)));
        assert!(!probing.liveness_is_due(&health, at(1)));
        assert!(probing.liveness_is_due(&health, at(2)));
        for second in 0..30 {
            assert_eq!(
                probing.record_liveness(&health, refused(), at(second)),
                None
            );
        }
        assert_eq!(probing.record_liveness(&health, refused(), at(30)), None);
        assert_eq!(probing.record_liveness(&health, Ok(()), at(32)), None);
        assert_eq!(probing.record_liveness(&health, refused(), at(34)), None);
        assert_eq!(
            probing.record_liveness(&health, refused(), at(36)).unwrap(),
            "restarted, liveness failed 2 times: connection refused"
        );
    }
}
