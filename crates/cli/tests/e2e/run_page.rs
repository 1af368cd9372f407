//! The page of a run in a real browser: at the failing line after one click, with hostile names and output, with a log that is longer than
//! any screen.

use std::{fs, time::Instant};

use serde_json::Value;

use crate::{
    browser::Browser,
    site::{Site, said, until},
};

/// A job with hostile names and output that fails in the middle of a long log.
const FAILING: &str = r#"
name: cd
on:
  push: { branches: [main] }
jobs:
  build:
    name: "<script>document.title = 'owned'</script> \u202Eevil"
    runs-on: ubuntu-latest
    steps:
      - name: "Prepare <img src=x onerror=\"document.title='owned'\">"
        run: for i in $(seq 1 3000); do echo "module $i is compiled"; done
      - name: Run the tests
        run: |
          echo '::group::Environment'
          echo 'inside the group'
          echo '::endgroup::'
          for i in $(seq 1 700); do echo "test $i ... ok"; done
          printf '\033[31mFAILED\033[0m tests/test_shop.py::test_discount - AssertionError: nine cost eight\n'
          printf '\033]0;pwn\007\033[2J<script>document.title="owned"</script> \342\200\256 reversed\n'
          head -c 1100000 /dev/zero | tr '\0' x; echo
          for i in $(seq 1 300); do echo "cleaning up $i"; done
          exit 2
  deploy:
    needs: build
    runs-on: ubuntu-latest
    steps: [{ run: 'true' }]
"#;

/// A site whose run `r1` has failed, and a browser; `None` without one.
fn failed_run() -> Option<(Site, Browser)> {
    let Some(browser) = Browser::start() else {
        eprintln!("no Chromium: skipped");
        return None;
    };
    let site = Site::started();
    let shop = site.shop();
    shop.write(".github/workflows/cd.yml", FAILING);
    let told = said(&shop.ship("1.0 <b>bold</b>"));
    assert!(told.contains("run r1 failed"), "{told}");
    Some((site, browser))
}

#[test]
fn the_failing_line_is_on_the_screen_after_one_click() {
    let Some((site, mut browser)) = failed_run() else {
        return;
    };
    browser.open(&site.url("/services/shop"));
    browser.click("a[href='/runs/shop/1']");
    browser.wait_for(
        "document.querySelector('.log-line.focus') && document.body.classList.contains('follows')",
    );
    browser.wait_until_on_screen(".log-line.focus");
    let line = browser.evaluate("document.querySelector('.log-line.focus .log-text').textContent");
    assert_eq!(
        line,
        "FAILED tests/test_shop.py::test_discount - AssertionError: nine cost eight"
    );
    // What is red is a class: the content policy allows no styles inside the page.
    assert_eq!(
        browser.evaluate("document.querySelector('.log-line.focus .fg1').textContent"),
        "FAILED"
    );
    browser.take_screenshots("run-failed");

    // A refresh of the page leaves the log where it is.
    let place = browser.evaluate("document.querySelector('.log-lines').scrollTop");
    browser.evaluate("document.dispatchEvent(new Event('shipway:changed'))");
    browser.evaluate("new Promise((done) => setTimeout(done, 400))");
    assert_eq!(
        browser.evaluate("document.querySelector('.log-lines').scrollTop"),
        place
    );

    // Each line has an address, which opens at it in another window.
    let link = browser.evaluate("document.querySelector('.log-line.focus a').hash");
    let link = link.as_str().unwrap().to_owned();
    assert!(link.starts_with("#build:1:"), "{link}");
    browser.open("about:blank");
    browser.open(&site.url(&format!("/runs/shop/1{link}")));
    browser.wait_until_on_screen(".log-line.focus");
    assert_eq!(
        browser.evaluate("'#' + document.querySelector('.log-line.focus').id"),
        link.as_str()
    );

    // Scrolling up loads what comes before, without losing the place.
    browser.evaluate("document.querySelector('.log-lines').scrollTop = 0");
    browser.wait_for("Number(document.querySelector('.log-lines').dataset.first) < 3300");

    // A search is the server's, over the whole log.
    browser
        .evaluate("document.querySelector('.log-tools input[type=search]').value = 'MODULE 17 is'");
    browser.evaluate("document.querySelector('.log-tools form').requestSubmit()");
    browser.wait_for("document.querySelector('.log-matches a')");
    assert_eq!(
        browser.evaluate("document.querySelectorAll('.log-matches li').length"),
        1
    );
    browser.click(".log-matches a");
    browser.wait_for("document.querySelector('.log-line.focus .log-text')?.textContent === 'module 17 is compiled'");

    // Nothing of the hostile names and lines was executed, and the policy had nothing to refuse.
    assert_ne!(browser.evaluate("document.title"), "owned");
    assert!(browser.errors.is_empty(), "{:?}", browser.errors);
    let text = browser.evaluate("document.body.innerText");
    let text = text.as_str().unwrap();
    assert!(
        text.contains("U+202E") && !text.contains('\u{202e}'),
        "{text}"
    );
}

