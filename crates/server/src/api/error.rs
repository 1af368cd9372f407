//! Errors as `application/problem+json` (RFC 9457): the problem and the next step.

use axum::{
    Json,
    body::to_bytes,
    extract::Request,
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_api::Problem;
use shipway_core::{
    forge::ForgeRejection, outbox::OutboxRejection, rollout, run, secret::SecretRejection, service,
    testing::QuarantineRejection,
};
use shipway_engine::{EngineError, StoreError};

use crate::{
    read_models::ReadModelError,
    retention::{ArtifactRequestError, PruneError},
};

/// An error of the API: a problem document as a response.
#[derive(Clone, Debug)]
pub struct ApiError(pub Problem);

impl ApiError {
    /// A problem of a status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self(Problem {
            r#type: "about:blank".to_owned(),
            title,
            status: status.as_u16(),
            detail: detail.into(),
        })
    }

    /// The same with a type that clients can tell from others of its status.
    pub fn with_type(mut self, problem_type: &str) -> Self {
        problem_type.clone_into(&mut self.0.r#type);
        self
    }

    /// 404.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer, Basic realm=\"shipway\""),
            );
        }
        response
    }
}

/// The most bytes of an error of axum that are repeated in the problem document.
const WORDS_MAX: usize = 4096;

/// Turns errors of axum itself (method not allowed, malformed body) into problem documents, the same form as errors of handlers.
pub(crate) async fn in_one_form(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(is_api && is_plain && response.status().is_client_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let words = to_bytes(body, WORDS_MAX).await.unwrap_or_default();
    let detail = if words.is_empty() {
        "method not allowed; see /api/openapi.json".to_owned()
    } else {
        String::from_utf8_lossy(&words).into_owned()
    };
    let mut told = ApiError::new(parts.status, detail).into_response();
    if let Some(allowed) = parts.headers.get(header::ALLOW) {
        told.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    told
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<ArtifactRequestError> for ApiError {
    fn from(error: ArtifactRequestError) -> Self {
        match error {
            ArtifactRequestError::Removed { .. } | ArtifactRequestError::Missing(_) => {
                Self::conflict(error.to_string())
            }
            ArtifactRequestError::Blob(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<PruneError> for ApiError {
    fn from(error: PruneError) -> Self {
        if matches!(error, PruneError::InProgress) {
            return Self::conflict(error.to_string());
        }
        tracing::error!(%error, "old files can't be removed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<ReadModelError> for ApiError {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::NoRun(_) | ReadModelError::NoRollout { .. } => {
                Self::missing(error.to_string())
            }
            ReadModelError::Store(error) => error.into(),
            ReadModelError::UnreadableRow { .. } | ReadModelError::Analysis(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

/// What a rejection means to a client.
pub trait RejectionStatus: std::error::Error {
    /// The HTTP status of this rejection.
    fn status(&self) -> StatusCode;
}

impl RejectionStatus for rollout::RolloutRejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotOpened => StatusCode::NOT_FOUND,
            Self::NotAllowed { .. } | Self::NoBreakGlass { .. } | Self::OwnReview { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NoReason(_) => StatusCode::BAD_REQUEST,
            Self::Frozen { .. }
            | Self::NoGlassBroken(_)
            | Self::OpenedAlready(_)
            | Self::Ended { .. }
            | Self::AbortAfterPromotion { .. }
            | Self::NoPendingApproval { .. }
            | Self::SubjectChanged { .. }
            | Self::RollingBack { .. } => StatusCode::CONFLICT,
        }
    }
}

impl RejectionStatus for SecretRejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSecret { .. } | Self::NoVariable { .. } => StatusCode::NOT_FOUND,
            Self::OtherVersion { .. } => StatusCode::PRECONDITION_FAILED,
            Self::TooMany => StatusCode::CONFLICT,
        }
    }
}

impl RejectionStatus for ForgeRejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotConnected => StatusCode::NOT_FOUND,
            Self::Repeated => StatusCode::CONFLICT,
            Self::TooMany(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl RejectionStatus for OutboxRejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoDeadLetter { .. } => StatusCode::NOT_FOUND,
        }
    }
}

impl RejectionStatus for service::ServiceRejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoService | Self::UnknownRun(_) => StatusCode::NOT_FOUND,
            Self::UnknownEnvironment { .. } | Self::NoConfig(_) | Self::NoRejectionReason(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Testing(QuarantineRejection::Free(_)) => StatusCode::NOT_FOUND,
            Self::Testing(QuarantineRejection::Touched { .. } | QuarantineRejection::Full) => {
                StatusCode::CONFLICT
            }
            Self::Testing(
                QuarantineRejection::Unsaid(_)
                | QuarantineRejection::End(_)
                | QuarantineRejection::CleanRuns(_),
            ) => StatusCode::BAD_REQUEST,
            Self::OtherRepository { .. }
            | Self::PullRequest(_)
            | Self::RolloutInProgress(_)
            | Self::RunInProgress(_)
            | Self::EnvironmentDeleted(_)
            | Self::ServiceDeleted
            | Self::MarkedBad { .. }
            | Self::ReleaseRejected { .. }
            | Self::BranchNotAccepted { .. }
            | Self::Busy { .. }
            | Self::NothingBefore { .. }
            | Self::StableAlready { .. } => StatusCode::CONFLICT,
        }
    }
}

impl RejectionStatus for run::RunRejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownJob { .. } => StatusCode::NOT_FOUND,
            Self::NotFromThere { .. }
            | Self::StepOfSeveral { .. }
            | Self::NoBreakGlassReason { .. } => StatusCode::BAD_REQUEST,
            Self::NotAllowed { .. } | Self::NoBreakGlass { .. } | Self::OwnReview { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NotOpen
            | Self::SubjectChanged { .. }
            | Self::NothingToOpen { .. }
            | Self::NoGlassBroken { .. }
            | Self::NoPendingApproval { .. }
            | Self::UnderWay(_)
            | Self::NothingFailed(_)
            | Self::NothingKept { .. }
            | Self::NoFailedStep { .. }
            | Self::NoneFailed { .. }
            | Self::JobUnderWay { .. }
            | Self::TooOften { .. }
            | Self::NoPlan { .. }
            | Self::Ended { .. } => StatusCode::CONFLICT,
        }
    }
}

impl<R: RejectionStatus> From<EngineError<R>> for ApiError {
    fn from(error: EngineError<R>) -> Self {
        match &error {
            EngineError::Rejected(refusal) => Self::new(refusal.status(), refusal.to_string()),
            _ => {
                tracing::error!(%error, "the engine failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        }
    }
}
