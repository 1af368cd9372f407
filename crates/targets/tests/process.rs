//! The process target with real processes: starting, failing, stopping.

mod process_support;

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use process_support::{
    Machine, PATIENCE, eventually, get, http, is_alive, is_backoff, number_in, pids, ready, set,
    tar_of, until,
};
use shipway_core::{
    check::HealthProbe,
    ids::Digest,
    target::{ImageReference, InstanceId, InstancePhase, StopSignal, TargetKind, WorkloadProgram},
};
use shipway_targets::target::{LogEnd, ReadinessError, Target, TargetError, await_ready};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn an_instance_becomes_ready_in_a_clean_environment_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let target = machine.open().await;
    let mut launch = machine.app();
    launch.env = [
        ("DATABASE", "postgres://me:$TOKEN@db"),
        ("SELF", "http://$HOST:${PORT}"),
        ("PORT", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    target.ensure(&set(3), &launch, 2).await.unwrap();
    ready(&target, &set(3), 2).await.unwrap();

    let instances = target.instances();
    let names: Vec<String> = instances.iter().map(|it| it.id.to_string()).collect();
    assert_eq!(names, ["shop.production.3.1", "shop.production.3.2"]);
    let address = &instances[0].address;
    assert_eq!(get(address, "/").await.unwrap(), "shop.production.3.1");
    let env: serde_json::Value =
        serde_json::from_str(&get(address, "/env").await.unwrap()).unwrap();
    assert_eq!(env["DATABASE"], "postgres://me:s3cr3t-value@db");
    assert_eq!(env["SELF"], format!("http://{address}"));
    for (name, wanted) in [
        ("SHIPWAY_SERVICE", "shop"),
        ("SHIPWAY_ENVIRONMENT", "production"),
        ("SHIPWAY_RELEASE", "3"),
        ("SHIPWAY_INSTANCE", "shop.production.3.1"),
        ("SHIPWAY_URL", "http://shop.localhost:8080/"),
    ] {
        assert_eq!(env[name], wanted, "{name}");
    }
    let slot = machine.set_folder(&set(3)).join("1");
    for (name, folder) in [
        ("HOME", slot.join("home")),
        ("TMPDIR", slot.join("tmp")),
        ("DATA_DIR", machine.scratch("data/shop/production")),
    ] {
        assert!(folder.is_dir(), "{name}");
        assert_eq!(
            fs::canonicalize(env[name].as_str().unwrap()).unwrap(),
            fs::canonicalize(folder).unwrap()
        );
    }
    assert!(address.ends_with(&format!(":{}", env["PORT"].as_str().unwrap())));
    let servers_own = env
        .as_object()
        .unwrap()
        .keys()
        .find(|name| name.starts_with("CARGO"));
    assert_eq!(servers_own, None, "the server's environment leaks");
    let files = walk(machine.root());
    assert!(files.iter().any(|(path, _)| path.ends_with("set.json")));
    for (path, content) in files {
        assert!(!content.contains("s3cr3t-value"), "a secret is in {path}");
    }

    let running = pids(&target);
    let id: InstanceId = "shop.production.3.1".parse().unwrap();
    let followed = target.read_log(&id, 0, LogEnd::Stopped).unwrap();
    let followed = tokio::spawn(followed.try_collect::<Vec<_>>());
    target.stop(&set(3), 0).await.unwrap();
    assert!(target.instances().is_empty());
    assert!(!running.into_iter().any(is_alive));
    assert!(!machine.set_folder(&set(3)).join("1/app").exists());
    let log = target.read_log(&id, 0, LogEnd::Present).unwrap();
    let log: Vec<_> = log.try_collect().await.unwrap();
    let log = String::from_utf8(log.concat()).unwrap();
    let followed = followed.await.unwrap().unwrap();
    assert_eq!(String::from_utf8(followed.concat()).unwrap(), log);
    assert!(
        log.contains("shop.production.3.1, process"),
        "the log stays: {log}"
    );
    let never = "shop.production.3.9".parse().unwrap();
    assert!(target.read_log(&never, 0, LogEnd::Present).is_err());
}

fn walk(folder: &std::path::Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            files.extend(walk(&entry.path()));
        } else {
            let content = fs::read(entry.path()).unwrap();
            let content = String::from_utf8_lossy(&content).into_owned();
            files.push((entry.path().display().to_string(), content));
        }
    }
    files
}

