//! The files of a repository, read for `shipway init`. No other module reads the disk: the written files are a pure function of
//! [`RepositoryFacts`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use shipway_core::repository::SERVICES_FOLDER;

use crate::committed_paths::list_committed_paths;

/// The folder of workflows.
pub(super) const WORKFLOWS: &str = ".github/workflows";
/// Folders below the root that are read.
const DEPTH_MAX: usize = 4;
/// Files that are listed.
const FILES_MAX: usize = 5_000;
/// A larger file is listed, but not read.
const FILE_BYTES_MAX: u64 = 128 << 10;

/// Folders with files of others, or with what a build leaves.
const SKIPPED_FOLDERS: [&str; 7] = [
    "node_modules",
    "target",
    "vendor",
    "venv",
    "__pycache__",
    "build",
    "bin",
];

/// Extensions of files that are read.
const READ_EXTENSIONS: [&str; 15] = [
    "cfg", "cjs", "go", "js", "json", "mjs", "mod", "py", "rs", "sh", "toml", "ts", "txt", "yaml",
    "yml",
];
/// Files without such an extension that are read.
const READ_NAMES: [&str; 5] = [
    "Dockerfile",
    "Makefile",
    "Procfile",
    ".nvmrc",
    ".python-version",
];

/// The files of a repository and what git says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RepositoryFacts {
    /// The name of its folder.
    pub(super) folder: String,
    /// The branch that is released, as far as git tells.
    pub(super) branch: Option<String>,
    /// Whether the folder belongs to a git repository.
    pub(super) is_git: bool,
    /// Where it is, if it is one of several services of its repository.
    pub(super) nested: Option<NestedFolder>,
    /// Paths of files, relative to the root.
    pub(super) files: BTreeSet<String>,
    /// Texts of the files that `init` decides by.
    pub(super) texts: BTreeMap<String, String>,
    /// Files that can be executed.
    pub(super) executables: BTreeSet<String>,
}

/// A folder of `services/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NestedFolder {
    /// The name of the repository's folder.
    pub(super) repository: String,
    /// From the root of the repository: `services/cart`.
    pub(super) path: String,
}

impl NestedFolder {
    /// The root of the repository, and the folder below it.
    pub(super) fn find(folder: &Path) -> Option<(PathBuf, Self)> {
        let mut above = folder.ancestors();
        let root = above.find(|folder| folder.join(".git").exists())?;
        let below = folder.strip_prefix(root).ok()?;
        let is_service = below.parent() == Some(Path::new(SERVICES_FOLDER));
        let path = below.to_str().filter(|_| is_service)?.to_owned();
        let repository = root.file_name().unwrap_or_default().to_string_lossy();
        let repository = repository.into_owned();
        Some((root.to_owned(), Self { repository, path }))
    }
}

/// Whether the folder is in a repository, but not its root.
pub(super) fn is_below_repository_root(folder: &Path) -> bool {
    let is_root = |folder: &Path| folder.join(".git").exists();
    !is_root(folder) && folder.ancestors().any(is_root)
}

impl RepositoryFacts {
    /// Reads a folder.
    pub(super) fn read(root: &Path) -> std::io::Result<Self> {
        let folder = root.file_name().unwrap_or_default();
        let mut facts = Self {
            folder: folder.to_string_lossy().into_owned(),
            branch: released_branch(root),
            is_git: query_git(root, &["rev-parse", "--git-dir"]).is_some(),
            ..Self::default()
        };
        facts.add_folder(root, "", 0)?;
        facts.remove_ignored(root);
        if let Some((repository, nested)) = NestedFolder::find(root) {
            facts.nested = Some(nested);
            facts.files.retain(|path| !path.starts_with(".github/"));
            facts.texts.retain(|path, _| !path.starts_with(".github/"));
            // The workflows of the repository, by their paths there.
            let workflows = repository.join(WORKFLOWS);
            if workflows.is_dir() {
                facts.add_folder(&workflows, &format!("{WORKFLOWS}/"), DEPTH_MAX)?;
            }
        }
        Ok(facts)
    }

