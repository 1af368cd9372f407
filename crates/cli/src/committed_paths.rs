//! The files of a repository as a push has them.

use std::{path::Path, process::Command};

/// Paths below `folder`, relative to it, that are committed or would be by `git add --all`; none if git can't list them.
pub(crate) fn list_committed_paths(folder: &Path) -> Option<Vec<String>> {
    let words = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let output = Command::new("git").args(words).current_dir(folder).output();
    let output = output.ok().filter(|output| output.status.success())?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let listed = listed.split_terminator('\0').map(str::to_owned);
    Some(listed.collect())
}
