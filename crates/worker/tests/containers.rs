//! Containers of jobs on a real engine: `SHIPWAY_TEST_DOCKER_HOST` is its address, `./test` starts one. All images
//! consist of busybox only.

mod support;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;
use shipway_worker::{JOURNAL_FILE, LOG_FILE, read_journal};
use shipway_workflow::job::{Conclusion::*, JournalBody, WithoutEngine};
use support::{Bench, signal, wait};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

/// The engine under test.
struct Engine {
    host: String,
}

/// Responds to every connection to port 80 with the value of `WORD`.
const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /tmp /srv && chmod 1777 /tmp && echo 'root:x:0:0::/root:/bin/sh' > /etc-passwd || true
ENV PATH=/bin:/opt/image WORD=plain
EXPOSE 80
CMD ["sh", "-c", "echo serving; exec nc -ll -p 80 -e echo $WORD"]
"#;

impl Engine {
    /// The engine with the image `shipway-test:1`; `None` (with a message) if there is none, which skips the test.
    fn get() -> Option<Self> {
        static BUILT: OnceLock<Result<String, String>> = OnceLock::new();
        match BUILT.get_or_init(build) {
            Ok(host) => Some(Self { host: host.clone() }),
            Err(why) => {
                println!("skipped, because {why}");
                None
            }
        }
    }

    fn docker(&self, arguments: &[&str]) -> String {
        let output = docker(&self.host, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A job whose worker uses this engine.
    fn bench(&self, job: &str) -> Bench {
        let mut bench = Bench::job(job);
        bench
            .environment
            .push(("DOCKER_HOST".to_owned(), self.host.clone()));
        bench
    }

    /// The job's containers and networks in the engine.
    fn left_of(&self, bench: &Bench) -> Vec<String> {
        let filter = format!("label=dev.shipway.job={}", bench.folder().display());
        let containers = self.docker(&["ps", "--all", "--quiet", "--filter", &filter]);
        let networks = self.docker(&["network", "ls", "--quiet", "--filter", &filter]);
        let lines = containers.lines().chain(networks.lines());
        lines.map(str::to_owned).collect()
    }
}

/// The output of a step, without its head.
fn printed(bench: &Bench, id: &str) -> String {
    let entries = read_journal(&bench.folder().join(JOURNAL_FILE)).unwrap();
    let begin = entries.iter().find_map(|entry| match &entry.body {
        JournalBody::StepStarted {
            id: found,
            log_offset,
            ..
        } if found == id => Some(*log_offset as usize),
        _ => None,
    });
    let end = entries.iter().find_map(|entry| match &entry.body {
        JournalBody::StepFinished {
            id: found,
            log_offset,
            ..
        } if found == id => Some(*log_offset as usize),
        _ => None,
    });
    let log = fs::read_to_string(bench.folder().join(LOG_FILE)).unwrap();
    let lines = log[begin.unwrap()..end.unwrap()].lines();
    let lines = lines.map(|line| line.get(25..).unwrap_or_default());
    let lines: Vec<&str> = lines.skip_while(|line| *line != "##[endgroup]").collect();
    lines[1..].join("\n")
}

fn docker(host: &str, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", host).args(arguments);
    command.output().unwrap()
}

fn build() -> Result<String, String> {
    let host = std::env::var("SHIPWAY_TEST_DOCKER_HOST")
        .map_err(|_| "SHIPWAY_TEST_DOCKER_HOST doesn't say where an engine is".to_owned())?;
    let busybox = PathBuf::from("/usr/bin/busybox");
    if !busybox.exists() {
        return Err("busybox-static is not installed".to_owned());
    }
    let folder = tempfile::tempdir().unwrap();
    fs::copy(busybox, folder.path().join("busybox")).unwrap();
    fs::write(folder.path().join("Dockerfile"), DOCKERFILE).unwrap();
    let path = folder.path().to_str().unwrap();
    let built = docker(
        &host,
        &["build", "--quiet", "--tag", "shipway-test:1", path],
    );
    assert!(built.status.success(), "{built:?}");
    Ok(host)
}

#[test]
fn steps_run_in_the_jobs_container() {
    let Some(engine) = Engine::get() else { return };
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("given"), "from a volume").unwrap();
    let bench = engine.bench(&format!(
        r#"    container:
      image: shipway-test:1
      env: {{ FROM_CONTAINER: "1", BOTH: container }}
      volumes: ["{}:/given:ro"]
      options: --hostname "the box" --label mine=1
    env: {{ BOTH: job, MANY: "a\nb", DOCKER_HOST: "tcp://theirs" }}
    outputs: {{ word: "${{{{ steps.first.outputs.word }}}}" }}
    steps:
      - id: first
        env: {{ TOKEN: "${{{{ secrets.TOKEN }}}}" }}
        run: |
          echo "$FROM_CONTAINER $BOTH $DOCKER_HOST $(cat /given/given) $TOKEN"
          echo "$MANY"
          pwd; echo "$HOME $GITHUB_WORKSPACE $RUNNER_TEMP $PATH"
          echo "${{{{ github.workspace }}}} ${{{{ runner.temp }}}}"
          test -s "$GITHUB_EVENT_PATH" && test -d "$RUNNER_TOOL_CACHE" && test -d "$HOME"
          echo "word=one" >> "$GITHUB_OUTPUT"
          echo "LATER=env" >> "$GITHUB_ENV"
          mkdir -p bin sub && printf '#!/bin/sh\necho my tool\n' > bin/tool && chmod +x bin/tool
          echo "$PWD/bin" >> "$GITHUB_PATH"
          test -n "$PPID" && test ! -e /usr/lib
      - id: second
        working-directory: sub
        run: pwd; tool; echo "$LATER ${{{{ steps.first.outputs.word }}}} ${{{{ job.container.id != '' }}}} $PATH"
      - {{ id: third, shell: "sh -e {{0}} --", run: exit 7, continue-on-error: true }}
      - {{ id: fourth, uses: actions/upload-artifact@v4, with: {{ name: a, path: "${{{{ github.workspace }}}}/bin" }} }}
      - {{ id: fifth, working-directory: nowhere, run: ls, continue-on-error: true }}
"#,
        volume.path().display()
    ));
    let bench = bench.secrets(&[("TOKEN", "hunter2hunter2")]);
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{outcome:#?}");
    let text = printed(&bench, "first");
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "1 job tcp://theirs from a volume ***",
            "a",
            "b",
            "/__w/shop/shop",
            "/github/home /__w/shop/shop /__w/_temp /bin:/opt/image",
            "/__w/shop/shop /__w/_temp",
        ]
    );
    assert_eq!(
        printed(&bench, "second"),
        "/__w/shop/shop/sub\nmy tool\nenv one true /__w/shop/shop/bin:/bin:/opt/image"
    );
    assert_eq!(outcome.step("third").2.as_deref(), Some("exit code 7"));
    assert!(outcome.journal().contains("artifact_saved"), "{outcome:#?}");
    assert!(outcome.step("fifth").2.unwrap().contains("does not exist"));
    assert_eq!(outcome.outputs, [("word".to_owned(), "one".to_owned())]);
    assert!(bench.folder().join("workspace/bin/tool").exists());
    assert!(engine.left_of(&bench).is_empty());
}

