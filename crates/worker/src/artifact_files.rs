//! The files and links of an artifact.
//!
//! # Why
//!
//! A link without its target would be broken wherever the artifact is unpacked, so the target is stored in its place, as GitHub does. A
//! link whose target is stored too stays a link: package managers rely on it.
//!
//! # Invariants
//!
//! - Nothing outside of the job's folders is stored: a job's files may be written by people without access to the server.
//! - Links to parent folders and the limit of followed files bound the result.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    artifact_links::{is_contained_link, to_contained_link},
    path_error::PathError,
};

/// Limit of files that are stored in the place of links.
const FOLLOWED_MAX: usize = 100_000;

/// Why the files of an artifact can't be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactLinkError {
    #[error(transparent)]
    File(#[from] PathError),
    #[error("{} is outside of {}", file.display(), base.display())]
    OutsideBase { file: PathBuf, base: PathBuf },
    #[error(
        "the link {} → {} points outside the artifact, and an artifact must contain everything it needs; upload the file itself",
        link.display(),
        target.display()
    )]
    LinkLeaves { link: PathBuf, target: PathBuf },
    #[error("the link {} leads to a folder above itself; upload the folder without the link", .0.display())]
    LinkToParent(PathBuf),
    #[error("{}: links to folders bring more than {limit} files", link.display())]
    TooManyFollowed { link: PathBuf, limit: usize },
}

/// A file or link of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ArtifactFile {
    /// Its path in the artifact.
    pub(crate) name: PathBuf,
    /// Where its content is.
    pub(crate) source: PathBuf,
    /// The target, of a link that stays one.
    pub(crate) link: Option<PathBuf>,
}

/// Decides how the artifact stores the files and links below `base`, sorted by name. Links are followed to files below `base` and `within`.
pub(crate) fn resolve_links(
    base: &Path,
    within: &[PathBuf],
    files: &[PathBuf],
) -> Result<Vec<ArtifactFile>, ArtifactLinkError> {
    let real_base = base.canonicalize().map_err(PathError::at(base))?;
    let within = within.iter().map(|folder| folder.canonicalize());
    let mut resolver = LinkResolver {
        base,
        within: within
            .filter_map(Result::ok)
            .chain([real_base.clone()])
            .collect(),
        stored: files
            .iter()
            .filter_map(|file| file.strip_prefix(base).ok())
            .map(|name| real_base.join(name))
            .collect(),
        followed: 0,
        resolved: Vec::new(),
    };
    for file in files {
        let name = file.strip_prefix(base);
        let name = name.map_err(|_| ArtifactLinkError::OutsideBase {
            file: file.clone(),
            base: base.to_owned(),
        })?;
        resolver.resolve(name, file, &mut Vec::new())?;
    }
    resolver.resolved.sort();
    Ok(resolver.resolved)
}

struct LinkResolver<'a> {
    base: &'a Path,
    within: Vec<PathBuf>,
    /// Absolute paths of the files and links of the artifact, with `base` resolved.
    stored: BTreeSet<PathBuf>,
    followed: usize,
    resolved: Vec<ArtifactFile>,
}

