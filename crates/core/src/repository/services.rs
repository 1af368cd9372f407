//! Which services a commit has.

use std::collections::BTreeMap;

use super::ServiceLocation;
use crate::ids::ServiceName;

/// The folder whose folders are services of a repository with several.
pub const SERVICES_FOLDER: &str = "services";

/// Services of one repository. Each push reads the files of all of them, so the number bounds what a push costs.
pub const SERVICES_MAX: usize = 100;

/// A `shipway.yaml` of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundConfig {
    /// Its folder; empty for the root.
    pub folder: String,
    /// The service that it names; none if that can't be read.
    pub service: Option<ServiceName>,
}

/// A service of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedService {
    pub service: ServiceName,
    pub location: ServiceLocation,
}

impl LocatedService {
    /// What events record: nothing for the root, where services have always been.
    #[must_use]
    pub fn recorded_location(&self) -> Option<ServiceLocation> {
        Some(self.location.clone()).filter(|location| !location.is_root())
    }
}

/// The services of a commit, and why others are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryServices {
    /// By name, but a service with the repository's name is the last one: once it knows of a push, all others do.
    pub services: Vec<LocatedService>,
    pub problems: Vec<RepositoryProblem>,
}

/// Why services of a commit are left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryProblem {
    /// The newer file may be a copy of the older, so neither is used.
    #[error(
        "{} name the same service: {service}; it is not released until each has its own name", .files.join(" and ")
    )]
    NamedTwice {
        service: ServiceName,
        files: Vec<String>,
    },
    /// A limit that leaves out some of them would stop their releases silently.
    #[error(
        "{SERVICES_FOLDER}/ has {count} services, but a repository may have {SERVICES_MAX}: nothing of this push is released; move some to another repository"
    )]
    TooMany { count: usize },
}

impl RepositoryServices {
    /// The services of a commit of `repository` that has these files. Without any file it has the service at its root, whose missing
    /// configuration is reported.
    #[must_use]
    pub fn from_files(repository: &ServiceName, found: Vec<FoundConfig>) -> Self {
        let is_root = |file: &&FoundConfig| file.folder.is_empty();
        let nested = found.iter().filter(|file| !is_root(file)).count();
        if nested > SERVICES_MAX {
            return Self {
                services: Vec::new(),
                problems: vec![RepositoryProblem::TooMany { count: nested }],
            };
        }
        let mut folders: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
        if nested == 0 || found.iter().any(|file| file.folder.is_empty()) {
            folders.insert(repository.clone(), vec![String::new()]);
        }
        for file in found.into_iter().filter(|file| !file.folder.is_empty()) {
            if let Some(service) = file.service {
                folders.entry(service).or_default().push(file.folder);
            }
        }
        let mut services = Self::default();
        for (service, folders) in folders {
            services.add(repository, service, folders);
        }
        (services.services).sort_by_key(|located| located.service == *repository);
        services
    }

    fn add(&mut self, repository: &ServiceName, service: ServiceName, folders: Vec<String>) {
        let mut locations: Vec<_> = folders
            .into_iter()
            .map(|folder| ServiceLocation {
                repository: repository.clone(),
                folder,
            })
            .collect();
        match locations.len() {
            1 => {
                let location = locations.remove(0);
                self.services.push(LocatedService { service, location });
            }
            _ => {
                let files = locations.iter().map(ServiceLocation::config_path);
                let files = files.collect();
                (self.problems).push(RepositoryProblem::NamedTwice { service, files });
            }
        }
    }

    /// Whether it is a repository of one service at its root.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.problems.is_empty()
            && matches!(self.services.as_slice(), [only] if only.location.is_root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(files: &[(&str, Option<&str>)]) -> Vec<String> {
        let found = files.iter().map(|(folder, service)| FoundConfig {
            folder: (*folder).to_owned(),
            service: service.map(|name| name.parse().unwrap()),
        });
        let found = RepositoryServices::from_files(&"mono".parse().unwrap(), found.collect());
        let located = found.services.iter();
        let located = located.map(|it| format!("{} {}", it.service, it.location.config_path()));
        let problems = found.problems.iter().map(ToString::to_string);
        located.chain(problems).collect()
    }

    #[test]
    fn a_repository_has_the_service_at_its_root_and_those_below_services() {
        assert_eq!(services(&[]), ["mono shipway.yaml"]);
        assert_eq!(services(&[("", Some("shop"))]), ["mono shipway.yaml"]);
        let several = [
            ("services/b", Some("cart")),
            ("services/a", Some("till")),
            ("", Some("mono")),
        ];
        assert_eq!(
            services(&several),
            [
                "cart services/b/shipway.yaml",
                "till services/a/shipway.yaml",
                "mono shipway.yaml"
            ]
        );
        assert_eq!(
            services(&[("services/mono", Some("mono")), ("services/z", Some("z"))]),
            [
                "z services/z/shipway.yaml",
                "mono services/mono/shipway.yaml"
            ]
        );
    }

    #[test]
    fn a_file_without_a_name_keeps_no_other_from_its_release() {
        let files = [("services/a", None), ("services/b", Some("cart"))];
        assert_eq!(services(&files), ["cart services/b/shipway.yaml"]);
        assert_eq!(services(&[("services/a", None)]), [""; 0]);
    }

    #[test]
    fn two_files_of_one_service_release_neither() {
        let files = [
            ("services/a", Some("cart")),
            ("services/b", Some("cart")),
            ("services/c", Some("mono")),
            ("services/d", Some("till")),
            ("", None),
        ];
        assert_eq!(
            services(&files),
            [
                "till services/d/shipway.yaml",
                "services/a/shipway.yaml and services/b/shipway.yaml name the same service: cart; it is not released until each has its own name",
                "shipway.yaml and services/c/shipway.yaml name the same service: mono; it is not released until each has its own name",
            ]
        );
    }

    #[test]
    fn too_many_services_release_nothing() {
        let names: Vec<_> = (0..1_000)
            .map(|number| (format!("services/s{number}"), format!("s{number}")))
            .collect();
        let files = |count: usize| -> Vec<String> {
            let files = names.iter().take(count);
            let files: Vec<_> = files
                .map(|(folder, name)| (folder.as_str(), Some(name.as_str())))
                .collect();
            services(&files)
        };
        assert_eq!(files(100).len(), 100);
        assert_eq!(
            files(1_000),
            [
                "services/ has 1000 services, but a repository may have 100: nothing of this push is released; move some to another repository"
            ]
        );
    }
}
