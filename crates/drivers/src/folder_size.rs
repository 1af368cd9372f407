//! The space that a folder takes on the disk.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// The bytes of a folder with everything in it; what can't be read counts nothing. Blocks.
pub(crate) fn folder_size(folder: &Path) -> u64 {
    let (mut size, mut open) = (0, vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        size += metadata.blocks() * 512;
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()));
        }
    }
    size
}
