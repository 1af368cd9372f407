//! `actions/checkout`: the commit of the run as a git work tree, or the folder of a run without a server.

use std::{
    path::{Component, Path, PathBuf},
    process::Stdio,
};

use shipway_workflow::job::SourceTree;
use tokio::process::Command;

use super::{Call, Left};

pub(super) async fn run(call: &mut Call<'_>) -> Result<Left, String> {
    let to = inside(&call.folders.workspace, call.get("path").unwrap_or("."))?;
    std::fs::create_dir_all(&to).map_err(|error| format!("{}: {error}", to.display()))?;
    match call.spec.source.clone() {
        SourceTree::Git {
            git_dir,
            commit,
            reference,
        } => {
            let wanted = call.get("ref").unwrap_or(&commit).to_owned();
            from_git(call, &git_dir, &wanted, &reference, &to).await
        }
        SourceTree::Directory { path } => from_folder(call, &path, &to).await,
    }
}

async fn from_git(
    call: &mut Call<'_>,
    git_dir: &Path,
    wanted: &str,
    reference: &str,
    to: &Path,
) -> Result<Left, String> {
    let source = git_dir.display().to_string();
    git(call, to, &["init", "--quiet"]).await?;
    // Objects are borrowed, not copied: the repository is on this machine and outlives the job.
    let alternates = to.join(".git/objects/info/alternates");
    std::fs::write(
        &alternates,
        format!("{}\n", git_dir.join("objects").display()),
    )
    .map_err(|error| format!("{}: {error}", alternates.display()))?;
    let _ = git(call, to, &["remote", "add", "origin", &source]).await;
    git(
        call,
        to,
        &[
            "fetch",
            "--quiet",
            "--tags",
            "origin",
            "+refs/heads/*:refs/remotes/origin/*",
        ],
    )
    .await?;
    let found = match git(
        call,
        to,
        &[
            "rev-parse",
            "--verify",
            "--quiet",
            &format!("{wanted}^{{commit}}"),
        ],
    )
    .await
    {
        Ok(found) => found,
        Err(_) => git(
            call,
            to,
            &[
                "rev-parse",
                "--verify",
                &format!(
                    "refs/remotes/origin/{}^{{commit}}",
                    wanted.trim_start_matches("refs/heads/")
                ),
            ],
        )
        .await
        .map_err(|_| format!("there is no {wanted} in the repository"))?,
    };
    let commit = found.trim().to_owned();
    match reference
        .strip_prefix("refs/heads/")
        .filter(|_| call.get("ref").is_none())
    {
        Some(branch) => {
            git(
                call,
                to,
                &["checkout", "--quiet", "--force", "-B", branch, &commit],
            )
            .await?
        }
        None => {
            git(
                call,
                to,
                &["checkout", "--quiet", "--force", "--detach", &commit],
            )
            .await?
        }
    };
    call.say(format!("Checked out {commit}"));
    Ok(Left {
        outputs: vec![
            ("commit".to_owned(), commit),
            ("ref".to_owned(), reference.to_owned()),
        ],
        ..Left::default()
    })
}

/// What git knows and what it doesn't ignore; everything where there is no repository.
async fn from_folder(call: &mut Call<'_>, from: &Path, to: &Path) -> Result<Left, String> {
    let listed = git(
        call,
        from,
        &[
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
    )
    .await;
    let files: Vec<PathBuf> = match listed {
        Ok(text) => text
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .collect(),
        Err(_) => crate::hash::matching(from, &["**".to_owned()])?
            .into_iter()
            .filter_map(|path| path.strip_prefix(from).ok().map(Path::to_owned))
            .collect(),
    };
    let mut copied = 0usize;
    for file in files {
        let (source, target) = (from.join(&file), to.join(&file));
        let Ok(kind) = source.symlink_metadata() else {
            continue;
        };
        let failed = |error: std::io::Error| format!("{}: {error}", file.display());
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        if kind.is_symlink() {
            let link = std::fs::read_link(&source).map_err(failed)?;
            let _ = std::fs::remove_file(&target);
            std::os::unix::fs::symlink(link, &target).map_err(failed)?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target).map_err(failed)?;
        }
        copied += 1;
    }
    call.say(format!("Copied {copied} files of {}", from.display()));
    Ok(Left::default())
}

/// Git with a clean environment; gives what it printed.
async fn git(call: &Call<'_>, at: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    command
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "advice.detachedHead=false",
        ])
        .args(arguments)
        .current_dir(at)
        .env_clear();
    command.envs(
        call.env
            .iter()
            .filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "LANG" | "TMPDIR"))
            .map(|(name, value)| (name, value)),
    );
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command
        .output()
        .await
        .map_err(|error| format!("git could not be started: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "git {}: {}",
        arguments.first().unwrap_or(&""),
        why.trim().lines().last().unwrap_or("failed")
    ))
}

/// A path that stays in the workspace.
pub(super) fn inside(root: &Path, path: &str) -> Result<PathBuf, String> {
    let path = Path::new(path);
    let relative = path.strip_prefix(root).unwrap_or(path);
    if relative
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        Ok(root.join(relative))
    } else {
        Err(format!("the path {} leaves the workspace", path.display()))
    }
}