#[test]
fn a_service_is_reached_by_its_port_when_it_is_healthy() {
    let Some(engine) = Engine::get() else { return };
    let volume = tempfile::tempdir().unwrap();
    let job = r#"    services:
      none: { image: "${{ vars.NONE }}" }
      web:
        image: shipway-test:1
        volumes: ["VOLUME:/given"]
        env: { WORD: "served ${{ secrets.TOKEN }}" }
        ports: [80]
        options: >-
          --health-cmd "test -e /given/fine"
          --health-interval 100ms --health-retries 100000
    steps:
      - id: ask
        run: |
          exec 3<>/dev/tcp/127.0.0.1/${{ job.services.web.ports['80'] }}
          read -r word <&3; echo "$word" | tr e E
          echo "${{ job.services.web.network == job.container.network }} ${{ job.services.none == null }}"
"#;
    let bench = engine.bench(&job.replace("VOLUME", &volume.path().display().to_string()));
    let bench = bench.secrets(&[("TOKEN", "hunter2hunter2")]);
    let mut worker = bench.start();
    bench.await_log("waiting for the service web: it is starting");
    fs::write(volume.path().join("fine"), "").unwrap();
    wait(&mut worker);
    let outcome = bench.outcome();
    assert_eq!(outcome.conclusion, Success, "{outcome:#?}");
    assert_eq!(
        printed(&bench, "ask"),
        "sErvEd huntEr2huntEr2\ntrue true",
        "{}",
        outcome.log
    );
    for said in [
        "waiting for the service web: it is starting",
        "the service web is healthy",
        "##[group]What the service web has printed\nserving",
    ] {
        assert!(outcome.log.contains(said), "{said}: {}", outcome.log);
    }
    assert!(engine.left_of(&bench).is_empty());
}

