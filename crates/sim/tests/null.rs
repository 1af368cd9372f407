//! Releases that are no worse: how often they are rolled back, when the judge looks after every single event, the weight rises,
//! the traffic swings, and users stay on their side.
//!
//! A few here; `bench/analysis/run` does ten thousand and more (`SIM_NULL_RUNS`).

use shipway_sim::{
    null::{
        self,
        ticks::{NullSimulation, count_false_rollbacks},
    },
    summary::upper_limit,
};

#[test]
fn a_release_that_is_no_worse_is_rolled_back_no_more_often_than_alpha_however_often_one_looks() {
    let runs: u64 = std::env::var("SIM_NULL_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(2_000);
    let alpha = 0.05;
    let wrong = null::events::count_false_rollbacks(runs, 5, alpha, 2);
    let limit = upper_limit(wrong, runs);
    println!("{}", null::describe_false_rollbacks(wrong, runs));
    // Not only the rate: what it is below with 95% confidence. And it can fail: some are rolled back.
    assert!(
        limit <= alpha && wrong > 0,
        "{wrong} of {runs} with alpha {alpha}: as many as {limit}"
    );
}

#[test]
fn whatever_is_compared_at_every_tick_rolls_back_no_more_often_than_alpha() {
    // `bench/analysis/run` shows the limit that the rates are below over ten thousand of them; these few show a mistake.
    let play = NullSimulation {
        runs: 200,
        seed: 5,
        alpha: 0.1,
        stretch: 0.35,
        threads: 2,
    };
    let counted = count_false_rollbacks(&play);
    for (what, wrong) in &counted {
        println!(
            "{what}: {}",
            null::describe_false_rollbacks(*wrong, play.runs)
        );
    }
    let most = (play.alpha * play.runs as f64) as u64;
    assert!(
        counted.iter().all(|(_, wrong)| *wrong <= most),
        "{counted:?}"
    );
    assert!(
        counted.iter().any(|(_, wrong)| *wrong > 0),
        "some are rolled back"
    );
}
