//! What a rollout asks for: instances, probes, shares of traffic, measurements, news.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use shipway_analysis::plot::{deciding_series, sparkline};
use shipway_core::{
    address::EnvironmentAddresses,
    aggregate::Actor,
    check::SmokeReport,
    ids::ReleaseNumber,
    release::Release,
    rollout::{
        NoticeTone, Rollout, RolloutAggregate, RolloutEffect, RolloutInput, RolloutNotice,
        RolloutSpec, plan::PlanAction,
    },
    service,
    target::{ReplicaSetKey, ServiceEnvironment},
};
use shipway_drivers::{
    checks::smoke,
    notify::{Notification, NotificationSeverity, RetryPolicy, WebhookDestination},
    target::{await_ready, written_files_note},
};
use shipway_engine::{Driver, Work};

use super::{addresses, measure, readiness, rollout_group};
use crate::{
    app::{App, service_stream},
    read_models::analysis_series_until,
};

/// Moments of each side that a notification draws: both fit into a line of e-mail, and nearly into one of a telephone.
const PLOT_COLUMNS: usize = 20;

/// Carries out the effects of rollouts.
pub struct RolloutDriver(pub Weak<App>);

/// What a driver found: a note and smoke results, or why it can't be done.
type ActionOutcome = Result<(Option<String>, Option<SmokeReport>), (String, Option<SmokeReport>)>;

#[async_trait]
impl Driver<RolloutAggregate> for RolloutDriver {
    async fn carry_out(&self, work: Work<RolloutAggregate>) -> RolloutInput {
        let Some(app) = self.0.upgrade() else {
            return RolloutInput::Woken;
        };
        let Some(rollout) = work.state.0.as_deref() else {
            return RolloutInput::Woken;
        };
        match &work.effect {
            RolloutEffect::Carry {
                plan,
                index,
                action,
            } => {
                let (plan, index) = (*plan, *index);
                match carry(&app, rollout, action, &work).await {
                    Ok((note, smoke)) => RolloutInput::Done {
                        plan,
                        index,
                        note,
                        smoke,
                    },
                    Err((why, smoke)) => RolloutInput::Failed {
                        plan,
                        index,
                        why,
                        smoke,
                    },
                }
            }
            RolloutEffect::Measure {
                exposure,
                candidate,
                stable,
            } => {
                measure::run(&app, &work, rollout, *exposure, *candidate, *stable).await;
                RolloutInput::Woken
            }
            RolloutEffect::Fellows { with } => {
                rollout_group::watch(&app, &work, rollout, with).await
            }
            RolloutEffect::Guard { release, stable } => {
                let releases: Vec<_> = std::iter::once(*release).chain(*stable).collect();
                readiness::watch(&app, &work, &rollout_place(&rollout.spec), &releases).await
            }
            RolloutEffect::TellService { end, observed } => {
                app.live.forget(&rollout.spec.id);
                send_to_service(&app, rollout, end, observed).await
            }
            RolloutEffect::Notify {
                index,
                destination,
                notice,
            } => RolloutInput::Noticed {
                index: *index,
                destination: *destination,
                failed: notify(&app, rollout, (*index, notice), *destination)
                    .await
                    .err(),
            },
        }
    }
}

fn rollout_place(spec: &RolloutSpec) -> ServiceEnvironment {
    spec.release.service_environment(&spec.environment.name)
}