    /// Removes the files that git ignores: a checkout doesn't have them.
    fn remove_ignored(&mut self, root: &Path) {
        let Some(listed) = list_committed_paths(root) else {
            return;
        };
        let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
        self.files.retain(|path| listed.contains(path.as_str()));
        self.texts.retain(|path, _| listed.contains(path.as_str()));
        self.executables
            .retain(|path| listed.contains(path.as_str()));
    }

    fn add_folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> std::io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let is_hidden = name.starts_with('.') && name != ".github";
                let is_skipped = is_hidden || SKIPPED_FOLDERS.contains(&name.as_str());
                if depth < DEPTH_MAX && !is_skipped {
                    // A folder that can't be read has nothing to decide by.
                    let _ = self.add_folder(&entry.path(), &format!("{path}/"), depth + 1);
                }
            } else if kind.is_file() && self.files.len() < FILES_MAX {
                self.add_file(&entry.path(), path);
            }
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path, path: String) {
        let Ok(metadata) = file.metadata() else {
            return;
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let is_read = READ_EXTENSIONS.contains(&extension) || READ_NAMES.contains(&name);
        if is_read
            && metadata.len() <= FILE_BYTES_MAX
            && let Ok(text) = fs::read_to_string(file)
        {
            self.texts.insert(path.clone(), text);
        }
        if metadata.permissions().mode() & 0o111 != 0 {
            self.executables.insert(path.clone());
        }
        self.files.insert(path);
    }

    /// The paths of the repository that the first push changes for the service; none where every push concerns it.
    pub(super) fn changed_paths(&self) -> Option<Vec<String>> {
        let nested = self.nested.as_ref()?;
        let own = self
            .files
            .iter()
            .filter(|path| !path.starts_with(".github/"));
        let own = own.map(String::as_str).chain(["shipway.yaml"]);
        Some(own.map(|path| format!("{}/{path}", nested.path)).collect())
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    /// The first of these files that is there.
    pub(super) fn first<'a>(&self, paths: &[&'a str]) -> Option<&'a str> {
        paths.iter().copied().find(|path| self.has(path))
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// A file as TOML; none where it is missing or has errors.
    pub(super) fn toml(&self, path: &str) -> Option<toml::Table> {
        self.text(path)?.parse().ok()
    }

    /// A file as JSON; none where it is missing or has errors.
    pub(super) fn json(&self, path: &str) -> Option<serde_json::Value> {
        serde_json::from_str(self.text(path)?).ok()
    }

    /// The files that were read and have this extension.
    pub(super) fn sources<'a>(
        &'a self,
        extension: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        let sources = self.texts.iter();
        let sources = sources.filter(move |(path, _)| {
            path.rsplit_once('.')
                .is_some_and(|(_, found)| found == extension)
        });
        sources.map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// The default branch of `origin`, else `main` or `master` where there is one, else the current branch.
fn released_branch(root: &Path) -> Option<String> {
    let remote = query_git(
        root,
        &["symbolic-ref", "--short", "refs/remotes/origin/HEAD"],
    );
    if let Some(branch) = remote.as_deref().and_then(|it| it.strip_prefix("origin/")) {
        return Some(branch.to_owned());
    }
    let exists = |branch: &&str| {
        let reference = format!("refs/heads/{branch}");
        query_git(root, &["rev-parse", "--verify", "--quiet", &reference]).is_some()
    };
    if let Some(branch) = ["main", "master"].iter().copied().find(exists) {
        return Some(branch.to_owned());
    }
    // Works on a branch without a commit, too.
    query_git(root, &["symbolic-ref", "--short", "HEAD"])
}

/// The first line that git prints; none when it fails.
fn query_git(root: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(words)
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().map(str::to_owned)?;
    output.status.success().then_some(line)
}
