//! `promote_with`: services whose rollouts into an environment are promoted together or go back together.

use shipway_syntax::{Diagnostic, MappingFields};

use super::ServiceConfig;
use crate::ids::{EnvironmentName, ServiceName};

/// Services in a group, at most: each rollout looks at all the others.
const TIED_MAX: usize = 8;

/// `promote_with` of an environment of `service`.
pub(super) fn promote_with(
    fields: &MappingFields<'_>,
    service: Option<&str>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<ServiceName> {
    let mut tied: Vec<ServiceName> = Vec::new();
    if let Some(node) = fields.get("with") {
        problems.push(
            Diagnostic::warning("old-key", node.span, "`with` is now called `promote_with`")
                .help("rename the key"),
        );
    }
    let (old, new) = (
        fields.strings("with", problems),
        fields.strings("promote_with", problems),
    );
    for text in new.into_iter().chain(old) {
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
                format!("{name} can't be promoted with itself"),
                "name other services",
            );
        } else if tied.contains(&name) {
            refuse(format!("{name} is named twice"), "name each service once");
        } else if tied.len() + 1 == TIED_MAX {
            refuse(
                format!("more than {TIED_MAX} services are named"),
                "name fewer",
            );
        } else {
            tied.push(name);
        }
    }
    tied
}

/// Why a promotion group can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{environment}: `promote_with` names {service}, {}", .kind.text(.environment))]
pub struct PromotionGroupError {
    environment: EnvironmentName,
    service: ServiceName,
    kind: GroupProblem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum GroupProblem {
    NoService,
    NoEnvironment,
    /// The named service names others itself.
    Nested(Vec<ServiceName>),
}

impl GroupProblem {
    fn text(&self, environment: &EnvironmentName) -> String {
        match self {
            Self::NoService => {
                "and no such service exists here; push it first, or leave it out".to_owned()
            }
            Self::NoEnvironment => {
                format!("which has no environment {environment}; add one there, or leave it out")
            }
            Self::Nested(names) => {
                let names: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
                format!(
                    "whose own `promote_with` names {}; only one service of a group may name the others",
                    names.join(", ")
                )
            }
        }
    }
}

/// Checks the `promote_with` groups of a configuration against the other services of the server. `known` returns the configuration
/// of a service; `None` if there is no such service.
///
/// # Errors
///
/// [`PromotionGroupError`]: a named service or its environment is missing, or names a group itself.
pub fn check_promotion_groups<'k>(
    config: &ServiceConfig,
    known: impl Fn(&ServiceName) -> Option<&'k ServiceConfig>,
) -> Result<(), PromotionGroupError> {
    for environment in &config.environments {
        for name in &environment.promote_with {
            let error = |kind| PromotionGroupError {
                environment: environment.name.clone(),
                service: name.clone(),
                kind,
            };
            let other = known(name).ok_or_else(|| error(GroupProblem::NoService))?;
            let mut theirs = other.environments.iter();
            let theirs = theirs
                .find(|it| it.name == environment.name)
                .ok_or_else(|| error(GroupProblem::NoEnvironment))?;
            if !theirs.promote_with.is_empty() {
                let nested = theirs.promote_with.clone();
                return Err(error(GroupProblem::Nested(nested)));
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
        match named.map(|it| &it.promote_with) {
            Some(with) if !with.is_empty() => std::iter::once(&self.service)
                .chain(with)
                .cloned()
                .collect(),
            _ => Vec::new(),
        }
    }
}
