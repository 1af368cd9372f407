//! The few numeric methods that evidence needs.

/// `ln B(a, b) = ln Γ(a) + ln Γ(b) − ln Γ(a + b)`
pub(super) fn log_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// `ln Σ exp(x)` without overflow; of nothing it is minus infinity.
pub(super) fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    // Terms below the precision of a double don't change the sum; most terms of a likelihood are that small.
    let sum: f64 = terms
        .map(|term| term - largest)
        .filter(|below| *below > -40.0)
        .map(libm::exp)
        .sum();
    largest + libm::log(sum)
}

/// Halvings after which a double has no more digits to give.
const HALVINGS: usize = 100;

/// Where `f` changes sign between `low` and `high`; it must have different signs there.
pub(super) fn bisect(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let is_rising = f(high) > 0.0;
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        if (f(middle) > 0.0) == is_rising {
            high = middle;
        } else {
            low = middle;
        }
    }
    low + (high - low) / 2.0
}

/// The smallest value of a function with one valley between `low` and `high`, by golden sections.
pub(super) fn smallest(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let (mut left, mut right) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
    let (mut at_left, mut at_right) = (f(left), f(right));
    for _ in 0..HALVINGS {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - GOLDEN * (high - low);
            at_left = f(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + GOLDEN * (high - low);
            at_right = f(right);
        }
    }
    at_left.min(at_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_exponentials_neither_overflow_nor_vanish() {
        let sum = |terms: &[f64]| log_sum_exp(terms.iter().copied());
        assert_eq!(sum(&[]), f64::NEG_INFINITY);
        assert!((sum(&[1000.0, 1000.0]) - (1000.0 + 2.0_f64.ln())).abs() < 1e-12);
        assert!((sum(&[-1000.0, f64::NEG_INFINITY]) + 1000.0).abs() < 1e-12);
    }

    #[test]
    fn roots_and_valleys_are_found() {
        assert!((bisect(0.0, 2.0, |x| x * x - 2.0) - 2.0_f64.sqrt()).abs() < 1e-15);
        assert!((bisect(0.0, 2.0, |x| 2.0 - x * x) - 2.0_f64.sqrt()).abs() < 1e-15);
        assert!((smallest(0.0, 5.0, |x| (x - 3.0) * (x - 3.0) + 1.0) - 1.0).abs() < 1e-12);
    }
}
