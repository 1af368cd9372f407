//! A `shipway.yaml` among the other files of its repository: whether a push reads it, whether its name is unique, and which changes
//! concern its service.

use std::{
    fs,
    path::{Path, PathBuf},
};

use shipway_core::{
    config::{ServiceConfig, parse_service_name},
    repository::{SERVICES_FOLDER, ServiceLocation, ServicePaths},
};
use shipway_syntax::{Diagnostic, SourceFile};
use shipway_workflow::model::{PathFilter, PatternFilter};

use super::artifacts::key_span;
use crate::committed_paths::list_committed_paths;

/// The name of the configuration.
const CONFIG: &str = "shipway.yaml";

/// Where a `shipway.yaml` is in its git repository.
pub(super) struct ConfigLocation {
    root: PathBuf,
    /// From the root; empty for the root itself.
    folder: String,
    /// The paths that `git add --all` would commit.
    committed_paths: Vec<String>,
}

impl ConfigLocation {
    /// None outside of git repositories, and where git can't list the files.
    pub(super) fn find(config: &Path) -> Option<Self> {
        let folder = match config.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let absolute = folder.canonicalize().ok()?;
        let mut above = absolute.ancestors();
        let root = above.find(|folder| folder.join(".git").exists())?;
        let folder = absolute.strip_prefix(root).ok()?.to_str()?;
        Some(Self {
            root: root.to_owned(),
            folder: folder.to_owned(),
            committed_paths: list_committed_paths(root)?,
        })
    }

    /// Whether it is in a folder of `services/`.
    pub(super) fn is_nested(&self) -> bool {
        is_service_folder(&self.folder)
    }

    /// Whether it is where a push looks for services.
    fn is_service(&self) -> bool {
        self.folder.is_empty() || self.is_nested()
    }

    /// What a push finds wrong with the position, the name or the `paths` of the file.
    pub(super) fn problems(&self, source: &SourceFile, config: &ServiceConfig) -> Vec<Diagnostic> {
        if let Some(problem) = self.unread_file(source) {
            return vec![problem];
        }
        if !self.is_service() {
            return Vec::new();
        }
        let mut problems = self.repeated_names(source);
        problems.extend(self.idle_patterns(source, config));
        problems
    }

    /// A file that no push reads.
    fn unread_file(&self, source: &SourceFile) -> Option<Diagnostic> {
        let warning = |message: String, help: String| {
            let span = key_span(source, "service");
            Some(Diagnostic::warning("unread-service", span, message).help(help))
        };
        let path = self.config_path();
        if self.is_service() {
            if self.root.join(&path).is_symlink() {
                let message = format!("{path} is a symbolic link, which a push does not follow");
                return warning(message, "replace the link with the file".to_owned());
            }
            if !self.committed_paths.contains(&path) {
                let message = format!("git ignores {path}, so no push has it");
                return warning(message, format!("git add --force {path}"));
            }
            return None;
        }
        // In a repository with services the file may be an example or a test.
        let is_below_services = self.folder.split('/').next() == Some(SERVICES_FOLDER);
        if !is_below_services && self.other_configs().next().is_some() {
            return None;
        }
        let message = format!(
            "a push does not read this file: only {CONFIG} and {SERVICES_FOLDER}/*/{CONFIG} of a repository are services"
        );
        let name = self.folder.rsplit('/').next().unwrap_or_default();
        warning(
            message,
            format!("move the folder to {SERVICES_FOLDER}/{name}, or push a repository of its own"),
        )
    }

    /// Other files that name the same service.
    fn repeated_names(&self, source: &SourceFile) -> Vec<Diagnostic> {
        let Ok(name) = parse_service_name(source) else {
            return Vec::new();
        };
        let same = self.other_configs().filter(|other| {
            let text = fs::read_to_string(self.root.join(other)).unwrap_or_default();
            parse_service_name(&SourceFile::new(*other, text)).is_ok_and(|other| other == name)
        });
        let repeated = same.map(|other| {
            let message = format!("{other} names the service {name} too: neither is released");
            let span = key_span(source, "service");
            Diagnostic::error("repeated-service", span, message)
                .help("give each service its own name")
        });
        repeated.collect()
    }

    /// Patterns of `paths` that match no file.
    fn idle_patterns(&self, source: &SourceFile, config: &ServiceConfig) -> Vec<Diagnostic> {
        let added = config.paths.iter().filter(|pattern| !pattern.negated);
        let idle = added.filter(|pattern| {
            let alone = PathFilter(PatternFilter::Only(vec![(*pattern).clone()]));
            !alone.takes(Some(&self.committed_paths))
        });
        let problems = idle.map(|pattern| {
            let message = format!(
                "the pattern `{}` of `paths` matches no file of the repository",
                pattern.glob.as_str()
            );
            Diagnostic::warning("idle-pattern", key_span(source, "paths"), message)
                .help("name paths from the root of the repository, such as libs/**")
        });
        problems.collect()
    }

    /// The paths that the first push changes for the service; none where workflows are started by all pushes.
    pub(super) fn changed_paths(&self, config: &ServiceConfig) -> Option<Vec<String>> {
        if !self.is_service() || (self.folder.is_empty() && self.other_configs().next().is_none()) {
            return None;
        }
        let location = ServiceLocation {
            // The paths of a service don't depend on the name of its repository.
            repository: config.service.clone(),
            folder: self.folder.clone(),
        };
        Some(ServicePaths::new(&location, config).select(&self.committed_paths))
    }

    /// The path from the root.
    fn config_path(&self) -> String {
        match self.folder.as_str() {
            "" => CONFIG.to_owned(),
            folder => format!("{folder}/{CONFIG}"),
        }
    }

    /// The other files that a push reads, from the root.
    fn other_configs(&self) -> impl Iterator<Item = &str> {
        let own = self.config_path();
        let configs = self.committed_paths.iter().filter(move |path| {
            let folder = path.strip_suffix(CONFIG);
            let is_read = folder.is_some_and(|folder| {
                folder.is_empty() || folder.strip_suffix('/').is_some_and(is_service_folder)
            });
            is_read && **path != own && !self.root.join(path).is_symlink()
        });
        configs.map(String::as_str)
    }
}

/// Whether a path from the root is that of a folder of `services/`.
fn is_service_folder(path: &str) -> bool {
    Path::new(path).parent() == Some(Path::new(SERVICES_FOLDER))
}
