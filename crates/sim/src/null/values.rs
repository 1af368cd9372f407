//! Values of two equally good releases with the properties of real ones: autocorrelation, spikes, minutes at zero, and a larger
//! variance on the side with less traffic.
//!
//! ```
//! use shipway_sim::{null::values::ValueProcesses, random::SeededRandom};
//! let mut values = ValueProcesses::new(3);
//! let both = values.next(&mut SeededRandom::for_purpose(&[1]), 1.0, [10, 90], [1.1, 1.0]);
//! assert!(both.iter().all(|side| side.memory > 0.0));
//! ```

use std::{collections::VecDeque, f64::consts::TAU};

use crate::random::SeededRandom;

/// How much of its value of a second ago noise keeps.
const CPU_KEEPS: f64 = 0.8;
const MEMORY_KEEPS: f64 = 0.95;
const WORTH_KEEPS: f64 = 0.9;
/// Seconds of which a provider says the rate: a short `rate(…[15s])`.
const WINDOW: usize = 15;
/// Of so many requests one converts.
const CONVERTS: f64 = 0.02;

/// One side's values of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SideValues {
    /// Share of a core.
    pub cpu: f64,
    /// Bytes.
    pub memory: f64,
    /// Requests at once.
    pub saturation: f64,
    /// What a provider says of each request: right-skewed, and the more so the less traffic there is.
    pub worth: f64,
    /// A provider's quotient of two counts over a short window: NaN without requests, and mostly zero with few.
    pub conversion: f64,
}

#[derive(Default)]
struct ValueProcess {
    cpu: f64,
    memory: f64,
    worth: f64,
    /// When this process collects its garbage, in parts of its period; and the period in seconds.
    phase: f64,
    period: f64,
    window: VecDeque<(u64, u64)>,
}

/// Both sides, the new release first.
pub struct ValueProcesses {
    sides: [ValueProcess; 2],
    second: f64,
    /// Requests at once of an instance.
    open: f64,
}

impl ValueProcesses {
    /// Those of the rollout with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = SeededRandom::for_purpose(&[seed, 71]);
        let mut side = || ValueProcess {
            phase: random.share(),
            period: 20.0 + 60.0 * random.share(),
            ..ValueProcess::default()
        };
        Self {
            sides: [side(), side()],
            second: 0.0,
            open: [0.05, 0.5, 5.0][(seed % 3) as usize],
        }
    }

    /// The next second's: the load as a factor, each side's requests, and how many times what it should be CPU, memory and
    /// saturation of a side are.
    pub fn next(
        &mut self,
        random: &mut SeededRandom,
        load: f64,
        requests: [u64; 2],
        times: [f64; 2],
    ) -> [SideValues; 2] {
        self.second += 1.0;
        let all = (requests[0] + requests[1]).max(1) as f64;
        std::array::from_fn(|index| {
            let side = &mut self.sides[index];
            let times = times[index];
            step_noise(&mut side.cpu, CPU_KEEPS, random);
            step_noise(&mut side.memory, MEMORY_KEEPS, random);
            step_noise(&mut side.worth, WORTH_KEEPS, random);
            // Occasionally a request is expensive, such as a report.
            let spike = if random.share() < 0.05 {
                0.3 * random.gamma(1.0)
            } else {
                0.0
            };
            let saw = (self.second / side.period + side.phase).fract();
            let instances = if index == 0 { 1.0 } else { 3.0 };
            // A mean over few requests scatters more than one over many.
            let spread = 0.15 + 0.35 * (1.0 - requests[index] as f64 / all);
            SideValues {
                cpu: times * (0.2 * load * (1.0 + 0.3 * side.cpu).max(0.0) + spike),
                memory: times * 1e8 * (1.0 + 0.2 * saw + 0.05 * side.memory),
                saturation: random.poisson(times * self.open * load * instances) as f64 / instances,
                worth: 50.0
                    * (1.0 + 0.3 * libm::sin(self.second / 60.0 * TAU))
                    * libm::exp(spread * side.worth - spread * spread / 2.0),
                conversion: side.converted(requests[index], random),
            }
        })
    }
}

impl ValueProcess {
    fn converted(&mut self, requests: u64, random: &mut SeededRandom) -> f64 {
        self.window
            .push_back((random.binomial(requests, CONVERTS), requests));
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
        let (hits, of) = self
            .window
            .iter()
            .fold((0, 0), |sum, second| (sum.0 + second.0, sum.1 + second.1));
        hits as f64 / of as f64
    }
}

/// Noise with the variance 1 of which each value keeps a part of the one before.
fn step_noise(noise: &mut f64, part: f64, random: &mut SeededRandom) {
    *noise = part * *noise + libm::sqrt(1.0 - part * part) * random.normal();
}
