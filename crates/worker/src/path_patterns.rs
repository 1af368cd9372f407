//! Path patterns, one per line, with the rules of GitHub's toolkit: `*`, `?`, `[…]`, `**`; `~` is the home folder;
//! `!` excludes; a pattern that matches a folder includes everything below it.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::path_error::PathError;

/// Why patterns can't be searched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("the pattern {0:?} is outside the workspace")]
    LeavesWorkspace(String),
    #[error("the pattern {pattern:?}: {source}")]
    Invalid {
        pattern: String,
        source: globset::Error,
    },
    #[error(transparent)]
    Search(#[from] PathError),
}

/// The matches of several patterns.
#[derive(Debug, Default)]
pub(crate) struct PathMatches {
    /// Files and symlinks, sorted by path.
    pub(crate) files: Vec<PathBuf>,
    /// Folders that match themselves, each before the folders below it.
    pub(crate) folders: Vec<PathBuf>,
    /// The patterns up to their first wildcard, without paths below other ones.
    pub(crate) search_paths: Vec<PathBuf>,
}

/// Where patterns are searched.
#[derive(Clone, Debug)]
pub(crate) struct SearchRoots {
    /// Base of relative patterns.
    pub(crate) root: PathBuf,
    /// The meaning of `~`.
    pub(crate) home: PathBuf,
    /// The folders that patterns may search; empty: any.
    pub(crate) within: Vec<PathBuf>,
}

/// Whether hidden files match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HiddenFiles {
    Include,
    /// Not if the name, or that of a parent folder, begins with a dot.
    Exclude,
}

struct PatternRule {
    takes: bool,
    /// The folder that the set is relative to; contains no wildcard.
    base: PathBuf,
    set: GlobSet,
}

impl PatternRule {
    fn is_match(&self, path: &Path) -> bool {
        let relative = path.strip_prefix(&self.base);
        relative.is_ok_and(|relative| self.set.is_match(relative))
    }
}

/// Finds the files below `root` that match. Symlinks are found, but not followed.
pub(crate) fn find_files(
    root: &Path,
    patterns: &[String],
    hidden: HiddenFiles,
) -> Result<PathMatches, PatternError> {
    let roots = SearchRoots {
        root: root.to_owned(),
        home: root.join("~"),
        within: vec![root.to_owned()],
    };
    find_in_roots(&roots, patterns, hidden)
}

/// Finds the files that match. Symlinks are found, but not followed.
pub(crate) fn find_in_roots(
    roots: &SearchRoots,
    patterns: &[String],
    hidden: HiddenFiles,
) -> Result<PathMatches, PatternError> {
    let mut found = PathMatches::default();
    let (rules, paths) = parse_patterns(roots, patterns)?;
    found.search_paths = paths;
    let all = found.search_paths.clone();
    found.search_paths.retain(|path| {
        !all.iter()
            .any(|other| path != other && path.starts_with(other))
    });
    found.search_paths.sort();
    found.search_paths.dedup();
    for start in &found.search_paths {
        let walked = walk_tree(start, hidden, &mut |path, is_folder| {
            let taken = rules.iter().fold(false, |taken, rule| {
                if rule.is_match(&path) {
                    rule.takes
                } else {
                    taken
                }
            });
            match (taken, is_folder) {
                (true, false) => found.files.push(path),
                (true, true) => found.folders.push(path),
                (false, _) => {}
            }
        });
        walked.map_err(PathError::at(start))?;
    }
    found.files.sort();
    found.folders.sort();
    Ok(found)
}

/// Parses the patterns; also returns the paths to search.
fn parse_patterns(
    roots: &SearchRoots,
    patterns: &[String],
) -> Result<(Vec<PatternRule>, Vec<PathBuf>), PatternError> {
    let (mut rules, mut paths) = (Vec::new(), Vec::new());
    let lines = patterns.iter().flat_map(|text| text.lines()).map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (takes, pattern) = match line.strip_prefix('!') {
            Some(rest) => (false, rest.trim_start()),
            None => (true, line),
        };
        let (base, glob) = roots
            .split_pattern(pattern)
            .ok_or_else(|| PatternError::LeavesWorkspace(line.to_owned()))?;
        if takes {
            paths.push(base.join(literal_prefix(&glob)));
        }
        rules.push(PatternRule {
            takes,
            set: compile_glob(&glob).map_err(|source| PatternError::Invalid {
                pattern: line.to_owned(),
                source,
            })?,
            base,
        });
    }
    Ok((rules, paths))
}

/// The paths that the patterns search, whether they exist or not.
pub(crate) fn search_paths(
    roots: &SearchRoots,
    patterns: &[String],
) -> Result<Vec<PathBuf>, PatternError> {
    parse_patterns(roots, patterns).map(|(_, paths)| paths)
}

impl SearchRoots {
    /// Splits a pattern into the folder that it is relative to and the normalised rest; `None` if it leaves the
    /// allowed folders.
    fn split_pattern(&self, pattern: &str) -> Option<(PathBuf, String)> {
        let path = Path::new(pattern);
        let known = [&self.root].into_iter().chain(&self.within);
        let known = known.chain([&self.home]);
        let inside = known
            .filter_map(|folder| Some((folder.clone(), path.strip_prefix(folder).ok()?)))
            .next();
        let (mut base, rest) = match (inside, path.strip_prefix("~")) {
            (Some(inside), _) => inside,
            (None, Ok(rest)) => (self.home.clone(), rest),
            (None, Err(_)) if path.is_absolute() => (PathBuf::from("/"), path),
            (None, Err(_)) => (self.root.clone(), path),
        };
        let mut steps: Vec<&str> = Vec::new();
        for component in rest.components() {
            match component {
                Component::Normal(step) => steps.push(step.to_str()?),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir => {
                    if steps.pop().is_none() && !base.pop() {
                        return None;
                    }
                }
                Component::Prefix(_) => return None,
            }
        }
        let glob = steps.join("/");
        let start = base.join(literal_prefix(&glob));
        let stays = self.within.is_empty() || self.within.iter().any(|it| start.starts_with(it));
        stays.then_some((base, glob))
    }
}

