//! The files of the commit that a run is of: copied for `actions/checkout`, and for actions that `uses: $/path` names.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use shipway_workflow::job::{JobSpec, SourceTree};
use tokio::process::Command;

use super::{action_error::ActionError, blocking_task::run_blocking};
use crate::{
    path_error::PathError,
    path_patterns::{self, HiddenFiles},
};

/// Where the files of the run's commit come from.
#[derive(Clone, Debug)]
pub(crate) struct OwnRepository {
    source: SourceTree,
    path: PathBuf,
}

impl OwnRepository {
    pub(crate) fn new(spec: &JobSpec) -> Self {
        Self {
            source: spec.source.clone(),
            path: spec.mounts.source.clone(),
        }
    }

    /// The commit; empty for a folder that is taken as it is.
    pub(super) fn commit(&self) -> &str {
        match &self.source {
            SourceTree::Git { commit, .. } => commit,
            SourceTree::Directory => "",
        }
    }

    /// Copies the files to a folder, unless an earlier step did.
    pub(super) async fn copy_once(&self, to: &Path) -> Result<(), ActionError> {
        if to.is_dir() {
            return Ok(());
        }
        let failed = PathError::at(to);
        let unfinished = to.with_extension("new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(&failed)?;
        }
        fs::create_dir_all(&unfinished).map_err(&failed)?;
        let env: Vec<(String, String)> = std::env::vars().collect();
        match &self.source {
            SourceTree::Git { commit, .. } => {
                run_git(&env, &unfinished, &["init", "--quiet"]).await?;
                borrow_objects(&self.path, &unfinished).map_err(&failed)?;
                let checkout = ["checkout", "--quiet", "--force", "--detach", commit];
                run_git(&env, &unfinished, &checkout).await?;
            }
            SourceTree::Directory => {
                copy_source_folder(&env, &self.path, &unfinished).await?;
            }
        }
        fs::rename(&unfinished, to).map_err(&failed)?;
        Ok(())
    }
}

/// Lets a new repository use the objects of another one instead of copying them: that one is on this machine and outlives the job.
pub(super) fn borrow_objects(git_dir: &Path, to: &Path) -> io::Result<()> {
    let borrowed = format!("{}\n", git_dir.join("objects").display());
    fs::write(to.join(".git/objects/info/alternates"), borrowed)
}

/// Copies tracked and untracked, but not ignored files; all files if the folder is no git repository.
pub(super) async fn copy_source_folder(
    env: &[(String, String)],
    from: &Path,
    to: &Path,
) -> Result<usize, ActionError> {
    let listing = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let listed = run_git(env, from, &listing).await.ok();
    let (source, target) = (from.to_owned(), to.to_owned());
    let count = run_blocking(move || {
        let files: Vec<PathBuf> = match listed {
            Some(text) => text
                .split('\0')
                .filter(|name| !name.is_empty())
                .map(PathBuf::from)
                .collect(),
            None => path_patterns::find_files(&source, &["**".to_owned()], HiddenFiles::Include)?
                .files
                .iter()
                .filter_map(|path| path.strip_prefix(&source).ok().map(Path::to_owned))
                .collect(),
        };
        let mut copied = 0_usize;
        for file in files {
            let taken = copy_file(&source.join(&file), &target.join(&file));
            copied += usize::from(taken.map_err(PathError::at(&file))?);
        }
        Ok::<_, ActionError>(copied)
    });
    count.await
}

/// Copies a file or a symlink; false if it is something else or was deleted meanwhile.
fn copy_file(from: &Path, to: &Path) -> io::Result<bool> {
    let Ok(kind) = from.symlink_metadata() else {
        return Ok(false);
    };
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    if kind.is_symlink() {
        if to.symlink_metadata().is_ok() {
            fs::remove_file(to)?;
        }
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Runs git with a clean environment; returns its stdout.
pub(super) async fn run_git(
    env: &[(String, String)],
    at: &Path,
    arguments: &[&str],
) -> Result<String, ActionError> {
    let passed = |name: &str| matches!(name, "PATH" | "HOME" | "LANG" | "TMPDIR");
    let env = env.iter().filter(|(name, _)| passed(name));
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(at)
        .env_clear()
        .envs(env.map(|(name, value)| (name, value)))
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(ActionError::GitMissing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.trim().lines().last().unwrap_or("it failed");
    Err(ActionError::Git {
        command: arguments.first().unwrap_or(&"").to_string(),
        reason: why.to_owned(),
    })
}
