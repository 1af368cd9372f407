//! `with`: services whose rollouts into an environment are promoted together or go back together.

use shipway_syntax::{Diagnostic, MappingFields};

use super::ServiceConfig;
use crate::ids::{EnvironmentName, ServiceName};

/// Services in a group, at most: each rollout looks at all the others.
const TIED_MAX: usize = 8;

/// `with` of an environment of `service`.
pub(super) fn with(
    fields: &MappingFields<'_>,
    service: Option<&str>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<ServiceName> {
    let mut tied: Vec<ServiceName> = Vec::new();
    for text in fields.strings("with", problems) {
        let mut refuse = |why: String, help: &str| {
            problems.push(Diagnostic::error("bad-value", text.span, why).help(help.to_owned()));
        };
        let name = match text.value.parse::<ServiceName>() {
            Ok(name) => name,
            Err(error) => {
                refuse(error.to_string(), "name other services of this server");
                continue;
            }
        };
        if service == Some(name.as_str()) {
            refuse(
                format!("{name} can't be tied to itself"),
                "name other services",
            );
        } else if tied.contains(&name) {
            refuse(format!("{name} is named twice"), "name each service once");
        } else if tied.len() + 1 == TIED_MAX {
            refuse(
                format!("more than {TIED_MAX} services are tied"),
                "tie fewer",
            );
        } else {
            tied.push(name);
        }
    }
    tied
}

/// Checks the `with:` groups of a configuration against the other services of the server. `known` gives the configuration of a
/// service; `None` if there is no such service.
pub fn check_ties<'k>(
    config: &ServiceConfig,
    known: impl Fn(&ServiceName) -> Option<&'k ServiceConfig>,
) -> Result<(), String> {
    for environment in &config.environments {
        for name in &environment.with {
            let of = &environment.name;
            let Some(other) = known(name) else {
                return Err(format!(
                    "{of}: `with` names {name}, and there is no such service here; push it first, or leave it out"
                ));
            };
            let Some(theirs) = other.environments.iter().find(|it| it.name == *of) else {
                return Err(format!(
                    "{of}: `with` names {name}, which has no environment {of}; add one there, or leave it out"
                ));
            };
            if !theirs.with.is_empty() {
                let names: Vec<&str> = theirs.with.iter().map(ServiceName::as_str).collect();
                return Err(format!(
                    "{of}: `with` names {name}, whose own `with` names {}; one service of a group names all the others",
                    names.join(", ")
                ));
            }
        }
    }
    Ok(())
}

impl ServiceConfig {
    /// The whole group of `environment`: this service, and those that it names; empty where it names none.
    #[must_use]
    pub fn group(&self, environment: &EnvironmentName) -> Vec<ServiceName> {
        let named = self.environments.iter().find(|it| it.name == *environment);
        match named.map(|it| &it.with) {
            Some(with) if !with.is_empty() => std::iter::once(&self.service)
                .chain(with)
                .cloned()
                .collect(),
            _ => Vec::new(),
        }
    }
}
