//! The overview: the release, the health and the rollout of each environment of each service.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::{CommitId, EnvironmentName, ReleaseNumber, RolloutId, RolloutNumber, RunId, ServiceName},
    rollout::{RolloutKind, RolloutOutcome, RolloutPause, RolloutStatus},
    run::RunStatus,
    service::{EnvironmentHold, RequestedDeletion},
    weight::Weight,
};
use utoipa::{IntoParams, ToSchema};

/// Which services of the overview.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MatrixQuery {
    /// Only services whose name, release, commit or people contain this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Only services that have an environment in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<MatrixState>,
    /// Only this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// A state of an environment on the overview. An environment may be in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatrixState {
    /// Its instances are not all ready, or the last rollout or run did not succeed.
    Red,
    /// A rollout is in progress.
    Moving,
    /// A rollout waits for an approval, or is paused.
    Waiting,
    /// Automatic promotion is stopped until a person resumes it.
    Held,
    /// It serves, all instances are ready and the last results are good.
    Healthy,
    /// Nothing was deployed yet.
    Empty,
}

impl MatrixState {
    /// Those that need a person come first.
    pub const ALL: [Self; 6] = [
        Self::Red,
        Self::Held,
        Self::Waiting,
        Self::Moving,
        Self::Healthy,
        Self::Empty,
    ];

    /// As it is in a query.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Moving => "moving",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Healthy => "healthy",
            Self::Empty => "empty",
        }
    }
}

/// All services with what runs in their environments.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DeliveryMatrix {
    /// The environments as columns, in the order of promotion; the most common ones if there are many. A service may have others.
    #[schema(value_type = Vec<String>)]
    pub columns: Vec<EnvironmentName>,
    /// How many environments are in each state.
    pub counts: Vec<MatrixStateCount>,
    /// Ordered by name.
    pub services: Vec<MatrixService>,
}

/// The number of environments in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatrixStateCount {
    pub state: MatrixState,
    pub environments: u32,
}

/// A service with its environments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatrixService {
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// Of the newest runs of its workflows, the one that needs attention most.
    pub last_run: Option<MatrixRun>,
    /// In the order of promotion.
    pub environments: Vec<EnvironmentCell>,
}

/// A run on the overview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatrixRun {
    #[schema(value_type = String)]
    pub id: RunId,
    #[schema(value_type = String)]
    pub status: RunStatus,
    pub workflow: String,
    /// When it ended, or else when it was created.
    #[schema(value_type = String)]
    pub at: Timestamp,
}

/// An environment of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentCell {
    #[schema(value_type = String)]
    pub environment: EnvironmentName,
    pub states: Vec<MatrixState>,
    /// The release that serves.
    pub release: Option<MatrixRelease>,
    /// Since when it serves.
    #[schema(value_type = Option<String>)]
    pub serves_since: Option<Timestamp>,
    pub health: MatrixHealth,
    /// The problem, unless it is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The rollout in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<MatrixRollout>,
    /// The last rollout that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollout: Option<MatrixResult>,
    /// Set while automatic promotion into it is stopped: since when, by whom and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub hold: Option<EnvironmentHold>,
    /// Releases that wait for a rollout in progress to end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<u32>)]
    pub queue: Vec<ReleaseNumber>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub deletion: Option<RequestedDeletion>,
}

/// The release that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatrixRelease {
    #[schema(value_type = u32)]
    pub number: ReleaseNumber,
    #[schema(value_type = String)]
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
}

/// The health of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatrixHealth {
    /// All instances of the release that serves are ready.
    Healthy,
    /// Some are not ready.
    Degraded,
    /// No target reports instances of it.
    Unknown,
    /// Nothing was deployed yet.
    Empty,
}

/// A rollout in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatrixRollout {
    #[schema(value_type = String)]
    pub id: RolloutId,
    #[schema(value_type = String)]
    pub kind: RolloutKind,
    #[schema(value_type = String)]
    pub status: RolloutStatus,
    /// The release that it rolls out.
    #[schema(value_type = u32)]
    pub release: ReleaseNumber,
    /// The share of traffic that the release has, in basis points.
    #[schema(value_type = u32)]
    pub weight: Weight,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub paused: Option<RolloutPause>,
}

/// The result of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatrixResult {
    #[schema(value_type = u32)]
    pub number: RolloutNumber,
    #[schema(value_type = u32)]
    pub release: ReleaseNumber,
    #[schema(value_type = String)]
    pub outcome: RolloutOutcome,
    pub why: String,
    #[schema(value_type = String)]
    pub at: Timestamp,
}

impl MatrixService {
    /// Whether an environment is in this state.
    #[must_use]
    pub fn is_in(&self, state: MatrixState) -> bool {
        let mut cells = self.environments.iter();
        cells.any(|cell| cell.states.contains(&state))
    }

    /// Whether its name, a release, a commit or a person contains a text in lower case.
    #[must_use]
    pub fn contains_text(&self, text: &str) -> bool {
        let has = |value: &str| value.to_lowercase().contains(text);
        has(self.service.as_str())
            || self.environments.iter().any(|cell| {
                let release = cell.release.as_ref().is_some_and(|release| {
                    release.commit.to_string().starts_with(text)
                        || has(&release.subject)
                        || release.number.to_string() == text
                });
                release
                    || cell.hold.as_ref().is_some_and(|hold| has(&hold.by))
                    || cell.rollout.as_ref().is_some_and(|it| has(&it.by))
            })
    }
}

impl MatrixQuery {
    /// Whether a service matches the query.
    #[must_use]
    pub fn matches(&self, service: &MatrixService) -> bool {
        let text = self.q.as_deref().unwrap_or_default().trim().to_lowercase();
        self.state.is_none_or(|state| service.is_in(state))
            && self
                .service
                .as_ref()
                .is_none_or(|name| service.service.as_str() == name)
            && (text.is_empty() || service.contains_text(&text))
    }
}