#[test]
fn a_container_reaches_services_by_their_names() {
    let Some(engine) = Engine::get() else { return };
    let bench = engine.bench(
        r#"    container: shipway-test:1
    services:
      web: { image: "shipway-test:1", entrypoint: sh, command: "-c 'exec nc -ll -p 81 -e echo \"by name\"'" }
    steps:
      - { id: ask, run: "for i in 1 2 3 4 5 6 7 8 9; do nc -w 5 web 81 < /dev/null && break; sleep 0.1; done" }
"#,
    );
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{outcome:#?}");
    assert!(
        printed(&bench, "ask").ends_with("by name"),
        "{}",
        outcome.log
    );
    assert!(engine.left_of(&bench).is_empty());
}

#[test]
fn an_unhealthy_service_fails_the_job_and_says_its_last_words() {
    let Some(engine) = Engine::get() else { return };
    let bench = engine.bench(
        r#"    services:
      db:
        image: shipway-test:1
        options: --health-cmd "false" --health-interval 100ms --health-retries 2
        entrypoint: sh
        command: -c "echo no space left; exec sleep 100"
    steps: [{ id: a, if: always(), run: echo no }]
"#,
    );
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Failure);
    let why = outcome.why.unwrap();
    assert!(
        why.contains("the service db is unhealthy") && why.contains("no space left"),
        "{why}"
    );
    assert!(!outcome.log.contains("echo no\n"), "{}", outcome.log);
    assert!(engine.left_of(&bench).is_empty());
}

#[test]
fn an_image_that_is_nowhere_fails_the_job() {
    let Some(engine) = Engine::get() else { return };
    let bench =
        engine.bench("    container: 127.0.0.1:1/nobody/has:1\n    steps: [{ run: echo no }]\n");
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Failure);
    assert!(outcome.why.unwrap().starts_with("container: docker pull: "));
    assert!(engine.left_of(&bench).is_empty());
}

#[test]
fn cancelled_or_out_of_time_a_step_in_a_container_is_interrupted_and_all_is_removed() {
    let Some(engine) = Engine::get() else { return };
    let job = r#"    container: shipway-test:1
    services: { web: { image: "shipway-test:1" } }
    steps:
      - id: a
        run: |
          trap 'echo interrupted > heard; exit 3' INT
          echo ready
          while true; do sleep 0.05; done
      - { id: b, if: always(), run: cat heard }
"#;
    let cancelled = engine.bench(job);
    let outcome = cancelled.cancelled_at("ready");
    assert_eq!(printed(&cancelled, "b"), "interrupted", "{}", outcome.log);
    assert!(engine.left_of(&cancelled).is_empty());

    let late = engine.bench(&job.replace(
        "      - id: a\n",
        "      - id: a\n        timeout-minutes: 0.02\n",
    ));
    let outcome = late.run();
    assert_eq!(outcome.conclusion, Failure, "{}", outcome.log);
    assert_eq!(printed(&late, "b"), "interrupted", "{}", outcome.log);
    assert!(engine.left_of(&late).is_empty());
}

#[test]
fn cancelled_while_it_waits_for_a_service_nothing_runs_and_nothing_is_left() {
    let Some(engine) = Engine::get() else { return };
    let bench = engine.bench(
        r#"    services:
      db: { image: "shipway-test:1", options: --health-cmd "false" --health-interval 100ms --health-retries 10000 }
    steps: [{ id: a, if: always(), run: echo no }]
"#,
    );
    bench.cancelled_at("waiting for the service db: it is starting");
    assert!(engine.left_of(&bench).is_empty());
}

#[test]
fn what_a_killed_worker_leaves_is_removed_by_the_next_or_by_who_finds_it_lost() {
    let Some(engine) = Engine::get() else { return };
    let job = "    container: shipway-test:1\n    steps: [{ run: echo ready; sleep 1000 }]\n";
    let begin = || {
        let bench = engine.bench(job);
        let worker = bench.start();
        bench.await_log("ready");
        (bench, worker)
    };
    let kill = |mut worker: Child| {
        worker.kill().unwrap();
        worker.wait().unwrap();
    };
    let (first, worker) = begin();
    kill(worker);
    assert_eq!(engine.left_of(&first).len(), 2);
    let (second, worker) = begin();
    assert!(engine.left_of(&first).is_empty());
    // Containers of a running worker are left alone.
    sweep(&first, &engine);
    assert_eq!(engine.left_of(&second).len(), 2);
    kill(worker);
    sweep(&second, &engine);
    assert!(engine.left_of(&second).is_empty());
}

