//! The environment of a step: clean, then the workflow's, the job's and the step's variables, then what nobody can overwrite.

use std::path::{Path, PathBuf};

use shipway_workflow::{expr::Value, job::JobSpec};

/// Where a job keeps what.
pub(crate) struct Folders {
    pub(crate) workspace: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) temp: PathBuf,
    pub(crate) artifacts: PathBuf,
}

impl Folders {
    pub(crate) fn create(job: &Path) -> std::io::Result<Self> {
        let folders = Self {
            workspace: job.join("workspace"),
            home: job.join("home"),
            temp: job.join("temp"),
            artifacts: job.join("artifacts"),
        };
        for folder in [
            &folders.workspace,
            &folders.home,
            &folders.temp,
            &folders.artifacts,
        ] {
            std::fs::create_dir_all(folder)?;
        }
        Ok(folders)
    }
}

/// What every step starts with: nothing of the server's but where programs are.
pub(crate) fn base(folders: &Folders) -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| {
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
    });
    let mut base: Vec<(String, String)> = [
        ("PATH", path),
        ("LANG", "C.UTF-8".to_owned()),
        ("HOME", folders.home.display().to_string()),
        ("TMPDIR", folders.temp.display().to_string()),
        ("CI", "true".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    // Build tools that live in the user's home are found although HOME is the job's.
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let known = std::env::var(name).ok().or_else(|| {
            std::env::var("HOME")
                .ok()
                .map(|home| format!("{home}/{folder}"))
                .filter(|path| Path::new(path).is_dir())
        });
        base.extend(known.map(|value| (name.to_owned(), value)));
    }
    base
}

/// `GITHUB_*`, `RUNNER_*` and `SHIPWAY_*`: last, so that nothing overwrites them.
pub(crate) fn fixed(spec: &JobSpec, folders: &Folders, action: &str) -> Vec<(String, String)> {
    let mut fixed: Vec<(String, String)> = vec![
        ("GITHUB_ACTIONS".to_owned(), "true".to_owned()),
        ("GITHUB_JOB".to_owned(), spec.job_id.clone()),
    ];
    if let Value::Object(github) = &spec.contexts.github {
        // The token and the event's whole payload are not for the environment.
        let plain = github.iter().filter(|(name, value)| {
            value.is_primitive()
                && !matches!(
                    &***name,
                    "token" | "job" | "workspace" | "event_path" | "action"
                )
        });
        fixed.extend(plain.map(|(name, value)| {
            (
                format!("GITHUB_{}", name.to_uppercase()),
                value.to_text().to_string(),
            )
        }));
    }
    let workspace = folders.workspace.display().to_string();
    let event = folders.temp.join("event.json").display().to_string();
    for (name, value) in [
        ("GITHUB_WORKSPACE", workspace.clone()),
        ("GITHUB_EVENT_PATH", event),
        ("GITHUB_ACTION", action.to_owned()),
        ("RUNNER_OS", "Linux".to_owned()),
        ("RUNNER_ARCH", arch().to_owned()),
        ("RUNNER_NAME", "shipway".to_owned()),
        ("RUNNER_ENVIRONMENT", "self-hosted".to_owned()),
        ("RUNNER_TEMP", folders.temp.display().to_string()),
        (
            "RUNNER_TOOL_CACHE",
            folders.home.join("tools").display().to_string(),
        ),
        ("RUNNER_WORKSPACE", workspace),
        ("SHIPWAY", "true".to_owned()),
    ] {
        fixed.push((name.to_owned(), value));
    }
    fixed
}

/// GitHub's word for the machine.
pub(crate) const fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "ARM64"
    } else {
        "X64"
    }
}
