//! What a run asks for: workers for its jobs, and the service told when it is over.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use shipway_core::{
    aggregate::Actor,
    ids::{Digest, RunId},
    run::{
        Artifact, Effect, GateInput, Input, JobView, Run, RunSpec, RunView, Runs, State, Status,
        StepLine, Surroundings, job_spec,
    },
    service::{self, Purpose},
};
use shipway_drivers::jobs::JobError;
use shipway_engine::{Driver, StoreError, Work};
use shipway_workflow::job::{
    Conclusion, JobKey, JournalBody, JournalEntry, ServerAccess, SourceTree, StoredArtifact,
};

use super::annotations::PointedOut;
use crate::{
    app::{App, service_stream},
    testing,
};

/// Carries out the effects of runs.
pub struct RunDriver(pub Weak<App>);

#[async_trait]
impl Driver<Runs> for RunDriver {
    async fn carry_out(&self, work: Work<Runs>) -> Input {
        let Some(app) = self.0.upgrade() else {
            return Input::Woken;
        };
        let Some(spec) = work.state.0.as_deref().map(|run| run.spec.clone()) else {
            return Input::Woken;
        };
        match &work.effect {
            Effect::Gate(effect) => super::gate::carry_out(&app, &spec.id, effect).await,
            Effect::RunJob { key, attempt, stop } => {
                let folder = app.jobs.folder_of(&spec.id, key, *attempt);
                run_job(&app, &work, &spec, (key, folder), stop.as_deref()).await
            }
            Effect::TellService {
                conclusion,
                artifacts,
                ..
            } => {
                if let Some(run) = work.state.0.as_deref() {
                    testing::tell(&app, run).await;
                }
                let green = *conclusion == Conclusion::Success;
                let input = service::Input::RunEnded {
                    number: spec.id.number,
                    green,
                    conclusion: *conclusion,
                    artifacts: artifacts.clone(),
                };
                match app
                    .services
                    .send(
                        &service_stream(&spec.id.service),
                        input,
                        Actor::Shipway(format!("run {}", spec.id.number)),
                    )
                    .await
                {
                    Ok(_) => Input::Told,
                    Err(error) => {
                        tracing::error!(%error, run = %spec.id, "the service could not be told");
                        Input::Woken
                    }
                }
            }
        }
    }
}

async fn run_job(
    app: &Arc<App>,
    work: &Work<Runs>,
    run: &RunSpec,
    (key, folder): (&JobKey, PathBuf),
    stop: Option<&str>,
) -> Input {
    let ended = |conclusion, why: String| Input::JobEnded {
        key: key.clone(),
        conclusion,
        outputs: Vec::new(),
        why: Some(why),
    };
    let begun = app.jobs.has_begun(&folder);
    // Until it is over here.
    let _place = match stop {
        _ if begun => app.jobs.room().go_on(&folder),
        Some(why) => return ended(Conclusion::Cancelled, why.to_owned()),
        None => tokio::select! {
            place = app.jobs.room().enter(&folder) => place,
            () = work.cancelled.cancelled() => return Input::Woken,
        },
    };
    match stop {
        Some(_) => app.jobs.cancel(&folder),
        None if begun => {}
        None => {
            let around = match surroundings(app, &work.state, key, folder.clone()).await {
                Ok(around) => around,
                Err(why) => return ended(Conclusion::Failure, why),
            };
            let spec = match job_spec(&work.state, key, around) {
                Ok(spec) => spec,
                Err(why) => return ended(Conclusion::Failure, why),
            };
            if let Err(error) = app.jobs.start(&spec) {
                return ended(Conclusion::Failure, error.to_string());
            }
        }
    }
    let mut last = None;
    let mut names: BTreeMap<usize, String> = BTreeMap::new();
    let mut pointed_out = PointedOut::default();
    let mut journal = match app.jobs.journal(&folder) {
        Ok(journal) => journal,
        Err(error) => return ended(Conclusion::Failure, error.to_string()),
    };
    loop {
        match journal.next(&work.cancelled).await {
            Ok(Some(entry)) => {
                pointed_out.hear(&entry.body);
                if let Some(input) = heard(app, run, key, entry, &mut names, &mut last).await
                    && let Err(error) = work.report.send(input).await
                {
                    tracing::debug!(%error, run = %run.id, "what a worker said is not recorded");
                }
            }
            Ok(None) => {
                let input = Input::Annotated {
                    key: key.clone(),
                    annotations: pointed_out.worst_first(),
                };
                if let Err(error) = work.report.send(input).await {
                    tracing::debug!(%error, run = %run.id, "annotations are not recorded");
                }
                return last.unwrap_or_else(|| {
                    ended(Conclusion::Failure, "the journal has no end".to_owned())
                });
            }
            // The server stops, or the run wants something else of the job: whoever comes next follows the same journal.
            Err(JobError::Cancelled) => return Input::Woken,
            Err(error @ JobError::WorkerLost(_)) => {
                return Input::WorkerLost {
                    key: key.clone(),
                    why: error.to_string(),
                };
            }
            Err(error) => return ended(Conclusion::Failure, error.to_string()),
        }
    }
}