async fn carry(
    app: &Arc<App>,
    rollout: &Rollout,
    action: &PlanAction,
    work: &Work<RolloutAggregate>,
) -> ActionOutcome {
    let spec = &rollout.spec;
    let place = rollout_place(spec);
    let plain =
        |result: Result<(), String>| result.map(|()| (None, None)).map_err(|why| (why, None));
    match action {
        PlanAction::ClaimAddresses { addresses } => plain(
            addresses::claim(app, work, spec, addresses)
                .await
                .map_err(|error| error.to_string()),
        ),
        PlanAction::Start { release, count } => {
            let set = ReplicaSetKey {
                place: place.clone(),
                release: *release,
            };
            let (release, environment) = release_and_environment(spec, release.released())
                .ok_or_else(|| (format!("{release} is not of this rollout"), None))?;
            app.traffic.undrain(&place, set.release);
            let is_first_batch = !app.target.instances().iter().any(|it| it.id.set == set);
            app.target
                .ensure(&set, &release.launch(environment), *count)
                .await
                .map_err(|error| (error.to_string(), None))?;
            let note = match is_first_batch {
                true => note_of_stable_files(app, spec, &set).await,
                false => None,
            };
            Ok((note, None))
        }
        PlanAction::Await { release, count } => {
            let set = ReplicaSetKey {
                place,
                release: *release,
            };
            let deadline = spec.environment.progress_deadline;
            plain(
                await_ready(&*app.target, &set, *count, deadline, &work.cancelled)
                    .await
                    .map_err(|error| error.to_string()),
            )
        }
        PlanAction::Smoke { release } => {
            smoke_test(
                app,
                spec,
                &ReplicaSetKey {
                    place,
                    release: *release,
                },
            )
            .await
        }
        PlanAction::Shift { split } => {
            readiness::await_capacity(&*app.target, work, rollout, &place, split)
                .await
                .map_err(|error| (error.to_string(), None))?;
            let salt = spec.id.to_string();
            let addresses = served_addresses(app, spec).await;
            let traffic = &app.traffic;
            plain(
                traffic
                    .shift(&place, &spec.environment, &addresses, split, &salt)
                    .await
                    .map_err(|error| error.to_string()),
            )
        }
        PlanAction::Drain {
            release,
            keep,
            grace,
        } => {
            let drained = app.traffic.drain(&place, *release, *keep, *grace).await;
            let open = drained.map_err(|error| (error.to_string(), None))?;
            let left = match open {
                0 => None,
                1 => Some("1 request was still open after the grace period".to_owned()),
                _ => Some(format!(
                    "{open} requests were still open after the grace period"
                )),
            };
            Ok((left, None))
        }
        PlanAction::Stop { release, keep } => {
            let set = ReplicaSetKey {
                place: place.clone(),
                release: *release,
            };
            let stopped = app
                .target
                .stop(&set, *keep)
                .await
                .map_err(|error| (error.to_string(), None));
            app.traffic.undrain(&place, *release);
            Ok((stopped?.note(), None))
        }
        PlanAction::Promote { release } => {
            let set = ReplicaSetKey {
                place: place.clone(),
                release: *release,
            };
            readiness::await_promotable(&*app.target, work, rollout, &set)
                .await
                .map_err(|error| (error.to_string(), None))?;
            let input = service::ServiceInput::Promoted {
                rollout: spec.id.number,
                release: *release,
            };
            plain(promote(app, spec, *release, input).await)
        }
        PlanAction::Meet { with } => match rollout_group::meet(app, work, rollout, with).await {
            Ok(note) => Ok((Some(note), None)),
            Err(why) => Err((why, None)),
        },
        // Time and people carry these out.
        PlanAction::Hold { .. } | PlanAction::Ask { .. } => Ok((None, None)),
    }
}

/// What stable's instances wrote beside their code, said while there is time to save it.
async fn note_of_stable_files(
    app: &App,
    spec: &RolloutSpec,
    started: &ReplicaSetKey,
) -> Option<String> {
    let stable = ReplicaSetKey {
        place: started.place.clone(),
        release: spec.stable.as_ref()?.release.number,
    };
    if stable.release == started.release {
        return None;
    }
    let files = app.target.written_files(&stable).await;
    written_files_note(&files).map(|note| format!("{}: {note}", stable.release))
}

/// Declares a release stable, once its addresses are known to be its own; from then on it is reached there.
async fn promote(
    app: &Arc<App>,
    spec: &RolloutSpec,
    release: ReleaseNumber,
    input: service::ServiceInput,
) -> Result<(), String> {
    let verified = addresses::verify(app, spec, release).await;
    verified.map_err(|error| error.to_string())?;
    let by = Actor::Shipway(format!("rollout {}", spec.id.number));
    let stream = format!("service/{}", spec.id.service);
    let told = app.services.send(&stream, input, by).await;
    told.map_err(|error| error.to_string())?;
    let moved = app.move_addresses(&spec.id.service).await;
    moved.map_err(|error| error.to_string())
}

/// Where the environment of a rollout is reached now; at a first deployment, where the new release asks to be reached.
async fn served_addresses(app: &App, spec: &RolloutSpec) -> EnvironmentAddresses {
    let state = app.services.state(&service_stream(&spec.id.service)).await;
    let state = state.ok().flatten();
    let served = state.and_then(|state| state.served_addresses(&spec.environment.name));
    served.unwrap_or_else(|| EnvironmentAddresses::new(&rollout_place(spec), &spec.environment))
}

/// The release with this number and its own configuration of the rollout's environment.
fn release_and_environment(
    spec: &RolloutSpec,
    number: ReleaseNumber,
) -> Option<(&Release, &shipway_core::config::EnvironmentConfig)> {
    if spec.release.number == number {
        return Some((&spec.release, &spec.environment));
    }
    let stable = spec
        .stable
        .as_ref()
        .filter(|stable| stable.release.number == number)?;
    Some((
        &stable.release,
        stable.release.environment(&spec.environment.name)?,
    ))
}

