//! Rollouts on a simulated clock: the real rollout and the real judges against synthetic traffic with synthetic regressions,
//! with the feature `rivals` compared with models of other controllers on the same traffic (ADR 21).
//!
//! It answers questions that can't be tested in production: how often does this policy roll a good release back, how long does it
//! take to detect
//! a bad one, how many users does that cost, and what would others have done. It never reads a clock, never sleeps, and draws
//! nothing that its seed doesn't determine: the same question has the same answer, to the last byte.
//!
//! - [`world`]: requests, failures and latencies ([`traffic`], [`regression`], [`random`]).
//! - [`contest`]: one rollout, decided by [`shipway`] or one of the `rivals`.
//! - [`compare`]: many rollouts of each as a table's rows; `tune` chooses the settings of rivals.
//!
//! ```
//! use shipway_sim::{contest::{RolloutEnd, play}, policy::SimulatedPolicy, regression::Regression, shipway::RealRollout, world::{SimulatedScenario, SimulatedWorld}};
//!
//! let policy = SimulatedPolicy::default();
//! let bad = SimulatedScenario { regression: Some(Regression::error_rate(0.2)), ..SimulatedScenario::default() };
//! let ended = play(&SimulatedWorld::new(&bad, 7), bad.horizon, &mut RealRollout::open(&policy, 7));
//! assert_eq!(ended.how, Some(RolloutEnd::RolledBack));
//! assert!(ended.at < 120, "within the first step");
//! ```

pub mod bound;
pub mod chart;
pub mod compare;
pub mod contest;
#[cfg(feature = "rivals")]
pub mod null;
pub mod policy;
pub mod random;
pub mod reading;
pub mod regression;
#[cfg(feature = "rivals")]
pub mod rivals;
pub mod shipway;
pub mod summary;
pub mod traffic;
#[cfg(feature = "rivals")]
pub mod tune;
pub mod world;
