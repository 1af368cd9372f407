//! `actions/upload-artifact` and `actions/download-artifact`.

use std::path::{Path, PathBuf};

use super::{ActionContext, ActionEffects, artifact_tar, blocking, cross_run_artifacts::OtherRun};
use crate::{
    path_patterns::{self, HiddenFiles, PathMatches, SearchRoots},
    runtime::{ArtifactEntry, checked_name, place},
};

/// `actions/upload-artifact`
pub(super) async fn upload(call: &mut ActionContext<'_>) -> Result<ActionEffects, String> {
    let name = checked_name(call.get("name").unwrap_or("artifact"))?.to_owned();
    let patterns = call
        .get("path")
        .ok_or("upload-artifact needs `path`")?
        .to_owned();
    number(call, "compression-level", 9)?;
    number(call, "retention-days", 400)?;
    let hidden = if call.flag("include-hidden-files")? {
        HiddenFiles::Include
    } else {
        HiddenFiles::Exclude
    };
    let overwrite = call.flag("overwrite")?;
    let missing = match call.get("if-no-files-found").unwrap_or("warn") {
        known @ ("warn" | "error" | "ignore") => known.to_owned(),
        other => {
            return Err(format!(
                "`if-no-files-found` is warn, error or ignore, not {other:?}"
            ));
        }
    };
    let (ground, looked_for) = (call.ground(), patterns.clone());
    let found = blocking(move || path_patterns::find_on(&ground, &[looked_for], hidden)).await?;
    if found.files.is_empty() {
        let shown: Vec<&str> = patterns.lines().map(str::trim).collect();
        let what = format!("no files were found for {}", shown.join(", "));
        match missing.as_str() {
            "error" => return Err(what),
            "ignore" => call.say(&what),
            _ => call.warn(&format!("{what}; no artifact is uploaded")),
        }
        return Ok(ActionEffects::default());
    }
    if !overwrite && !call.shelf.is_free(&name) {
        return Err(format!(
            "the run has an artifact {name} already; choose another name, or say `overwrite: true` to replace it"
        ));
    }
    let base = base(&found);
    let path = place(&call.folders.artifacts, &name);
    let (tar, count) = (path.clone(), found.files.len());
    let written = blocking(move || {
        let written = artifact_tar::write(&tar, &base, &found.files);
        if written.is_err() {
            // Don't leave an incomplete artifact.
            let _ = std::fs::remove_file(&tar);
        }
        written
    });
    let artifact_tar::WrittenTar { digest, size } = written.await?;
    call.say(&format!(
        "Artifact {name}: {count} files, {size} bytes, {digest}"
    ));
    let kept = call.shelf.put(name, path, digest, size);
    let hex = kept.digest.trim_start_matches("sha256:").to_owned();
    Ok(ActionEffects::outputs([
        ("artifact-id", kept.id().to_string()),
        ("artifact-digest", hex),
        ("artifact-url", url(call, &kept)),
    ]))
}

/// Validates an input that has no effect: tars are not compressed, and artifacts are kept as long as their run.
fn number(call: &ActionContext<'_>, name: &str, max: u32) -> Result<(), String> {
    let is_sane = |text: &str| text.parse::<u32>().is_ok_and(|number| number <= max);
    match call.get(name) {
        Some(text) if !is_sane(text) => Err(format!("`{name}` is 0 to {max}, not {text:?}")),
        _ => Ok(()),
    }
}

/// The artifact's URL on the run's page; empty without a server.
fn url(call: &ActionContext<'_>, kept: &ArtifactEntry) -> String {
    let github = &call.spec.contexts.github;
    let text = |name: &str| github.get(name).to_text().to_string();
    let repository = text("repository");
    let service = repository.rsplit('/').next().unwrap_or_default();
    let server = call.spec.server.as_ref();
    server.map_or_else(String::new, |server| {
        format!(
            "{}/runs/{service}/{}#artifact-{}",
            server.url.trim_end_matches('/'),
            text("run_id"),
            kept.id()
        )
    })
}

/// The folder that paths in the artifact are relative to, by GitHub's rules. For one pattern: its part before the
/// first wildcard; for a single file without wildcards: its folder; for several patterns: their common ancestor.
fn base(found: &PathMatches) -> PathBuf {
    match (found.search_paths.as_slice(), found.files.as_slice()) {
        ([one], [file]) if one == file => one.parent().unwrap_or(one).to_owned(),
        ([one], _) => one.clone(),
        (several, _) => common(several),
    }
}

/// The nearest common ancestor, given that no path is an ancestor of another.
fn common(paths: &[PathBuf]) -> PathBuf {
    let mut base = paths.first().cloned().unwrap_or_default();
    while !paths.iter().all(|path| path.starts_with(&base)) && base.pop() {}
    base
}

/// The artifacts to download.
enum ArtifactSelection {
    Name(String),
    Ids(Vec<u64>),
    /// All whose names match; `None`: all.
    Pattern(Option<globset::GlobMatcher>),
}

