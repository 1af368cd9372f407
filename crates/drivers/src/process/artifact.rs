//! Artifacts unpacked: whole or not at all, and never outside of their folder.

use std::{
    fs, io,
    path::{Component, Path},
};

use tokio_util::io::SyncIoBridge;

use super::Artifacts;
use crate::target::TargetError;

/// Entries of an artifact; more is a mistake or an attack.
const ENTRIES_MAX: usize = 500_000;

/// Unpacks the artifact to `to`, unless it is there already. A crash in between leaves `to` absent.
pub(super) async fn unpack(
    artifacts: &dyn Artifacts,
    digest: &shipway_core::ids::Digest,
    to: &Path,
) -> Result<(), TargetError> {
    if to.exists() {
        return Ok(());
    }
    let reader = artifacts
        .open(digest)
        .await
        .map_err(TargetError::Artifact)?;
    let beside = to.with_extension("unpacking");
    let (target, place) = (to.to_owned(), beside.clone());
    let unpacked = tokio::task::spawn_blocking(move || {
        if place.exists() {
            fs::remove_dir_all(&place).map_err(|error| error.to_string())?;
        }
        fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        let count = unpack_tar(SyncIoBridge::new(reader), &place)?;
        if count == 0 {
            return Err("it is empty".to_owned());
        }
        fs::rename(&place, &target).map_err(|error| error.to_string())
    });
    let result = unpacked
        .await
        .map_err(|error| TargetError::Artifact(error.to_string()))?;
    if result.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    result.map_err(TargetError::Artifact)
}

fn unpack_tar(reader: impl io::Read, to: &Path) -> Result<usize, String> {
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(false);
    let mut count = 0;
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| format!("it is damaged: {error}"))?;
        let path = entry
            .path()
            .map_err(|error| error.to_string())?
            .into_owned();
        let plain = |path: &Path| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        if !plain(&path) {
            return Err(format!("the entry {} leaves its folder", path.display()));
        }
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let link = entry
                .link_name()
                .map_err(|error| error.to_string())?
                .map(|link| link.into_owned())
                .unwrap_or_default();
            // Links within one folder, downwards, are all that builds need.
            if !plain(&link) {
                return Err(format!(
                    "the link {} → {} leaves its folder",
                    path.display(),
                    link.display()
                ));
            }
        } else if !(kind.is_file() || kind.is_dir() || kind.is_contiguous()) {
            return Err(format!(
                "the entry {} is neither file nor folder nor link",
                path.display()
            ));
        }
        count += usize::from(!kind.is_dir());
        if count > ENTRIES_MAX {
            return Err(format!("it has more than {ENTRIES_MAX} files"));
        }
        // Looks through links that are there already, and refuses what leaves.
        if !entry
            .unpack_in(to)
            .map_err(|error| format!("{}: {error}", path.display()))?
        {
            return Err(format!("the entry {} leaves its folder", path.display()));
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_with(path: &str, link: Option<&str>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        // Past the checks of the builder, as an attacker would.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_mode(0o644);
        header.set_size(0);
        if let Some(link) = link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn hostile_entries_are_refused_by_name() {
        for (path, link) in [
            ("../evil", None),
            ("/etc/evil", None),
            ("a/../../evil", None),
            ("l", Some("/etc")),
            ("l", Some("../x")),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let refused = unpack_tar(tar_with(path, link).as_slice(), folder.path()).unwrap_err();
            assert!(refused.contains("leaves its folder"), "{path}: {refused}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            unpack_tar(tar_with("fine", None).as_slice(), folder.path()),
            Ok(1)
        );
    }
}