/// Does what the server does for a lost worker.
fn sweep(bench: &Bench, engine: &Engine) {
    let swept = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "as_who_finds_it_lost"])
        .env("WORKER_FOLDER", bench.folder())
        .env("DOCKER_HOST", &engine.host)
        .output()
        .unwrap();
    assert!(swept.status.success(), "{swept:?}");
}

#[tokio::test]
#[ignore = "not a test: whoever finds a worker lost"]
async fn as_who_finds_it_lost() {
    let folder = std::env::var_os("WORKER_FOLDER").expect("the folder of a job");
    shipway_worker::remove_leftover_containers(folder.as_ref()).await;
}

#[test]
fn without_an_engine_a_job_fails_or_is_left_out() {
    for (without, conclusion) in [
        (WithoutEngine::Refuse, Failure),
        (WithoutEngine::LeaveOut, Incomplete),
    ] {
        let mut bench = Bench::job(
            "    container: alpine\n    services: { db: { image: postgres } }\n    steps: [{ id: a, run: echo no }]\n",
        );
        bench.spec.without_engine = without;
        let nowhere = bench.root.path().join("no.sock").display().to_string();
        bench
            .environment
            .push(("DOCKER_HOST".to_owned(), format!("unix://{nowhere}")));
        bench
            .environment
            .push(("CONTAINER_HOST".to_owned(), format!("unix://{nowhere}")));
        let begun = std::time::Instant::now();
        let outcome = bench.run();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(outcome.conclusion, conclusion, "{outcome:#?}");
        let why = outcome.why.unwrap();
        assert!(
            why.contains("the container alpine and the service db"),
            "{why}"
        );
        assert!(!outcome.log.contains("echo no"));
    }
}

/// Adds a container action in the folder `act`.
fn with_action(bench: &Bench) {
    let folder = bench.source().join("act");
    fs::create_dir(&folder).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write(
        "action.yml",
        r#"name: act
inputs: { who: { default: nobody }, long name: { default: long } }
outputs: { greeting: { description: x } }
runs:
  using: docker
  image: Dockerfile
  args: ["${{ inputs.who }}", "two words"]
  env: { MORE: "more ${{ inputs.who }}", OWN: action }
  post-entrypoint: /post.sh
"#,
    );
    write(
        "Dockerfile",
        "FROM shipway-test:1\nCOPY run.sh post.sh /\nENTRYPOINT [\"sh\", \"/run.sh\"]\n",
    );
    write(
        "run.sh",
        r#"echo "$# $1 $2 $INPUT_WHO $INPUT_LONG_NAME $MORE $OWN"
pwd; echo "$HOME $GITHUB_WORKSPACE $GITHUB_EVENT_PATH $WORD $PATH"; cat made
echo "greeting=hello $1" >> "$GITHUB_OUTPUT"
echo "kept=state" >> "$GITHUB_STATE"
echo "SET=by action" >> "$GITHUB_ENV"
echo "::warning::look"
[ -z "$ACTIONS_RESULTS_URL" ] || wget -O- "$ACTIONS_RESULTS_URL" 2>&1 | grep -o 'HTTP/1.1 404'
"#,
    );
    write("post.sh", "#!/bin/sh\necho \"post $STATE_kept\"\n");
    use std::os::unix::fs::PermissionsExt;
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.join("post.sh"), executable).unwrap();
}

