//! The pages of a release, and of the comparison of two.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use serde::Deserialize;
use shipway_api::RolloutListQuery;
use shipway_core::{
    access::{Resource, Verb},
    configuration_changes::compare_configurations,
    ids::{ReleaseNumber, RunId, ServiceName},
    release::Release,
    rollout::{RolloutStatus, RolloutView},
    service::{EnvironmentView, ServiceView},
};
use shipway_drivers::git::GitRepositories;
use shipway_engine::{Blobs, Clock, RowFilter, RowQuery, Store};
use shipway_pages::{ComparePage, ReleasePage, ReleasePlace, ReleasedCommits};

use super::{html, page_error::PageError};
use crate::{
    api::{Caller, rollouts::read_rollouts},
    delivery_engines::DeliveryEngines,
    read_models::{newest_rows, release, run_view},
    release_comparison::released_commits,
    retention::release_view,
};

/// Rollouts of a release that its page shows.
const ROLLOUTS_SHOWN: u32 = 50;
/// Environments whose commits are compared: each costs a walk through the history.
const COMPARED_ENVIRONMENTS: usize = 8;
/// Releases to choose from.
const CHOICES: u32 = 60;

/// The service of an address, if the caller may see its page.
async fn visible_service(
    store: &dyn Store,
    caller: &Caller,
    service: &str,
) -> Result<ServiceView, PageError> {
    let missing = || PageError::NotFound(format!("No such service: {service}."));
    let name = service.parse::<ServiceName>().map_err(|_| missing())?;
    caller.require(Verb::Browse, &Resource::Service(name))?;
    let row = store.row("service", service).await?.ok_or_else(missing)?;
    serde_json::from_value(row.doc).map_err(|_| missing())
}

/// Shows a release.
pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    State(blobs): State<Arc<dyn Blobs>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(repositories): State<Arc<GitRepositories>>,
    State(clock): State<Arc<dyn Clock>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, PageError> {
    let view = visible_service(&*store, &caller, &service).await?;
    let missing = || PageError::NotFound(format!("No such release: {service} {number}."));
    let number = number.parse::<ReleaseNumber>().map_err(|_| missing())?;
    let shown = release(&*store, &view.name, number)
        .await
        .ok_or_else(missing)?;
    let previous = match number.0.checked_sub(1) {
        Some(before) => release(&*store, &view.name, ReleaseNumber(before)).await,
        None => None,
    };
    let wanted = number.0.to_string();
    let query = RowQuery {
        service: Some(&service),
        filter: Some(RowFilter::Equals {
            path: "release",
            value: &wanted,
        }),
        limit: ROLLOUTS_SHOWN,
        ..RowQuery::new("rollout")
    };
    let rollouts = store.rows(query).await?.rows.into_iter();
    let rollouts = rollouts.filter_map(|row| serde_json::from_value(row.doc).ok());
    let rollouts: Vec<RolloutView> = rollouts.collect();
    let mut places = list_release_environments(&view, &shown, &rollouts);
    add_commits(&*store, &engines, &repositories, &shown, &mut places).await;
    let state = engines.service(&view.name).await?;
    for place in &mut places {
        let known = state
            .as_ref()
            .and_then(|it| it.environments.get(&place.environment));
        place.taken_out = known.and_then(|it| it.blocked_releases.get(&number).copied());
    }
    let is_artifact_removed = release_view(&*blobs, &shown).await.is_artifact_removed;
    let commits = released_commits(&engines, &repositories, previous.as_deref(), &shown).await;
    let page = ReleasePage {
        artifact_size: blobs.size(&shown.artifact).await.ok().flatten(),
        is_artifact_removed,
        artifact_name: artifact_name(&*store, &shown).await,
        rejected: view.rejected_releases.get(&number).cloned(),
        previous: previous.as_ref().map(|previous| previous.number),
        commits,
        changes: previous
            .as_ref()
            .map(|previous| compare_configurations(&previous.config, &shown.config))
            .unwrap_or_default(),
        environments: places,
        rollouts,
        release: (*shown).clone(),
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}

fn list_release_environments(
    view: &ServiceView,
    release: &Release,
    rollouts: &[RolloutView],
) -> Vec<ReleasePlace> {
    let place = |environment: &EnvironmentView| {
        let stable = environment.stable.as_ref().map(|stable| stable.number);
        let mut rollouts = rollouts.iter();
        let promoted = rollouts.find(|rollout| {
            rollout.environment == environment.name && rollout.status == RolloutStatus::Promoted
        });
        ReleasePlace {
            environment: environment.name.clone(),
            stable,
            since: environment.since,
            strategy: release
                .environment(&environment.name)
                .map(|config| config.strategy.keyword().to_owned()),
            replaced: match stable == Some(release.number) {
                true => promoted.and_then(|rollout| rollout.stable),
                false => stable,
            },
            commits: None,
            taken_out: None,
        }
    };
    view.environments.iter().map(place).collect()
}

/// Adds the commits since the release that it replaced, or would replace, in each environment where that is not the one before it.
async fn add_commits(
    store: &dyn Store,
    engines: &DeliveryEngines,
    repositories: &GitRepositories,
    shown: &Release,
    places: &mut [ReleasePlace],
) {
    for place in places.iter_mut().take(COMPARED_ENVIRONMENTS) {
        let other = place.replaced.filter(|it| it.0 + 1 != shown.number.0);
        let Some(replaced) = other.filter(|it| *it < shown.number) else {
            continue;
        };
        if let Some(old) = release(store, &shown.service, replaced).await {
            let commits = released_commits(engines, repositories, Some(&old), shown).await;
            place.commits = Some(commits);
        }
    }
}

/// The name of the artifact of a release at the run that has stored it.
async fn artifact_name(store: &dyn Store, shown: &Release) -> Option<String> {
    let id = RunId {
        service: shown.service.clone(),
        number: shown.run?,
    };
    let run = run_view(store, &id).await.ok()?;
    let mut artifacts = run.artifacts.into_iter();
    let artifact = artifacts.find(|artifact| artifact.digest == shown.artifact)?;
    Some(artifact.name)
}

/// Which releases are compared.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CompareParameters {
    from: String,
    to: String,
    /// With `since`: what serves in this environment now, and did not then.
    environment: String,
    since: String,
}

