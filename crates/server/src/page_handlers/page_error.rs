//! Why a page can't be shown.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use shipway_drivers::jobs::JobError;
use shipway_engine::StoreError;

use shipway_pages::{not_found_page, refused_action_page};

use super::html;
use crate::{api::ApiError, read_models::ReadModelError, run_page::RunPageError};

/// Why a page can't be shown.
pub(super) enum PageError {
    NotFound(String),
    Failed(ApiError),
}

impl From<ReadModelError> for PageError {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::NoRun(_) | ReadModelError::NoRollout { .. } => {
                Self::NotFound(error.to_string())
            }
            ReadModelError::UnreadableRow { .. }
            | ReadModelError::Store(_)
            | ReadModelError::Analysis(_) => Self::Failed(error.into()),
        }
    }
}

impl From<RunPageError> for PageError {
    fn from(error: RunPageError) -> Self {
        match error {
            RunPageError::ReadModel(error) => error.into(),
            RunPageError::Log(error) => error.into(),
        }
    }
}

impl From<JobError> for PageError {
    fn from(error: JobError) -> Self {
        Self::Failed(ApiError::conflict(error.to_string()))
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ApiError> for PageError {
    fn from(problem: ApiError) -> Self {
        Self::Failed(problem)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound(reason) => {
                (StatusCode::NOT_FOUND, html(not_found_page(&reason))).into_response()
            }
            Self::Failed(problem) => {
                let page = refused_action_page(&problem.0.detail, "/");
                let status = problem.into_response().status();
                (status, html(page)).into_response()
            }
        }
    }
}
