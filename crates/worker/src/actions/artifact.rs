//! `actions/upload-artifact` and `actions/download-artifact`.

use std::path::{Path, PathBuf};

use super::{
    action_error::ActionError, blocking_task::run_blocking, cross_run_artifacts::OtherRun,
    large_files::is_pointer, step_context::StepContext, step_context::StepResult,
};
use crate::{
    artifact_tar,
    path_patterns::{self, HiddenFiles, PathMatches, SearchRoots},
    runtime::{ArtifactEntry, check_name, free_path},
};

/// A release of pointers instead of files is an outage that users would see.
fn warn_of_pointers(context: &mut StepContext<'_>, files: &[PathBuf]) {
    let mut pointers = files.iter().filter(|file| is_pointer(file));
    if let Some(first) = pointers.next() {
        context.warn(&format!(
            "{} of {} files of the artifact are pointers of Git LFS, such as {}; to upload their content, set `lfs: true` at actions/checkout",
            1 + pointers.count(),
            files.len(),
            first.display()
        ));
    }
}

/// The inputs of `actions/upload-artifact`.
struct UploadInputs {
    name: String,
    patterns: String,
    hidden: HiddenFiles,
    overwrite: bool,
    if_no_files: IfNoFiles,
}

/// `if-no-files-found`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfNoFiles {
    Warn,
    Fail,
    Ignore,
}

impl UploadInputs {
    fn parse(context: &StepContext<'_>) -> Result<Self, ActionError> {
        let name = check_name(context.input("name").unwrap_or("artifact"))?;
        let patterns = context.input("path");
        let patterns = patterns.ok_or_else(|| ActionError::MissingInput {
            action: "upload-artifact",
            input: "path".to_owned(),
        })?;
        check_number(context, "compression-level", 9)?;
        check_number(context, "retention-days", 400)?;
        Ok(Self {
            name: name.to_owned(),
            patterns: patterns.to_owned(),
            hidden: match context.bool_input("include-hidden-files")? {
                true => HiddenFiles::Include,
                false => HiddenFiles::Exclude,
            },
            overwrite: context.bool_input("overwrite")?,
            if_no_files: match context.input("if-no-files-found").unwrap_or("warn") {
                "warn" => IfNoFiles::Warn,
                "error" => IfNoFiles::Fail,
                "ignore" => IfNoFiles::Ignore,
                other => {
                    return Err(ActionError::InvalidInput {
                        input: "if-no-files-found".to_owned(),
                        expected: "warn, error or ignore".to_owned(),
                        value: other.to_owned(),
                    });
                }
            },
        })
    }
}

/// `actions/upload-artifact`
pub(super) async fn upload_artifact(
    context: &mut StepContext<'_>,
) -> Result<StepResult, ActionError> {
    let inputs = UploadInputs::parse(context)?;
    let (roots, patterns) = (context.search_roots(), inputs.patterns.clone());
    let within = roots.within.clone();
    let found =
        run_blocking(move || path_patterns::find_in_roots(&roots, &[patterns], inputs.hidden));
    let found = found.await?;
    if found.files.is_empty() {
        let shown: Vec<&str> = inputs.patterns.lines().map(str::trim).collect();
        let error = ActionError::NoFiles(shown.join(", "));
        match inputs.if_no_files {
            IfNoFiles::Fail => return Err(error),
            IfNoFiles::Ignore => context.log_message(&error.to_string()),
            IfNoFiles::Warn => context.warn(&format!("{error}; no artifact is uploaded")),
        }
        return Ok(StepResult::default());
    }
    let name = inputs.name;
    if !inputs.overwrite && !context.artifact_store.is_name_free(&name) {
        return Err(ActionError::ArtifactExists(name));
    }
    warn_of_pointers(context, &found.files);
    let base = artifact_base(&found);
    let path = free_path(&context.folders.artifacts, &name);
    let (tar, count) = (path.clone(), found.files.len());
    let written = run_blocking(move || {
        let written = artifact_tar::write_tar(&tar, &base, &within, &found.files);
        if written.is_err() {
            // Don't leave an incomplete artifact.
            let _ = std::fs::remove_file(&tar);
        }
        written
    });
    let artifact_tar::WrittenTar { digest, size } = written.await?;
    context.log_message(&format!(
        "Artifact {name}: {count} files, {size} bytes, {digest}"
    ));
    let stored = context
        .artifact_store
        .add_artifact(name, path, digest, size);
    let hex = stored.digest.trim_start_matches("sha256:").to_owned();
    Ok(StepResult::with_outputs([
        ("artifact-id", stored.id().to_string()),
        ("artifact-digest", hex),
        ("artifact-url", artifact_url(context, &stored)),
    ]))
}

