//! The confidence sequence of one proportion.

use super::{
    Alpha, ConfidenceInterval,
    numeric::{bisect, log_beta},
};

/// The confidence sequence of a proportion after `events` of `trials`, tightest at about `tightest_at` trials.
///
/// The mixture of Howard, Ramdas, McAuliffe & Sekhon (2021), proposition 7, two-sided: for each candidate `p` a beta-binomial
/// supermartingale, and those candidates that aren't rejected. Without trials it is everything.
#[must_use]
pub fn interval(events: u64, trials: u64, alpha: Alpha, tightest_at: f64) -> ConfidenceInterval {
    if trials == 0 {
        return ConfidenceInterval {
            low: 0.0,
            high: 1.0,
        };
    }
    let (events, trials) = (events.min(trials) as f64, trials as f64);
    let seen = events / trials;
    let excess = |p: f64| log_evidence(events, trials, p, tightest_at) - alpha.log_limit();
    // The likelihood is undefined at exactly 0 and 1.
    let edge = 1e-15;
    let low = if seen <= edge || excess(edge) <= 0.0 {
        0.0
    } else {
        bisect(edge, seen, excess)
    };
    let high = if seen >= 1.0 - edge || excess(1.0 - edge) <= 0.0 {
        1.0
    } else {
        bisect(seen, 1.0 - edge, excess)
    };
    ConfidenceInterval { low, high }
}

/// The logarithm of the evidence against the proportion `p`: a Beta prior around `p` whose width suits `tightest_at` trials.
fn log_evidence(events: f64, trials: f64, p: f64, tightest_at: f64) -> f64 {
    // The prior width is tuned for this level, as published, independently of `alpha`.
    const TUNED_FOR: f64 = 0.05;
    let q = 1.0 - p;
    let needed = -2.0 * libm::log(TUNED_FOR);
    let spread = p * q * tightest_at / (needed + libm::log1p(needed));
    let width = (spread - p * q).max(1e-3 * p * q);
    let (a, b) = (width / q, width / p);
    log_beta(a + events, b + trials - events)
        - log_beta(a, b)
        - events * libm::log(p)
        - (trials - events) * libm::log(q)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(events: u64, trials: u64) -> ConfidenceInterval {
        interval(events, trials, Alpha::new(0.05).unwrap(), 100.0)
    }

    #[test]
    fn the_numbers_that_any_correct_implementation_gives() {
        let ConfidenceInterval { low, high } = of(700, 1000);
        assert!((low - 0.651_629).abs() < 1e-6, "{low}");
        assert!((high - 0.745_949).abs() < 1e-6, "{high}");
    }

    #[test]
    fn ends_are_ends() {
        assert_eq!(
            of(0, 0),
            ConfidenceInterval {
                low: 0.0,
                high: 1.0
            }
        );
        assert_eq!(of(0, 50).low, 0.0);
        assert!(of(0, 5000).high < 0.01);
        assert_eq!(of(50, 50).high, 1.0);
        assert!(of(5000, 5000).low > 0.99);
    }

    #[test]
    fn it_holds_what_was_seen_and_narrows() {
        let mut last = 2.0;
        for trials in [10, 100, 1_000, 10_000, 100_000] {
            let interval = of(trials / 10, trials);
            assert!(interval.holds(0.1), "{interval:?}");
            assert!(interval.high - interval.low < last);
            last = interval.high - interval.low;
        }
    }
}