#[test]
fn a_button_says_what_it_will_do_and_shows_a_refusal() {
    let Some((site, mut browser)) = failed_run() else {
        return;
    };
    browser.open(&site.url("/runs/shop/1"));
    browser.wait_for("document.body.classList.contains('follows')");
    browser.click("button[data-body*='failed\":true']");
    browser.wait_for("document.querySelector('dialog[open]')");
    let question = browser.evaluate("document.querySelector('dialog').innerText");
    let question = question.as_str().unwrap();
    assert!(question.contains("Attempt 2 of shop/r1 runs"), "{question}");
    browser.take_screenshots("run-question");
    // No means no.
    browser.click("dialog button[value=no]");
    browser.wait_for("!document.querySelector('dialog')");
    assert_eq!(site.get("/api/v1/runs/shop/1").unwrap()["attempt"], 1);
    // The commit is gone meanwhile: the server's reason is on the page.
    fs::remove_dir_all(site.data().join("git")).unwrap();
    browser.click("button[data-body*='failed\":true']");
    browser.wait_for("document.querySelector('dialog[open]')");
    browser.click("dialog button[value=yes]");
    browser.wait_for("document.querySelector('.refusal').textContent.includes('Not done')");
    let refusal = browser.evaluate("document.querySelector('.refusal').textContent");
    assert!(
        refusal.as_str().unwrap().contains("can't be re-run"),
        "{refusal}"
    );
}

#[test]
fn a_log_of_200_megabytes_is_read_in_windows() {
    let Some((site, mut browser)) = failed_run() else {
        return;
    };
    let log = site.data().join("runs/shop/1/build/log");
    let line = "2026-11-21T04:18:58.123Z a line of a long build with some words in it, number ";
    let mut text = String::with_capacity(210_000_000);
    for number in 0..2_500_000_u32 {
        text.push_str(line);
        text.push_str(&number.to_string());
        text.push('\n');
    }
    let mut whole = fs::read(&log).unwrap();
    whole.extend_from_slice(text.as_bytes());
    whole.extend_from_slice(b"2026-11-21T04:18:59.000Z the needle\n");
    assert!(whole.len() > 190_000_000);
    fs::write(&log, &whole).unwrap();
    let timed = |path: &str| -> (Value, u128) {
        let begun = Instant::now();
        let answer = site.get(path).unwrap();
        (answer, begun.elapsed().as_millis())
    };
    let base = "/api/v1/runs/shop/1/jobs/build/log";
    let (window, cold) = timed(&format!("{base}/lines?at=failure"));
    assert!(
        window["total"].as_u64().unwrap() > 2_200_000,
        "{}",
        window["total"]
    );
    let (window, warm) = timed(&format!("{base}/lines?line=1500000&count=300"));
    assert_eq!(window["focus"], 1_500_000);
    let (found, search) = timed(&format!("{base}/search?text=the%20NEEDLE"));
    assert_eq!(found["count"], 1, "{found}");
    let begun = Instant::now();
    browser.open(&site.url("/runs/shop/1"));
    browser.wait_for("document.querySelector('.log-line.focus')");
    println!(
        "200 MB: first window {cold} ms, next {warm} ms, search {search} ms, page with the failing line {} ms",
        begun.elapsed().as_millis()
    );
    assert!(
        cold < 4_000 && warm < 1_000 && search < 10_000,
        "{cold} {warm} {search}"
    );
}

#[test]
fn the_log_of_a_running_job_is_followed_and_a_missing_one_is_explained() {
    let Some(mut browser) = Browser::start() else {
        eprintln!("no Chromium: skipped");
        return;
    };
    let site = Site::started();
    let shop = site.shop();
    let gate = site.folder.path().join("gate");
    let wait = format!(
        "- run: |\n          for i in $(seq 1 200); do echo \"begun $i\"; done\n          until [ -e {0} ]; do sleep 0.1; done\n          for i in $(seq 1 900); do echo \"later $i\"; done\n          until [ -e {0}2 ]; do sleep 0.1; done\n      - run: python3 -m py_compile shop.py",
        gate.display()
    );
    shop.edit(
        ".github/workflows/cd.yml",
        "- run: python3 -m py_compile shop.py",
        &wait,
    );
    shop.commit("1.0");
    let push = shop.push_begun("main");
    until("the job to run", || {
        let run = site.get("/api/v1/runs/shop/1").unwrap_or_default();
        run["jobs"][0]["status"] == "running"
    });
    browser.open(&site.url("/runs/shop/1"));
    browser.wait_for("document.querySelector('.log-lines').textContent.includes('begun 200')");
    browser.evaluate("window.opened = true");
    fs::write(&gate, "").unwrap();
    browser.wait_for("document.querySelector('.log-lines').textContent.includes('later 900')");
    // It shows the end of what comes in, in the place where it was.
    browser.wait_for("(() => { const box = document.querySelector('.log-lines'); return box.scrollTop + box.clientHeight >= box.scrollHeight - 30; })()");
    browser.take_screenshots("run-running");
    fs::write(site.folder.path().join("gate2"), "").unwrap();
    push.wait_with_output().unwrap();
    browser.wait_for("document.querySelector('h1').textContent.includes('success')");
    assert_eq!(browser.evaluate("window.opened"), true);
    browser.wait_for("document.querySelector('#release').textContent.includes('#1')");
    // The step that was running when its lines were loaded has ended.
    browser.wait_for("!document.querySelector('.log-lines').textContent.includes('running')");
    browser.take_screenshots("run-green");
    assert!(browser.errors.is_empty(), "{:?}", browser.errors);

    fs::remove_dir_all(site.data().join("runs/shop/1/build")).unwrap();
    browser.open(&site.url("/runs/shop/1"));
    browser.wait_for(
        "document.querySelector('.log-lines').textContent.includes('The log is missing')",
    );
    let text = browser.evaluate("document.querySelector('.jobs').textContent");
    assert!(text.as_str().unwrap().contains("success"), "{text}");
}
