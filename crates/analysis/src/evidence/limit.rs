//! A time-uniform test of one proportion against a limit, for rollouts without a stable release to compare with.

use super::numeric::log_sum_exp;

/// How many times the limit the mixture's alternatives are; those of 1 and more are replaced by [`NEARLY_ALL`].
const TIMES: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0];
/// The largest share among the alternatives: at exactly 1 the first good request would be impossible.
const NEARLY_ALL: f64 = 0.99;

/// The logarithm of the evidence that more than `limit` of all requests are bad, after `events` of `trials`. Without trials, and
/// for a limit that isn't between 0 and 1, there is none.
///
/// It is an even mixture of likelihood ratios of larger shares to `limit`. Each is a supermartingale for any share up to
/// `limit`, since the likelihood ratio is monotone in the number of events; so by Ville's inequality it exceeds `1/alpha` with
/// probability `alpha` at most, however often it is looked at.
#[must_use]
pub fn log_above(events: u64, trials: u64, limit: f64) -> f64 {
    if trials == 0 || !(limit > 0.0 && limit < 1.0) {
        return 0.0;
    }
    let bad = events.min(trials) as f64;
    let good = trials as f64 - bad;
    let alternatives = TIMES
        .iter()
        .map(|times| (times * limit).min(NEARLY_ALL))
        .filter(|share| *share > limit);
    let count = alternatives.clone().count();
    if count == 0 {
        return 0.0;
    }
    let ratios = alternatives.map(|share| {
        bad * libm::log(share / limit) + good * (libm::log1p(-share) - libm::log1p(-limit))
    });
    log_sum_exp(ratios) - libm::log(count as f64)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    #[test]
    fn a_few_requests_that_all_fail_are_enough_and_a_good_release_gathers_nothing() {
        let limit = libm::log(200.0);
        assert!(log_above(4, 4, 0.05) > limit);
        assert!(log_above(1, 1, 0.05) < limit);
        assert!(log_above(0, 10_000, 0.05) < 0.0);
        for nothing in [
            log_above(0, 0, 0.05),
            log_above(9, 9, 0.0),
            log_above(9, 9, 1.0),
        ] {
            assert!(nothing.abs() < f64::EPSILON);
        }
    }

    #[test]
    fn a_release_that_is_just_within_the_limit_is_rarely_failed_however_often_it_is_looked_at() {
        let (mut random, alpha, rollouts) = (Rng::with_seed(11), 0.05_f64, 1_000);
        let mut failed = 0;
        for _ in 0..rollouts {
            let mut events = 0;
            let is_failed = (1..=2_000).any(|trials| {
                events += u64::from(random.f64() < 0.05);
                log_above(events, trials, 0.05) >= -libm::log(alpha)
            });
            failed += u32::from(is_failed);
        }
        assert!(f64::from(failed) <= alpha * f64::from(rollouts), "{failed}");
    }
}