/// Keeps places for the jobs that go on from the last server.
pub async fn reserve_places(app: &App) -> Result<(), StoreError> {
    let mut cursor = None;
    loop {
        let page = app.store.rows("run", None, true, cursor, 1_000).await?;
        for row in page.rows {
            if let Ok(run) = serde_json::from_value::<RunView>(row.doc) {
                reserve_places_of(app, &run);
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

fn reserve_places_of(app: &App, run: &RunView) {
    let open = |job: &&JobView| matches!(job.status, Status::Queued | Status::Running);
    for job in run.jobs.iter().filter(open) {
        let Ok(key) = job.key.parse() else {
            continue;
        };
        let attempt = u32::try_from(job.earlier.len()).unwrap_or_default() + 1;
        let folder = app.jobs.folder_of(&run.id, &key, attempt);
        if app.jobs.is_at_work(&folder) {
            app.jobs.room().reserve(&folder);
        }
    }
}

/// What an entry of the journal means to the run. The last one is kept in `last`: it ends the effect.
async fn heard(
    app: &App,
    run: &RunSpec,
    key: &JobKey,
    entry: JournalEntry,
    names: &mut BTreeMap<usize, String>,
    last: &mut Option<Input>,
) -> Option<Input> {
    match entry.body {
        JournalBody::Started { .. } => Some(Input::JobStarted { key: key.clone() }),
        JournalBody::StepStarted { index, name, .. } => {
            names.insert(index, name);
            None
        }
        JournalBody::StepFinished {
            index,
            outcome,
            conclusion,
            took_ms,
            earlier,
            ..
        } => {
            let name = names.get(&index).cloned().unwrap_or_default();
            let step = StepLine {
                index,
                name,
                conclusion,
                outcome: (outcome != conclusion).then_some(outcome),
                took_ms,
                in_attempt: earlier.map(|earlier| earlier.attempt),
            };
            Some(Input::StepFinished {
                key: key.clone(),
                step,
            })
        }
        JournalBody::ArtifactSaved {
            name,
            path,
            digest,
            size,
        } => match store(app, &path, &digest).await {
            Ok(digest) => Some(Input::ArtifactStored {
                artifact: Artifact { name, digest, size },
            }),
            Err(why) => {
                tracing::error!(name, why, "an artifact could not be stored");
                None
            }
        },
        JournalBody::Finished {
            conclusion,
            outputs,
            why,
        } => {
            *last = Some(Input::JobEnded {
                key: key.clone(),
                conclusion,
                outputs,
                why,
            });
            None
        }
        JournalBody::EnvironmentUrl { url } => Some(Input::Gate(GateInput::UrlKnown {
            key: key.clone(),
            url,
        })),
        JournalBody::Reports(stored) => {
            let reported = match store(app, &stored.path, &stored.digest).await {
                Ok(digest) => testing::reported(app, run, key, *stored, digest).await,
                Err(why) => Err(why),
            };
            reported
                .inspect_err(|why| tracing::error!(%key, why, "a report of tests is lost"))
                .ok()
        }
        JournalBody::Resumed { .. }
        | JournalBody::Annotation { .. }
        | JournalBody::DeployAsked { .. } => None,
    }
}

/// Brings an artifact into the blobs. Read again after a crash, it is there already.
async fn store(app: &App, path: &std::path::Path, digest: &str) -> Result<Digest, String> {
    let digest: Digest = digest
        .parse()
        .map_err(|error: shipway_core::ids::ParseIdError| error.to_string())?;
    if app
        .blobs
        .size(&digest)
        .await
        .map_err(|error| error.to_string())?
        .is_some()
    {
        return Ok(digest);
    }
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| format!("{}: {error}", path.display()))?;
    app.blobs
        .put_expecting(Box::pin(file), &digest)
        .await
        .map(|stored| stored.digest)
        .map_err(|error| error.to_string())
}

/// What a job has around it: secrets among it, for the worker or for whoever may have them.
pub(crate) async fn surroundings(
    app: &App,
    state: &State,
    key: &JobKey,
    folder: std::path::PathBuf,
) -> Result<Surroundings, String> {
    let known = state.0.as_deref().ok_or("the run is not open")?;
    let run = &known.spec;
    let goes_on = known.jobs.get(key).and_then(|it| it.goes_on.as_ref());
    let git_dir = app
        .repos
        .get(&run.id.service)
        .map(|repo| repo.git_dir().to_owned())
        .ok_or_else(|| format!("{} has no repository here", run.id.service))?;
    let mut artifacts = Vec::new();
    for artifact in known.artifacts.clone() {
        let path = app
            .blobs
            .file(&artifact.digest)
            .await
            .map_err(|error| error.to_string())?;
        artifacts.push(StoredArtifact {
            name: artifact.name,
            digest: artifact.digest.to_string(),
            path,
        });
    }
    Ok(Surroundings {
        secrets: app.secrets.all().clone(),
        // A job that is started has passed the gates of its environment.
        environment_secrets: (environment(known, key))
            .map(|name| app.secrets.of_environment(name))
            .unwrap_or_default(),
        vars: BTreeMap::new(),
        env: tested_environment(app, &run.id, &run.purpose).await,
        folder,
        earlier: goes_on.map(|it| app.jobs.folder_of(&run.id, key, it.attempt)),
        source: SourceTree::Git {
            git_dir,
            commit: run.commit.id.to_string(),
            reference: run.reference.clone(),
        },
        artifacts,
        caches: Some(app.data.join("caches").join(run.id.service.as_str())),
        server: Some(ServerAccess {
            url: app.local_url.clone(),
            token: app.internal_token.clone(),
        }),
        actions: app.actions.clone(),
    })
}

/// The environment that a job goes to, by its `environment`.
fn environment<'a>(run: &'a Run, key: &JobKey) -> Option<&'a str> {
    let (_, cell) = run.cell(key)?;
    cell.gate.environment.as_deref()
}

/// Tests of an environment are told where it is.
async fn tested_environment(app: &App, run: &RunId, purpose: &Purpose) -> BTreeMap<String, String> {
    let Purpose::Tests {
        environment,
        release,
    } = purpose
    else {
        return BTreeMap::new();
    };
    let place = shipway_core::target::Place {
        service: run.service.clone(),
        environment: environment.clone(),
    };
    let addresses = app.addresses_of(&place).await;
    // A path is appended to it, and names below `localhost` don't resolve for every program.
    let local = addresses.local_url(app.proxy_address);
    let url = local.unwrap_or_else(|| addresses.url(app.proxy_address));
    BTreeMap::from([
        (
            "SHIPWAY_URL".to_owned(),
            url.trim_end_matches('/').to_owned(),
        ),
        ("SHIPWAY_ENVIRONMENT".to_owned(), environment.to_string()),
        ("SHIPWAY_RELEASE".to_owned(), release.0.to_string()),
    ])
}
