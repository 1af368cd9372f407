//! Releases that are no worse: how often they are rolled back, when the judge looks after every single event, the weight rises,
//! the traffic swings, and users stay on their side.
//!
//! A few thousand rollouts here; `bench/analysis/run` does ten thousand and more (`SIM_NULL_RUNS`).

use shipway_sim::{null, summary::upper_limit};

#[test]
fn a_release_that_is_no_worse_is_rolled_back_no_more_often_than_alpha_however_often_one_looks() {
    let runs: u64 = std::env::var("SIM_NULL_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(2_000);
    let alpha = 0.05;
    let wrong = null::events::wrongly_rolled_back(runs, 5, alpha, 2);
    let limit = upper_limit(wrong, runs);
    println!("{}", null::sentence(wrong, runs));
    // Not only the rate: what it is below with 95 % confidence. And it can fail: some are rolled back.
    assert!(
        limit <= alpha && wrong > 0,
        "{wrong} of {runs} with alpha {alpha}: as many as {limit}"
    );
}
