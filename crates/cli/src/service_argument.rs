//! The service that a command applies to: the named one, else that of the nearest `shipway.yaml`, else the only one of the server.

use std::path::{Path, PathBuf};

use shipway_api::ApiClient;
use shipway_core::{
    config::parse_service_name,
    ids::{ParseIdError, ServiceName},
};
use shipway_syntax::SourceFile;

use crate::{client::ServerConnection, exit::Failure};

const CONFIG: &str = "shipway.yaml";

/// The service as the first argument.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgument {
    /// The service (default: that of the nearest shipway.yaml, in this folder or above)
    service: Option<String>,
}

/// The service as an option, of commands whose first argument is something else.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceOption {
    /// The service (default: that of the nearest shipway.yaml, in this folder or above)
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

impl ServiceArgument {
    /// Resolves the service.
    pub fn resolve(&self, server: &ServerConnection) -> Result<String, Failure> {
        resolve_service(server, self.service.as_deref())
    }
}

impl ServiceOption {
    /// Resolves the service.
    pub fn resolve(&self, server: &ServerConnection) -> Result<String, Failure> {
        resolve_service(server, self.service.as_deref())
    }
}

/// The named service, else the default one.
pub fn resolve_service(server: &ServerConnection, named: Option<&str>) -> Result<String, Failure> {
    let name = match named {
        Some(name) => name
            .parse()
            .map_err(|error: ParseIdError| Failure::usage(error.to_string()))?,
        None => default_service(server)?,
    };
    Ok(name.to_string())
}

/// The service of the folder, else the only one of the server.
pub fn default_service(server: &ServerConnection) -> Result<ServiceName, Failure> {
    let folder = find_folder_service()?;
    let services = server.services()?;
    let names: Vec<ServiceName> = services.into_iter().map(|service| service.name).collect();
    let known = names.iter().map(ServiceName::as_str).collect::<Vec<_>>();
    let known = known.join(", ");
    match (folder, names.as_slice()) {
        (Some(folder), names) if names.contains(&folder.name) => Ok(folder.name),
        (Some(folder), []) => Err(Failure::usage_with(
            format!(
                "the server has no service {}: it has no services yet",
                folder.describe()
            ),
            format!(
                "push it: git push {}/git/{} HEAD",
                server.server, folder.name
            ),
        )),
        (Some(folder), _) => Err(Failure::usage_with(
            format!("the server has no service {}", folder.describe()),
            format!(
                "name one of {known} in the command, or push this one: git push {}/git/{} HEAD",
                server.server, folder.name
            ),
        )),
        (None, [service]) => Ok(service.clone()),
        (None, []) => Err(Failure::usage_with(
            "this server has no services yet",
            "push a commit with a shipway.yaml, as `shipway init` writes it",
        )),
        (None, [first, ..]) => Err(Failure::usage_with(
            format!("several services on this server ({known}): name one"),
            format!(
                "name one in the command (in an id: {first}/ro7), or run it in the folder of the service's {CONFIG}"
            ),
        )),
    }
}

/// The service of the working directory, and the file that names it.
#[derive(Debug, PartialEq, Eq)]
pub struct FolderService {
    /// Its name.
    pub name: ServiceName,
    file: PathBuf,
}

impl FolderService {
    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.file.display())
    }
}

/// The service of the nearest `shipway.yaml`, in the working directory or above.
pub fn find_folder_service() -> Result<Option<FolderService>, Failure> {
    let folder = std::env::current_dir().map_err(|error| Failure::usage(error.to_string()))?;
    let Some(file) = find_config(&folder) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let source = SourceFile::new(file.display().to_string(), text);
    match parse_service_name(&source) {
        Ok(name) => Ok(Some(FolderService { name, file })),
        Err(errors) => {
            let first = errors.first().map(|error| error.one_line(&source));
            Err(Failure::usage_with(
                first.unwrap_or_default(),
                "correct the file, or name the service in the command",
            ))
        }
    }
}

/// The nearest `shipway.yaml`, not above the root of the repository.
fn find_config(folder: &Path) -> Option<PathBuf> {
    for folder in folder.ancestors() {
        let file = folder.join(CONFIG);
        if file.is_file() {
            return Some(file);
        }
        if folder.join(".git").exists() {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_file_counts_and_none_above_the_repository() {
        let base = tempfile::tempdir().unwrap();
        let (root, cart) = (
            base.path().join("repo"),
            base.path().join("repo/services/cart"),
        );
        let other = root.join("services/other");
        fs::create_dir_all(cart.join("src")).unwrap();
        fs::create_dir_all(&other).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::write(base.path().join(CONFIG), "service: outside\n").unwrap();
        fs::write(cart.join(CONFIG), "service: cart\n").unwrap();
        assert_eq!(find_config(&cart.join("src")), Some(cart.join(CONFIG)));
        assert_eq!(find_config(&other), None);
        fs::write(root.join(CONFIG), "service: whole\n").unwrap();
        assert_eq!(find_config(&other), Some(root.join(CONFIG)));
        assert_eq!(find_config(&cart), Some(cart.join(CONFIG)));
    }
}
