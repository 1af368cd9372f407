//! The process target on bad days: servers, shims and instances killed, full disks, too little memory.

mod process_support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use process_support::{
    Machine, eventually, get, is_alive, is_backoff, kill, pids, ready, set, until,
};
use shipway_core::{
    ids::Digest,
    target::{InstancePhase, InstanceStatus},
};
use shipway_targets::target::Target;

#[tokio::test]
async fn the_next_server_takes_over_what_runs_and_starts_nothing_twice() {
    let machine = Machine::new();
    let first = machine.open().await;
    first.ensure(&set(1), &machine.app(), 2).await.unwrap();
    first.ensure(&set(2), &machine.app(), 1).await.unwrap();
    ready(&first, &set(1), 2).await.unwrap();
    ready(&first, &set(2), 1).await.unwrap();
    let before = first.instances();
    drop(first);

    let second = machine.open().await;
    // At once: nobody's routes are without instances for a moment.
    assert!(second.instances().iter().all(InstanceStatus::is_ready));
    ready(&second, &set(1), 2).await.unwrap();
    // What was running goes on being supervised.
    let address = &second.instances()[0].address;
    let _ = get(address, "/exit").await;
    until(&second, "restarted", |all| {
        all[0].restarts == 1 && all[0].is_ready()
    })
    .await;
    drop(second);

    let third = machine.open().await;
    let after = third.instances();
    assert_eq!(after[0].restarts, 1, "restarts are remembered");
    for (before, after) in before.iter().zip(&after).skip(1) {
        assert_eq!(before, after);
    }
    assert_eq!(
        (machine.starts(&set(1), 1), machine.starts(&set(1), 2)),
        (2, 1)
    );
    third.stop(&set(1), 0).await.unwrap();
    third.stop(&set(2), 0).await.unwrap();
    let gone: Vec<u32> = after.iter().filter_map(|status| status.pid).collect();
    assert!(!gone.into_iter().any(is_alive));
}

