//! A `shipway.yaml` among the others of its repository: whether a push reads it, and whether its name is its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use shipway_core::{config::parse_service_name, repository::SERVICES_FOLDER};
use shipway_syntax::{Diagnostic, SourceFile};

use super::artifacts::key_span;

/// The name of the configuration.
const CONFIG: &str = "shipway.yaml";
/// Files of a service that are compared with the filters of workflows.
const FILES_MAX: usize = 5_000;

/// Where a `shipway.yaml` is in its git repository.
pub(super) struct ConfigLocation {
    root: PathBuf,
    /// From the root; empty for the root itself.
    folder: PathBuf,
}

impl ConfigLocation {
    /// None outside of git repositories.
    pub(super) fn find(config: &Path) -> Option<Self> {
        let folder = match config.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let absolute = folder.canonicalize().ok()?;
        let mut above = absolute.ancestors();
        let root = above.find(|folder| folder.join(".git").exists())?;
        let folder = absolute.strip_prefix(root).ok()?.to_owned();
        let root = root.to_owned();
        Some(Self { root, folder })
    }

    /// Whether it is one of several services of its repository.
    pub(super) fn is_nested(&self) -> bool {
        self.folder.parent() == Some(Path::new(SERVICES_FOLDER))
    }

    /// What a push finds wrong with the place or the name of the file.
    pub(super) fn problems(&self, source: &SourceFile) -> Vec<Diagnostic> {
        let is_root = self.folder == Path::new("");
        if !is_root && !self.is_nested() {
            let is_below_services = self.folder.starts_with(SERVICES_FOLDER);
            return is_below_services
                .then(|| unread(source))
                .into_iter()
                .collect();
        }
        let Ok(name) = parse_service_name(source) else {
            return Vec::new();
        };
        let others = self.other_configs().into_iter();
        let same = others.filter(|other| {
            let text = fs::read_to_string(self.root.join(other)).unwrap_or_default();
            let other = SourceFile::new(CONFIG, text);
            parse_service_name(&other).is_ok_and(|other| other == name)
        });
        let repeated = same.map(|other| {
            let message = format!(
                "{} names the service {name} too: neither is released",
                other.display()
            );
            let span = key_span(source, "service");
            Diagnostic::error("repeated-service", span, message)
                .help("give each service its own name")
        });
        repeated.collect()
    }

    /// The other files that a push reads, from the root.
    fn other_configs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join(SERVICES_FOLDER)).into_iter();
        let folders = entries.flatten().flatten();
        let nested = folders.map(|entry| Path::new(SERVICES_FOLDER).join(entry.file_name()));
        let mut all: Vec<PathBuf> = nested.chain([PathBuf::new()]).collect();
        all.retain(|folder| {
            *folder != self.folder && self.root.join(folder).join(CONFIG).is_file()
        });
        all.sort();
        all.iter().map(|folder| folder.join(CONFIG)).collect()
    }

    /// The files of the folder, from the root of the repository.
    pub(super) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(self.root.join(&folder)).into_iter();
            for entry in entries.flatten().flatten() {
                let path = folder.join(entry.file_name());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(path),
                    Ok(_) => files.extend(path.to_str().map(str::to_owned)),
                    Err(_) => {}
                }
                if files.len() >= FILES_MAX {
                    return files;
                }
            }
        }
        files
    }
}

fn unread(source: &SourceFile) -> Diagnostic {
    let message = format!(
        "a push does not read this file: only {CONFIG} and {SERVICES_FOLDER}/*/{CONFIG} are services"
    );
    let help = format!("move its folder to {SERVICES_FOLDER}/");
    Diagnostic::warning("unread-service", key_span(source, "service"), message).help(help)
}
