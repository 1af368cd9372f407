//! The environment of a step: clean, then the workflow's, the job's and the step's variables, then what nobody can overwrite.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    expr::Value,
    job::{ENGINE, JobSpec, NETWORK},
};

use crate::tools::{add_install_folders, prepare_install_folders};

/// Where programs are looked for when nobody says.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// GitHub's names, below its temporary folder.
const WORKFLOW: &str = "_github_workflow";
pub(crate) const COMMANDS: &str = "_runner_file_commands";

/// Environment variables in order of first appearance; the last value counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Env(Vec<(String, String)>);

impl Env {
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = (String, String)>) {
        more.into_iter()
            .for_each(|(name, value)| self.set(name, value));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    pub(crate) fn into_vec(self) -> Vec<(String, String)> {
        self.0
    }
}

/// Where a job keeps what.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub(crate) workspace: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) temp: PathBuf,
    pub(crate) artifacts: PathBuf,
    pub(crate) summaries: PathBuf,
    /// What started the run, as JSON.
    pub(crate) event: PathBuf,
}

impl Folders {
    /// Those of the job in the folder `job`, whose steps work in `base`: in that of an earlier attempt when it goes on from one,
    /// as what steps have left knows where it is.
    pub(crate) fn of(job: &Path, base: &Path) -> Self {
        let temp = base.join("temp");
        Self {
            workspace: base.join("workspace"),
            home: base.join("home"),
            event: temp.join(WORKFLOW).join("event.json"),
            temp,
            // Made when there is something to put there: most jobs have neither.
            artifacts: job.join("artifacts"),
            summaries: job.join("summaries"),
        }
    }

    /// The same, made.
    pub(crate) fn create(job: &Path, base: &Path) -> std::io::Result<Self> {
        let folders = Self::of(job, base);
        for folder in [
            &folders.workspace,
            &folders.tools(),
            &folders.actions(),
            &folders.commands(),
            &folders.workflow(),
        ] {
            std::fs::create_dir_all(folder)?;
        }
        prepare_install_folders(&folders)?;
        Ok(folders)
    }

    /// Where the event is: containers see the folder.
    pub(crate) fn workflow(&self) -> PathBuf {
        self.temp.join(WORKFLOW)
    }

    /// Where the files are through which steps speak to the job.
    pub(crate) fn commands(&self) -> PathBuf {
        self.temp.join(COMMANDS)
    }

    /// Where the job's copies of fetched actions are.
    pub(crate) fn actions(&self) -> PathBuf {
        self.workspace.with_file_name("actions")
    }

    /// Where tools are kept that steps install: `runner.tool_cache`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.home.join("tools")
    }
}

/// What every step starts with: nothing of the server's but where programs are, and the way to the network.
pub(crate) fn base(folders: &Folders) -> Env {
    let mut base = Env::default();
    add_install_folders(folders, &mut base);
    base.set("LANG", "C.UTF-8");
    base.set("HOME", folders.home.display().to_string());
    base.set("TMPDIR", folders.temp.display().to_string());
    base.set("CI", "true");
    for name in NETWORK.into_iter().chain(ENGINE) {
        if let Ok(value) = std::env::var(name) {
            base.set(name, value);
        }
    }
    // Programs that live in a user's home are found although HOME is the job's.
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let in_home = || {
            let path = Path::new(&std::env::var_os("HOME")?).join(folder);
            path.is_dir().then(|| path.display().to_string())
        };
        if let Some(value) = std::env::var(name).ok().or_else(in_home) {
            base.set(name, value);
        }
    }
    base
}

/// `GITHUB_*`, `RUNNER_*` and `SHIPWAY_*`: last, so that nothing overwrites them.
pub(crate) fn fixed(spec: &JobSpec, github: &Value, runner: &Value) -> Env {
    let mut fixed = Env::default();
    fixed.set("GITHUB_ACTIONS", "true");
    fixed.set("SHIPWAY", "true");
    if let Some(server) = &spec.server {
        fixed.set("SHIPWAY_SERVER", server.url.as_str());
    }
    // The token is for those who ask for it, and the event's whole payload is a file.
    let plain = |name: &str, value: &Value| value.is_primitive() && name != "token";
    for (context, prefix) in [(github, "GITHUB"), (runner, "RUNNER")] {
        let Value::Object(context) = context else {
            continue;
        };
        for (name, value) in context.iter().filter(|(name, value)| plain(name, value)) {
            let name = format!("{prefix}_{}", name.to_uppercase());
            fixed.set(name, &*value.to_text());
        }
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
