//! A rollback or an abort that a person asked for holds an environment until a person resumes it.

use jiff::Timestamp;

use super::{
    ServiceDecider, event::ServiceEvent, hold::EnvironmentHold, rejection::ServiceRejection,
    state::EnvironmentState,
};
use crate::{aggregate::Actor, ids::EnvironmentName};

impl ServiceDecider {
    /// Holds an environment for a person. Asked again with the same words it changes nothing.
    pub(super) fn hold(&mut self, environment: &EnvironmentName, by: &Actor, reason: &str) {
        match by {
            Actor::Person { .. } => {}
            Actor::Shipway(_) | Actor::Workload { .. } | Actor::Push { .. } => return,
        }
        let place = self.state.environments.get(environment);
        let is_same = place
            .and_then(|place| place.hold.as_ref())
            .is_some_and(|hold| hold.by == by.to_string() && hold.reason == reason);
        if !is_same {
            self.emit_by(
                by.clone(),
                ServiceEvent::EnvironmentHeld {
                    environment: environment.clone(),
                    reason: reason.to_owned(),
                },
            );
        }
    }

    /// Ends the hold of an environment. Where there is none, nothing changes.
    pub(super) fn resume(
        &mut self,
        environment: EnvironmentName,
        reason: Option<String>,
    ) -> Result<(), ServiceRejection> {
        let Some(place) = self.state.environments.get(&environment) else {
            return Err(self.unknown_environment(&environment));
        };
        if place.hold.is_some() {
            self.emit(ServiceEvent::EnvironmentResumed {
                environment: environment.clone(),
                reason,
            });
            self.end_warm_set_for_next(&environment);
        }
        Ok(())
    }

    /// The refusal of an environment that the service does not have.
    pub(super) fn unknown_environment(&self, environment: &EnvironmentName) -> ServiceRejection {
        let names = self.state.environments.keys().map(EnvironmentName::as_str);
        ServiceRejection::UnknownEnvironment {
            release: self.state.last_release,
            environment: environment.to_string(),
            known: names.collect::<Vec<_>>().join(", "),
        }
    }

    /// One fact more, caused by `by` instead of the caller.
    fn emit_by(&mut self, by: Actor, body: ServiceEvent) {
        let caller = std::mem::replace(&mut self.by, by);
        self.emit(body);
        self.by = caller;
    }
}

impl EnvironmentState {
    /// Folds in that a person holds it.
    pub(super) fn set_hold(&mut self, since: Timestamp, by: &Actor, reason: &str) {
        self.hold = Some(EnvironmentHold {
            since,
            by: by.to_string(),
            reason: reason.to_owned(),
        });
    }
}
