//! The Python environment of a job, as `actions/setup-python` leaves one: `pip install` changes it, and never the machine's
//! Python.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::Call;
use crate::{environment::arch, shell::which};

/// Creates the virtual environment of `program`, and puts it before `PATH`; gives its Python.
pub(super) async fn create(
    program: &str,
    version: &str,
    call: &mut Call<'_>,
) -> Result<PathBuf, String> {
    let root = call.folders.tools().join("Python").join(version);
    let root = root.join(arch().to_ascii_lowercase());
    let python = root.join("bin/python");
    if !python.exists() {
        let path = call.env.iter().find(|(name, _)| name == "PATH");
        let base = which(program, path.map_or("", |(_, path)| path))
            .ok_or_else(|| format!("there is no {program} on this machine"))?;
        // Without the part of Python that brings pip along, as in Debian's minimal packages, the machine's pip is used.
        if let Err(why) = make(&base, &[], &root, call).await {
            let _ = fs::remove_dir_all(&root);
            let shared = ["--without-pip", "--system-site-packages"];
            make(&base, &shared, &root, call)
                .await
                .map_err(|again| format!("a virtual environment can't be made: {why}; {again}"))?;
            add_pip(&root).map_err(|error| format!("{}: {error}", root.display()))?;
        }
    }
    let heard = &mut call.output.heard;
    heard.paths.push(root.join("bin").display().to_string());
    for name in ["pythonLocation", "Python_ROOT_DIR", "Python3_ROOT_DIR"] {
        heard
            .env
            .push((name.to_owned(), root.display().to_string()));
    }
    Ok(python)
}

async fn make(base: &Path, options: &[&str], root: &Path, call: &Call<'_>) -> Result<(), String> {
    let env = call.env.iter().map(|(name, value)| (name, value));
    let output = Command::new(base)
        .args(["-m", "venv"])
        .args(options)
        .arg(root)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{}: {error}", base.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    Err(format!(
        "{}: {}",
        base.display(),
        last.unwrap_or("it failed")
    ))
}

/// Programs that call the machine's pip for the environment.
fn add_pip(root: &Path) -> io::Result<()> {
    for name in ["pip", "pip3"] {
        let path = root.join("bin").join(name);
        let python = root.join("bin/python").display().to_string();
        let python = python.replace('\'', r"'\''");
        fs::write(&path, format!("#!/bin/sh\nexec '{python}' -m pip \"$@\"\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
