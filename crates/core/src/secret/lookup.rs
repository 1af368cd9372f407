//! Which value a name has in an environment of a service.

use std::collections::BTreeMap;

use super::{SecretName, SecretScope, SecretState, ValueSet};
use crate::{
    ids::{EnvironmentName, ServiceName},
    sealed_value::SealedValue,
};

/// The values that a service sees: its own and those of all services.
#[derive(Clone, Copy)]
pub struct SecretScopes<'a> {
    pub service: &'a ServiceName,
    pub own: Option<&'a SecretState>,
    pub of_all_services: Option<&'a SecretState>,
}

/// A secret with the place it is set in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSecret<'a> {
    pub scope: SecretScope,
    pub version: u32,
    pub value: &'a SealedValue,
}

impl<'a> SecretScopes<'a> {
    /// The secrets that are visible outside of environments. A service's own come before those of all services.
    #[must_use]
    pub fn shared_secrets(self) -> BTreeMap<&'a SecretName, FoundSecret<'a>> {
        self.secrets_in(None)
    }

    /// The secrets that are set for one environment. They come before shared ones of the same name.
    #[must_use]
    pub fn environment_secrets(
        self,
        environment: &EnvironmentName,
    ) -> BTreeMap<&'a SecretName, FoundSecret<'a>> {
        self.secrets_in(Some(environment))
    }

    /// The secret of a name as an environment sees it.
    #[must_use]
    pub fn find_secret(
        self,
        environment: Option<&EnvironmentName>,
        name: &SecretName,
    ) -> Option<FoundSecret<'a>> {
        let places = [environment, None];
        let places = if environment.is_some() {
            &places[..]
        } else {
            &places[1..]
        };
        places.iter().find_map(|place| {
            let found = |(scope, values): (SecretScope, &'a ValueSet)| {
                let (version, value) = values.secret(name)?;
                Some(FoundSecret {
                    scope,
                    version,
                    value,
                })
            };
            self.sets(*place).into_iter().rev().find_map(found)
        })
    }

    /// The variables as an environment sees them.
    #[must_use]
    pub fn variables(self, environment: Option<&EnvironmentName>) -> BTreeMap<String, String> {
        let shared = self.sets(None);
        let specific = environment.map(|name| self.sets(Some(name)));
        let sets = shared.into_iter().chain(specific.into_iter().flatten());
        let variables = sets.flat_map(|(_, values)| &values.variables);
        variables
            .map(|(name, variable)| (name.to_string(), variable.value.clone()))
            .collect()
    }

    fn secrets_in(
        self,
        environment: Option<&EnvironmentName>,
    ) -> BTreeMap<&'a SecretName, FoundSecret<'a>> {
        let mut found = BTreeMap::new();
        for (scope, values) in self.sets(environment) {
            for name in values.secrets.keys() {
                if let Some((version, value)) = values.secret(name) {
                    let scope = scope.clone();
                    let secret = FoundSecret {
                        scope,
                        version,
                        value,
                    };
                    found.insert(name, secret);
                }
            }
        }
        found
    }

    /// The sets of values of a place; the later ones come first.
    fn sets(self, environment: Option<&EnvironmentName>) -> Vec<(SecretScope, &'a ValueSet)> {
        let states = [
            (None, self.of_all_services),
            (Some(self.service.clone()), self.own),
        ];
        let sets = states.into_iter().filter_map(|(service, state)| {
            let scope = SecretScope {
                service,
                environment: environment.cloned(),
            };
            Some((scope, state?.values(environment)?))
        });
        sets.collect()
    }
}
