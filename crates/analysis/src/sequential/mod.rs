//! `sequential`: the canary against stable, looked at after every request, as early as the evidence allows and never earlier.
//!
//! It **fails** when the evidence that the canary is worse reaches `1/alpha` to 1: a release that is no worse is ever
//! failed with probability `alpha` at most, however long and however often one looks. That evidence is collected over the
//! whole rollout.
//!
//! It **passes for good** when the evidence of this hold shows that the canary is no worse than `tolerance` times stable:
//! then the hold may end early. Each hold shows it anew: a release that does well at 1 % may not at 50 %.
//!
//! In between it passes as things stand once `min_requests` were answered, and is inconclusive before: a hold that runs out of
//! time with some traffic and nothing against the release ends well.
//!
//! Where nothing can be compared (a side can't be read, there is no stable, nobody asks anything), it is inconclusive.

use serde::{Deserialize, Serialize};

use crate::{
    Judge, Judgement, Metric, Observation, Side, Verdict,
    evidence::{
        Alpha, Interval,
        ratio::{Counted, Evidence, InvalidTest, Test},
    },
    metric::grouped,
    track::{Counts, Track},
};

/// A comparison with stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sequential {
    /// What is compared.
    pub metric: Metric,
    /// How probable it may be that a release that is no worse is failed; the metric's share of the rollout's.
    pub alpha: Alpha,
    /// How probable it may be that a hold ends early with a release that is worse than the tolerance.
    pub beta: Alpha,
    /// Which ratios are asked about.
    pub test: Test,
    /// Requests of the canary before "nothing against it" counts for something.
    pub min_requests: u64,
}

/// Why a comparison can't be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidSequential {
    /// Not a metric of events.
    #[error("{0} can't be compared with stable: that can be done with error-rate")]
    Metric(Metric),
    /// Not ratios.
    #[error(transparent)]
    Test(#[from] InvalidTest),
}

impl Sequential {
    /// A wrongly failed release in a hundred rollouts, all metrics together.
    pub const ALPHA: f64 = 0.01;
    /// A hold ended early in twenty with a release that is just as bad as is tolerated.
    pub const BETA: f64 = 0.05;
    /// Twice stable's rate: what a hold that ends early has excluded.
    pub const TOLERANCE: f64 = 2.0;
    /// As the threshold judge's.
    pub const MIN_REQUESTS: u64 = 100;

    /// A comparison with the defaults. `alpha` is this metric's share.
    ///
    /// # Errors
    /// When the metric isn't one of events, or the ratios can't be asked about.
    pub fn new(
        metric: Metric,
        alpha: Alpha,
        beta: Alpha,
        margin: f64,
        tolerance: f64,
    ) -> Result<Self, InvalidSequential> {
        if metric != Metric::ErrorRate {
            return Err(InvalidSequential::Metric(metric));
        }
        Ok(Self {
            metric,
            alpha,
            beta,
            test: Test::new(margin, tolerance)?,
            min_requests: Self::MIN_REQUESTS,
        })
    }
}

/// What is remembered. `Default` is the state when a rollout begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    canary: Track,
    stable: Track,
    /// Of the whole rollout.
    rollout: Evidence,
    /// Of this hold.
    hold: Evidence,
    failed: Option<Judgement>,
}

impl State {
    /// The state when the next hold begins: what speaks against the release is kept, what would end a hold early is not.
    pub fn begin_hold(&mut self) {
        self.hold = Evidence::default();
    }

    /// The range of the ratio between the two rates, so far; wide open before the first event.
    #[must_use]
    pub const fn ratio(&self) -> Interval {
        self.rollout.range()
    }
}

impl Judge for Sequential {
    type State = State;

