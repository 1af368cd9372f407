//! Mistakes in what is pushed: each is told in the pusher's terminal, by `shipway check` too where a file is wrong, and nothing is
//! shipped by mistake.

use crate::{
    shop::Shop,
    site::{Site, raw, said},
    words::{assert_ends, assert_says, assert_silent_of},
};

const WORKFLOW: &str = ".github/workflows/cd.yml";

/// Production alone, without anything to wait for.
const QUICK: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments: { production: { strategy: rolling, drain: 1s } }
";

/// A mistake in a file: the push and the check both say these words, and nothing is released.
fn assert_refused(edit: impl Fn(&Shop), words: &[&str]) {
    let site = Site::started();
    let shop = site.shop();
    edit(&shop);
    let pushed = shop.ship("1.0");
    let told = said(&pushed);
    assert!(
        pushed.status.success(),
        "git's own part of a push is done: {told}"
    );
    assert_says(&told, words);
    assert_silent_of(&told, &["serves"]);
    assert_eq!(site.rollouts(), Vec::<serde_json::Value>::new(), "{told}");
    let checked = site.shipway(&["check", &shop.path.to_string_lossy()]);
    assert_ends(
        &checked,
        2,
        &["error[", " --> ", "2 files checked: ", " error"],
    );
}

#[test]
fn broken_yaml_in_the_configuration_is_named_with_its_line() {
    let words = [
        "shipway.yaml:",
        "not released: shipway.yaml has errors",
        "shipway check",
    ];
    assert_refused(
        |shop| shop.edit("shipway.yaml", "staging:", "staging: ["),
        &words,
    );
}

#[test]
fn an_unknown_key_of_the_configuration_is_told_with_the_nearest_one() {
    let words = [
        "unknown key",
        "`instances`",
        "not released: shipway.yaml has errors",
    ];
    assert_refused(
        |shop| shop.edit("shipway.yaml", "instances: 2", "instence: 2"),
        &words,
    );
}

#[test]
fn broken_yaml_in_a_workflow_is_named_with_its_line() {
    let words = [
        ".github/workflows/cd.yml:",
        "has errors and does not run",
        "not released: no workflow was triggered",
    ];
    assert_refused(|shop| shop.edit(WORKFLOW, "steps:", "steps: {"), &words);
}

#[test]
fn an_unknown_key_of_a_workflow_is_told_with_the_nearest_one() {
    let words = ["`runs-on`", "has errors and does not run"];
    assert_refused(|shop| shop.edit(WORKFLOW, "runs-on:", "runs_on:"), &words);
}

#[test]
fn jobs_that_need_each_other_are_refused() {
    let words = ["needs", "build", "does not run"];
    assert_refused(
        |shop| shop.edit(WORKFLOW, "    runs-on:", "    needs: build\n    runs-on:"),
        &words,
    );
}

#[test]
fn a_commit_without_a_configuration_says_how_to_write_one() {
    let site = Site::started();
    let shop = site.shop();
    std::fs::remove_file(shop.path.join("shipway.yaml")).unwrap();
    let told = said(&shop.ship("1.0"));
    assert_says(
        &told,
        &[
            "run r1 succeeded",
            "not released: no shipway.yaml in this commit",
            "shipway init",
        ],
    );
    assert_silent_of(&told, &["branch isn't released"]);
    assert!(site.rollouts().is_empty());
}

#[test]
fn a_path_that_leaves_the_repository_is_refused_before_anything_runs() {
    let words = ["is outside the repository", "without `..`", "not released"];
    assert_refused(
        |shop| {
            shop.edit(
                "shipway.yaml",
                "smoke: [{ get: /ready, expect: { status: 200 } }]\n  production",
                "tests: ../../e2e.yml\n  production",
            )
        },
        &words,
    );
}

#[test]
fn a_configuration_for_another_service_is_told() {
    let site = Site::started();
    let shop = site.shop();
    shop.edit("shipway.yaml", "service: shop", "service: shoe");
    let told = said(&shop.ship("1.0"));
    assert_says(
        &told,
        &[
            "has `service: shoe`",
            "this repository is shop",
            "not released",
        ],
    );
    assert_silent_of(&told, &["branch isn't released"]);
}

