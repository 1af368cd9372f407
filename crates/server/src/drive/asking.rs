//! Providers of metrics, asked beside the reading of the proxy's counters: a slow one holds up nobody.
//!
//! Each source has a task that asks about both releases for the same moment, once in its interval. A task asks one question
//! at a time, each ends within its timeout, and all end with the measuring.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use shipway_analysis::{Answer, Name};
use shipway_core::{
    config::{Query, Source},
    ids::ReleaseNumber,
    rollout::Rollout,
    target::SetKey,
};
use shipway_drivers::metrics::About;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::app::App;

/// The last answers for both sides.
type Answers = Arc<Mutex<BTreeMap<Name, (Answer, Option<Answer>)>>>;

/// Asks until it is dropped.
pub(super) struct Asking {
    answers: Answers,
    _tasks: JoinSet<()>,
}

/// What a task asks about.
#[derive(Clone)]
struct Sides {
    canary: About,
    stable: Option<About>,
    set: SetKey,
}

impl Asking {
    pub(super) fn begin(
        app: &Arc<App>,
        rollout: &Rollout,
        candidate: ReleaseNumber,
        stable: Option<ReleaseNumber>,
    ) -> Self {
        let environment = &rollout.spec.environment;
        let place = rollout.spec.release.place(&environment.name);
        let about = |release: ReleaseNumber| About {
            release: release.released().0,
            stable: stable.map(|stable| stable.released().0),
            service: place.service.to_string(),
            environment: place.environment.to_string(),
        };
        let sides = Sides {
            canary: about(candidate),
            stable: stable.map(about),
            set: SetKey {
                place: place.clone(),
                release: candidate,
            },
        };
        let answers = Answers::default();
        let mut tasks = JoinSet::new();
        let asked = environment.sources.iter();
        for source in asked.filter(|source| source.query != Query::Events) {
            tasks.spawn(ask(
                app.clone(),
                source.clone(),
                sides.clone(),
                answers.clone(),
            ));
        }
        Self {
            answers,
            _tasks: tasks,
        }
    }

    /// The last answers for the canary.
    pub(super) fn of_canary(&self) -> Vec<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.values().map(|(canary, _)| canary.clone()).collect()
    }

    /// The last answers for stable.
    pub(super) fn of_stable(&self) -> Vec<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers
            .values()
            .filter_map(|(_, stable)| stable.clone())
            .collect()
    }
}

async fn ask(app: Arc<App>, source: Source, sides: Sides, answers: Answers) {
    let mut ticks = tokio::time::interval(source.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let workdir = app.target.workdir(&sides.set);
    let environment = sides.canary.environment.clone();
    let secrets = |name: &str| app.secrets.get_in(&environment, name).map(str::to_owned);
    // A query that names stable compares by itself.
    let stable = sides.stable.as_ref().filter(|_| !source.query.compares());
    loop {
        ticks.tick().await;
        let at = app.now();
        let about = |about| app.providers.ask(&source, about, at, &workdir, &secrets);
        let of_stable = async {
            match stable {
                Some(stable) => Some(about(stable).await),
                None => None,
            }
        };
        let (canary, stable) = tokio::join!(about(&sides.canary), of_stable);
        let answer = |said: Result<f64, String>| match said {
            Ok(value) => Answer::value(source.metric, at, value),
            Err(why) => Answer::unknown(source.metric, at, why),
        };
        let said = (answer(canary), stable.map(answer));
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(source.metric, said);
    }
}
