//! Jobs that go on from the step that failed, and shells where it stood.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{SHIPWAY, Site, raw, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

/// Three steps of which the third fails as long as a file outside isn't there.
const WORKFLOW: &str = r#"
on: push
jobs:
  deliver:
    runs-on: linux
    outputs: { made: "${{ steps.one.outputs.made }}" }
    steps:
      - id: one
        env: { TOKEN: "${{ secrets.TOKEN }}" }
        run: |
          echo one >> HERE/ran
          echo "made=of one" >> $GITHUB_OUTPUT
          echo "LATER=kept" >> $GITHUB_ENV
          echo "HIDDEN=$TOKEN!" >> $GITHUB_ENV
          mkdir -p $HOME/bin && ln -s /bin/echo $HOME/bin/say-it
          echo "$HOME/bin" >> $GITHUB_PATH
          echo "::add-mask::quietword"
          echo built > product
      - { id: two, uses: actions/cache@v4, with: { path: product, key: products } }
      - id: three
        name: Ask outside
        env: { OWN: of three, SECRET: "${{ secrets.TOKEN }}" }
        run: |
          echo three >> HERE/ran
          test -e HERE/up
      - id: four
        run: |
          echo four >> HERE/ran
          say-it "> $LATER, $HIDDEN, ${{ steps.one.outputs.made }}, $(cat product), quietword"
      - { if: failure(), run: echo sad >> HERE/ran }
  after:
    needs: deliver
    runs-on: linux
    steps: [{ run: 'echo "after: ${{ needs.deliver.outputs.made }}" >> HERE/ran' }]
"#;

/// A site with a secret, where a run of the workflow has failed.
fn failed() -> (Site, Shop) {
    let mut site = Site::new();
    let secrets = site.folder.path().join("secrets");
    fs::write(&secrets, "TOKEN=hunter2\n").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    site.flags = vec![
        "--secrets".to_owned(),
        secrets.to_string_lossy().into_owned(),
    ];
    site.start();
    let shop = site.shop();
    let out = site.folder.path().display().to_string();
    shop.write(".github/workflows/cd.yml", &WORKFLOW.replace("HERE", &out));
    shop.commit("1.0");
    let push = shop.push_begun("main:work").wait_with_output().unwrap();
    assert_says(
        &said(&push),
        &[
            "re-run: shipway retry shop/r1 --from-failed-step",
            "open a shell: shipway shell shop/r1 deliver",
        ],
    );
    (site, shop)
}

fn run(site: &Site) -> Value {
    site.get("/api/v1/runs/shop/1").unwrap_or_default()
}

/// The run, once an attempt at it is over.
fn ended(site: &Site, attempt: u64) -> Value {
    until("the end of the run", || {
        let run = run(site);
        run["attempt"] == attempt && !run["finished_at"].is_null()
    });
    run(site)
}

