//! Runs that outlive their server, logs that are followed over its end, and jobs that see and leave nothing.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{PATIENCE, SHIPWAY, Site, processes_with, until},
    words::{assert_says, assert_silent_of},
};

/// Pushes a workflow to a branch that isn't deployed.
fn run_workflow(site: &Site, text: &str) -> (Shop, Child) {
    let shop = site.shop();
    shop.write(".github/workflows/cd.yml", text);
    shop.commit("1.0");
    let push = shop.push_begun("main:work");
    (shop, push)
}

/// The first run, as it is now.
fn first_run(site: &Site) -> Value {
    site.get("/api/v1/runs/shop/1").unwrap_or_default()
}

fn ended_run(site: &Site) -> Value {
    until("the end of the run", || {
        !first_run(site)["finished_at"].is_null()
    });
    first_run(site)
}

fn folder_of(site: &Site, job: &str) -> PathBuf {
    site.data().join("runs/shop/1").join(job)
}

fn log_of(site: &Site, job: &str) -> String {
    fs::read_to_string(folder_of(site, job).join("log")).unwrap_or_default()
}

const JOBS: usize = 200;
const AT_ONCE: usize = 4;

#[test]
fn a_run_of_two_hundred_jobs_outlives_five_killed_servers_and_does_each_step_once() {
    let mut site = Site::new();
    site.flags = vec!["--jobs".to_owned(), AT_ONCE.to_string()];
    site.start();
    let diary = site.folder.path().join("diary");
    let cells: Vec<String> = (1..=JOBS).map(|n| n.to_string()).collect();
    let text = format!(
        "on: push\njobs:\n  many:\n    runs-on: linux\n    strategy: {{ matrix: {{ n: [{}] }} }}\n    steps:\n      - run: echo in ${{{{ matrix.n }}}} >> {diary}\n      - run: echo out ${{{{ matrix.n }}}} >> {diary}\n",
        cells.join(", "),
        diary = diary.display(),
    );
    let (_shop, mut push) = run_workflow(&site, &text);
    let lines = || -> Vec<String> {
        let text = fs::read_to_string(&diary).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let mut most_queued = 0;
    let begun = Instant::now();
    for kill in 1..=5 {
        let wanted = kill * 2 * JOBS / 6;
        while lines().len() < wanted {
            assert!(begun.elapsed() < 4 * PATIENCE, "{} lines", lines().len());
            let run = first_run(&site);
            let jobs = run["jobs"].as_array().map_or(0, |jobs| {
                jobs.iter().filter(|job| job["status"] == "queued").count()
            });
            most_queued = most_queued.max(jobs);
            std::thread::sleep(Duration::from_millis(20));
        }
        site.kill();
        site.start();
    }
    while first_run(&site)["finished_at"].is_null() {
        assert!(begun.elapsed() < 6 * PATIENCE, "{} lines", lines().len());
        std::thread::sleep(Duration::from_millis(50));
    }
    push.wait().unwrap();
    let run = first_run(&site);
    assert_eq!(run["status"], "success", "{:#}", run["why"]);
    let jobs = run["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), JOBS);
    for job in jobs {
        assert_eq!(job["steps"].as_array().map(Vec::len), Some(2), "{job:#}");
    }
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    lines()
        .into_iter()
        .for_each(|line| *times.entry(line).or_default() += 1);
    assert_eq!(times.len(), 2 * JOBS);
    assert_eq!(times.iter().find(|(_, times)| **times != 1), None);
    let (mut now, mut most) = (0_i32, 0);
    for line in lines() {
        now += if line.starts_with("in ") { 1 } else { -1 };
        most = most.max(now);
    }
    assert!(most <= AT_ONCE as i32, "{most} jobs at once");
    assert!(
        most_queued > JOBS / 2,
        "{most_queued} jobs were seen queued"
    );
}

const TALKS: &str = "
on: push
jobs:
  first:
    runs-on: linux
    steps: [{ run: sleep 0.5 }]
  talk:
    needs: first
    runs-on: linux
    steps:
      - run: for i in $(seq 80); do printf 'line %d\\rof 80\\n' $i; sleep 0.05; done
";

#[test]
fn a_followed_log_goes_on_over_the_end_of_a_server_and_says_nothing_twice() {
    let mut site = Site::started();
    let (_shop, mut push) = run_workflow(&site, TALKS);
    until("the run", || !first_run(&site).is_null());
    // Before the job has begun.
    let mut reader = Command::new(SHIPWAY)
        .args(["logs", "shop/r1", "--job", "talk", "--follow"])
        .env("SHIPWAY_URL", site.url(""))
        .env_remove("SHIPWAY_TOKEN")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(reader.stdout.take().unwrap()).lines();
    let mut lines = Vec::new();
    let mut killed = 0;
    while let Some(Ok(line)) = shown.next() {
        lines.push(line);
        if lines.len() == 20 || lines.len() == 45 {
            killed += 1;
            site.kill();
            std::thread::sleep(Duration::from_millis(200));
            site.start();
        }
    }
    assert!(reader.wait().unwrap().success());
    assert_eq!(killed, 2);
    let whole: Vec<String> = log_of(&site, "talk").lines().map(str::to_owned).collect();
    // A carriage return in a log is a space on a terminal.
    let whole_shown: Vec<String> = whole.iter().map(|line| line.replace('\r', " ")).collect();
    assert_eq!(lines, whole_shown);
    assert_eq!(
        whole.iter().filter(|line| line.contains("\rof 80")).count(),
        80
    );
    ended_run(&site);
    push.wait().unwrap();
}

/// Some events of a log after `id`, at most `most`; the text, the last id, and whether it was the end.
fn some_events(site: &Site, path: &str, id: &str, most: usize) -> (String, String, bool) {
    let mut answer = ureq::get(site.url(path))
        .header("accept", "text/event-stream")
        .header("last-event-id", id)
        .call()
        .unwrap();
    let (mut text, mut last, mut count) = (String::new(), id.to_owned(), 0);
    for line in BufReader::new(answer.body_mut().as_reader()).lines() {
        let line = line.unwrap();
        if let Some(id) = line.strip_prefix("id: ") {
            last = id.to_owned();
        } else if line == "event: end" {
            return (text, last, true);
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            text += data["text"].as_str().unwrap();
        } else if line.is_empty() {
            count += 1;
            if count == most {
                break;
            }
        }
    }
    (text, last, false)
}

#[test]
fn a_reader_whose_connection_is_cut_misses_nothing_and_sees_nothing_twice() {
    let site = Site::started();
    let (_shop, mut push) = run_workflow(&site, TALKS);
    until("the run", || !first_run(&site).is_null());
    let path = "/api/v1/runs/shop/1/jobs/talk/log";
    let (mut all, mut id, mut cuts) = (String::new(), "0".to_owned(), 0);
    loop {
        let (text, last, is_end) = some_events(&site, path, &id, 7);
        all += &text;
        id = last;
        if is_end {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 2, "{cuts}");
    assert_eq!(all, log_of(&site, "talk"));
    // Over, it is told again from anywhere.
    let (again, _, is_end) = some_events(&site, path, "0", usize::MAX);
    assert!(is_end && again == all);
    let (nothing, _, is_end) = some_events(&site, path, &id, usize::MAX);
    assert!(is_end && nothing.is_empty(), "{nothing}");
    ended_run(&site);
    push.wait().unwrap();
}

const LOOKS_AROUND: &str = "
on: push
jobs:
  look:
    runs-on: linux
    steps:
      - run: |
          env
          tr '\\0' '\\n' < /proc/$PPID/environ
          echo \"home $HOME temp $TMPDIR here $PWD\"
          ls -ld \"$GITHUB_WORKSPACE/../\" | cut -c1-10
      - run: |
          (setsid sleep 4271 > /dev/null 2>&1 &)
          python3 -c 'import os; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); os.execvp(\"sleep\", [\"sleep\", \"4272\"])'
  red:
    runs-on: linux
    steps:
      - run: echo kept > evidence; chmod 500 .
      - run: exit 3
";

#[test]
fn jobs_see_nothing_of_the_server_and_leave_nothing_running() {
    let mut site = Site::new();
    site.env = vec![
        ("AWS_SECRET_ACCESS_KEY", "hunter2-of-the-server".to_owned()),
        ("DATABASE_URL", "postgres://hunter2@db".to_owned()),
    ];
    site.start();
    let (_shop, mut push) = run_workflow(&site, LOOKS_AROUND);
    ended_run(&site);
    push.wait().unwrap();
    let log = log_of(&site, "look");
    let job = folder_of(&site, "look").display().to_string();
    assert_silent_of(&log, &["hunter2", "AWS_", "DATABASE_URL"]);
    let places = format!("home {job}/home temp {job}/temp here {job}/workspace");
    assert_says(&log, &[&places, "drwx------", "left running: sleep"]);
    // Both, and what of the second one had not yet become it.
    let ended = log.matches("]killed a process that the job left running: ");
    assert!(ended.count() >= 2, "{log}");
    for sleeper in ["sleep 4271", "sleep 4272"] {
        assert_eq!(processes_with(&[sleeper]), Vec::<u32>::new());
    }
}

#[test]
fn workspaces_of_green_jobs_go_and_those_of_red_ones_stay() {
    let mut site = Site::started();
    // Other sleepers than those of the test above, which looks for its own by name.
    let (_shop, mut push) = run_workflow(&site, &LOOKS_AROUND.replace("427", "428"));
    ended_run(&site);
    push.wait().unwrap();
    let (green, red) = (folder_of(&site, "look"), folder_of(&site, "red"));
    until("the end of the green job's workspace", || {
        !green.join("workspace").exists()
    });
    let left = |folder: &PathBuf| -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    until("all of it gone", || {
        !left(&green).iter().any(|name| name.ends_with(".gone"))
    });
    assert!(green.join("log").exists() && green.join("journal.jsonl").exists());
    assert!(red.join("workspace/evidence").exists(), "{:?}", left(&red));
    // The next server finds the same.
    site.kill();
    site.start();
    assert!(red.join("workspace/evidence").exists());
    let log = site.shipway(&["logs", "shop/r1", "--job", "look"]);
    assert!(log.status.success());
}
