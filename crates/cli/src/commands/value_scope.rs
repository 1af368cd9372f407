//! Where a secret or a variable is visible, as options of their commands.

use shipway_core::ids::{EnvironmentName, ServiceName};

use crate::{
    client::ServerConnection,
    exit::Failure,
    service_argument::{default_service, find_folder_service},
};

/// The place of a secret or a variable.
#[derive(Debug, clap::Args)]
pub struct ValueScope {
    /// The service (default: that of the nearest shipway.yaml, in this folder or above)
    #[arg(long, value_name = "SERVICE", conflicts_with = "all_services")]
    service: Option<ServiceName>,
    /// For all services of the server
    #[arg(long)]
    all_services: bool,
    /// Only in this environment
    #[arg(long, value_name = "ENV")]
    env: Option<EnvironmentName>,
}

impl ValueScope {
    /// The service; none for all services. It may have no release yet: secrets are set before the first push.
    pub fn service(&self, server: &ServerConnection) -> Result<Option<String>, Failure> {
        if self.all_services {
            return Ok(None);
        }
        if let Some(service) = &self.service {
            return Ok(Some(service.to_string()));
        }
        let name = match find_folder_service()? {
            Some(folder) => folder.name,
            None => default_service(server)?,
        };
        Ok(Some(name.to_string()))
    }

    /// The environment; none for all environments.
    pub fn environment(&self) -> Option<&str> {
        self.env.as_ref().map(EnvironmentName::as_str)
    }
}

/// `shop in production`.
pub fn describe_scope(service: Option<&str>, environment: Option<&str>) -> String {
    let service = service.unwrap_or("all services");
    environment.map_or_else(|| service.to_owned(), |it| format!("{service} in {it}"))
}
