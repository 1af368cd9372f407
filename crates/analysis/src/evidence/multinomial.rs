//! Counts on several sides with constant shares, in closed form.

use super::numeric::log_beta;

/// The logarithm of the evidence that events don't fall to the two sides as their shares of the traffic say.
///
/// When an event happens it is the canary's with probability `share` if the sides are equally good, however the traffic
/// itself rises and falls. With counts `n`, shares `ρ` and the prior Beta(`kρ`) on where events fall:
/// `ln E = ln B(kρ + n) − ln B(kρ) − Σ n ln ρ`. `prior` is `k`: how many events the opinion is worth that the sides are
/// equal. Source: Lindon & Malek (2020), equation 9.
///
/// ```
/// use shipway_analysis::evidence::multinomial::log_evidence;
/// let p_value = |canary, stable, prior| f64::exp(-log_evidence(canary, stable, 0.5, prior));
/// assert!((p_value(100, 150, 10.0) - 0.040615).abs() < 1e-6);
/// ```
#[must_use]
pub fn log_evidence(canary: u64, stable: u64, share: f64, prior: f64) -> f64 {
    let (canary, stable) = (canary as f64, stable as f64);
    let (a, b) = (prior * share, prior * (1.0 - share));
    log_beta(a + canary, b + stable)
        - log_beta(a, b)
        - canary * libm::log(share)
        - stable * libm::log1p(-share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_any_correct_implementation_gives() {
        let p = |canary, stable, prior| libm::exp(-log_evidence(canary, stable, 0.5, prior));
        assert!((p(100, 150, 10.0) - 0.040_615).abs() < 5e-7);
        assert!((p(10, 30, 10.0) - 0.034_118_6).abs() < 5e-8);
        assert!((p(100, 201, 100.0) - 5.060_61e-6).abs() < 5e-12);
    }
}
