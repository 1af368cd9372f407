//! `actions/checkout`: the run's commit as a git work tree, or the source folder for a run without a server.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use shipway_workflow::job::SourceTree;
use tokio::process::Command;

use super::{
    action_error::ActionError, blocking_task::run_blocking, step_context::StepContext,
    step_context::StepResult,
};
use crate::path_error::PathError;
use crate::path_patterns::{self, HiddenFiles};

pub(super) async fn run_checkout(context: &mut StepContext<'_>) -> Result<StepResult, ActionError> {
    let own = context.github.get("repository").to_text();
    if let Some(other) = context
        .input("repository")
        .filter(|it| !it.eq_ignore_ascii_case(&own))
    {
        return Err(ActionError::OtherRepository(other.to_owned()));
    }
    for (input, what) in [
        ("submodules", "submodules are not fetched"),
        ("lfs", "large files are not fetched"),
    ] {
        if context
            .input(input)
            .is_some_and(|value| !value.eq_ignore_ascii_case("false"))
        {
            context.warn(&format!("{what} by this version of Shipway"));
        }
    }
    let to = context.resolve_path(context.input("path").unwrap_or("."))?;
    let from = &context.inputs.source().await?;
    match context.source {
        SourceTree::Git {
            commit, reference, ..
        } => checkout_from_git(context, from, commit, reference, &to).await,
        SourceTree::Directory => copy_source_folder(context, from, &to).await,
    }
}

async fn checkout_from_git(
    context: &mut StepContext<'_>,
    git_dir: &Path,
    commit: &str,
    reference: &str,
    to: &Path,
) -> Result<StepResult, ActionError> {
    let failed = PathError::at(to);
    let asked = context.input("ref").map(str::to_owned);
    // `clean` (default): a second checkout into the same folder removes all files first.
    if context
        .input("clean")
        .is_none_or(|clean| !clean.eq_ignore_ascii_case("false"))
        && to.join(".git").exists()
    {
        remove_contents(to).map_err(&failed)?;
    }
    fs::create_dir_all(to).map_err(&failed)?;
    run_git(context, to, &["init", "--quiet"]).await?;
    // Use the repository's objects instead of copying them: it is on this machine and outlives the job.
    let borrowed = format!("{}\n", git_dir.join("objects").display());
    fs::write(to.join(".git/objects/info/alternates"), borrowed).map_err(&failed)?;
    let source = git_dir.display().to_string();
    run_git(context, to, &["config", "remote.origin.url", &source]).await?;
    let all = "+refs/heads/*:refs/remotes/origin/*";
    run_git(context, to, &["config", "remote.origin.fetch", all]).await?;
    run_git(context, to, &["fetch", "--quiet", "--tags", "origin", all]).await?;
    let wanted = asked.as_deref().unwrap_or(commit);
    let commit = resolve_commit(context, to, wanted).await?;
    let reference = asked.unwrap_or_else(|| reference.to_owned());
    let branch = match reference.strip_prefix("refs/heads/") {
        Some(branch) => Some(branch.to_owned()),
        None => {
            let remote = format!("refs/remotes/origin/{reference}");
            let known = run_git(context, to, &["rev-parse", "--verify", "--quiet", &remote]).await;
            known.is_ok().then(|| reference.clone())
        }
    };
    match &branch {
        Some(branch) => {
            run_git(
                context,
                to,
                &["checkout", "--quiet", "--force", "-B", branch, &commit],
            )
            .await?
        }
        None => {
            run_git(
                context,
                to,
                &["checkout", "--quiet", "--force", "--detach", &commit],
            )
            .await?
        }
    };
    context.log_message(&format!("Checked out {commit} ({reference})"));
    Ok(StepResult::with_outputs([
        ("commit", commit),
        ("ref", reference),
    ]))
}

/// Resolves a branch, tag or commit id.
async fn resolve_commit(
    context: &StepContext<'_>,
    at: &Path,
    wanted: &str,
) -> Result<String, ActionError> {
    let branch = wanted.strip_prefix("refs/heads/").unwrap_or(wanted);
    for name in [
        &format!("refs/remotes/origin/{branch}"),
        &format!("refs/tags/{wanted}"),
        wanted,
    ] {
        if name.starts_with('-') {
            continue;
        }
        let commit = format!("{name}^{{commit}}");
        if let Ok(found) =
            run_git(context, at, &["rev-parse", "--verify", "--quiet", &commit]).await
        {
            return Ok(found.trim().to_owned());
        }
    }
    Err(ActionError::UnknownReference(wanted.to_owned()))
}

fn remove_contents(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Copies tracked and untracked, but not ignored files; all files if the folder is no git repository.
async fn copy_source_folder(
    context: &mut StepContext<'_>,
    from: &Path,
    to: &Path,
) -> Result<StepResult, ActionError> {
    if let Some(reference) = context.input("ref") {
        let text = format!(
            "`ref: {reference}` has no effect: without a server the folder is used as it is"
        );
        context.warn(&text);
    }
    let listing = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let listed = run_git(context, from, &listing).await.ok();
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
    let count = count.await?;
    context.log_message(&format!("Copied {count} files from {}", from.display()));
    Ok(StepResult::default())
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
async fn run_git(
    context: &StepContext<'_>,
    at: &Path,
    arguments: &[&str],
) -> Result<String, ActionError> {
    let passed = |name: &str| matches!(name, "PATH" | "HOME" | "LANG" | "TMPDIR");
    let env = context.env.iter().filter(|(name, _)| passed(name));
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
