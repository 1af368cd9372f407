//! `actions/checkout`: the run's commit as a git work tree, or the source folder for a run without a server.

use std::{fs, io, path::Path};

use shipway_workflow::job::SourceTree;

use super::{
    action_error::ActionError,
    large_files::{fetch_large_files, require_large_files},
    source_files::{borrow_objects, copy_source_folder, run_git},
    step_context::StepContext,
    step_context::StepResult,
    submodules::{SubmoduleDepth, copy_submodules, fetch_submodules},
};
use crate::path_error::PathError;

pub(super) async fn run_checkout(context: &mut StepContext<'_>) -> Result<StepResult, ActionError> {
    let own = context.github.get("repository").to_text();
    if let Some(other) = context
        .input("repository")
        .filter(|it| !it.eq_ignore_ascii_case(&own))
    {
        return Err(ActionError::OtherRepository(other.to_owned()));
    }
    let submodules = SubmoduleDepth::from_input(context.input("submodules"))?;
    let with_large_files = context.bool_input("lfs")?;
    let to = context.resolve_path(context.input("path").unwrap_or("."))?;
    let from = &context.inputs.source().await?;
    match context.source {
        SourceTree::Git {
            commit, reference, ..
        } => {
            let result = checkout_from_git(context, from, commit, reference, &to).await?;
            if with_large_files {
                fetch_large_files(context, &to).await?;
            }
            fetch_submodules(context, &to, submodules).await?;
            Ok(result)
        }
        SourceTree::Directory => {
            if with_large_files {
                require_large_files(context, from).await?;
            }
            let result = copy_workspace(context, from, &to).await?;
            copy_submodules(context, from, &to, submodules).await?;
            Ok(result)
        }
    }
}

async fn checkout_from_git(
    context: &mut StepContext<'_>,
    git_dir: &Path,
    commit: &str,
    reference: &str,
    to: &Path,
) -> Result<StepResult, ActionError> {
    let (failed, env) = (PathError::at(to), context.env);
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
    run_git(env, to, &["init", "--quiet"]).await?;
    borrow_objects(git_dir, to).map_err(&failed)?;
    let source = git_dir.display().to_string();
    run_git(env, to, &["config", "remote.origin.url", &source]).await?;
    let all = "+refs/heads/*:refs/remotes/origin/*";
    run_git(env, to, &["config", "remote.origin.fetch", all]).await?;
    run_git(env, to, &["fetch", "--quiet", "--tags", "origin", all]).await?;
    let wanted = asked.as_deref().unwrap_or(commit);
    let commit = resolve_commit(context, to, wanted).await?;
    let reference = asked.unwrap_or_else(|| reference.to_owned());
    let branch = match reference.strip_prefix("refs/heads/") {
        Some(branch) => Some(branch.to_owned()),
        None => {
            let remote = format!("refs/remotes/origin/{reference}");
            let known = run_git(env, to, &["rev-parse", "--verify", "--quiet", &remote]).await;
            known.is_ok().then(|| reference.clone())
        }
    };
    let target = match &branch {
        Some(branch) => vec!["-B", branch, &commit],
        None => vec!["--detach", &commit],
    };
    let checkout = ["checkout", "--quiet", "--force"];
    run_git(env, to, &[&checkout[..], &target].concat()).await?;
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
        if let Ok(found) = run_git(
            context.env,
            at,
            &["rev-parse", "--verify", "--quiet", &commit],
        )
        .await
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

async fn copy_workspace(
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
    let count = copy_source_folder(context.env, from, to).await?;
    context.log_message(&format!("Copied {count} files from {}", from.display()));
    Ok(StepResult::default())
}
