//! `actions/upload-artifact` and `actions/download-artifact`: files kept under a name for later jobs and releases.

use std::path::{Path, PathBuf};

use shipway_workflow::job::{JournalBody, StoredArtifact};

use super::{Call, Left, blocking, tarball};
use crate::glob::{self, Found, Hidden};

/// Characters that some file system or other can't have in a name; GitHub's list.
const FORBIDDEN: [char; 11] = ['/', '\\', '"', ':', '<', '>', '|', '*', '?', '\r', '\n'];

/// Stores files under a name.
pub(super) async fn upload(call: &mut Call<'_>) -> Result<Left, String> {
    let name = call.get("name").unwrap_or("artifact").to_owned();
    if name.len() > 200 || name.starts_with('.') || name.contains(FORBIDDEN) {
        return Err(format!("{name:?} can't be the name of an artifact"));
    }
    let patterns = call
        .get("path")
        .ok_or("upload-artifact needs `path`")?
        .to_owned();
    let hidden = if call.flag("include-hidden-files")? {
        Hidden::Taken
    } else {
        Hidden::LeftOut
    };
    let root = call.folders.workspace.clone();
    let looked_for = patterns.clone();
    let found = blocking(move || glob::find(&root, &[looked_for], hidden)).await?;
    if found.files.is_empty() {
        let shown: Vec<&str> = patterns.lines().map(str::trim).collect();
        let what = format!("no files were found for {}", shown.join(", "));
        match call.get("if-no-files-found").unwrap_or("warn") {
            "error" => return Err(what),
            "ignore" => call.say(&what),
            _ => call.warn(&format!("{what}; no artifact is uploaded")),
        }
        return Ok(Left::default());
    }
    let base = base(&found);
    let path = call.folders.artifacts.join(format!("{name}.tar"));
    let (tar, count) = (path.clone(), found.files.len());
    let written = blocking(move || tarball::write(&tar, &base, &found.files)).await?;
    let tarball::Written { digest, size } = written;
    call.say(&format!(
        "Artifact {name}: {count} files, {size} bytes, {digest}"
    ));
    let mut left = Left::outputs([
        ("artifact-id", name.clone()),
        ("artifact-digest", digest.clone()),
    ]);
    left.entries.push(JournalBody::ArtifactSaved {
        name,
        path,
        digest,
        size,
    });
    Ok(left)
}

/// The folder that paths in the artifact are relative to, by GitHub's rules: where the one pattern begins to look; of a single
/// file named as such, its folder; of several patterns, what the places where they begin to look have in common.
fn base(found: &Found) -> PathBuf {
    match (found.search_paths.as_slice(), found.files.as_slice()) {
        ([one], [file]) if one == file => one.parent().unwrap_or(one).to_owned(),
        ([one], _) => one.clone(),
        (several, _) => common(several),
    }
}

/// The nearest folder above all paths. One of them can't be above the others.
fn common(paths: &[PathBuf]) -> PathBuf {
    let mut base = paths.first().cloned().unwrap_or_default();
    while !paths.iter().all(|path| path.starts_with(&base)) && base.pop() {}
    base
}

/// Fetches one artifact, or those of the run that a pattern takes, each into a folder of its name.
pub(super) async fn download(call: &mut Call<'_>) -> Result<Left, String> {
    let to = call.inside(call.get("path").unwrap_or("."))?;
    let stored = call.spec.artifacts.clone();
    let output = || Left::outputs([("download-path", to.display().to_string())]);
    if let Some(name) = call.get("name").map(str::to_owned) {
        let Some(artifact) = stored.iter().find(|artifact| artifact.name == name) else {
            let known: Vec<&str> = stored
                .iter()
                .map(|artifact| artifact.name.as_str())
                .collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(format!(
                "there is no artifact {name:?} in this run; there are: {known}"
            ));
        };
        unpack(call, artifact, &to).await?;
        return Ok(output());
    }
    let merge = call.flag("merge-multiple")?;
    let pattern = call.get("pattern").map(|pattern| {
        let glob = globset::GlobBuilder::new(pattern)
            .literal_separator(true)
            .build();
        glob.map(|glob| glob.compile_matcher())
    });
    let pattern = pattern
        .transpose()
        .map_err(|error| format!("`pattern`: {error}"))?;
    let taken = |artifact: &&StoredArtifact| {
        pattern
            .as_ref()
            .is_none_or(|it| it.is_match(&artifact.name))
    };
    let taken: Vec<&StoredArtifact> = stored.iter().filter(taken).collect();
    for artifact in &taken {
        let to = if merge {
            to.clone()
        } else {
            to.join(&artifact.name)
        };
        unpack(call, artifact, &to).await?;
    }
    call.say(&format!("Downloaded {} artifacts", taken.len()));
    Ok(output())
}

async fn unpack(call: &mut Call<'_>, artifact: &StoredArtifact, to: &Path) -> Result<(), String> {
    let StoredArtifact { name, digest, path } = artifact.clone();
    let place = to.to_owned();
    let unpacked = blocking(move || tarball::unpack(&path, &digest, &place)).await;
    let count = unpacked.map_err(|why| format!("the artifact {name} can't be unpacked: {why}"))?;
    call.say(&format!(
        "Downloaded {name}: {count} files to {}",
        to.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_githubs() {
        for (search_paths, files, expected) in [
            (
                vec!["/w/dist"],
                vec!["/w/dist/a/b", "/w/dist/a/c"],
                "/w/dist",
            ),
            (vec!["/w/dist/one"], vec!["/w/dist/one"], "/w/dist"),
            (vec!["/w"], vec!["/w/deep/one"], "/w"),
            (
                vec!["/w/a/x", "/w/a/y"],
                vec!["/w/a/x/1", "/w/a/y/2"],
                "/w/a",
            ),
            (vec!["/w/a/x.txt", "/w/b"], vec!["/w/a/x.txt"], "/w"),
        ] {
            let paths = |paths: Vec<&str>| paths.into_iter().map(PathBuf::from).collect();
            let found = Found {
                files: paths(files),
                search_paths: paths(search_paths),
            };
            assert_eq!(base(&found), Path::new(expected), "{found:?}");
        }
    }
}
