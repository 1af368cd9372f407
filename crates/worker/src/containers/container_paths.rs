//! Maps the job's folders between this machine and containers, at the paths that GitHub's runner uses.

use std::path::{Path, PathBuf};

use crate::environment::JobFolders;

/// The mounted folders of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerPaths(Vec<MountedFolder>);

#[derive(Clone, Debug)]
struct MountedFolder {
    here: PathBuf,
    inside: String,
}

impl ContainerPaths {
    /// For the job's container.
    pub(super) fn for_job(folders: &JobFolders, repository: &str) -> Self {
        let name = repository.rsplit('/').next().unwrap_or_default();
        let name = if name.is_empty() { "repository" } else { name };
        Self::from_folders([
            (folders.workspace.as_path(), &*format!("/__w/{name}/{name}")),
            (&folders.event_folder(), "/github/workflow"),
            (&folders.tools_folder(), "/__t"),
            (&folders.actions_folder(), "/__w/_actions"),
            (&folders.temp, "/__w/_temp"),
            (&folders.home, "/github/home"),
        ])
    }

    /// For container actions.
    pub(super) fn for_action(folders: &JobFolders) -> Self {
        Self::from_folders([
            (folders.workspace.as_path(), "/github/workspace"),
            (&folders.event_folder(), "/github/workflow"),
            (&folders.command_files_folder(), "/github/file_commands"),
            (&folders.home, "/github/home"),
        ])
    }

    /// A folder inside another must come before it.
    fn from_folders<const N: usize>(places: [(&Path, &str); N]) -> Self {
        let places = places.map(|(here, inside)| MountedFolder {
            here: here.to_owned(),
            inside: inside.to_owned(),
        });
        Self(places.into())
    }

    /// Translates a path for use in the container; other values are unchanged.
    pub(crate) fn to_container(&self, value: &str) -> String {
        let found = self.0.iter().find_map(|place| {
            let rest = path_below(value, place.here.to_str()?)?;
            Some(format!("{}{rest}", place.inside))
        });
        found.unwrap_or_else(|| value.to_owned())
    }

    /// Translates paths, one per line, for use on this machine.
    pub(crate) fn to_machine(&self, value: &str) -> String {
        let line = |line: &str| {
            let (sign, path) = match line.strip_prefix('!') {
                Some(path) => ("!", path),
                None => ("", line),
            };
            let found = self.0.iter().find_map(|place| {
                let rest = path_below(path, &place.inside)?;
                Some(format!("{sign}{}{rest}", place.here.display()))
            });
            found.unwrap_or_else(|| line.to_owned())
        };
        let lines: Vec<String> = value.split('\n').map(line).collect();
        lines.join("\n")
    }

    /// Arguments that mount the folders.
    pub(super) fn mount_arguments(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .map(|place| mount_argument(&place.here, &place.inside))
    }
}

/// Uses `--mount`, because `--volume` can't express all paths.
pub(super) fn mount_argument(here: &Path, inside: &str) -> String {
    let source = format!("source={}", here.display());
    let source = if source.contains([',', '"']) {
        format!("\"{}\"", source.replace('"', "\"\""))
    } else {
        source
    };
    format!("--mount=type=bind,{source},target={inside}")
}

/// The rest of a path below `folder`: empty, or with a leading slash.
fn path_below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(folder)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_in_and_out() {
        let folder = tempfile::tempdir().unwrap();
        let folders = JobFolders::create(folder.path(), folder.path()).unwrap();
        let paths = ContainerPaths::for_job(&folders, "shipway/shop");
        let at = |rest: &str| format!("{}/{rest}", folder.path().display());
        for (here, inside) in [
            (at("workspace"), "/__w/shop/shop"),
            (at("workspace/a b/c"), "/__w/shop/shop/a b/c"),
            (at("temp/x"), "/__w/_temp/x"),
            (at("home/tools/node"), "/__t/node"),
            (at("home/.npm"), "/github/home/.npm"),
            (
                at("temp/_github_workflow/event.json"),
                "/github/workflow/event.json",
            ),
        ] {
            assert_eq!(paths.to_container(&here), inside);
            assert_eq!(paths.to_machine(inside), here);
        }
        for other in ["", "/usr", &at("workspaces"), &at("artifacts/x")] {
            assert_eq!(paths.to_container(other), other);
        }
        assert_eq!(
            paths.to_machine("dist\n!/__w/shop/shop/x\n/__w/_temp"),
            format!("dist\n!{}\n{}", at("workspace/x"), at("temp"))
        );
    }

    #[test]
    fn a_mount_may_have_any_name() {
        assert_eq!(
            mount_argument(Path::new("/a,\"b:c"), "/x"),
            r#"--mount=type=bind,"source=/a,""b:c",target=/x"#
        );
    }
}