/// All that the log of events holds, as bytes.
fn on_record(site: &Site) -> String {
    let files = ["shipway.db", "shipway.db-wal"].map(|name| site.data().join(name));
    let bytes: Vec<u8> = (files.iter().flat_map(fs::read).flatten()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ran(site: &Site) -> String {
    fs::read_to_string(site.folder.path().join("ran")).unwrap_or_default()
}

#[test]
fn a_failed_job_goes_on_at_its_failed_step_once_what_was_wrong_outside_is_right() {
    let (mut site, _shop) = failed();
    assert_eq!(ran(&site), "one\nthree\nsad\n");
    let kept = site.data().join("runs/shop/1/deliver/kept.jsonl");
    assert_eq!(
        fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // What nobody can do is refused, and nothing has happened.
    let no_step = site.shipway(&["retry", "shop/r1", "--job", "deliver", "--step", "four"]);
    assert_ends(
        &no_step,
        2,
        &[
            "can't be resumed from the step \"four\"",
            "`one`, `two` and `three`",
        ],
    );
    assert_eq!(run(&site)["attempt"], 1);
    // Still wrong; and the server is another one then.
    let again = site.shipway(&["retry", "shop/r1", "--from-failed-step"]);
    assert_ends(&again, 0, &["as attempt 2"]);
    ended(&site, 2);
    site.kill();
    site.start();
    fs::write(site.folder.path().join("up"), "").unwrap();
    let again = site.shipway(&["retry", "shop/r1", "--job", "deliver", "--from-failed-step"]);
    assert_ends(&again, 0, &["as attempt 3"]);
    let ended = ended(&site, 3);
    assert_eq!(ended["status"], "success", "{ended:#}");
    assert_eq!(
        ran(&site),
        "one\nthree\nsad\nthree\nsad\nthree\nfour\nafter: of one\n"
    );
    let deliver = &ended["jobs"][0];
    let steps: Vec<(&str, Option<u64>)> = deliver["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["name"].as_str().unwrap(), step["in_attempt"].as_u64()))
        .collect();
    assert_eq!(steps[1], ("Run actions/cache@v4", Some(1)), "{steps:?}");
    assert_eq!(steps[2], ("Ask outside", None), "{steps:?}");
    assert_eq!(steps.last().unwrap(), &("Post Run actions/cache@v4", None));
    let log = site.shipway(&["logs", "shop/r1", "--job", "deliver"]);
    assert_ends(
        &log,
        0,
        &[
            "Resuming from attempt 2",
            "> kept, ***!, of one, built, ***",
            "Cache saved",
        ],
    );
    assert_silent_of(&said(&log), &["hunter2", "quietword"]);
    // Neither is in the log of events, nor served.
    for path in [
        "/api/v1/runs/shop/1",
        "/api/v1/runs/shop/1/jobs/deliver/log",
    ] {
        let text = site.get(path).unwrap_or_default().to_string();
        assert_silent_of(&text, &["hunter2", "quietword"]);
    }
    let page = raw(
        &site.listen,
        "GET /runs/shop/1 HTTP/1.0\r\nHost: localhost\r\n\r\n",
    );
    assert_says(&page, &["Ask outside", "in attempt 1"]);
    assert_silent_of(&on_record(&site), &["hunter2"]);
    // It is green: what its attempts have left goes, with what was kept.
    until("the workspaces to go", || {
        ["deliver", "deliver@2", "deliver@3"].iter().all(|job| {
            let folder = site.data().join("runs/shop/1").join(job);
            !folder.join("workspace").exists() && !folder.join("kept.jsonl").exists()
        })
    });
    let late = site.shipway(&["retry", "shop/r1", "--job", "deliver", "--from-failed-step"]);
    assert_ends(&late, 1, &["no job of shop/r1 failed in a step"]);
}

#[test]
fn a_workspace_that_is_gone_is_said_and_the_job_can_run_from_its_first_step() {
    let (site, _shop) = failed();
    fs::remove_dir_all(site.data().join("runs/shop/1/deliver/workspace")).unwrap();
    let refused = site.shipway(&["retry", "shop/r1", "--from-failed-step"]);
    assert_ends(
        &refused,
        1,
        &[
            "its workspace was deleted",
            "shipway retry shop/r1 --job deliver",
        ],
    );
    let shell = site.shipway(&["shell", "shop/r1", "--", "pwd"]);
    assert_ends(
        &shell,
        1,
        &["no shell can be opened", "its workspace was deleted"],
    );
    fs::write(site.folder.path().join("up"), "").unwrap();
    let whole = site.shipway(&["retry", "shop/r1", "--job", "deliver"]);
    assert_ends(&whole, 0, &["attempt 2"]);
    assert_eq!(ended(&site, 2)["status"], "success");
}

#[test]
fn a_shell_stands_where_the_step_failed_and_gets_secrets_only_on_record() {
    let (site, _shop) = failed();
    let script =
        "echo \"[$LATER] [$OWN] [$HIDDEN] [$SECRET] [$GITHUB_JOB] $(cat product)\"; exit 7";
    let shell = |more: &[&str], script: &str| {
        let mut words = vec!["shell", "shop/r1"];
        words.extend(more);
        words.extend(["--", "sh", "-c", script]);
        site.shipway(&words)
    };
    let plain = shell(&[], script);
    assert_silent_of(&on_record(&site), &["secrets_shown"]);
    assert_ends(
        &plain,
        7,
        &[
            "step \"Ask outside\" (three)",
            "exit code 1",
            "test -e",
            "[kept] [of three] [] [] [deliver] built",
            "left out because they contain secrets: HIDDEN, SECRET",
        ],
    );
    let folder = site.data().join("runs/shop/1/deliver");
    assert!(
        String::from_utf8_lossy(&shell(&[], "pwd").stdout)
            .trim()
            .ends_with("runs/shop/1/deliver/workspace")
    );
    let given = shell(&["deliver", "--with-secrets"], script);
    assert_ends(
        &given,
        7,
        &["[kept] [of three] [hunter2!] [hunter2] [deliver] built"],
    );
    let events = on_record(&site);
    assert_says(
        &events,
        &["\"name\":\"ann\"}},\"body\":{\"secrets_shown\":{\"key\":\"deliver\""],
    );
    assert_silent_of(&events, &["hunter2"]);
    // At an earlier step its variables are those of then.
    let first = shell(&["deliver", "--step", "one"], "echo \"[$LATER]\"");
    assert_ends(&first, 0, &["(one)", "[]"]);
    // Nothing is left of the way it came.
    let left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().collect();
    assert!(
        !left
            .iter()
            .any(|it| it.file_name().to_string_lossy().starts_with("shell-"))
    );
    // What is put right there is there when the job goes on.
    assert_ends(&shell(&[], "echo mended > product"), 0, &[]);
    fs::write(site.folder.path().join("up"), "").unwrap();
    site.shipway(&["retry", "shop/r1", "--from-failed-step"]);
    assert_eq!(ended(&site, 2)["status"], "success");
    let log = site.shipway(&["logs", "shop/r1", "--job", "deliver"]);
    assert_ends(&log, 0, &["> kept, ***!, of one, mended, ***"]);
    for (words, why) in [
        (&["shell", "shop/r1"][..], "a shell needs a terminal"),
        (
            &["shell", "shop/r1", "nope", "--", "pwd"],
            "has no job nope",
        ),
        (&["shell", "shop/r9", "--", "pwd"], "no such run"),
    ] {
        assert_says(&said(&site.shipway(words)), &[why]);
    }
}

#[test]
fn a_shell_opens_where_a_local_run_failed() {
    let folder = tempfile::Builder::new()
        .prefix("shipway-e2e-")
        .tempdir()
        .unwrap();
    fs::create_dir_all(folder.path().join(".github/workflows")).unwrap();
    fs::write(
        folder.path().join(".github/workflows/ci.yml"),
        "on: push\njobs:\n  a:\n    runs-on: linux\n    steps:\n      - run: echo \"X=left\" >> $GITHUB_ENV\n      - { name: Breaks, env: { OWN: mine }, run: exit 4 }\n",
    )
    .unwrap();
    let words = ["run", "--shell-on-failure"];
    // Without a terminal it says so and ends as ever.
    let plain = Command::new(SHIPWAY)
        .args(words)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_ends(&plain, 1, &["no shell opened: this is not a terminal"]);
    let line = format!("{SHIPWAY} {}", words.join(" "));
    let terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut terminal) = terminal else {
        assert!(std::env::var_os("CI").is_none(), "there is no script");
        println!("skipped, because there is no `script` on this machine");
        return;
    };
    let mut input = terminal.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"echo \"in $GITHUB_JOB: $X and $OWN.\"\nexit\n")
        .unwrap();
    let output = terminal.wait_with_output().unwrap();
    drop(input);
    assert_ends(
        &output,
        1,
        &[
            "step \"Breaks\" (__run_2)",
            "exit 4",
            "in a: left and mine.",
        ],
    );
}

const DEPLOYS: &str = r#"
on: push
jobs:
  build:
    runs-on: linux
    steps:
      - uses: actions/checkout@v4
      - uses: actions/upload-artifact@v4
        with: { name: shop, path: "shop.py\nVERSION\nMOOD" }
      - uses: shipway/deploy@v1
        with: { environment: production }
      - run: test -e HERE/up
"#;

#[test]
fn a_step_deploys_in_a_run_that_runs_again_too() {
    let site = Site::started();
    let shop = site.shop();
    let one = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments: { production: { strategy: rolling, drain: 1s } }
";
    shop.write("shipway.yaml", one);
    let out = site.folder.path().display().to_string();
    shop.write(".github/workflows/cd.yml", &DEPLOYS.replace("HERE", &out));
    assert_says(&said(&shop.ship("1.0")), &["run r1 failed"]);
    assert_eq!(site.ended_rollout("production", 1)["status"], "promoted");
    fs::write(site.folder.path().join("up"), "").unwrap();
    let again = site.shipway(&["retry", "shop/r1", "--failed"]);
    assert_ends(&again, 0, &["attempt 2"]);
    let ended = ended(&site, 2);
    let log = said(&site.shipway(&["logs", "shop/r1", "--job", "build"]));
    assert_eq!(ended["status"], "success", "{log}");
    // The release is the run's: there is no second one.
    assert_says(&log, &["Deploying release #1 to production"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
}
