//! The built-in `actions/cache` across runs.

mod support;

use shipway_workflow::{expr::ExprValue, job::Conclusion::*};
use support::Bench;

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

/// Another run, of `reference`, with the cache store of `first`.
fn next(first: &Bench, reference: &str, steps: &str) -> Bench {
    let mut bench = Bench::steps(steps);
    bench.spec.mounts.caches = first.spec.mounts.caches.clone();
    let github = [
        ("ref", ExprValue::from(reference)),
        ("repository", ExprValue::from("shipway/shop")),
    ];
    bench.spec.contexts.github = ExprValue::object(github);
    bench
}

const CACHE: &str = r#"- { id: c, uses: actions/cache@v4, with: { path: "deps\n~/.tool", key: "deps-${{ hashFiles('lock') }}", restore-keys: "deps-\nany" } }
- { run: 'echo "> [${{ steps.c.outputs.cache-hit }}] [${{ steps.c.outputs.cache-matched-key }}] $(cat deps/a ~/.tool/b 2>&1 | tr "\n" " ")"' }
- { run: 'mkdir -p deps ~/.tool && echo NEW > deps/a && echo tool > ~/.tool/b' }"#;

#[test]
fn what_one_run_saved_the_next_takes_up() {
    let one = "- { run: 'echo 1 > lock' }\n".to_owned() + &CACHE.replace("NEW", "one");
    let first = Bench::steps(&one);
    let outcome = first.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert!(
        outcome.told()[0].starts_with("[] [] cat:"),
        "{}",
        outcome.log
    );
    assert!(
        outcome.log.contains("Cache saved with key: deps-"),
        "{}",
        outcome.log
    );
    assert_eq!(outcome.step("c.post").0, Success);

    let main = "refs/heads/main";
    let outcome = next(&first, main, &one.replace("one", "two")).run();
    let told = outcome.told()[0];
    assert!(
        told.starts_with("[true] [deps-") && told.ends_with("one tool "),
        "{told}"
    );
    assert!(outcome.log.contains("not saving cache"), "{}", outcome.log);

    // Another branch restores what the first has saved, and saves its own.
    let two = one.replace("echo 1", "echo 2").replace("one", "three");
    let topic = next(&first, "refs/heads/topic", &two).run();
    let told = topic.told()[0];
    assert!(
        told.starts_with("[false] [deps-") && told.ends_with("one tool "),
        "{told}"
    );
    assert!(
        topic.log.contains("Cache saved with key: deps-"),
        "{}",
        topic.log
    );
    let topic = next(&first, "refs/heads/topic", &two).run();
    assert!(topic.told()[0].starts_with("[true]") && topic.told()[0].ends_with("three tool "));
    let other = next(&first, "refs/heads/other", &two).run();
    assert!(other.told()[0].starts_with("[false]") && other.told()[0].ends_with("one tool "));
}

#[test]
fn parts_of_the_action_do_their_part_and_say_github_s_words() {
    let first = Bench::steps(
        r#"- { id: miss, uses: actions/cache/restore@v4, with: { path: deps, key: k-1, restore-keys: k- } }
- { id: must, continue-on-error: true, uses: actions/cache/restore@v4, with: { path: deps, key: k-1, fail-on-cache-miss: true } }
- { run: 'mkdir deps && echo a > deps/a' }
- { uses: actions/cache/save@v4, with: { path: deps, key: k-1 } }
- { uses: actions/cache/save@v4, with: { path: deps, key: k-1 } }
- { run: rm -r deps }
- { id: look, uses: actions/cache/restore@v4, with: { path: deps, key: K-1, restore-keys: k, lookup-only: true } }
- { id: hit, uses: actions/cache/restore@v4, with: { path: deps, key: k-1 } }
- { run: 'echo "> [${{ steps.miss.outputs.cache-hit }}] ${{ steps.miss.outputs.cache-primary-key }} ${{ steps.look.outputs.cache-hit }} ${{ steps.hit.outputs.cache-matched-key }} $(cat deps/a)"' }
- { id: nothing, uses: actions/cache/save@v4, with: { path: nothing, key: k-2 } }
- { id: bad, continue-on-error: true, uses: actions/cache@v4, with: { path: deps, key: "a,b" } }
- { id: none, continue-on-error: true, uses: actions/cache@v4, with: { key: k } }"#,
    );
    let outcome = first.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(outcome.told(), ["[] k-1 true k-1 a"], "{}", outcome.log);
    for (step, why) in [
        ("must", "fail-on-cache-miss"),
        ("bad", "no comma"),
        ("none", "needs `path`"),
    ] {
        let said = outcome.step(step).2.unwrap();
        assert!(said.contains(why), "{step}: {said}");
    }
    for text in [
        "Cache not found for input keys: k-1, k-",
        "Cache found and can be restored from key: k-1",
        "Failed to save: there is a cache with the key k-1",
        "##[warning]nothing to cache: none of the paths exist",
    ] {
        assert!(outcome.log.contains(text), "{text}: {}", outcome.log);
    }
}

#[test]
fn a_job_that_failed_saves_nothing() {
    let bench = Bench::steps(
        r#"- { uses: actions/cache@v4, with: { path: deps, key: k } }
- { run: 'mkdir deps && touch deps/a && false' }"#,
    );
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Failure);
    assert!(
        !bench.spec.mounts.caches.as_ref().unwrap().exists(),
        "{}",
        outcome.log
    );
}

#[test]
fn a_run_without_a_place_for_caches_runs_without_them() {
    let mut bench = Bench::steps(
        r#"- { id: c, uses: actions/cache@v4, with: { path: deps, key: k } }
- { run: 'mkdir deps; echo "> [${{ steps.c.outputs.cache-hit }}]"' }"#,
    );
    bench.spec.mounts.caches = None;
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(outcome.told(), ["[false]"]);
    assert!(outcome.log.contains("no cache storage"), "{}", outcome.log);
}
