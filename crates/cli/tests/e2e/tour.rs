//! `examples/tour`: what most workflow files use, pushed to a server with a container engine, and run here without one.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::{
    examples::{copied, root},
    site::{SHIPWAY, Site, said, until},
};

const PASSWORD: &str = "correct-horse-battery";
const TOKEN: &str = "announce-7d1f2c9ab4";

/// Where an engine with the image `postgres:15` is; none: the test is skipped, and has said so.
fn engine() -> Option<String> {
    static BUILT: OnceLock<Option<String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let Ok(host) = env::var("SHIPWAY_TEST_DOCKER_HOST") else {
            println!("skipped, because SHIPWAY_TEST_DOCKER_HOST names no container engine");
            return None;
        };
        let mut image = Command::new(root().join("tools/postgres-image"));
        let output = image
            .arg("postgres:15")
            .env("DOCKER_HOST", &host)
            .output()
            .unwrap();
        if !output.status.success() {
            println!(
                "skipped, because there is no image of PostgreSQL: {}",
                said(&output)
            );
        }
        output.status.success().then_some(host)
    });
    built.clone()
}

/// A server with an engine and with secrets: one of the repository, one of the environment `production`.
fn site(host: &str) -> Site {
    let mut site = Site::new();
    let secrets = site.folder.path().join("secrets");
    let text = format!("DATABASE_PASSWORD={PASSWORD}\n\n[production]\nANNOUNCE_TOKEN={TOKEN}\n");
    fs::write(&secrets, text).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    site.flags = vec!["--secrets".to_owned(), secrets.display().to_string()];
    site.env.push(("DOCKER_HOST", host.to_owned()));
    site.start();
    site
}

/// The files below `folder` that hold `word`.
fn files_with(folder: &Path, word: &str) -> Vec<String> {
    let found = Command::new("grep")
        .args([
            "--recursive",
            "--binary-files=text",
            "--files-with-matches",
            word,
        ])
        .arg(folder)
        .output();
    let found = String::from_utf8_lossy(&found.unwrap().stdout).into_owned();
    found.lines().map(str::to_owned).collect()
}

#[test]
fn what_most_workflows_use_runs_in_order_is_approved_and_keeps_its_secrets() {
    let Some(host) = engine() else { return };
    let site = site(&host);
    let shop = copied(&site, "tour");
    shop.git(&["checkout", "--quiet", "-B", "main"]);
    let push = shop.ship_begun("1.0.0");
    let run = || site.get("/api/v1/runs/tour/1").unwrap_or_default();
    until("the run to wait for approval", || {
        said(&site.shipway(&["status", "tour"])).contains("approv")
            || run().to_string().contains("approv")
    });
    let waiting = run().to_string();
    assert!(!waiting.contains(TOKEN) && !waiting.contains(PASSWORD));
    let told = said(&site.shipway(&["approve", "r1", "--reason", "looks good"]));
    assert!(told.contains("r1"), "{told}");
    until("the rollout to ask for approval", || {
        site.shipway(&["approve", "ro1"]).status.success()
    });
    let told = said(&push.wait_with_output().unwrap());
    let order: Vec<Option<usize>> = ["✓ build", "✓ database", "announce is waiting for approval"]
        .iter()
        .map(|line| told.find(line))
        .collect();
    assert!(
        order.iter().all(Option::is_some) && order.is_sorted(),
        "{told}"
    );
    until("the page to be served", || {
        let answer = site.ask("/tour/");
        answer.is_some_and(|(status, page)| status == 200 && page.contains("Tour 1.0.0-"))
    });

    let log = said(&site.shipway(&["logs", "r1"]));
    for line in [
        "the optional check ended as failure and counts as success",
        "said before: hello",
        "with the token ***",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
    for secret in [TOKEN, PASSWORD] {
        assert!(!log.contains(secret) && !told.contains(secret));
        let pages = said(&site.shipway(&["logs", "r1", "--json"])) + &run().to_string();
        assert!(!pages.contains(secret));
        assert_eq!(files_with(&site.data(), secret), Vec::<String>::new());
    }
    let left = Command::new("docker")
        .args([
            "ps",
            "--all",
            "--quiet",
            "--filter",
            "label=dev.shipway.job",
        ])
        .env("DOCKER_HOST", &host)
        .output();
    assert_eq!(said(&left.unwrap()), "", "containers of jobs are gone");
}

#[test]
fn without_an_engine_all_but_the_container_parts_runs_and_it_says_so() {
    let site = Site::new();
    let shop = copied(&site, "tour");
    let nowhere = format!("unix://{}", site.folder.path().join("no.sock").display());
    let mut command = Command::new(SHIPWAY);
    command
        .args(["run", "--secret", &format!("DATABASE_PASSWORD={PASSWORD}")])
        .args(["--secret", &format!("ANNOUNCE_TOKEN={TOKEN}")])
        .current_dir(&shop.path)
        .env("DOCKER_HOST", &nowhere)
        .env("CONTAINER_HOST", &nowhere)
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let told = said(&output);
    // Incomplete: no success, and no failure either.
    assert_eq!(output.status.code(), Some(5), "{told}");
    for line in ["left out: it needs", "the optional check ended as failure"] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    assert!(!told.contains(TOKEN) && !told.contains(PASSWORD));
}
