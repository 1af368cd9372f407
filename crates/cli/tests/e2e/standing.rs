//! What starts by itself: at times, and after other runs. And what runs leave to be read: annotations and summaries.

use serde_json::Value;

use crate::{
    days::OtherTime,
    site::{Site, said, until},
    words::{assert_says, assert_silent_of},
};

fn runs(site: &Site) -> Vec<Value> {
    let page = site.get("/api/v1/runs?service=shop").unwrap_or(Value::Null);
    page["items"].as_array().cloned().unwrap_or_default()
}

fn of_event(site: &Site, event: &str) -> usize {
    let runs = runs(site);
    runs.iter().filter(|run| run["event"] == event).count()
}

#[test]
fn a_time_that_came_while_no_server_ran_is_made_up_for_once_and_none_comes_twice() {
    let Some((mut site, time)) = OtherTime::site() else {
        return;
    };
    let shop = site.shop();
    shop.write(
        ".github/workflows/nightly.yml",
        "on: { schedule: [{ cron: '0 */2 * * *', timezone: Europe/Berlin }] }
jobs: { a: { runs-on: linux, steps: [{ run: 'echo \"at ${{ github.event.schedule }} on ${{ github.ref }}\"' }] } }
",
    );
    said(&shop.ship("1.0"));
    assert_eq!(of_event(&site, "schedule"), 0);
    site.kill();
    time.set("+10800");
    site.start();
    until("the schedule", || of_event(&site, "schedule") == 1);
    let number = runs(&site)
        .iter()
        .filter_map(|run| run["number"].as_u64())
        .max();
    until("its run to end", || {
        runs(&site).iter().all(|run| run["status"] == "success")
    });
    let log = said(&site.shipway(&["logs", &format!("r{}", number.unwrap())]));
    assert_says(&log, &["at 0 */2 * * * on refs/heads/main"]);
    for difference in ["+10800", "+0", "+10900"] {
        site.kill();
        time.set(difference);
        site.start();
        until("the API", || {
            site.get("/api/v1/runs?service=shop").is_some()
        });
        assert_eq!(of_event(&site, "schedule"), 1, "{difference}");
    }
}

#[test]
fn a_workflow_follows_the_run_of_another() {
    let site = Site::started();
    let shop = site.shop();
    shop.write(
        ".github/workflows/report.yml",
        "on: { workflow_run: { workflows: [cd], types: [completed] } }
jobs: { a: { runs-on: linux, steps: [{ run: 'echo \"${{ github.event.workflow_run.name }} was ${{ github.event.workflow_run.conclusion }}\"' }] } }
",
    );
    said(&shop.ship("1.0"));
    until("the run that follows", || {
        let runs = runs(&site);
        runs.len() == 2 && runs.iter().all(|run| run["status"] == "success")
    });
    assert_eq!(of_event(&site, "workflow_run"), 1);
    assert_says(&said(&site.shipway(&["logs", "r2"])), &["cd was success"]);
}

#[test]
fn annotations_and_summaries_are_in_the_api_on_the_page_and_errors_with_the_push() {
    let site = Site::started();
    let shop = site.shop();
    shop.write(
        ".github/workflows/cd.yml",
        r##"
name: cd
on: push
jobs:
  a:
    runs-on: linux
    steps:
      - run: |
          echo "::warning::mind the gap"
          echo "::error file=shop.py,line=7,title=Wrong::off by one <b>"
          echo "# Tests <script>" >> "$GITHUB_STEP_SUMMARY"
      - run: |
          echo "3 of **4** pass" >> "$GITHUB_STEP_SUMMARY"
          exit 3
"##,
    );
    let told = said(&shop.ship("1.0"));
    assert_says(&told, &["a: shop.py:7: Wrong: off by one <b>"]);
    let run = site.get("/api/v1/runs/shop/1").unwrap();
    let job = &run["jobs"][0];
    assert_eq!(
        job["annotations"][0]["message"], "off by one <b>",
        "{job:#}"
    );
    assert_eq!(job["summary"], "# Tests <script>\n\n3 of **4** pass");
    let page = ureq::get(site.url("/runs/shop/1")).call().unwrap();
    let page = page.into_body().read_to_string().unwrap();
    assert_says(
        &page,
        &[
            "shop.py:7: Wrong: off by one &lt;b&gt;",
            "mind the gap",
            "<h3>Tests &lt;script&gt;</h3>",
            "3 of <strong>4</strong> pass",
        ],
    );
    assert_silent_of(&page, &["off by one <b>", "Tests <script>"]);
}
