//! Submodules of a checkout: repositories that the server doesn't have. They are fetched from their own addresses, or the step fails with
//! the reason. Without the input `submodules` their folders stay empty, as on GitHub.
//!
//! # Security
//!
//! The addresses in `.gitmodules` come from a commit, which may have been written by anyone: git gets only those of HTTP, SSH and git's
//! own protocol, also for submodules of submodules. A local path would read files of the machine, and `ext::` would run a program.

use std::path::Path;

use super::{
    action_error::ActionError,
    source_files::{copy_source_folder, run_git},
    source_network::{NetworkGit, is_network_address},
    step_context::StepContext,
};

/// The file that names the submodules of a commit.
const MODULES: &str = ".gitmodules";
/// Submodules of submodules that are copied from a folder.
const DEPTH_MAX: usize = 20;

/// Which submodules are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubmoduleDepth {
    None,
    /// Those of the repository.
    Direct,
    /// Those of submodules too.
    Recursive,
}

impl SubmoduleDepth {
    /// Reads the input `submodules`.
    pub(super) fn from_input(input: Option<&str>) -> Result<Self, ActionError> {
        let value = input.unwrap_or_default();
        match value.to_ascii_lowercase().as_str() {
            "" | "false" => Ok(Self::None),
            "true" => Ok(Self::Direct),
            "recursive" => Ok(Self::Recursive),
            _ => Err(ActionError::InvalidInput {
                input: "submodules".to_owned(),
                expected: "true, false or recursive".to_owned(),
                value: value.to_owned(),
            }),
        }
    }
}

/// A submodule, as `.gitmodules` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ListedSubmodule {
    name: String,
    url: String,
}

impl ListedSubmodule {
    fn is_relative(&self) -> bool {
        self.url.starts_with("./") || self.url.starts_with("../")
    }

    /// The error of a submodule that can't be fetched.
    fn refused(&self, reason: &'static str) -> ActionError {
        ActionError::Submodule {
            name: self.name.clone(),
            url: self.url.clone(),
            reason,
        }
    }
}

/// Fetches the submodules of a work tree from their own addresses.
pub(super) async fn fetch_submodules(
    context: &mut StepContext<'_>,
    at: &Path,
    depth: SubmoduleDepth,
) -> Result<(), ActionError> {
    if depth == SubmoduleDepth::None {
        return Ok(());
    }
    let modules = read_modules(context.env, at).await?;
    if modules.is_empty() {
        return Ok(());
    }
    let network = NetworkGit::new(context);
    for module in &modules {
        if !module.is_relative() && !is_network_address(&module.url) {
            let reason = "only addresses of http, https, ssh and git are fetched; change it: git submodule set-url";
            return Err(module.refused(reason));
        }
    }
    match modules.iter().find(|module| module.is_relative()) {
        None => drop(run_git(context.env, at, &["submodule", "--quiet", "init"]).await?),
        Some(relative) => {
            let Some(origin) = network.repository_url() else {
                let reason = "this server doesn't know where the repository comes from: name it with `repository:` in shipway.yaml, or write the whole address into .gitmodules";
                return Err(relative.refused(reason));
            };
            init_relative(context.env, at, &origin).await?;
        }
    }
    let update = match depth {
        SubmoduleDepth::Recursive => {
            &["submodule", "update", "--init", "--force", "--recursive"][..]
        }
        SubmoduleDepth::Direct | SubmoduleDepth::None => &["submodule", "update", "--force"],
    };
    let fetched = network.run(context.env, at, update).await;
    fetched.map_err(ActionError::Submodules)?;
    let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    context.log_message(&format!("Fetched the submodules {}", names.join(", ")));
    Ok(())
}

/// Records the addresses of submodules, relative ones by the repository's own address on its forge. The remote `origin` of the work tree
/// is a folder of this machine: relative to it they would be repositories of other services.
async fn init_relative(
    env: &[(String, String)],
    at: &Path,
    origin: &str,
) -> Result<(), ActionError> {
    let key = "remote.origin.url";
    let folder = run_git(env, at, &["config", "--get", key]).await?;
    run_git(env, at, &["config", key, origin]).await?;
    let init = run_git(env, at, &["submodule", "--quiet", "init"]).await;
    run_git(env, at, &["config", key, folder.trim_end_matches('\n')]).await?;
    init.map(drop)
}

/// The submodules that a work tree names; none when it has no such file.
async fn read_modules(
    env: &[(String, String)],
    at: &Path,
) -> Result<Vec<ListedSubmodule>, ActionError> {
    let file = at.join(MODULES);
    if !file.symlink_metadata().is_ok_and(|it| it.is_file()) {
        return Ok(Vec::new());
    }
    let list = ["config", "--file", MODULES, "--null", "--list"];
    Ok(parse_modules(&run_git(env, at, &list).await?))
}

/// Reads entries of `KEY\nVALUE\0`.
fn parse_modules(listed: &str) -> Vec<ListedSubmodule> {
    let entries = listed
        .split('\0')
        .filter_map(|entry| entry.split_once('\n'));
    let urls = entries.filter_map(|(key, url)| {
        let name = key.strip_prefix("submodule.")?.strip_suffix(".url")?;
        Some(ListedSubmodule {
            name: name.to_owned(),
            url: url.to_owned(),
        })
    });
    urls.collect()
}

/// Copies the submodules of a folder, which must be checked out there.
pub(super) async fn copy_submodules(
    context: &mut StepContext<'_>,
    from: &Path,
    to: &Path,
    depth: SubmoduleDepth,
) -> Result<(), ActionError> {
    let levels = match depth {
        SubmoduleDepth::None => 0,
        SubmoduleDepth::Direct => 1,
        SubmoduleDepth::Recursive => DEPTH_MAX,
    };
    let mut open = vec![(from.to_owned(), to.to_owned(), levels)];
    while let Some((from, to, levels)) = open.pop() {
        if levels == 0 {
            continue;
        }
        // Not a repository: then all files were copied.
        let staged = ["ls-files", "--stage", "-z"];
        let staged = run_git(context.env, &from, &staged)
            .await
            .unwrap_or_default();
        for path in submodule_paths(&staged) {
            let (source, target) = (from.join(path), to.join(path));
            if !source.join(".git").exists() {
                return Err(ActionError::SubmoduleMissing(source));
            }
            let count = copy_source_folder(context.env, &source, &target).await?;
            context.log_message(&format!("Copied {count} files of the submodule {path}"));
            open.push((source, target, levels - 1));
        }
    }
    Ok(())
}

/// The paths of the submodules among `MODE OBJECT STAGE\tPATH\0`.
fn submodule_paths(staged: &str) -> impl Iterator<Item = &str> {
    staged
        .split('\0')
        .filter(|entry| entry.starts_with("160000 "))
        .filter_map(|entry| Some(entry.split_once('\t')?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_may_have_any_character() {
        let listed = "submodule.a b.path\na b\0submodule.a b.url\n../lib\0core.url\nno\0submodule.x.y.url\nhttps://h/r\0";
        let modules = parse_modules(listed);
        let read: Vec<(&str, &str)> = modules
            .iter()
            .map(|module| (module.name.as_str(), module.url.as_str()))
            .collect();
        assert_eq!(read, [("a b", "../lib"), ("x.y", "https://h/r")]);
        assert!(modules[0].is_relative() && !modules[1].is_relative());
        let staged = "100644 1 0\tfile\x00160000 2 0\ta b/c\0";
        assert_eq!(submodule_paths(staged).collect::<Vec<_>>(), ["a b/c"]);
    }
}