    fn observe(&self, state: &mut State, seen: &Observation) -> Judgement {
        if let Some(failed) = &state.failed {
            return failed.clone();
        }
        let unknown = |why: String| {
            let why = format!("{} of {} unknown: {why}", self.metric, seen.canary.release);
            Judgement::open(Verdict::Inconclusive { why })
        };
        let Some(stable) = &seen.stable else {
            return unknown("there is no stable release to compare with".to_owned());
        };
        let (Some(_), Some(_)) = (&seen.canary.sample, &stable.sample) else {
            return unknown("the source could not be read".to_owned());
        };
        self.take_in(state, seen, stable);
        let against = state.rollout.log_worse(&self.test);
        let (limit, cleared) = (self.alpha.log_limit(), self.beta.log_limit());
        let requests = state.rollout.canary().of;
        if against >= limit {
            let why = format!(
                "{}, {}",
                compared(self, state, seen, stable),
                odds(against, limit)
            );
            let failed = Judgement::settled(Verdict::Fail { why });
            state.failed = Some(failed.clone());
            failed
        } else if requests < self.min_requests {
            let (requests, needed) = (
                grouped(&requests.to_string()),
                grouped(&self.min_requests.to_string()),
            );
            unknown(format!("{requests} of {needed} requests so far"))
        } else if state.hold.log_no_worse(&self.test) >= cleared {
            let why = format!(
                "{}, no worse than {} times stable",
                compared(self, state, seen, stable),
                self.test.tolerance()
            );
            Judgement::settled(Verdict::Pass { why })
        } else {
            let why = format!(
                "{}, {}",
                compared(self, state, seen, stable),
                odds(against, limit)
            );
            Judgement::open(Verdict::Pass { why })
        }
    }
}

impl Sequential {
    /// Counts what happened on both sides since the look before, over the same time. A look that is older than one already
    /// taken is left alone.
    fn take_in(&self, state: &mut State, seen: &Observation, stable: &Side) {
        let (Some(canary), Some(stable)) = (&seen.canary.sample, &stable.sample) else {
            return;
        };
        let is_stale = [state.canary.at(), state.stable.at()]
            .into_iter()
            .flatten()
            .any(|known| seen.at <= known);
        if is_stale {
            return;
        }
        state.canary.begin(canary, seen.at);
        state.stable.begin(stable, seen.at);
        let looked = (
            counted(state.canary.window(canary)),
            counted(state.stable.window(stable)),
        );
        for evidence in [&mut state.rollout, &mut state.hold] {
            evidence.look(&self.test, looked.0, looked.1);
        }
        if looked.0.events + looked.1.events > 0 {
            state.rollout.narrow(self.alpha);
        }
        state.canary.close(canary, seen.at);
        state.stable.close(stable, seen.at);
    }
}

fn counted(counts: Counts) -> Counted {
    Counted {
        // The two counters may be read a moment apart.
        events: counts.errors.min(counts.requests),
        of: counts.requests,
    }
}

/// `error-rate 2.1 % on #42 against 0.1 % on #41, 6,200 requests`
fn compared(judge: &Sequential, state: &State, seen: &Observation, stable: &Side) -> String {
    let (canary, other) = (state.rollout.canary(), state.rollout.stable());
    let shown = |counted: Counted| {
        if counted.of == 0 {
            "no requests".to_owned()
        } else {
            judge.metric.show(counted.rate())
        }
    };
    format!(
        "{} {} on {} against {} on {}, {} requests",
        judge.metric,
        shown(canary),
        seen.canary.release,
        shown(other),
        stable.release,
        grouped(&canary.of.to_string())
    )
}

