//! The HTTP API: requests and responses with their OpenAPI description, shared by the server that answers them and the clients that
//! send them.
//!
//! *Invariants.* A request that changes something refuses unknown fields. A read model of the core (`RolloutView`, `RunView`, …) is
//! its own wire type; what exists only on the wire is defined here. Nothing here does I/O: a client brings its own transport
//! ([`ApiClient`]).
#![allow(
    missing_docs,
    reason = "fields of wire types are documented where their name doesn't say it all"
)]

mod addresses;
mod audit;
mod business_events;
mod client;
mod delivery;
mod deploys;
mod environments;
mod forges;
mod health;
mod logs;
mod matrix;
mod notifications;
mod page;
mod problem;
mod prune;
mod releases;
mod rollouts;
mod runs;
mod secrets;
mod shell;
mod test_results;
mod time_bound;
mod users;

pub use addresses::AddressPage;
pub use audit::AuditListQuery;
pub use business_events::{BusinessEvent, BusinessEventReport, BusinessEventsCounted};
pub use client::{ApiClient, DEFAULT_SERVER_URL};
pub use delivery::DeliveryQuery;
pub use deploys::{DeployOutcome, DeployPlan, DeployRequest, PlanQuery, RollbackRequest};
pub use environments::{
    AcceptedDeletion, DeletionRequest, EnvironmentListQuery, EnvironmentStatus, ReleaseTraffic,
    ResumeEnvironmentRequest, ResumedEnvironment,
};
pub use forges::{ConnectForgeRequest, WebhookAnswer};
pub use health::{HealthReport, ReadinessChecks, ReadinessReasons, ReadinessReport};
pub use logs::{
    LogGrowth, LogLine, LogMatches, LogPlace, LogSearchQuery, LogStep, LogWindow, LogWindowQuery,
};
pub use matrix::{
    DeliveryMatrix, EnvironmentCell, MatrixHealth, MatrixQuery, MatrixRelease, MatrixResult,
    MatrixRollout, MatrixRun, MatrixService, MatrixState, MatrixStateCount,
};
pub use notifications::{QueuedTestMessage, ResendRequest};
pub use page::{Page, PageQuery};
pub use problem::Problem;
pub use prune::{PruneReport, PruneRequest, PrunedFiles, PrunedRelease};
pub use releases::{ListedRelease, ReleaseAction, ReleaseActionRequest, ReleaseListQuery};
pub use rollouts::{
    AnalysisReport, ApprovalLinkRequest, CreatedApprovalLink, LinkedDecision, RolloutAction,
    RolloutActionRequest, RolloutListQuery,
};
pub use runs::{
    ApprovalListQuery, CancelRunRequest, DispatchRequest, DispatchedRun, FailureSummary,
    JobGateAction, JobGateRequest, LogChunk, LogQuery, PendingApproval, RerunRequest, RunDetails,
    RunListQuery,
};
pub use secrets::{
    ImportSecretsRequest, RemoveValueRequest, RotateSecretKeyRequest, RotatedSecrets,
    SecretListQuery, SecretScopeQuery, SetSecretRequest, SetVariableRequest,
};
pub use shell::{ShellLocation, ShellRequest};
pub use test_results::{
    FailingTest, QuarantineRequest, ReleaseTestRequest, ReleasedTest, RunTests, ServiceTests,
};
pub use time_bound::{TimeBound, TimeBoundError};
pub use users::{
    CallerView, CreatedToken, EmptyRequest, ExternalAccountView, GroupRequest, GroupView,
    LoginRequest, LoginResult, NewGroupRequest, NewTokenRequest, NewUserRequest, PasswordRequest,
    TokenView, UserAction, UserProfileRequest, UserView,
};