/// Validates an input that has no effect: tars are not compressed, and artifacts are kept as long as their run.
fn check_number(context: &StepContext<'_>, name: &str, max: u32) -> Result<(), ActionError> {
    let is_sane = |text: &str| text.parse::<u32>().is_ok_and(|number| number <= max);
    match context.input(name) {
        Some(text) if !is_sane(text) => Err(ActionError::InvalidInput {
            input: name.to_owned(),
            expected: format!("0 to {max}"),
            value: text.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The artifact's URL on the run's page; empty without a server.
fn artifact_url(context: &StepContext<'_>, kept: &ArtifactEntry) -> String {
    let github = context.github;
    let text = |name: &str| github.get(name).to_text().to_string();
    let repository = text("repository");
    let service = repository.rsplit('/').next().unwrap_or_default();
    let server = context.server;
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
fn artifact_base(found: &PathMatches) -> PathBuf {
    match (found.search_paths.as_slice(), found.files.as_slice()) {
        ([one], [file]) if one == file => one.parent().unwrap_or(one).to_owned(),
        ([one], _) => one.clone(),
        (several, _) => common_ancestor(several),
    }
}

/// The nearest common ancestor, given that no path is an ancestor of another.
fn common_ancestor(paths: &[PathBuf]) -> PathBuf {
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
    fn from_inputs(context: &StepContext<'_>) -> Result<Self, ActionError> {
        match (
            context.input("name"),
            context.input("artifact-ids"),
            context.input("pattern"),
        ) {
            (Some(_), Some(_), _) => Err(ActionError::NameAndIds),
            (Some(name), None, _) => Ok(Self::Name(name.to_owned())),
            (None, Some(ids), _) => {
                let ids = ids.split([',', '\n']).map(str::trim);
                let ids = ids.filter(|id| !id.is_empty()).map(|id| {
                    let number = id.parse();
                    number.map_err(|_| ActionError::InvalidArtifactId(id.to_owned()))
                });
                ids.collect::<Result<_, _>>().map(Self::Ids)
            }
            (None, None, None) => Ok(Self::Pattern(None)),
            (None, None, Some(pattern)) => {
                let glob = globset::GlobBuilder::new(pattern)
                    .literal_separator(true)
                    .build();
                let glob = glob.map_err(ActionError::InvalidArtifactPattern)?;
                Ok(Self::Pattern(Some(glob.compile_matcher())))
            }
        }
    }

    /// Selects artifacts. An error if a name or id doesn't exist.
    fn select(&self, all: Vec<ArtifactEntry>) -> Result<Vec<ArtifactEntry>, ActionError> {
        let known = || match all.as_slice() {
            [] => "none".to_owned(),
            all => {
                let names: Vec<&str> = all.iter().map(|kept| kept.name.as_str()).collect();
                names.join(", ")
            }
        };
        let missing = |wanted: String| ActionError::UnknownArtifact {
            wanted,
            known: known(),
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
pub(super) async fn download_artifact(
    context: &mut StepContext<'_>,
    version: Option<u32>,
) -> Result<StepResult, ActionError> {
    let other = OtherRun::from_inputs(context)?;
    let to = context.resolve_path(context.input("path").unwrap_or("."))?;
    let wanted = ArtifactSelection::from_inputs(context)?;
    let merge = context.bool_input("merge-multiple")?;
    let all = match &other {
        Some(other) => {
            other
                .list_artifacts(&context.folders.artifacts.join("elsewhere"))
                .await?
        }
        None => context.artifact_store.list_artifacts(),
    };
    let taken = wanted.select(all)?;
    // From v5 on a single artifact downloaded by id is not put into a subfolder.
    let directly = match &wanted {
        ArtifactSelection::Name(_) => true,
        ArtifactSelection::Ids(ids) => merge || ids.len() == 1 && version.is_none_or(|it| it >= 5),
        ArtifactSelection::Pattern(_) => merge,
    };
    for kept in &taken {
        let tar = match &other {
            Some(other) => other.download_artifact(kept).await?,
            None => context.artifact_store.tar_file(kept).await?,
        };
        let to = if directly {
            to.clone()
        } else {
            to.join(&kept.name)
        };
        unpack_artifact(context, kept, tar, &to).await?;
    }
    if !matches!(wanted, ArtifactSelection::Name(_)) {
        context.log_message(&format!("Downloaded {} artifacts", taken.len()));
    }
    Ok(StepResult::with_outputs([(
        "download-path",
        to.display().to_string(),
    )]))
}

async fn unpack_artifact(
    context: &mut StepContext<'_>,
    kept: &ArtifactEntry,
    tar: PathBuf,
    to: &Path,
) -> Result<(), ActionError> {
    let ArtifactEntry { name, .. } = kept;
    let (digest, place) = (kept.digest.clone(), to.to_owned());
    let unpacked = run_blocking(move || artifact_tar::unpack_tar(&tar, &digest, &place)).await;
    let count = unpacked.map_err(|error| ActionError::ArtifactUnreadable {
        name: name.clone(),
        source: Box::new(error),
    })?;
    context.log_message(&format!(
        "Downloaded {name}: {count} files to {}",
        to.display()
    ));
    Ok(())
}

impl StepContext<'_> {
    /// Searches only the job's folders, so that a mistaken pattern uploads no other files.
    fn search_roots(&self) -> SearchRoots {
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
            assert_eq!(artifact_base(&found), Path::new(expected), "{found:?}");
        }
    }
}