/// Shows the difference of two releases.
pub(super) async fn compare(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(repositories): State<Arc<GitRepositories>>,
    State(clock): State<Arc<dyn Clock>>,
    Path(service): Path<String>,
    Query(parameters): Query<CompareParameters>,
    caller: Caller,
) -> Result<Response, PageError> {
    let view = visible_service(&*store, &caller, &service).await?;
    let now = clock.now();
    let choices: Vec<Release> = newest_rows(&*store, "release", &service, CHOICES).await?;
    let chosen = choose_releases(&*store, &caller, &view, &parameters, now).await?;
    let find = async |number: Option<ReleaseNumber>| match number {
        Some(number) => release(&*store, &view.name, number).await,
        None => None,
    };
    let (from, to) = (find(chosen.from).await, find(chosen.to).await);
    let (mut commits, mut commits_lost) = <(ReleasedCommits, ReleasedCommits)>::default();
    let mut changes = Vec::new();
    if let (Some(from), Some(to)) = (&from, &to) {
        commits = released_commits(&engines, &repositories, Some(from), to).await;
        commits_lost = released_commits(&engines, &repositories, Some(to), from).await;
        changes = compare_configurations(&from.config, &to.config);
    }
    let page = ComparePage {
        service: view.name.clone(),
        releases: choices
            .iter()
            .map(|release| (release.number, release.commit.subject.clone()))
            .collect(),
        environments: view.environments.iter().map(|it| it.name.clone()).collect(),
        problem: missing_release(&chosen, &from, &to).or(chosen.problem),
        from: from.as_deref().cloned(),
        to: to.as_deref().cloned(),
        commits,
        commits_lost,
        changes,
        now,
    };
    Ok(html(page.to_html()))
}

/// The releases that a query names.
#[derive(Debug, Default)]
struct ChosenReleases {
    from: Option<ReleaseNumber>,
    to: Option<ReleaseNumber>,
    problem: Option<String>,
}

fn missing_release<T>(chosen: &ChosenReleases, from: &Option<T>, to: &Option<T>) -> Option<String> {
    let numbers = [(chosen.from, from.is_some()), (chosen.to, to.is_some())];
    let missing = numbers
        .into_iter()
        .find(|(number, is_there)| number.is_some() && !is_there);
    let (number, _) = missing?;
    Some(format!("There is no release {}.", number?))
}

async fn choose_releases(
    store: &dyn Store,
    caller: &Caller,
    view: &ServiceView,
    parameters: &CompareParameters,
    now: jiff::Timestamp,
) -> Result<ChosenReleases, PageError> {
    if parameters.environment.is_empty() {
        let first = view.environments.first().and_then(|it| it.stable.as_ref());
        let last = view.environments.last().and_then(|it| it.stable.as_ref());
        return Ok(ChosenReleases {
            from: parameters.from.parse().ok().or(last.map(|it| it.number)),
            to: parameters.to.parse().ok().or(first.map(|it| it.number)),
            problem: None,
        });
    }
    let problem = |text: String| ChosenReleases {
        problem: Some(text),
        ..ChosenReleases::default()
    };
    let mut environments = view.environments.iter();
    let environment = environments.find(|it| it.name.as_str() == parameters.environment);
    let Some(environment) = environment else {
        return Ok(problem("This service has no such environment.".to_owned()));
    };
    let Some(stable) = &environment.stable else {
        return Ok(problem(format!(
            "Nothing is deployed to {}.",
            environment.name
        )));
    };
    let since = match parameters.since.parse() {
        Ok(since) => since,
        Err(error) => return Ok(problem(format!("{error}"))),
    };
    let query = RolloutListQuery {
        service: Some(view.name.to_string()),
        environment: Some(environment.name.to_string()),
        state: Some(RolloutStatus::Promoted),
        until: Some(since),
        limit: Some(1),
        ..RolloutListQuery::default()
    };
    let page = read_rollouts(store, &caller.visible_services(), now, &query).await?;
    let before = page.items.into_iter().next();
    let before = before.and_then(|doc| serde_json::from_value::<RolloutView>(doc).ok());
    let from = before.map(|rollout| rollout.release);
    Ok(ChosenReleases {
        problem: match from {
            None => Some(format!(
                "Nothing was deployed to {} then: all of {} is new.",
                environment.name, stable.number
            )),
            Some(from) if from == stable.number => Some(format!(
                "{} served in {} then too: nothing is new.",
                stable.number, environment.name
            )),
            Some(_) => None,
        },
        from,
        to: Some(stable.number),
    })
}
