//! Reproducible randomness: every draw comes from a generator that is seeded with the simulation's seed and the purpose of the draw.
//!
//! No generator is shared: second 17 of rollout 3 is the same for every contender and independent of earlier draws, so that all judges see the same traffic as long as they expose as much of it.
//!
//! ```
//! use shipway_sim::random::SeededRandom;
//! let draw = || SeededRandom::for_purpose(&[42, 3, 17]).binomial(1_000, 0.01);
//! assert_eq!(draw(), draw());
//! ```

use rand_distr::{Beta, Binomial, Distribution, Gamma, Geometric, Poisson, StandardNormal};
use rand_pcg::Pcg64;

/// A generator for one purpose.
pub struct SeededRandom(Pcg64);

impl SeededRandom {
    /// The generator for a purpose: the seed, then the purpose.
    #[must_use]
    pub fn for_purpose(purpose: &[u64]) -> Self {
        // SplitMix64's finaliser over each part: neighbouring seconds and seeds have nothing in common.
        let mix = |state: u64, part: u64| {
            let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let high = purpose
            .iter()
            .fold(0x5348_4950, |state, part| mix(state, *part));
        let low = mix(high, 0x0057_4159);
        Self(Pcg64::new(
            u128::from(high) << 64 | u128::from(low),
            u128::from(low),
        ))
    }

    /// How many happen when `mean` are expected.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        Poisson::new(mean).map_or(0, |it| it.sample(&mut self.0) as u64)
    }

    /// How many of `of` happen, each with probability `rate`.
    pub fn binomial(&mut self, of: u64, rate: f64) -> u64 {
        let rate = rate.clamp(0.0, 1.0);
        Binomial::new(of, rate).map_or(0, |it| it.sample(&mut self.0))
    }

    /// How many don't happen before the first that does.
    pub fn geometric(&mut self, rate: f64) -> u64 {
        Geometric::new(rate.clamp(1e-12, 1.0)).map_or(0, |it| it.sample(&mut self.0))
    }

    /// A share between 0 and 1 with the mean `a / (a + b)`.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        Beta::new(a, b).map_or_else(|_| a / (a + b), |it| it.sample(&mut self.0))
    }

    /// An amount with the mean `shape`.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        Gamma::new(shape, 1.0).map_or(shape, |it| it.sample(&mut self.0))
    }

    /// Around 0 with the variance 1.
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// Evenly between 0 and 1.
    pub fn share(&mut self) -> f64 {
        self.beta(1.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_means_that_were_asked_for() {
        let mean = |draw: &dyn Fn(u64) -> f64| (0..20_000).map(draw).sum::<f64>() / 20_000.0;
        let near = |seen: f64, asked: f64| {
            assert!((seen / asked - 1.0).abs() < 0.03, "{seen} for {asked}")
        };
        for rate in [0.4, 90.0] {
            near(
                mean(&|i| SeededRandom::for_purpose(&[1, i]).poisson(rate) as f64),
                rate,
            );
        }
        near(
            mean(&|i| SeededRandom::for_purpose(&[2, i]).binomial(900, 0.02) as f64),
            18.0,
        );
        near(
            mean(&|i| SeededRandom::for_purpose(&[3, i]).geometric(0.1) as f64),
            9.0,
        );
        near(
            mean(&|i| SeededRandom::for_purpose(&[4, i]).beta(2.0, 6.0)),
            0.25,
        );
        near(
            mean(&|i| SeededRandom::for_purpose(&[5, i]).gamma(0.7)),
            0.7,
        );
    }

    #[test]
    fn what_cant_happen_doesnt_and_what_must_does() {
        let mut random = SeededRandom::for_purpose(&[7]);
        assert_eq!(
            (
                random.poisson(0.0),
                random.binomial(50, 0.0),
                random.binomial(50, 1.0)
            ),
            (0, 0, 50)
        );
        assert_eq!(random.binomial(0, 0.5), 0);
    }
}