#[tokio::test]
async fn files_beside_the_code_are_named_before_they_go_and_the_data_folder_stays() {
    let machine = Machine::new();
    let target = machine.open().await;
    let launch = machine.launch(
        "mkdir -p uploads __pycache__; echo x > uploads/a.png; echo x >> orders.db; echo x > __pycache__/app.pyc; \
         echo kept > $DATA_DIR/kept; echo x > $TMPDIR/x; exec python3 app.py",
    );
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    target.ensure(&set(1), &launch, 2).await.unwrap();
    ready(&target, &set(1), 2).await.unwrap();
    let second = machine.set_folder(&set(1)).join("2/app");
    assert_eq!(
        fs::read_to_string(second.join("orders.db")).unwrap(),
        "x\n",
        "instances don't share what they write"
    );
    let written = target.written_files(&set(1)).await;
    assert_eq!(written, ["orders.db", "uploads/a.png"]);
    let report = target.stop(&set(1), 0).await.unwrap();
    assert_eq!(
        report.note().unwrap(),
        "written beside the code and deleted with the release: orders.db and 1 more; write files that must stay to $DATA_DIR"
    );
    assert!(!machine.set_folder(&set(1)).join("1/tmp").exists());
    target.ensure(&set(2), &machine.app(), 1).await.unwrap();
    ready(&target, &set(2), 1).await.unwrap();
    assert_eq!(target.written_files(&set(2)).await, Vec::<String>::new());
    let kept = machine.scratch("data/shop/production/kept");
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept\n");
    target.stop(&set(2), 0).await.unwrap();
}

#[tokio::test]
async fn a_prepared_set_starts_without_its_artifact() {
    let machine = Machine::new();
    let target = machine.open().await;
    target.prepare(&set(1), &machine.app(), 3).await.unwrap();
    assert!(target.instances().is_empty());
    machine.lose_artifacts();
    // A server that is killed now must not lose the copies: the next action stops stable.
    drop(target);
    let target = machine.open().await;
    target.ensure(&set(1), &machine.app(), 3).await.unwrap();
    ready(&target, &set(1), 3).await.unwrap();
    target.stop(&set(1), 0).await.unwrap();
    let lost = target.prepare(&set(2), &machine.app(), 1).await;
    assert!(matches!(lost, Err(TargetError::Artifact(_))), "{lost:?}");
}

