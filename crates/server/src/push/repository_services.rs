//! The services of a commit: one by the `shipway.yaml` at the root of the repository, and those of the folders below `services/`.

use shipway_core::{
    config,
    ids::ServiceName,
    repository::{FoundConfig, RepositoryServices, SERVICES_FOLDER, SERVICES_MAX, ServiceLocation},
};
use shipway_drivers::git::FolderEntry;
use shipway_syntax::SourceFile;
use tokio::task::block_in_place;

use super::{
    PushError,
    commit_files::{CommitFile, CommitFiles, shown},
};

/// The services of a commit. Files that can't be used are added to the problems, one line for each.
pub(super) async fn find_services(
    files: &mut CommitFiles<'_>,
    repository: &ServiceName,
    problems: &mut Vec<String>,
) -> Result<RepositoryServices, PushError> {
    let mut found = Vec::new();
    let root = ServiceLocation::root(repository.clone());
    if !matches!(files.read(&root.config_path()).await?, CommitFile::Missing) {
        found.push(FoundConfig {
            folder: String::new(),
            service: Some(repository.clone()),
        });
    }
    let configs = nested_configs(files, repository, problems).await?;
    // Of too many no file is read.
    let is_read = configs.len() <= SERVICES_MAX;
    for location in configs {
        let service = match is_read {
            true => read_name(files, &location, problems).await?,
            false => None,
        };
        let folder = location.folder;
        found.push(FoundConfig { folder, service });
    }
    let services = RepositoryServices::from_files(repository, found);
    let refused = services.problems.iter();
    problems.extend(refused.map(|problem| format!("✗ {problem}")));
    Ok(services)
}

/// The folders of `services/` that have a `shipway.yaml`.
async fn nested_configs(
    files: &CommitFiles<'_>,
    repository: &ServiceName,
    problems: &mut Vec<String>,
) -> Result<Vec<ServiceLocation>, PushError> {
    let entries = files
        .repo
        .list_folder(files.commit, SERVICES_FOLDER)
        .await?;
    let folders = entries.into_iter().filter_map(|entry| match entry {
        FolderEntry::Folder(folder) => Some(ServiceLocation {
            repository: repository.clone(),
            folder,
        }),
        FolderEntry::File(_) | FolderEntry::Link(_) => None,
    });
    let locations: Vec<_> = folders.collect();
    let paths: Vec<String> = locations.iter().map(ServiceLocation::config_path).collect();
    let entries = files.repo.find_entries(files.commit, &paths).await?;
    let mut configs = Vec::new();
    for entry in entries {
        match entry {
            FolderEntry::File(path) => {
                let location = locations.iter().find(|it| it.config_path() == path);
                configs.extend(location.cloned());
            }
            FolderEntry::Link(path) => problems.push(format!(
                "✗ {} is a symbolic link, which is not followed; put the file itself there",
                shown(&path)
            )),
            FolderEntry::Folder(path) => {
                problems.push(format!("✗ {} is a folder, not a file", shown(&path)));
            }
        }
    }
    Ok(configs)
}

async fn read_name(
    files: &mut CommitFiles<'_>,
    location: &ServiceLocation,
    problems: &mut Vec<String>,
) -> Result<Option<ServiceName>, PushError> {
    let path = location.config_path();
    let text = match files.read(&path).await? {
        CommitFile::Read(text) => text,
        CommitFile::Missing => return Ok(None),
        CommitFile::Unusable(why) => {
            problems.push(format!("✗ {} is not used: {why}", shown(&path)));
            return Ok(None);
        }
    };
    let source = SourceFile::new(shown(&path), text);
    match block_in_place(|| config::parse_service_name(&source)) {
        Ok(service) => Ok(Some(service)),
        Err(errors) => {
            problems.extend(errors.iter().map(|error| error.one_line(&source)));
            problems.push(format!(
                "✗ {}: its service is not known, so nothing of it is released",
                shown(&path)
            ));
            Ok(None)
        }
    }
}
