//! `hashFiles`: SHA-256 over the SHA-256 of each file that the patterns take.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use sha2::{Digest, Sha256};
use shipway_workflow::expr::HashFiles;

/// Files below a folder.
pub(crate) struct Workspace<'w>(pub(crate) &'w Path);

impl HashFiles for Workspace<'_> {
    fn hash_files(&self, patterns: &[String]) -> Result<String, String> {
        let files = matching(self.0, patterns)?;
        if files.is_empty() {
            return Ok(String::new());
        }
        let mut all = Sha256::new();
        for file in files {
            let mut one = Sha256::new();
            let mut open =
                fs::File::open(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            io::copy(&mut open, &mut HashWriter(&mut one))
                .map_err(|error| format!("{}: {error}", file.display()))?;
            all.update(one.finalize());
        }
        Ok(all
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }
}

struct HashWriter<'h>(&'h mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The files below `root` that the patterns take, in order; `!` before a pattern takes files out again. A pattern that names a
/// folder takes all below it. Links are not followed.
pub(crate) fn matching(root: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, String> {
    let mut rules: Vec<(bool, GlobSet)> = Vec::new();
    for pattern in patterns
        .iter()
        .flat_map(|text| text.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (takes, glob) = pattern
            .strip_prefix('!')
            .map_or((true, pattern), |rest| (false, rest));
        let absolute = Path::new(glob)
            .strip_prefix(root)
            .ok()
            .map(|rest| rest.to_string_lossy().into_owned());
        let glob = absolute.unwrap_or_else(|| glob.to_owned());
        let glob = glob.trim_start_matches("./").trim_end_matches('/');
        if glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
            return Err(format!("the pattern {pattern:?} leaves the workspace"));
        }
        let mut set = GlobSetBuilder::new();
        let forms = if glob.is_empty() || glob == "." {
            vec!["**".to_owned()]
        } else {
            vec![glob.to_owned(), format!("{glob}/**")]
        };
        for form in forms {
            set.add(
                GlobBuilder::new(&form)
                    .literal_separator(true)
                    .build()
                    .map_err(|error| error.to_string())?,
            );
        }
        rules.push((takes, set.build().map_err(|error| error.to_string())?));
    }
    let mut files = Vec::new();
    walk(root, &mut |path| {
        let relative = path.strip_prefix(root).unwrap_or(path);
        let taken = rules.iter().fold(false, |taken, (takes, set)| {
            if set.is_match(relative) {
                *takes
            } else {
                taken
            }
        });
        if taken {
            files.push(path.to_owned());
        }
    })
    .map_err(|error| error.to_string())?;
    files.sort();
    Ok(files)
}

fn walk(folder: &Path, found: &mut impl FnMut(&Path)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(&path, found)?;
        } else {
            found(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_in_order_and_folders_take_all_below() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/b.txt", "a/c.rs", "d.txt"] {
            fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
            fs::write(folder.path().join(path), path).unwrap();
        }
        let found = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|it| (*it).to_owned()).collect();
            matching(folder.path(), &patterns)
                .unwrap()
                .iter()
                .map(|path| {
                    path.strip_prefix(folder.path())
                        .unwrap()
                        .display()
                        .to_string()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&["**/*.txt"]), ["a/b.txt", "d.txt"]);
        assert_eq!(found(&["a", "!a/*.rs"]), ["a/b.txt"]);
        assert_eq!(found(&["nothing"]), Vec::<String>::new());
        assert!(matching(folder.path(), &["../x".to_owned()]).is_err());
        assert_eq!(
            Workspace(folder.path()).hash_files(&["nothing".to_owned()]),
            Ok(String::new())
        );
        assert_eq!(
            Workspace(folder.path())
                .hash_files(&["**".to_owned()])
                .unwrap()
                .len(),
            64
        );
    }
}