impl LinkResolver<'_> {
    /// `parents`: the folders that were followed to come here.
    fn resolve(
        &mut self,
        name: &Path,
        file: &Path,
        parents: &mut Vec<PathBuf>,
    ) -> Result<(), ArtifactLinkError> {
        let failed = PathError::at(name);
        let metadata = file.symlink_metadata().map_err(&failed)?;
        if !parents.is_empty() {
            self.followed += 1;
            if self.followed > FOLLOWED_MAX {
                return Err(ArtifactLinkError::TooManyFollowed {
                    link: name.to_owned(),
                    limit: FOLLOWED_MAX,
                });
            }
        }
        if metadata.is_dir() {
            return self.resolve_folder(name, file, parents);
        }
        let mut found = ArtifactFile {
            name: name.to_owned(),
            source: file.to_owned(),
            link: None,
        };
        if metadata.is_symlink() {
            let target = fs::read_link(file).map_err(&failed)?;
            let Ok(real) = file.canonicalize() else {
                // It leads nowhere, here as there.
                found.link = Some(self.contained_link(name, target)?);
                self.resolved.push(found);
                return Ok(());
            };
            if parents.is_empty() && self.is_stored(&real) {
                let target = to_contained_link(self.base, name, &target).unwrap_or(target);
                found.link = Some(self.contained_link(name, target)?);
                self.resolved.push(found);
                return Ok(());
            }
            if !self.within.iter().any(|folder| real.starts_with(folder)) {
                return Err(ArtifactLinkError::LinkLeaves {
                    link: name.to_owned(),
                    target,
                });
            }
            if real.is_dir() {
                return self.resolve_folder(name, &real, parents);
            }
            found.source = real;
        }
        self.resolved.push(found);
        Ok(())
    }

    fn resolve_folder(
        &mut self,
        name: &Path,
        real: &Path,
        parents: &mut Vec<PathBuf>,
    ) -> Result<(), ArtifactLinkError> {
        let real = real.canonicalize().map_err(PathError::at(name))?;
        if parents.contains(&real) {
            return Err(ArtifactLinkError::LinkToParent(name.to_owned()));
        }
        parents.push(real.clone());
        let entries = fs::read_dir(&real).map_err(PathError::at(name))?;
        for entry in entries {
            let entry = entry.map_err(PathError::at(name))?;
            self.resolve(&name.join(entry.file_name()), &entry.path(), parents)?;
        }
        parents.pop();
        Ok(())
    }

    fn contained_link(&self, name: &Path, target: PathBuf) -> Result<PathBuf, ArtifactLinkError> {
        match is_contained_link(name, &target) {
            true => Ok(target),
            false => Err(ArtifactLinkError::LinkLeaves {
                link: name.to_owned(),
                target,
            }),
        }
    }

    /// Whether the file, or anything below the folder, is stored in any case.
    fn is_stored(&self, real: &Path) -> bool {
        let next = self.stored.range(real.to_owned()..).next();
        next.is_some_and(|stored| stored.starts_with(real))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `name`, or `name → target` of a link.
    fn shown(files: &[ArtifactFile]) -> Vec<String> {
        let shown = files.iter().map(|file| match &file.link {
            Some(target) => format!("{} → {}", file.name.display(), target.display()),
            None => file.name.display().to_string(),
        });
        shown.collect()
    }

    #[test]
    fn a_link_to_what_is_not_stored_becomes_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let (root, dist) = (folder.path(), folder.path().join("dist"));
        fs::create_dir_all(dist.join("v2/lib")).unwrap();
        fs::create_dir_all(root.join("build")).unwrap();
        fs::write(dist.join("v2/app"), "app").unwrap();
        fs::write(dist.join("v2/lib/x.so"), "x").unwrap();
        fs::write(root.join("build/style.css"), "css").unwrap();
        symlink("v2", dist.join("latest")).unwrap();
        symlink("../build/style.css", dist.join("style.css")).unwrap();
        let within = [root.to_owned()];
        let resolve = |files: &[&str]| {
            let files: Vec<_> = files.iter().map(|name| dist.join(name)).collect();
            resolve_links(&dist, &within, &files).map(|found| shown(&found))
        };
        assert_eq!(
            resolve(&["latest"]).unwrap(),
            ["latest/app", "latest/lib/x.so"]
        );
        assert_eq!(
            resolve(&["latest", "v2/app", "v2/lib/x.so"]).unwrap(),
            ["latest → v2", "v2/app", "v2/lib/x.so"]
        );
        assert_eq!(resolve(&["style.css"]).unwrap(), ["style.css"]);
        symlink("..", dist.join("v2/up")).unwrap();
        let endless = resolve(&["latest"]).unwrap_err().to_string();
        assert!(endless.contains("latest/up/"), "{endless}");
    }

    #[test]
    fn a_link_that_leaves_the_folders_of_the_job_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dist = folder.path().join("dist");
        fs::create_dir_all(dist.join("inner")).unwrap();
        symlink("/etc/passwd", dist.join("inner/passwd")).unwrap();
        symlink("inner", dist.join("folder")).unwrap();
        symlink("../nothing", dist.join("dangling")).unwrap();
        let within = [folder.path().to_owned()];
        for name in ["inner/passwd", "folder", "dangling"] {
            let refused = resolve_links(&dist, &within, &[dist.join(name)]);
            assert!(
                matches!(refused, Err(ArtifactLinkError::LinkLeaves { .. })),
                "{refused:?}"
            );
        }
    }
}