#[test]
fn a_branch_that_does_not_exist_is_gits_to_refuse() {
    let site = Site::started();
    let shop = site.shop();
    shop.commit("1.0");
    let pushed = shop.push("nowhere");
    assert!(!pushed.status.success());
    assert_says(&said(&pushed), &["src refspec nowhere does not match any"]);
    assert!(site.rollouts().is_empty());
}

#[test]
fn a_branch_that_is_not_released_runs_what_matches_and_says_which_is_released() {
    let site = Site::started();
    let shop = site.shop();
    shop.commit("1.0");
    let told = said(&shop.push("main:refs/heads/feature"));
    assert_says(
        &told,
        &["not released: only commits on main are released (this is feature)"],
    );
    shop.edit(WORKFLOW, "[main]", "['**']");
    shop.commit("1.1");
    let told = said(&shop.push("main:refs/heads/feature"));
    assert_says(
        &told,
        &[
            "run r1 succeeded",
            "only commits on main are released (this is feature)",
        ],
    );
    assert!(site.rollouts().is_empty());
}

#[test]
fn deleting_the_released_branch_is_refused_and_another_one_goes() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", QUICK);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    let deleted = shop.push(":main");
    let told = said(&deleted);
    assert!(!deleted.status.success(), "{told}");
    assert_says(&told, &["refusing to delete the current branch"]);
    assert_silent_of(&told, &["squelch"]);
    shop.push("main:refs/heads/feature");
    let told = said(&shop.push(":feature"));
    assert_says(&told, &["feature deleted", "not affected"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
    assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);
}

#[test]
fn tests_that_are_not_in_the_commit_stop_the_release() {
    let site = Site::started();
    let shop = site.shop();
    shop.write(
        "shipway.yaml",
        &QUICK.replace("drain: 1s", "drain: 1s, tests: .github/workflows/e2e.yml"),
    );
    let words = [
        "not released: shipway.yaml names the tests .github/workflows/e2e.yml",
        "not in this commit; add them, or remove `tests`",
    ];
    assert_says(&said(&shop.ship("1.0")), &words);
    assert!(site.rollouts().is_empty());
}

#[test]
fn an_artifact_that_is_missing_or_has_another_name_is_told() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", &format!("{QUICK}artifact: shoe\n"));
    let words = ["no run has uploaded an artifact \"shoe\", only shop"];
    assert_says(&said(&shop.ship("1.0")), &words);
    shop.write("shipway.yaml", QUICK);
    shop.edit(
        WORKFLOW,
        "actions/upload-artifact@v4",
        "actions/setup-python@v5",
    );
    let told = said(&shop.ship("1.1"));
    assert_says(
        &told,
        &["no run has uploaded an artifact (actions/upload-artifact)"],
    );
    assert!(site.rollouts().is_empty());
}

#[test]
fn an_artifact_without_the_command_fails_with_what_the_command_says() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", QUICK);
    shop.edit(WORKFLOW, "shop.py\\nVERSION", "VERSION");
    let told = said(&shop.ship("1.0"));
    assert_says(&told, &["✗ rollout ro1", "shop.py", "No such file"]);
    assert_eq!(site.ended_rollout("production", 1)["status"], "rolled_back");
}

#[test]
fn a_tag_runs_what_matches_and_is_not_released() {
    let site = Site::started();
    let shop = site.shop();
    shop.commit("1.0");
    let told = said(&shop.push("main:refs/tags/v1"));
    assert_says(
        &told,
        &["not released: only commits on main are released (this is refs/tags/v1)"],
    );
}

#[test]
fn requests_that_cannot_be_are_told_as_problem_documents() {
    let site = Site::started();
    for (path, status, words) in [
        ("/api/v1/rollouts/shop/ro1/explode", 400, "`explode`"),
        ("/api/v1/environments", 405, "/api/openapi.json"),
        (
            "/api/v1/rollouts/shop/ro9/pause",
            404,
            "shipway history shop",
        ),
    ] {
        let (answered, told) = site.post(path, &serde_json::json!({}));
        assert_eq!((answered, &told["status"]), (status, &status.into()));
        let detail = told["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words), "{told}");
    }
    let unknown = raw(
        &site.listen,
        "GET /api/v1/events?stream=rollout/shop/9 HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n",
    );
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
    assert_says(&unknown, &["application/problem+json", "rollout/shop/9"]);
}