async fn smoke_test(app: &Arc<App>, spec: &RolloutSpec, set: &ReplicaSetKey) -> ActionOutcome {
    let mut instances = Vec::new();
    for status in app.target.instances() {
        if status.id.set == *set && status.is_ready() {
            instances.push((status.id.to_string(), status.address));
        }
    }
    if instances.is_empty() {
        return Err(("no instance is ready to be tested".to_owned(), None));
    }
    let report = smoke::run_suite(
        &spec.environment.smoke,
        &instances,
        spec.environment.request_host(),
        &app.target.workdir(set),
    )
    .await;
    let sentence = report.summary();
    if report.failed() == 0 {
        Ok((Some(sentence), Some(report)))
    } else {
        Err((format!("smoke tests: {sentence}"), Some(report)))
    }
}

async fn send_to_service(
    app: &Arc<App>,
    rollout: &Rollout,
    end: &shipway_core::rollout::RolloutEnd,
    observed: &shipway_core::rollout::strategy::ObservedState,
) -> RolloutInput {
    let id = &rollout.spec.id;
    let input = service::ServiceInput::RolloutEnded {
        number: id.number,
        end: end.clone(),
        observed: observed.clone(),
    };
    match app
        .services
        .send(
            &format!("service/{}", id.service),
            input,
            Actor::Shipway(format!("rollout {}", id.number)),
        )
        .await
    {
        Ok(_) => {
            if let Err(error) = app.move_addresses(&id.service).await {
                // The next start of the server restores them from the log.
                tracing::warn!(%error, rollout = %id, "the routes of its service can't follow its addresses");
            }
            RolloutInput::Told
        }
        Err(error) => {
            tracing::error!(%error, rollout = %id, "the service could not be told");
            RolloutInput::Woken
        }
    }
}

/// Delivers a notice to one destination, with retries. A destination that is down delays only its own notices.
async fn notify(
    app: &Arc<App>,
    rollout: &Rollout,
    (index, notice): (usize, &RolloutNotice),
    destination: usize,
) -> Result<(), String> {
    let spec = &rollout.spec;
    let configured = &spec.environment.notify;
    let to = configured
        .get(destination)
        .ok_or_else(|| format!("`notify` has no entry {}", destination + 1))?;
    let to = app.destination(to)?;
    let notification = Notification {
        id: format!("{}-notice-{index}", spec.id),
        title: notice.title.clone(),
        text: notice.text.clone(),
        severity: match notice.tone {
            NoticeTone::Good => NotificationSeverity::Good,
            NoticeTone::Asking | NoticeTone::Neutral => NotificationSeverity::Info,
            NoticeTone::Bad => NotificationSeverity::Bad,
        },
        service: Some(spec.id.service.clone()),
        environment: Some(spec.environment.name.clone()),
        release: Some(spec.release.number),
        rollout: Some(spec.id.number),
        url: Some(format!(
            "{}/rollouts/{}/{}",
            app.url, spec.id.service, spec.id.number.0
        )),
        at: notice.at,
        plot: plot(app, rollout, notice).await,
        facts: vec![(
            "commit".to_owned(),
            format!(
                "{} {}",
                spec.release.commit.id.short(),
                spec.release.commit.subject
            ),
        )],
    };
    deliver(app, &to, &notification).await
}

/// What was measured until then of what the notice is about, in a line. News go out without it where it can't be read.
async fn plot(app: &Arc<App>, rollout: &Rollout, notice: &RolloutNotice) -> Option<String> {
    let all = analysis_series_until(app, &rollout.spec.id, notice.at)
        .await
        .unwrap_or_default();
    let metric = rollout.evidence.judgement().and_then(|it| it.metric);
    let line = sparkline(deciding_series(&all, metric)?, PLOT_COLUMNS);
    (!line.is_empty()).then_some(line)
}

pub(super) async fn deliver(
    app: &Arc<App>,
    to: &WebhookDestination,
    notification: &Notification,
) -> Result<(), String> {
    let policy = RetryPolicy::default();
    let mut failed = 0;
    loop {
        match app.notifier.send(to, notification).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                failed += 1;
                let wait = policy
                    .wait(failed, error.retry_after())
                    .filter(|_| error.is_retryable())
                    .ok_or_else(|| error.to_string())?;
                tracing::warn!(%error, "a notification is tried again");
                tokio::time::sleep(wait).await;
            }
        }
    }
}
