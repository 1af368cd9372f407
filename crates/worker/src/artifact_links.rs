//! Which symlinks an artifact may contain: one rule for everything that writes or unpacks artifacts.
//!
//! # Why
//!
//! Package managers create links that go up (`node_modules/pkg → ../packages/pkg`), which must be preserved. A link
//! that leads out of the artifact would, once unpacked, read or overwrite files of the machine.
//!
//! # Invariants
//!
//! - `..` occurs only at the beginning of a target, and fewer times than the link's path is deep: the target is
//!   inside.
//! - No entry is below a link: otherwise a link could be at another depth than its path suggests, and lead out.

use std::path::{Component, Path, PathBuf};

/// Why an entry of an archive is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The entry's path is absolute or contains `..`.
    #[error("the entry {} is outside its folder", .0.display())]
    LeavesFolder(PathBuf),
    /// The link's target is outside of the archive.
    #[error("the link {} → {} points outside its folder", link.display(), target.display())]
    LinkLeavesFolder {
        /// Path of the link.
        link: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// A parent folder of the entry is a symlink.
    #[error("the entry {} is below a link", .0.display())]
    BelowLink(PathBuf),
    /// A device, a socket or a FIFO.
    #[error("the entry {} is neither file nor folder nor link", .0.display())]
    UnknownKind(PathBuf),
}

/// Checks an entry before it is unpacked to `to`, which contains all earlier entries.
pub(crate) fn check_archive_entry(
    path: &Path,
    kind: tar::EntryType,
    target: &Path,
    to: &Path,
) -> Result<(), EntryError> {
    if path_depth(path).is_none() {
        return Err(EntryError::LeavesFolder(path.to_owned()));
    }
    if is_below_link(path, to) {
        return Err(EntryError::BelowLink(path.to_owned()));
    }
    let is_fine = match kind {
        tar::EntryType::Regular
        | tar::EntryType::Continuous
        | tar::EntryType::GNUSparse
        | tar::EntryType::Directory => true,
        tar::EntryType::Symlink => is_contained_link(path, target),
        // A hard link to a symlink would be at another depth than it.
        tar::EntryType::Link => {
            let is_file = to
                .join(target)
                .symlink_metadata()
                .is_ok_and(|it| it.is_file());
            path_depth(target).is_some() && !is_below_link(target, to) && is_file
        }
        _ => return Err(EntryError::UnknownKind(path.to_owned())),
    };
    if is_fine {
        return Ok(());
    }
    Err(EntryError::LinkLeavesFolder {
        link: path.to_owned(),
        target: target.to_owned(),
    })
}

/// Whether the target of a symlink is inside the artifact, provided that no parent folder of `path` is a link.
pub(crate) fn is_contained_link(path: &Path, target: &Path) -> bool {
    let up = target
        .components()
        .take_while(|part| matches!(part, Component::ParentDir))
        .count();
    let rest: PathBuf = target.components().skip(up).collect();
    path_depth(&rest).is_some() && path_depth(path).is_some_and(|depth| up < depth)
}

/// The number of components; `None` for a path that is absolute or contains `..`.
pub(crate) fn path_depth(path: &Path) -> Option<usize> {
    path.components().try_fold(0, |depth, part| match part {
        Component::Normal(_) => Some(depth + 1),
        Component::CurDir => Some(depth),
        Component::ParentDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

/// The symlink with a target that is relative, has `..` only at its beginning and stays inside; `None` if the target
/// isn't below `base`.
pub(crate) fn to_contained_link(base: &Path, path: &Path, target: &Path) -> Option<PathBuf> {
    if is_contained_link(path, target) {
        return Some(target.to_owned());
    }
    let base = base.canonicalize().ok()?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let real = base.join(folder).join(target).canonicalize().ok()?;
    let wanted = real.strip_prefix(&base).ok()?;
    let shared = folder
        .components()
        .zip(wanted.components())
        .take_while(|(ours, theirs)| ours == theirs)
        .count();
    let up = folder.components().count() - shared;
    let mut link: PathBuf = std::iter::repeat_n("..", up).collect();
    link.extend(wanted.components().skip(shared));
    if link.as_os_str().is_empty() {
        link.push(".");
    }
    is_contained_link(path, &link).then_some(link)
}

fn is_below_link(path: &Path, to: &Path) -> bool {
    let parents = path.ancestors().skip(1);
    parents
        .filter(|parent| !parent.as_os_str().is_empty())
        .any(|parent| {
            to.join(parent)
                .symlink_metadata()
                .is_ok_and(|it| it.is_symlink())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_may_go_up_at_its_beginning_as_far_as_its_path_is_deep() {
        for (path, target, wanted) in [
            ("node_modules/pkg", "../packages/pkg", true),
            ("modules/.bin/tool", "../tool/cli.js", true),
            ("latest", "bin/run", true),
            ("latest", "../bin", false),
            ("a/b/l", "../../../x", false),
            ("a/l", "../..", false),
            ("a/l", "b/../../x", false),
            ("a/l", "/etc/passwd", false),
        ] {
            let stays = is_contained_link(Path::new(path), Path::new(target));
            assert_eq!(stays, wanted, "{path} → {target}");
        }
    }

    #[test]
    fn a_link_that_leads_inside_by_a_detour_is_made_direct() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        std::fs::create_dir_all(base.join("packages/pkg")).unwrap();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        let name = base.file_name().unwrap().to_str().unwrap();
        let absolute = base.join("packages/pkg");
        let detour = format!("../../../{name}/packages/pkg");
        for target in [
            absolute.to_str().unwrap(),
            &detour,
            "../b/../../packages/pkg",
        ] {
            let link = to_contained_link(&base, Path::new("a/b/l"), Path::new(target));
            assert_eq!(
                link.as_deref(),
                Some(Path::new("../../packages/pkg")),
                "{target}"
            );
        }
        let out = to_contained_link(&base, Path::new("a/b/l"), folder.path());
        assert_eq!(out, None);
        let dangling = to_contained_link(&base, Path::new("l"), Path::new("../nothing"));
        assert_eq!(dangling, None);
    }
}