#[test]
fn an_action_is_built_and_run_as_a_container() {
    let Some(engine) = Engine::get() else { return };
    for container in ["", "    container: shipway-test:1\n"] {
        let bench = engine.bench(&format!(
            r#"{container}    steps:
      - uses: actions/checkout@v4
      - run: echo made here > made
      - {{ id: act, uses: ./act, with: {{ who: me }}, env: {{ OWN: step, TOKEN: "${{{{ secrets.TOKEN }}}}" }} }}
      - {{ id: after, run: 'echo "$SET ${{{{ steps.act.outputs.greeting }}}}"' }}
"#
        ));
        let bench = bench.secrets(&[("TOKEN", "hunter2hunter2")]);
        with_action(&bench);
        let outcome = bench.run();
        assert_eq!(outcome.conclusion, Success, "{outcome:#?}\n{}", outcome.log);
        let text = printed(&bench, "act");
        for said in [
            "2 me two words me long more me step\n/github/workspace\n",
            "/github/home /github/workspace /github/workflow/event.json plain /bin:/opt/image\nmade here\n",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        // The toolkit's endpoints on this machine.
        assert!(text.contains("\nHTTP/1.1 404"), "{text}");
        assert_eq!(printed(&bench, "after"), "by action hello me");
        assert!(
            printed(&bench, "act.post").ends_with("post state"),
            "{}",
            outcome.log
        );
        assert!(engine.left_of(&bench).is_empty());
    }
}

#[test]
fn a_step_names_an_image_with_its_arguments() {
    let Some(engine) = Engine::get() else { return };
    let bench = engine.bench(
        r#"    services: { web: { image: "shipway-test:1", env: { WORD: served } } }
    steps:
      - id: a
        uses: docker://shipway-test:1
        with: { entrypoint: /bin/sh, args: "-c 'echo \"$0 $INPUT_EXTRA\"; nc -w 5 web 80 < /dev/null' \"a b\"", extra: x }
      - { id: b, uses: "docker://shipway-test:1", with: { args: "sh -c 'exit 9'" }, continue-on-error: true }
"#,
    );
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{outcome:#?}\n{}", outcome.log);
    assert!(
        printed(&bench, "a").contains("a b x\nserved"),
        "{}",
        outcome.log
    );
    assert_eq!(outcome.step("b").2.as_deref(), Some("exit code 9"));
    assert!(!outcome.log.contains("##[warning]"), "{}", outcome.log);
    assert!(engine.left_of(&bench).is_empty());
}

#[test]
fn a_cancelled_action_leaves_no_container() {
    let Some(engine) = Engine::get() else { return };
    let bench = engine.bench(
        "    steps: [{ id: a, uses: 'docker://shipway-test:1', with: { args: sh -c 'echo ready; sleep 1000' } }]\n",
    );
    let mut worker = bench.start();
    bench.await_log("ready");
    signal(&worker, Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    signal(&worker, Signal::TERM);
    wait(&mut worker);
    assert_eq!(bench.outcome().conclusion, Cancelled);
    assert!(engine.left_of(&bench).is_empty());
}

#[test]
fn without_an_engine_a_step_that_is_a_container_is_left_out() {
    let mut bench = Bench::job(
        "    steps: [{ id: a, uses: 'docker://alpine' }, { id: b, run: 'echo ${{ steps.a.outcome }}' }]\n",
    );
    bench.spec.without_engine = WithoutEngine::LeaveOut;
    let nowhere = format!("unix://{}/no.sock", bench.root.path().display());
    bench
        .environment
        .push(("DOCKER_HOST".to_owned(), nowhere.clone()));
    bench
        .environment
        .push(("CONTAINER_HOST".to_owned(), nowhere));
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Incomplete, "{outcome:#?}");
    let (how, _, why) = outcome.step("a");
    assert_eq!(how, Skipped);
    assert!(
        why.unwrap()
            .starts_with("left out: the action is the container docker://alpine")
    );
    assert_eq!(printed(&bench, "b"), "skipped");
}

#[test]
fn actions_in_containers_reach_the_toolkits_endpoints() {
    let Some(engine) = Engine::get() else { return };
    let ask = r#"wget -qO- --header "Authorization: Bearer $ACTIONS_RUNTIME_TOKEN" --header "Content-Type: application/json" --post-data "{}" "${ACTIONS_RESULTS_URL}twirp/github.actions.results.api.v1.ArtifactService/ListArtifacts""#;
    let steps = format!(
        r#"    steps:
      - run: 'echo a > a; printf "%s\n" "$ACTIONS_RESULTS_URL" > none; echo "$ASK" > ask'
        env:
          ASK: '{ask}'
      - uses: actions/upload-artifact@v4
        with: {{ name: built, path: a }}
      - id: asked
        uses: docker://shipway-test:1
        with: {{ entrypoint: sh, args: ask }}
      - id: script
        run: 'cat none'
"#
    );
    for head in ["", "    container: shipway-test:1\n"] {
        let bench = engine.bench(&format!("{head}{steps}"));
        let outcome = bench.run();
        assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
        let answer = printed(&bench, "asked");
        assert!(answer.contains(r#""name":"built""#), "{answer}");
        assert_eq!(printed(&bench, "script").trim(), "");
        assert!(engine.left_of(&bench).is_empty());
    }
}
