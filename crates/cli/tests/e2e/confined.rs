//! What jobs may use: memory, processes; where the machine has control groups that may be written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    site::{SHIPWAY, said},
    words::assert_ends,
};

/// `shipway run` of one step with these limits; none where they can't be enforced.
fn run(step: &str, limits: &[&str]) -> Option<std::process::Output> {
    let folder = tempfile::Builder::new()
        .prefix("shipway-e2e-")
        .tempdir()
        .unwrap();
    let file = folder.path().join("ci.yml");
    let text = format!(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: |\n          {step}\n      - if: always()\n        run: echo the job goes on\n"
    );
    fs::write(&file, text).unwrap();
    let output = Command::new(SHIPWAY)
        .arg("run")
        .arg(&file)
        .args(limits)
        .current_dir(folder.path())
        .output()
        .unwrap();
    if said(&output).contains("not enforced") {
        println!(
            "skipped, because no control groups may be written here: {}",
            said(&output)
        );
        return None;
    }
    Some(output)
}

/// Folders of the control groups that the step was in, as it has printed them.
fn groups(ended: &std::process::Output) -> Vec<PathBuf> {
    let text = said(ended);
    let paths = text
        .split_whitespace()
        .filter_map(|word| word.split_once("/shipway/job-"));
    let names: Vec<&str> = paths.map(|(_, name)| name).collect();
    let roots = ["", "memory", "cpu", "pids"];
    let root = |name| Path::new("/sys/fs/cgroup").join(name).join("shipway");
    names
        .iter()
        .flat_map(|name| roots.map(|it| root(it).join(format!("job-{name}"))))
        .collect()
}

#[test]
fn a_step_that_takes_too_much_memory_is_ended_and_the_job_says_so() {
    let greedy = r#"cat /proc/self/cgroup; python3 -c "b = bytearray(400 << 20); print(len(b))""#;
    let Some(ended) = run(greedy, &["--job-memory", "128MiB"]) else {
        return;
    };
    assert_ends(
        &ended,
        1,
        &[
            "the job ran out of memory: it may use 128 MiB",
            "the job goes on",
        ],
    );
    let groups = groups(&ended);
    assert!(!groups.is_empty(), "{}", said(&ended));
    for group in groups {
        assert!(!group.exists(), "{}", group.display());
    }
}

#[test]
fn a_step_that_starts_too_many_processes_is_refused_them() {
    let bomb = "for i in $(seq 200); do sleep 5 & done; wait";
    let Some(ended) = run(bomb, &["--job-processes", "32"]) else {
        return;
    };
    assert_ends(&ended, 1, &["Resource temporarily unavailable"]);
}
