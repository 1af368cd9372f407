//! Going back to an earlier release because somebody asks for it.

use std::sync::Arc;

use super::{
    decide::Decider,
    event::{Body, Force, Onward, Rejection, Request, Way},
    releasable::known_environment,
};
use crate::{ids::EnvironmentName, release::Release, rollout::Kind};

impl Decider {
    /// Back to a release that was good here: at once where it was lately, by the strategy where it wasn't.
    pub(super) fn roll_back(
        &mut self,
        environment: &EnvironmentName,
        to: Option<Arc<Release>>,
        force: Force,
        why: String,
    ) -> Result<(), Rejection> {
        let Some(place) = self.state.environments.get(environment) else {
            let known = self
                .state
                .environments
                .keys()
                .map(EnvironmentName::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Rejection::UnknownEnvironment {
                release: self.state.last_release,
                environment: environment.to_string(),
                known,
            });
        };
        if let Some(active) = place.active.as_ref() {
            let back_to = active
                .spec
                .stable
                .as_ref()
                .map(|stable| stable.release.number);
            let wanted = to.as_ref().map(|release| release.number);
            if back_to.is_some() && (wanted.is_none() || wanted == back_to) {
                let number = active.spec.id.number;
                self.emit(Body::WayAsked {
                    number,
                    way: Way::Back {
                        by: self.by.clone(),
                        reason: why,
                    },
                });
                return Ok(());
            }
        }
        let release = to.or_else(|| place.former.back().cloned()).ok_or_else(|| {
            Rejection::NothingBefore {
                environment: environment.clone(),
            }
        })?;
        known_environment(&release, environment)?;
        if force == Force::No && place.bad.contains(&release.number) {
            return Err(Rejection::MarkedBad {
                release: release.number,
                environment: environment.clone(),
            });
        }
        let (kind, why) = match self.outside(environment, &release) {
            None => (Kind::Rollback, why),
            Some(outside) => (Kind::Deploy, format!("{why}; {outside}")),
        };
        self.request(Request {
            kind,
            by: self.asked_by(&release),
            release,
            environment: environment.clone(),
            onward: Onward::Stay,
            why,
        });
        Ok(())
    }

    /// Why a release can't come back without steps and analysis, if it can't.
    fn outside(&self, environment: &EnvironmentName, release: &Release) -> Option<String> {
        let place = self.state.environments.get(environment)?;
        let number = release.number;
        if place.stable.as_ref().is_some_and(|it| it.number == number) {
            return None;
        }
        let position = place.former.iter().rev().position(|it| it.number == number);
        let Some(position) = position else {
            return Some(format!(
                "{number} was not good here lately, so it goes in by its strategy"
            ));
        };
        let config = self.state.config.as_deref();
        let known = config.and_then(|config| {
            config
                .environments
                .iter()
                .find(|it| it.name == *environment)
        });
        let window = known.and_then(|it| it.rollback_window).unwrap_or_default();
        let left = place.left.get(&number).copied();
        (!window.holds(position + 1, left, self.now)).then(|| {
            format!(
                "{number} is outside the rollback window ({window}), so it goes in by its strategy"
            )
        })
    }
}