/// `evidence 340:1 against equal, limit 100:1`
fn odds(against: f64, limit: f64) -> String {
    let shown = |log: f64| {
        if log > libm::log(1e6) {
            "over 1,000,000:1".to_owned()
        } else {
            format!("{}:1", grouped(&format!("{:.0}", libm::exp(log).max(1.0))))
        }
    };
    format!(
        "evidence {} against equal, limit {}",
        shown(against),
        shown(limit)
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::Sample;

    fn judge() -> Sequential {
        let (alpha, beta) = (Alpha::new(0.01).unwrap(), Alpha::new(0.05).unwrap());
        Sequential::new(Metric::ErrorRate, alpha, beta, 1.0, 2.0).unwrap()
    }

    fn seen(second: i64, canary: (u64, u64), stable: (u64, u64)) -> Observation {
        let side = |release: &str, (requests, errors)| Side {
            release: release.to_owned(),
            sample: Some(Sample {
                requests,
                errors,
                ..Sample::default()
            }),
        };
        Observation {
            at: Timestamp::from_second(second).unwrap(),
            canary: side("#3", canary),
            stable: Some(side("#2", stable)),
        }
    }

    #[test]
    fn a_regression_fails_with_a_sentence_and_for_good() {
        let mut state = State::default();
        judge().observe(&mut state, &seen(0, (50, 50), (9_000, 900)));
        let judged = judge().observe(&mut state, &seen(10, (350, 65), (11_700, 903)));
        assert_eq!(
            judged.verdict.why(),
            "error-rate 5 % on #3 against 0.11 % on #2, 300 requests, evidence over 1,000,000:1 against equal, limit 100:1"
        );
        assert!(judged.verdict.is_fail() && judged.is_settled());
        let later = judge().observe(&mut state, &seen(20, (99_350, 65), (11_700, 903)));
        assert_eq!(later, judged, "what has failed stays so");
    }

    #[test]
    fn a_good_release_passes_as_it_stands_and_ends_the_hold_once_it_is_shown_to_be_no_worse() {
        let mut state = State::default();
        judge().observe(&mut state, &seen(0, (0, 0), (0, 0)));
        let few = judge().observe(&mut state, &seen(1, (60, 0), (540, 1)));
        assert_eq!(
            few.verdict,
            Verdict::Inconclusive {
                why: "error-rate of #3 unknown: 60 of 100 requests so far".to_owned()
            }
        );
        let open = judge().observe(&mut state, &seen(2, (200, 2), (1_800, 18)));
        assert!(open.verdict.is_pass() && !open.is_settled(), "{open:?}");
        let clear = judge().observe(&mut state, &seen(60, (10_000, 95), (90_000, 900)));
        assert!(clear.verdict.is_pass() && clear.is_settled(), "{clear:?}");
        assert_eq!(
            clear.verdict.why(),
            "error-rate 0.95 % on #3 against 1 % on #2, 10,000 requests, no worse than 2 times stable"
        );
        assert!(state.ratio().holds(1.0) && state.ratio().high < 3.0);
        state.begin_hold();
        let next = judge().observe(&mut state, &seen(61, (10_100, 96), (90_900, 909)));
        assert!(!next.is_settled(), "each hold shows it anew");
    }

    #[test]
    fn without_traffic_without_stable_or_without_a_source_nothing_passes() {
        let mut state = State::default();
        for second in 0..100 {
            let judged = judge().observe(&mut state, &seen(second, (7, 7), (7, 0)));
            assert!(matches!(judged.verdict, Verdict::Inconclusive { .. }));
        }
        let mut alone = seen(200, (500, 0), (500, 0));
        alone.stable = None;
        let mut dark = seen(200, (500, 0), (500, 0));
        dark.canary.sample = None;
        for observation in [alone, dark] {
            let judged = judge().observe(&mut State::default(), &observation);
            assert!(
                matches!(judged.verdict, Verdict::Inconclusive { .. }),
                "{judged:?}"
            );
        }
    }

    #[test]
    fn a_restarted_counter_and_a_late_look_count_once() {
        let mut state = State::default();
        judge().observe(&mut state, &seen(0, (1_000, 10), (1_000, 10)));
        judge().observe(&mut state, &seen(2, (1_100, 11), (1_100, 11)));
        judge().observe(&mut state, &seen(1, (1_050, 10), (1_050, 10)));
        judge().observe(&mut state, &seen(3, (40, 1), (1_200, 12)));
        assert_eq!(state.rollout.canary(), Counted { events: 2, of: 140 });
        assert_eq!(state.rollout.stable(), Counted { events: 2, of: 200 });
    }

    #[test]
    fn only_metrics_of_events_are_compared() {
        let alpha = Alpha::new(0.01).unwrap();
        let refused = Sequential::new(Metric::Memory, alpha, alpha, 1.0, 2.0).unwrap_err();
        assert!(refused.to_string().contains("error-rate"));
        assert!(Sequential::new(Metric::ErrorRate, alpha, alpha, 2.0, 1.5).is_err());
    }
}