#[tokio::test]
async fn what_died_while_no_server_was_there_is_started_by_the_next() {
    let machine = Machine::new();
    let first = machine.open().await;
    first.ensure(&set(1), &machine.app(), 2).await.unwrap();
    ready(&first, &set(1), 2).await.unwrap();
    let before = pids(&first);
    drop(first);
    kill(before[0]);
    let shim = machine.shim(&set(1), 1);
    eventually("the shim has ended with its instance", || !is_alive(shim)).await;

    let second = machine.open().await;
    ready(&second, &set(1), 2).await.unwrap();
    let after = second.instances();
    assert_ne!(after[0].pid, Some(before[0]));
    assert_eq!(after[1].pid, Some(before[1]));
    assert_eq!((after[0].restarts, after[1].restarts), (1, 0));
    second.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn after_a_restart_of_the_machine_the_artifact_is_unpacked_again_and_all_is_started() {
    let machine = Machine::new();
    let first = machine.open().await;
    first.ensure(&set(1), &machine.app(), 1).await.unwrap();
    ready(&first, &set(1), 1).await.unwrap();
    let before = pids(&first);
    drop(first);
    // What a power cut leaves: nothing runs, another boot, and files whose bytes never reached the disk.
    let shim = machine.shim(&set(1), 1);
    kill(before[0]);
    eventually("all is gone", || !is_alive(shim)).await;
    let told = machine.set_folder(&set(1)).join("set.json");
    let mut set_json: serde_json::Value =
        serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    assert!(
        set_json["boot"]
            .as_str()
            .is_some_and(|boot| boot.len() > 30)
    );
    set_json["boot"] = "another".into();
    fs::write(&told, set_json.to_string()).unwrap();
    fs::write(machine.set_folder(&set(1)).join("1/app/app.py"), "").unwrap();

    let second = machine.open().await;
    ready(&second, &set(1), 1).await.unwrap();
    second.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn a_killed_shim_takes_its_instance_along_and_both_are_started_again() {
    let machine = Machine::new();
    let target = machine.open().await;
    // The service is a child of the shell, not the shell.
    let launch = machine.launch("python3 app.py; true");
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let before = target.instances().remove(0);
    kill(machine.shim(&set(1), 1));
    let down = until(&target, "down", |all| is_backoff(&all[0])).await;
    let InstancePhase::Backoff { why, .. } = &down[0].phase else {
        panic!("{down:?}")
    };
    assert!(why.starts_with("its shim was killed"), "{why}");
    let up = until(&target, "up", |all| all[0].is_ready()).await;
    assert!(!is_alive(before.pid.unwrap()));
    assert!(get(&before.address, "/").await.is_err(), "two run");
    assert_eq!(up[0].restarts, 1);
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn a_shim_killed_while_no_server_was_there_leaves_nothing_in_the_way() {
    let machine = Machine::new();
    let first = machine.open().await;
    let launch = machine.launch("python3 app.py; true");
    first.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&first, &set(1), 1).await.unwrap();
    let before = first.instances().remove(0);
    drop(first);
    let (shim, shell) = (machine.shim(&set(1), 1), before.pid.unwrap());
    kill(shim);
    // The shell goes, the service stays: the group has lost its leader.
    kill(shell);
    eventually("both are gone", || !is_alive(shim) && !is_alive(shell)).await;
    assert!(
        get(&before.address, "/").await.is_ok(),
        "the service is left"
    );
    let second = machine.open().await;
    until(&second, "ready", |all| all[0].is_ready()).await;
    assert!(
        get(&before.address, "/").await.is_err(),
        "the old one still runs"
    );
    second.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn a_server_killed_while_stopping_leaves_nothing_that_nobody_stops() {
    let machine = Machine::new();
    let first = machine.open().await;
    let mut launch = machine.launch("trap '' TERM; python3 app.py");
    launch.grace = Duration::from_secs(1);
    first.ensure(&set(1), &launch, 3).await.unwrap();
    ready(&first, &set(1), 3).await.unwrap();
    let before = pids(&first);
    {
        let of = set(1);
        let stop = first.stop(&of, 1);
        let told = until(&first, "being stopped", |all| {
            all.iter()
                .filter(|it| it.phase == InstancePhase::Stopping)
                .count()
                == 2
        });
        tokio::select! {
            biased;
            _ = stop => panic!("they ignore SIGTERM"),
            _ = told => {}
        }
    }
    drop(first);
    let second = machine.open().await;
    until(&second, "one", |all| all.len() == 1).await;
    assert_eq!(pids(&second), before[..1]);
    assert!(!is_alive(before[1]) && !is_alive(before[2]));
    second.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn a_stop_that_nobody_waits_for_does_not_hinder_the_next_start() {
    let machine = Machine::new();
    let target = machine.open().await;
    let mut launch = machine.launch("trap '' TERM; python3 app.py");
    launch.grace = Duration::from_millis(500);
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let before = pids(&target);
    let of = set(1);
    tokio::select! {
        biased;
        _ = target.stop(&of, 0) => panic!("it ignores SIGTERM"),
        _ = until(&target, "being stopped", |all| all[0].phase == InstancePhase::Stopping) => {}
    }
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let after = target.instances();
    assert_ne!(after[0].pid, Some(before[0]));
    assert_eq!(after[0].restarts, 0, "it was asked for");
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn two_shims_never_run_in_one_slot() {
    let machine = Machine::new();
    let target = machine.open().await;
    target.ensure(&set(1), &machine.app(), 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let told = serde_json::json!({
        "name": "x", "cgroup": "x", "command": "touch second", "workdir": machine.scratch(""), "env": {},
        "limits": {"memory_bytes": null, "cpu_millis": null},
        "grace": {"secs": 1, "nanos": 0}, "address": "127.0.0.1:1", "restarts": 0,
    });
    for (told, wanted) in [
        (told.to_string(), "another instance holds this slot"),
        // A server that was killed while it told.
        (told.to_string()[..40].to_owned(), "EOF while parsing"),
    ] {
        use std::io::Write;
        let mut shim = Command::new(env!("CARGO_BIN_EXE_shipway-instance"))
            .arg(machine.set_folder(&set(1)).join("1"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        shim.stdin
            .take()
            .unwrap()
            .write_all(told.as_bytes())
            .unwrap();
        let output = shim.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(wanted), "{said}");
    }
    assert!(!machine.scratch("second").exists());
    assert!(target.instances()[0].is_ready());
    target.stop(&set(1), 0).await.unwrap();
}

#[tokio::test]
async fn a_chatty_instance_has_logs_of_bounded_size() {
    let machine = Machine::new();
    let target = machine.open().await;
    let launch =
        machine.launch("head -c 45000000 /dev/zero | tr '\\0' 'x'; echo; exec python3 app.py");
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let log = machine.log_path(&set(1));
    let size = |path: PathBuf| fs::metadata(path).map(|it| it.len()).unwrap_or(0);
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", log.display()));
    let limit = (10 << 20) + (1 << 20);
    for path in [log.clone(), numbered(1), numbered(2)] {
        let size = size(path);
        assert!((1..limit).contains(&size), "{size}");
    }
    assert!(!numbered(3).exists());
    target.stop(&set(1), 0).await.unwrap();
}

/// A file system of its own, small; `None` where that can't be had.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "none"])
            .arg(at)
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(Self(at.to_owned()))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: an instance that a failed test has left may still be on it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_costs_lines_of_the_log_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("instances");
    let disk = match SmallDisk::mount(&root) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("skipped, because no small disk can be mounted: {why}");
            return;
        }
    };
    let machine = Machine::with_root(folder, root.clone());
    let target = machine.open().await;
    let noise = "for i in range(200000): print('a line of no use', i)";
    let launch = machine.launch(&format!("python3 -c \"{noise}\"; exec python3 app.py"));
    target.ensure(&set(1), &launch, 1).await.unwrap();
    ready(&target, &set(1), 1).await.unwrap();
    let before = pids(&target);
    let full = fs::write(root.join("more"), vec![0; 64 << 10]);
    assert!(full.is_err(), "the disk isn't full");
    let address = target.instances()[0].address.clone();
    assert_eq!(get(&address, "/").await.unwrap(), "shop.production.1.1");
    // With room again the log goes on, and says what is missing.
    let log = machine.log_path(&set(1));
    fs::remove_dir_all(root.join("shop.production.1/1/app")).unwrap();
    let _ = get(&address, "/exit").await;
    eventually("the log goes on", || {
        let text = fs::read(&log).unwrap();
        let text = String::from_utf8_lossy(&text);
        text.contains("bytes are missing here, the disk was full") && text.contains("asked to exit")
    })
    .await;
    eventually("the instance has ended", || !is_alive(before[0])).await;
    target.stop(&set(1), 0).await.unwrap();
    drop((target, machine, disk));
}

#[tokio::test]
async fn limits_are_enforced_or_it_is_said_that_they_are_not() {
    let machine = Machine::new();
    let target = machine.open().await;
    let mut launch = machine.launch("exec python3 -c 'x = bytearray(300 << 20); print(len(x))'");
    launch.limits.memory_bytes = Some(64 << 20);
    launch.limits.cpu_millis = Some(500);
    target.ensure(&set(1), &launch, 1).await.unwrap();
    let down = until(&target, "down", |all| is_backoff(&all[0])).await;
    let InstancePhase::Backoff { why, .. } = &down[0].phase else {
        panic!("{down:?}")
    };
    let path = machine.log_path(&set(1));
    let log = fs::read_to_string(&path).unwrap();
    if log.contains("limit is not enforced") {
        assert!(why.starts_with("exit code 0"), "{why}");
    } else {
        assert!(why.starts_with("killed by SIGKILL, out of memory"), "{why}");
    }
    target.stop(&set(1), 0).await.unwrap();
    let folder = path.parent().unwrap().as_os_str().as_encoded_bytes();
    let hash = Digest::compute(folder).to_string();
    let group = format!("shop.production.1.1-{}", &hash["sha256:".len()..][..12]);
    for controller in ["", "memory", "cpu"] {
        let parent = Path::new("/sys/fs/cgroup").join(controller).join("shipway");
        assert!(!parent.join(&group).exists(), "{group}");
    }
}