fn literal_prefix(glob: &str) -> PathBuf {
    glob.split('/')
        .take_while(|step| !step.contains(['*', '?', '[']))
        .collect()
}

fn compile_glob(glob: &str) -> Result<GlobSet, globset::Error> {
    // Braces are not special in GitHub's patterns.
    let glob = glob.replace('{', "[{]").replace('}', "[}]");
    let below = if glob.is_empty() {
        "**".to_owned()
    } else {
        format!("{glob}/**")
    };
    let mut set = GlobSetBuilder::new();
    for form in [glob, below] {
        set.add(GlobBuilder::new(&form).literal_separator(true).build()?);
    }
    set.build()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Calls `found` for `path` and everything below it, with whether it is a folder. A missing path is ignored.
fn walk_tree(
    path: &Path,
    hidden: HiddenFiles,
    found: &mut impl FnMut(PathBuf, bool),
) -> io::Result<()> {
    let kind = match path.symlink_metadata() {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    found(path.to_owned(), kind.is_dir());
    if !kind.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if hidden == HiddenFiles::Include || !is_hidden(&path) {
            walk_tree(&path, hidden, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
        }
        folder
    }

    #[test]
    fn patterns_take_in_order_and_folders_take_all_below() {
        let folder = workspace(&["a/b.txt", "a/c.rs", "a/.env", "a/n/d.txt", "e.txt", "{f}"]);
        let root = folder.path();
        let find = |patterns: &str, hidden| {
            let found = find_files(root, &[patterns.to_owned()], hidden).unwrap();
            let relative = |path: &PathBuf| {
                let path = path.strip_prefix(root).unwrap();
                path.to_str().unwrap().to_owned()
            };
            found.files.iter().map(relative).collect::<Vec<_>>()
        };
        let files = |patterns| find(patterns, HiddenFiles::Exclude);
        assert_eq!(files("**/*.txt"), ["a/b.txt", "a/n/d.txt", "e.txt"]);
        assert_eq!(files("a\n!a/*.rs\n!a/n"), ["a/b.txt"]);
        assert_eq!(files("a\n!a/**\na/c.rs"), ["a/c.rs"]);
        assert_eq!(files("./a/../e.*\n# a comment"), ["e.txt"]);
        assert_eq!(files("{f}"), ["{f}"]);
        assert_eq!(files("nothing"), Vec::<String>::new());
        assert_eq!(files(&root.join("e.txt").display().to_string()), ["e.txt"]);
        assert_eq!(
            find("a/*", HiddenFiles::Include),
            ["a/.env", "a/b.txt", "a/c.rs", "a/n/d.txt"]
        );
    }

    #[test]
    fn patterns_that_leave_the_workspace_are_refused() {
        let folder = workspace(&[]);
        for pattern in ["../x", "/etc/passwd", "a/../../x", "!/etc"] {
            let refused = find_files(folder.path(), &[pattern.to_owned()], HiddenFiles::Include);
            assert!(
                refused.unwrap_err().to_string().contains("is outside"),
                "{pattern}"
            );
        }
    }

    #[test]
    fn patterns_may_look_elsewhere_where_that_is_allowed() {
        let folder = workspace(&["w/a", "h/.cache/b", "h/[x]/c", "t/d"]);
        let at = |name: &str| folder.path().join(name);
        let mut roots = SearchRoots {
            root: at("w"),
            home: at("h"),
            within: vec![at("w"), at("h")],
        };
        let find = |roots: &SearchRoots, pattern: &str| {
            let found = find_in_roots(roots, &[pattern.to_owned()], HiddenFiles::Include);
            found.map(|found| found.files)
        };
        assert_eq!(find(&roots, "~/.cache").unwrap(), vec![at("h/.cache/b")]);
        assert_eq!(find(&roots, "~/../w/*").unwrap(), vec![at("w/a")]);
        assert_eq!(find(&roots, "../h/.c*/b").unwrap(), vec![at("h/.cache/b")]);
        let absolute = at("t/d").display().to_string();
        assert!(find(&roots, &absolute).is_err() && find(&roots, "../t").is_err());
        roots.within.clear();
        assert_eq!(find(&roots, &absolute).unwrap(), vec![at("t/d")]);
        // Wildcards in the path of a root folder are not special.
        roots.root = at("h/[x]");
        assert_eq!(find(&roots, "*").unwrap(), vec![at("h/[x]/c")]);
    }

    #[test]
    fn search_paths_end_before_the_first_wildcard() {
        let folder = workspace(&[]);
        let patterns = ["dist/*.js\ndist/app\nlib/**/x\ndist/".to_owned()];
        let found = find_files(folder.path(), &patterns, HiddenFiles::Include).unwrap();
        let expected = ["dist", "lib"].map(|name| folder.path().join(name));
        assert_eq!(found.search_paths, expected);
    }
}
