//! The variables that every process of a job gets, before those of its workflow.

use std::path::Path;

use shipway_workflow::{
    expr::ExprValue,
    job::{ENGINE, JobSpec, NETWORK},
};

use crate::{
    environment::{EnvVars, JobFolders},
    install_folders::add_install_folders,
};

/// The base environment of every step: of the server's variables only the search path and network settings are kept.
pub(crate) fn base_environment(folders: &JobFolders) -> EnvVars {
    let mut base = EnvVars::default();
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
    // Rust's tools live in the user's home folder, which is not the job's `HOME`.
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

/// `GITHUB_*`, `RUNNER_*` and `SHIPWAY_*`: set last, so that nothing overrides them.
pub(crate) fn fixed_environment(spec: &JobSpec, github: &ExprValue, runner: &ExprValue) -> EnvVars {
    let mut fixed = EnvVars::default();
    fixed.set("GITHUB_ACTIONS", "true");
    fixed.set("SHIPWAY", "true");
    if let Some(server) = &spec.server {
        fixed.set("SHIPWAY_SERVER", server.url.as_str());
    }
    // Not the token, which steps must ask for explicitly, and not the event, which is a file.
    let plain = |name: &str, value: &ExprValue| value.is_primitive() && name != "token";
    for (context, prefix) in [(github, "GITHUB"), (runner, "RUNNER")] {
        let ExprValue::Object(context) = context else {
            continue;
        };
        for (name, value) in context.iter().filter(|(name, value)| plain(name, value)) {
            let name = format!("{prefix}_{}", name.to_uppercase());
            fixed.set(name, &*value.to_text());
        }
    }
    fixed
}
