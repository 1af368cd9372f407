//! The artifact and the command of `shipway.yaml`, compared with what workflows upload and with the files of the repository.

use std::{os::unix::fs::PermissionsExt, path::Path};

use shipway_core::config::{ArtifactSource, ServiceConfig};
use shipway_syntax::{Diagnostic, SourceFile, Span};
use shipway_workflow::{expr::join_with_and, lint::UploadedArtifacts};

/// A `shipway.yaml` with the uploads of the workflows of its repository.
pub(super) struct ArtifactComparison<'a> {
    source: &'a SourceFile,
    config: &'a ServiceConfig,
    /// Whether there are workflows.
    pub(super) has_workflows: bool,
    /// Uploads of workflows that a push of the released branch starts.
    pub(super) uploads: UploadedArtifacts,
    /// Uploads of the others.
    pub(super) idle: UploadedArtifacts,
}

impl<'a> ArtifactComparison<'a> {
    pub(super) fn new(source: &'a SourceFile, config: &'a ServiceConfig) -> Self {
        Self {
            source,
            config,
            has_workflows: true,
            uploads: UploadedArtifacts::default(),
            idle: UploadedArtifacts::default(),
        }
    }

    /// Without the artifact that `shipway.yaml` names a push releases nothing.
    pub(super) fn missing_artifact(&self) -> Option<Diagnostic> {
        let ArtifactSource::Run { name } = &self.config.artifact else {
            return None;
        };
        let has_artifact = |uploads: &UploadedArtifacts| match name {
            Some(name) => uploads.names.contains(name),
            None => !uploads.names.is_empty(),
        };
        if has_artifact(&self.uploads) || self.uploads.has_unknown {
            return None;
        }
        let artifact = match name {
            Some(name) => format!("the artifact `{name}`"),
            None => "an artifact".to_owned(),
        };
        let is_idle = has_artifact(&self.idle);
        let workflow = if is_idle {
            format!("no workflow that a push of {} starts", self.config.branch)
        } else {
            "no workflow".to_owned()
        };
        let message = format!("{workflow} uploads {artifact}, so a push releases nothing");
        let help = if is_idle {
            format!(
                "the workflow that uploads it needs `on: {{ push: {{ branches: [{}] }} }}`",
                self.config.branch
            )
        } else {
            self.help_with_upload(name.as_deref())
        };
        let span = key_span(self.source, "artifact");
        Some(Diagnostic::warning("missing-artifact", span, message).help(help))
    }

    fn help_with_upload(&self, name: Option<&str>) -> String {
        let name = name.unwrap_or(self.config.service.as_str());
        let step = format!("uses: actions/upload-artifact@v4 with: {{ name: {name}, path: … }}");
        if !self.has_workflows {
            return format!(
                "write a workflow that ends with the step {step}, or release the files of the commit: artifact: {{ source: . }}"
            );
        }
        if self.uploads.names.is_empty() {
            return format!("add a step to the job that builds it: {step}");
        }
        let names = join_with_and(self.uploads.names.iter().map(String::as_str));
        format!("the workflows upload {names}: the jobs are them, or add a step: {step}")
    }
}

/// A command that starts a file of the commit which isn't there, or can't be executed.
pub(super) fn missing_program(
    root: &Path,
    source: &SourceFile,
    config: &ServiceConfig,
) -> Option<Diagnostic> {
    if config.artifact != ArtifactSource::Source {
        return None;
    }
    let mut words = config.run.command.split_whitespace();
    let program = words.find(|word| *word != "exec")?;
    let path = program.strip_prefix("./")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if !path.chars().all(is_plain) {
        return None;
    }
    let span = key_span(source, "run");
    let Ok(metadata) = root.join(path).metadata() else {
        let message = format!(
            "`run.command` starts {program}, which is not in the repository: no instance starts"
        );
        return Some(Diagnostic::warning("missing-program", span, message));
    };
    if metadata.permissions().mode() & 0o111 != 0 {
        return None;
    }
    let message =
        format!("`run.command` starts {program}, which can't be executed: no instance starts");
    let help = format!("chmod +x {path}, and commit that");
    Some(Diagnostic::warning("missing-program", span, message).help(help))
}

/// Warns of submodules and pointers of Git LFS in a release of the commit's tree.
pub(super) fn foreign_content(
    root: &Path,
    source: &SourceFile,
    config: &ServiceConfig,
) -> Vec<Diagnostic> {
    if config.artifact != ArtifactSource::Source {
        return Vec::new();
    }
    let has_text = |file: &str, text: &str| {
        let content = std::fs::read_to_string(root.join(file));
        content.is_ok_and(|content| content.contains(text))
    };
    let span = key_span(source, "artifact");
    let warning = |what: &str, input: &str| {
        let message = format!("the release is the commit's tree, which has {what}");
        let help = format!("build the artifact in a workflow whose actions/checkout has `{input}`");
        Diagnostic::warning("foreign-content", span, message).help(help)
    };
    let mut found = Vec::new();
    if has_text(".gitmodules", "[submodule") {
        let what = "empty folders instead of the submodules in .gitmodules";
        found.push(warning(what, "submodules: true"));
    }
    if has_text(".gitattributes", "filter=lfs") {
        let what = "pointers instead of the files of Git LFS that .gitattributes names";
        found.push(warning(what, "lfs: true"));
    }
    found
}

/// The position of a key of the file; its first line when it has none.
pub(super) fn key_span(source: &SourceFile, name: &str) -> Span {
    let tree = shipway_syntax::parse(source).ok();
    let mut entries = tree
        .iter()
        .flat_map(|it| it.as_mapping().unwrap_or_default());
    let first = tree.as_ref().map(|it| it.span).unwrap_or_default();
    let key = entries.find(|(key, _)| key.text == name);
    key.map_or(first, |(key, _)| key.span)
}
