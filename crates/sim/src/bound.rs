//! The fewest requests that any judge needs.

/// Wald's bound: how many requests of the canary any test needs on average to find an error rate of `bad` where `good` is known,
/// when it wrongly rejects with probability `alpha` and misses with `beta`.
#[must_use]
pub fn wald(good: f64, bad: f64, alpha: f64, beta: f64) -> f64 {
    let (reject, accept) = (
        libm::log((1.0 - beta) / alpha),
        libm::log(beta / (1.0 - alpha)),
    );
    let each = bad * libm::log(bad / good) + (1.0 - bad) * (libm::log1p(-bad) - libm::log1p(-good));
    ((1.0 - beta) * reject + beta * accept) / each
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walds_numbers_are_those_that_any_correct_implementation_gives() {
        let canary = |good, bad| wald(good, bad, 0.01, 0.05).round();
        assert_eq!(canary(0.001, 0.01), 297.0);
        assert_eq!(canary(0.001, 0.002), 10_799.0);
        assert_eq!(canary(0.01, 0.02), 1_067.0);
        assert_eq!(canary(0.01, 0.05), 101.0);
    }
}
