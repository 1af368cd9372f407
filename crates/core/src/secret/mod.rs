//! Secrets and variables that users set: encrypted values for one service or for all, for one environment or for all.
//!
//! # Why
//!
//! Who changed a secret, and which job received it, are questions after an incident. So changes and uses are events, and the values in
//! them are sealed ([`crate::sealed_value`]): the log can be read and exported without a secret in it.
//!
//! # Invariants
//!
//! - One stream for each service, and one for the values of all services. A change of several values is one event.
//! - Versions of a secret only grow, also after it was removed: a use names its version.
//! - Names are upper case, as on GitHub.

mod decide;
mod dotenv;
mod event;
mod lookup;
mod name;
mod state;
#[cfg(test)]
mod tests;
mod view;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use decide::{SecretInput, SecretRejection};
pub use dotenv::{DotenvError, parse_dotenv};
pub use event::{SealedSecret, SecretEvent, SecretUser, UsedSecret};
pub use lookup::{FoundSecret, SecretScopes};
pub use name::{ParseSecretNameError, SecretName};
pub use state::{SecretChange, SecretState, StoredSecret, StoredVariable, ValueSet};
pub use view::{SecretUseView, SecretView, VariableView, secret_views, variable_views};

use crate::{
    aggregate::{Actor, Aggregate, Event, PendingWork, ViewRow},
    ids::{EnvironmentName, ServiceName},
};

/// Secrets and variables in each of a service's places, at most.
pub const VALUES_MAX: usize = 1_000;
/// Bytes of a value at most, as on GitHub.
pub const VALUE_BYTES_MAX: usize = 48 * 1024;

/// The aggregate of secrets and variables.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct SecretAggregate;

/// Secrets ask nothing of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEffect {}

/// Where a secret or a variable is visible.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretScope {
    /// One service; none for all services.
    pub service: Option<ServiceName>,
    /// One environment; none for all environments.
    pub environment: Option<EnvironmentName>,
}

impl SecretScope {
    /// The stream of its values. No service can be named `@all`.
    #[must_use]
    pub fn stream(&self) -> String {
        secret_stream(self.service.as_ref())
    }

    /// What a secret of this scope is sealed for.
    #[must_use]
    pub fn sealing_purpose(&self, name: &SecretName) -> String {
        let environment = self.environment.as_ref().map_or("", |it| it.as_str());
        format!("secret {} {environment} {name}", self.stream())
    }
}

impl std::fmt::Display for SecretScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.service {
            Some(service) => f.write_str(service.as_str())?,
            None => f.write_str("all services")?,
        }
        match &self.environment {
            Some(environment) => write!(f, " in {environment}"),
            None => Ok(()),
        }
    }
}

/// The stream of a service's values; none: of the values of all services.
#[must_use]
pub fn secret_stream(service: Option<&ServiceName>) -> String {
    let kind = SecretAggregate::KIND;
    service.map_or_else(|| format!("{kind}/@all"), |it| format!("{kind}/{it}"))
}

impl Aggregate for SecretAggregate {
    const KIND: &'static str = "secrets";
    type State = SecretState;
    type Body = SecretEvent;
    type Input = SecretInput;
    type Effect = SecretEffect;
    type Rejection = SecretRejection;

    fn decide(
        state: &SecretState,
        input: SecretInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<SecretEvent>>, SecretRejection> {
        decide::decide(state, input, by, now)
    }

    fn apply(state: &mut SecretState, event: &Event<SecretEvent>) {
        state.apply(event);
    }

    fn pending(_state: &SecretState, _now: Timestamp) -> PendingWork<SecretEffect> {
        PendingWork::nothing()
    }

    fn rows(_state: &SecretState, _events: &[Event<SecretEvent>]) -> Vec<ViewRow> {
        Vec::new()
    }

    fn timer_fired() -> SecretInput {
        SecretInput::TimerFired
    }
}