impl ArtifactSelection {
    fn of(call: &ActionContext<'_>) -> Result<Self, String> {
        match (
            call.get("name"),
            call.get("artifact-ids"),
            call.get("pattern"),
        ) {
            (Some(_), Some(_), _) => {
                Err("`name` and `artifact-ids` can't be used together".to_owned())
            }
            (Some(name), None, _) => Ok(Self::Name(name.to_owned())),
            (None, Some(ids), _) => {
                let ids = ids.split([',', '\n']).map(str::trim);
                let ids = ids.filter(|id| !id.is_empty()).map(|id| {
                    let number = id.parse();
                    number.map_err(|_| {
                        format!("`artifact-ids` are numbers with commas between them, not {id:?}")
                    })
                });
                ids.collect::<Result<_, _>>().map(Self::Ids)
            }
            (None, None, None) => Ok(Self::Pattern(None)),
            (None, None, Some(pattern)) => {
                let glob = globset::GlobBuilder::new(pattern)
                    .literal_separator(true)
                    .build();
                let glob = glob.map_err(|error| format!("`pattern`: {error}"))?;
                Ok(Self::Pattern(Some(glob.compile_matcher())))
            }
        }
    }

    /// Selects artifacts. One that is named or numbered must exist.
    fn of_all(&self, all: Vec<ArtifactEntry>) -> Result<Vec<ArtifactEntry>, String> {
        let known = || match all.as_slice() {
            [] => "none".to_owned(),
            all => {
                let names: Vec<&str> = all.iter().map(|kept| kept.name.as_str()).collect();
                names.join(", ")
            }
        };
        let missing = |what: String| {
            format!(
                "there is no artifact {what} in the run; there are: {}",
                known()
            )
        };
        match self {
            Self::Name(name) if !all.iter().any(|kept| kept.name == *name) => {
                return Err(missing(format!("{name:?}")));
            }
            Self::Ids(ids) => {
                let has = |id: &u64| all.iter().any(|kept| kept.id() == *id);
                if let Some(id) = ids.iter().find(|id| !has(id)) {
                    return Err(missing(format!("with the number {id}")));
                }
            }
            Self::Name(_) | Self::Pattern(_) => {}
        }
        let taken = |kept: &ArtifactEntry| match self {
            Self::Name(name) => kept.name == *name,
            Self::Ids(ids) => ids.contains(&kept.id()),
            Self::Pattern(pattern) => pattern.as_ref().is_none_or(|it| it.is_match(&kept.name)),
        };
        Ok(all.into_iter().filter(taken).collect())
    }
}

/// `actions/download-artifact`: one artifact into a folder, or several, each into a folder with its name.
pub(super) async fn download(
    call: &mut ActionContext<'_>,
    version: Option<u32>,
) -> Result<ActionEffects, String> {
    let other = OtherRun::named(call)?;
    let to = call.inside(call.get("path").unwrap_or("."))?;
    let wanted = ArtifactSelection::of(call)?;
    let merge = call.flag("merge-multiple")?;
    let all = match &other {
        Some(other) => other.all(&call.folders.artifacts.join("elsewhere")).await?,
        None => call.shelf.all(),
    };
    let taken = wanted.of_all(all)?;
    // From v5 on a single artifact downloaded by id is not put into a subfolder.
    let directly = match &wanted {
        ArtifactSelection::Name(_) => true,
        ArtifactSelection::Ids(ids) => merge || ids.len() == 1 && version.is_none_or(|it| it >= 5),
        ArtifactSelection::Pattern(_) => merge,
    };
    for kept in &taken {
        if let Some(other) = &other {
            other.fetch(kept).await?;
        }
        let to = if directly {
            to.clone()
        } else {
            to.join(&kept.name)
        };
        unpack(call, kept, &to).await?;
    }
    if !matches!(wanted, ArtifactSelection::Name(_)) {
        call.say(&format!("Downloaded {} artifacts", taken.len()));
    }
    Ok(ActionEffects::outputs([(
        "download-path",
        to.display().to_string(),
    )]))
}

async fn unpack(
    call: &mut ActionContext<'_>,
    kept: &ArtifactEntry,
    to: &Path,
) -> Result<(), String> {
    let ArtifactEntry { name, .. } = kept;
    let (path, digest, place) = (kept.path.clone(), kept.digest.clone(), to.to_owned());
    let unpacked = blocking(move || artifact_tar::unpack(&path, &digest, &place)).await;
    let count = unpacked.map_err(|why| format!("the artifact {name} can't be unpacked: {why}"))?;
    call.say(&format!(
        "Downloaded {name}: {count} files to {}",
        to.display()
    ));
    Ok(())
}

impl ActionContext<'_> {
    /// Searches only the job's folders, so that a mistaken pattern uploads no other files.
    fn ground(&self) -> SearchRoots {
        let folders = self.folders;
        SearchRoots {
            root: folders.workspace.clone(),
            home: folders.home.clone(),
            within: [&folders.workspace, &folders.home, &folders.temp]
                .map(PathBuf::clone)
                .to_vec(),
        }
    }
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
            let found = PathMatches {
                files: paths(files),
                folders: Vec::new(),
                search_paths: paths(search_paths),
            };
            assert_eq!(base(&found), Path::new(expected), "{found:?}");
        }
    }
}