#[tokio::test]
async fn starting_again_what_runs_changes_nothing() {
    let machine = Machine::new();
    let target = machine.open().await;
    target.ensure(&set(1), &machine.app(), 2).await.unwrap();
    ready(&target, &set(1), 2).await.unwrap();
    let before = pids(&target);
    target.ensure(&set(1), &machine.app(), 1).await.unwrap();
    target.ensure(&set(1), &machine.app(), 2).await.unwrap();
    assert_eq!(pids(&target), before);
    target.ensure(&set(1), &machine.app(), 3).await.unwrap();
    ready(&target, &set(1), 3).await.unwrap();
    assert_eq!(pids(&target)[..2], before);
    target.stop(&set(1), 1).await.unwrap();
    assert_eq!(pids(&target), before[..1]);
    target.stop(&set(1), 0).await.unwrap();
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn a_command_that_exits_at_once_is_a_crash_loop_with_its_last_words() {
    let machine = Machine::new();
    let target = machine.open().await;
    let launch = machine.launch("echo reading config; echo 'no such file: shop.toml' >&2; exit 7");
    target.ensure(&set(1), &launch, 1).await.unwrap();
    let begun = Instant::now();
    let error = ready(&target, &set(1), 1).await.unwrap_err();
    assert!(matches!(error, ReadinessError::CrashLoop(_)), "{error}");
    assert_eq!(
        error.to_string(),
        "crash loop: instance 1 exited 3 times before becoming ready (last: exit code 7; \
         last log lines: reading config | no such file: shop.toml)"
    );
    assert!(
        begun.elapsed() < PATIENCE / 4,
        "a crash loop is said at once"
    );
    // It goes on being tried, less and less often, until it is stopped.
    let instances = until(&target, "in backoff", |all| all.iter().any(is_backoff)).await;
    assert!(instances[0].restarts >= 3);
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn what_never_becomes_ready_is_late_and_says_why() {
    let machine = Machine::new();
    let target = machine.open().await;
    let launch = machine.launch("echo 'waiting for the database'; exec sleep 1000");
    target.ensure(&set(1), &launch, 1).await.unwrap();
    let within = Duration::from_millis(1_500);
    let error = await_ready(&target, &set(1), 1, within, &CancellationToken::new())
        .await
        .unwrap_err()
        .to_string();
    let address = &target.instances()[0].address;
    let wanted =
        format!("not ready within 1 s: instance 1: connection refused on {address} for 1 s");
    assert!(error.starts_with(&wanted), "{error}");
    assert!(
        error.ends_with("; last log line: waiting for the database"),
        "{error}"
    );

    let nobody = CancellationToken::new();
    nobody.cancel();
    let cancelled = await_ready(&target, &set(1), 1, PATIENCE, &nobody).await;
    assert!(matches!(cancelled, Err(ReadinessError::Cancelled)));
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn what_dies_while_serving_is_seen_at_once_and_started_again() {
    let machine = Machine::new();
    let target = machine.open().await;
    target.ensure(&set(1), &machine.app(), 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let before = target.instances().remove(0);
    let _ = get(&before.address, "/exit").await;
    let down = until(&target, "down", |all| !all[0].is_ready()).await;
    let InstancePhase::Backoff { why, .. } = &down[0].phase else {
        panic!("{down:?}")
    };
    assert_eq!(why, "exit code 3; last log line: asked to exit");
    let up = until(&target, "up again", |all| all[0].is_ready()).await;
    assert_eq!((before.restarts, up[0].restarts), (0, 1));
    assert_ne!(up[0].pid, before.pid);
    assert_ne!(
        up[0].address, before.address,
        "another port, should that have been the reason"
    );
    assert_eq!(target.crash_loop(&set(1)), None);
    let held_up = target.availability(&set(1));
    assert_eq!(held_up.restarts, 1);
    assert!(held_up.unavailable_ms >= 500, "its backoff: {held_up:?}");
    assert!(held_up.observed_ms > held_up.unavailable_ms, "{held_up:?}");
    // The counts go on with the next server, and so does the time.
    drop(target);
    let target = machine.open().await;
    let later = target.availability(&set(1));
    assert_eq!(later.restarts, 1);
    assert!(later.observed_ms >= held_up.observed_ms, "{later:?}");
    for exits in 2..=3 {
        let serving = until(&target, "ready", |all| all[0].is_ready()).await;
        let _ = get(&serving[0].address, "/exit").await;
        until(&target, "down", |all| !all[0].is_ready()).await;
        eventually("the exit is counted", || {
            target.availability(&set(1)).restarts == exits
        })
        .await;
    }
    // Of two exits this server knows; its predecessor's are not carried over.
    assert_eq!(target.crash_loop(&set(1)), None);
    until(&target, "ready", |all| all[0].is_ready()).await;
    let address = target.instances()[0].address.clone();
    let _ = get(&address, "/exit").await;
    eventually("a crash loop", || target.crash_loop(&set(1)).is_some()).await;
    let why = target.crash_loop(&set(1)).unwrap();
    assert!(
        why.starts_with("3 unplanned exits within 2 min, last: instance 1, exit code 3"),
        "{why}"
    );
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed_after_the_grace_with_all_it_has_started() {
    let machine = Machine::new();
    let target = machine.open().await;
    // A child in the group, and one that has left it and its session.
    let mut launch = machine.launch(
        "trap '' TERM; sleep 1000 & echo $! > child; \
         setsid sh -c 'trap \"\" TERM; echo $$ > away; while :; do sleep 1000; done' & \
         python3 app.py",
    );
    launch.grace = Duration::from_millis(700);
    target.ensure(&set(1), &launch, 3).await.unwrap();
    ready(&target, &set(1), 3).await.unwrap();
    let app = machine.set_folder(&set(1)).join("1/app");
    let others = [
        number_in(&app.join("child")).await,
        number_in(&app.join("away")).await,
    ];
    let begun = Instant::now();
    let mains = pids(&target);
    let report = target.stop(&set(1), 0).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= launch.grace, "{took:?}");
    assert!(took < launch.grace * 3, "one after the other: {took:?}");
    for pid in mains.into_iter().chain(others) {
        assert!(!is_alive(pid), "{pid} is left");
    }
    let note = report.note().unwrap();
    let wanted = "instances 1, 2, 3 still ran 0.7 s after SIGTERM and were killed; ";
    assert!(note.starts_with(wanted), "{note}");
    let log = fs::read_to_string(machine.log_path(&set(1))).unwrap();
    let noted = "shipway: still running 0.7 s after SIGTERM (run.grace), killed";
    assert!(log.contains(noted), "{log}");
}

/// Notes each signal that it gets, and exits half a second after the first one.
const SIGNAL_RECORDER: &str = r#"
import signal, time
first = []
def note(number, frame):
    first.append(time.monotonic())
    with open("signals", "a") as file:
        file.write(signal.Signals(number).name + "\n")
for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
    signal.signal(getattr(signal, name), note)
open("up", "w").close()
while not first or time.monotonic() < first[0] + 0.5:
    time.sleep(0.05)
"#;

async fn signals_of(command: &str, stop_signal: StopSignal) -> String {
    let machine = Machine::new();
    let target = machine.open().await;
    let mut launch = machine.launch(command);
    launch.stop_signal = stop_signal;
    launch
        .env
        .insert("CODE".to_owned(), SIGNAL_RECORDER.to_owned());
    launch.health.readiness = HealthProbe::Exec {
        command: "test -e up".to_owned(),
    };
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    // The folder goes with the set: kept open, its file can still be read.
    let folder = machine.set_folder(&set(1)).join("1/app");
    let kept = machine.scratch("signals");
    fs::write(&kept, "").unwrap();
    fs::hard_link(&kept, folder.join("signals")).unwrap();
    let report = target.stop(&set(1), 0).await.unwrap();
    assert!(report.killed.is_empty(), "{command}");
    fs::read_to_string(kept).unwrap()
}

#[tokio::test]
async fn a_server_gets_one_stop_signal_whatever_stands_above_it() {
    for command in [
        "python3 -c \"$CODE\"",
        "exec python3 -c \"$CODE\"",
        "cd . && python3 -c \"$CODE\"",
        "python3 -c \"$CODE\"; true",
        "sh -c 'python3 -c \"$CODE\"; true'; true",
        "(python3 -c \"$CODE\")",
    ] {
        let signals = signals_of(command, StopSignal::SigTerm).await;
        assert_eq!(signals, "SIGTERM\n", "{command}");
    }
}

#[tokio::test]
async fn the_configured_stop_signal_reaches_the_server_below_a_shell() {
    for command in [
        "python3 -c \"$CODE\"",
        "python3 -c \"$CODE\"; true",
        "trap : QUIT; python3 -c \"$CODE\" & wait $!; kill -QUIT $!; wait $!",
    ] {
        let signals = signals_of(command, StopSignal::SigQuit).await;
        assert_eq!(signals, "SIGQUIT\n", "{command}");
    }
}

#[tokio::test]
async fn a_command_that_goes_into_the_background_is_told_to_stay_in_the_foreground() {
    let machine = Machine::new();
    let target = machine.open().await;
    let launch =
        machine.launch("setsid sh -c 'sleep 2; exec python3 app.py' > /dev/null 2>&1 & sleep 0.2");
    target.ensure(&set(1), &launch, 1).await.unwrap();
    let error = ready(&target, &set(1), 1).await.unwrap_err().to_string();
    let wanted = "exit code 0, but it left processes running in the background: the command must stay in the foreground";
    assert!(error.contains(wanted), "{error}");
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn a_shell_that_dies_first_leaves_its_service_the_grace() {
    let machine = Machine::new();
    let target = machine.open().await;
    let finished = machine.scratch("finished");
    // The outer shell has no trap and is not replaced by what it runs: it dies of SIGTERM at once.
    let mut launch = machine.launch(&format!(
        "sh -c 'trap \"sleep 0.5; touch {}; exit\" TERM; touch up; while :; do sleep 0.05; done'; true",
        finished.display()
    ));
    launch.health.readiness = HealthProbe::Exec {
        command: "test -e up".to_owned(),
    };
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let begun = Instant::now();
    target.stop(&set(1), 0).await.unwrap();
    assert!(finished.exists(), "it was killed before it had finished");
    assert!(begun.elapsed() < launch.grace, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn artifacts_that_are_missing_empty_or_hostile_are_refused_in_words() {
    let machine = Machine::new();
    let empty = machine.add_artifact(tar_of(&[]));
    let noise = machine.add_artifact(vec![9; 10_000]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..7].copy_from_slice(b"../evil");
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
    let hostile = machine.add_artifact(builder.into_inner().unwrap());
    let missing = Digest::compute(b"never built");
    let target = machine.open().await;
    for (artifact, wanted) in [
        (missing, "no such blob"),
        (empty, "it is empty"),
        (noise, "it is damaged"),
        (hostile, "the entry ../evil is outside its folder"),
    ] {
        let launch = machine.app_from(artifact);
        let error = target.ensure(&set(1), &launch, 1).await.unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("the artifact can't be unpacked"),
            "{error}"
        );
        assert!(error.contains(wanted), "{error}");
    }
    assert!(target.instances().is_empty());
    assert!(!machine.root().join("evil").exists());
    // What failed is not in the way of what works.
    target.ensure(&set(1), &machine.app(), 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn an_image_is_refused_with_the_targets_that_run_images() {
    let machine = Machine::new();
    let target = machine.open().await;
    let image = ImageReference {
        name: "registry.example.com/shop".to_owned(),
        digest: Digest::compute(b"shop"),
    };
    let mut launch = machine.app();
    launch.program = WorkloadProgram::Image {
        image: image.clone(),
        command: None,
    };
    let error = target.ensure(&set(1), &launch, 1).await.unwrap_err();
    assert!(matches!(
        error,
        TargetError::Image {
            target: TargetKind::Process,
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        format!(
            "the target `process` can't run the image {image}; targets that run images: docker, kubernetes"
        )
    );
    assert!(!machine.set_folder(&set(1)).exists());
}

#[tokio::test]
async fn a_secret_that_is_not_set_is_said_before_anything_is_started() {
    let machine = Machine::new();
    let target = machine.open().await;
    let mut launch = machine.app();
    launch.env = [("KEY".to_owned(), "$TOKEN_OF_NOBODY".to_owned())].into();
    let error = target.ensure(&set(1), &launch, 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the secret TOKEN_OF_NOBODY is not set: `shipway secret set TOKEN_OF_NOBODY`"
    );
    assert!(!machine.set_folder(&set(1)).exists());
}

#[tokio::test]
async fn an_instance_that_is_not_well_gets_no_traffic_and_names_what_fails() {
    let machine = Machine::new();
    let target = machine.open().await;
    target.ensure(&set(1), &machine.app(), 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let marker = machine.set_folder(&set(1)).join("1/app/unready");
    fs::write(&marker, "").unwrap();
    let unready = until(&target, "unready", |all| !all[0].is_ready()).await;
    let InstancePhase::Unready { why } = &unready[0].phase else {
        panic!("{unready:?}")
    };
    assert!(
        why.starts_with("/ready answers 503: database not well"),
        "{why}"
    );
    fs::remove_file(&marker).unwrap();
    let again = until(&target, "ready again", |all| all[0].is_ready()).await;
    assert_eq!(again[0].restarts, 0);
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn what_is_not_alive_is_restarted() {
    let machine = Machine::new();
    let target = machine.open().await;
    let mut launch = machine.app();
    launch.health.liveness = Some(http("/live"));
    // Python's start on a busy machine.
    launch.health.start_period = Duration::from_secs(3);
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let before = pids(&target);
    let marker = machine.set_folder(&set(1)).join("1/app/dead");
    fs::write(&marker, "").unwrap();
    let down = until(&target, "restarted", |all| is_backoff(&all[0])).await;
    let InstancePhase::Backoff { why, .. } = &down[0].phase else {
        panic!("{down:?}")
    };
    assert!(
        why.starts_with("restarted, liveness failed 2 times: /live answers 503"),
        "{why}"
    );
    assert!(!is_alive(before[0]));
    fs::remove_file(&marker).unwrap();
    until(&target, "ready", |all| all[0].is_ready()).await;
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn a_port_that_somebody_takes_first_costs_one_start() {
    let machine = Machine::new();
    let target = machine.open().await;
    // The first start finds its port taken, by a listener of its own making.
    let launch = machine.launch(
        "echo $PORT >> ports; [ $(wc -l < ports) -gt 1 ] || exec python3 -c '\
import os, socket\n\
taken = socket.create_server((\"127.0.0.1\", int(os.environ[\"PORT\"])))\n\
socket.socket().bind(taken.getsockname())'\n\
exec python3 app.py",
    );
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let ports = fs::read_to_string(machine.set_folder(&set(1)).join("1/app/ports")).unwrap();
    let ports: Vec<&str> = ports.lines().collect();
    assert_eq!(ports.len(), 2);
    assert_ne!(ports[0], ports[1]);
    let log = fs::read_to_string(machine.log_path(&set(1))).unwrap();
    assert!(log.contains("Address already in use"), "{log}");
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn what_an_instance_uses_includes_what_it_has_started() {
    let machine = Machine::new();
    let target = machine.open().await;
    // Burns time in a grandchild that has ended and in a child that runs.
    let launch = machine.launch(
        "python3 -c 'import time\nwhile time.process_time() < 0.2: pass'; python3 app.py; true",
    );
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let mut instances = target.instances();
    target.measure(&mut instances);
    let usage = instances[0].usage.unwrap();
    assert!(usage.cpu_seconds >= 0.2, "{usage:?}");
    assert!(usage.memory_bytes > 5 << 20, "python is bigger: {usage:?}");
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn another_release_of_the_same_number_is_replaced_and_never_run() {
    let machine = Machine::new();
    let newer = machine.add_artifact(tar_of(&[
        ("app.py", process_support::APP),
        (
            "newer",
            "the log lost its tail, and its numbers are given again",
        ),
    ]));
    let target = machine.open().await;
    target.ensure(&set(3), &machine.app(), 2).await.unwrap();
    ready(&target, &set(3), 2).await.unwrap();
    let old = pids(&target);
    let launch = machine.app_from(newer);
    target.ensure(&set(3), &launch, 1).await.unwrap();
    ready(&target, &set(3), 1).await.unwrap();
    assert!(!old.into_iter().any(is_alive), "the old instances are gone");
    assert_eq!(target.instances().len(), 1);
    let folder = machine.set_folder(&set(3));
    assert!(folder.join("1/app/newer").exists());
    let aside = machine.root().with_file_name("set-aside");
    let aside = aside.join("instances-shop.production.3.1");
    assert!(aside.join("1/log").exists(), "its logs are kept");
    target.stop(&set(3), 0).await.unwrap();
}

#[tokio::test]
async fn an_unpacked_artifact_that_no_set_is_known_for_is_unpacked_again() {
    let machine = Machine::new();
    let app = machine.set_folder(&set(4)).join("1/app");
    fs::create_dir_all(&app).unwrap();
    fs::write(app.join("app.py"), "raise SystemExit('old bytes')").unwrap();
    let target = machine.open().await;
    target.ensure(&set(4), &machine.app(), 1).await.unwrap();
    ready(&target, &set(4), 1).await.unwrap();
    target.stop(&set(4), 0).await.unwrap();
}
