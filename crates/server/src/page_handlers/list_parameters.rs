//! The query of a list's page. A form sends all its fields, so that an empty one means none.

use serde::{Deserialize, de::DeserializeOwned};
use shipway_api::{
    ApprovalListQuery, AuditListQuery, ReleaseListQuery, RolloutListQuery, RunListQuery, TimeBound,
    TimeBoundError,
};
use shipway_pages::ListFilters;

/// Entries on a page.
const ENTRIES: u32 = 50;

/// What a person has filled in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListParameters {
    service: String,
    state: String,
    environment: String,
    branch: String,
    person: String,
    since: String,
    until: String,
    cursor: String,
}

/// A value that can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListParameterError {
    #[error("{0:?} is not a state of this list")]
    State(String),
    #[error(transparent)]
    Time(#[from] TimeBoundError),
    #[error("{0:?} is not a cursor of this list; start at its first page")]
    Cursor(String),
}

fn given(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.chars().take(200).collect())
}

impl ListParameters {
    pub(super) fn filters(&self) -> ListFilters {
        let shown = |text: &str| given(text).unwrap_or_default();
        ListFilters {
            service: shown(&self.service),
            state: shown(&self.state),
            environment: shown(&self.environment),
            branch: shown(&self.branch),
            person: shown(&self.person),
            since: shown(&self.since),
            until: shown(&self.until),
            problem: None,
            next: None,
        }
    }

    pub(super) fn service(&self) -> Option<&str> {
        let service = self.service.trim();
        (!service.is_empty()).then_some(service)
    }

    fn state<T: DeserializeOwned>(&self) -> Result<Option<T>, ListParameterError> {
        let Some(text) = given(&self.state) else {
            return Ok(None);
        };
        let parsed = serde_json::from_value(text.clone().into());
        parsed
            .map(Some)
            .map_err(|_| ListParameterError::State(text))
    }

    fn time(text: &str) -> Result<Option<TimeBound>, ListParameterError> {
        let parsed = given(text).map(|text| text.parse()).transpose();
        Ok(parsed?)
    }

    fn cursor(&self) -> Result<Option<u64>, ListParameterError> {
        let Some(text) = given(&self.cursor) else {
            return Ok(None);
        };
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| ListParameterError::Cursor(text))
    }

    pub(super) fn run_query(&self) -> Result<RunListQuery, ListParameterError> {
        Ok(RunListQuery {
            service: given(&self.service),
            state: self.state()?,
            branch: given(&self.branch),
            person: given(&self.person),
            since: Self::time(&self.since)?,
            until: Self::time(&self.until)?,
            live: false,
            limit: Some(ENTRIES),
            cursor: self.cursor()?,
        })
    }

    pub(super) fn rollout_query(&self) -> Result<RolloutListQuery, ListParameterError> {
        Ok(RolloutListQuery {
            service: given(&self.service),
            environment: given(&self.environment),
            state: self.state()?,
            person: given(&self.person),
            since: Self::time(&self.since)?,
            until: Self::time(&self.until)?,
            live: false,
            limit: Some(ENTRIES),
            cursor: self.cursor()?,
        })
    }

    pub(super) fn release_query(&self) -> Result<ReleaseListQuery, ListParameterError> {
        Ok(ReleaseListQuery {
            service: given(&self.service),
            branch: given(&self.branch),
            person: given(&self.person),
            since: Self::time(&self.since)?,
            until: Self::time(&self.until)?,
            limit: Some(ENTRIES),
            cursor: self.cursor()?,
        })
    }

    pub(super) fn audit_query(&self) -> Result<AuditListQuery, ListParameterError> {
        Ok(AuditListQuery {
            service: given(&self.service),
            person: given(&self.person),
            since: Self::time(&self.since)?,
            until: Self::time(&self.until)?,
            limit: Some(ENTRIES),
            cursor: self.cursor()?,
        })
    }

    pub(super) fn approval_query(&self) -> Result<ApprovalListQuery, ListParameterError> {
        Ok(ApprovalListQuery {
            service: given(&self.service),
            environment: given(&self.environment),
            person: given(&self.person),
            since: Self::time(&self.since)?,
            until: Self::time(&self.until)?,
            limit: Some(ENTRIES),
            cursor: self.cursor()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_filter_nothing_and_wrong_ones_are_named() {
        let empty = ListParameters::default();
        let query = empty.run_query().unwrap();
        assert!(query.service.is_none() && query.state.is_none() && query.cursor.is_none());
        for (state, since, cursor, expected) in [
            ("<x>", "", "", "\"<x>\" is not a state"),
            ("", "soon", "", "\"soon\" is not a valid time"),
            ("", "", "-1", "\"-1\" is not a cursor"),
            ("", "", "99999999999999999999", "is not a cursor"),
        ] {
            let parameters = ListParameters {
                state: state.to_owned(),
                since: since.to_owned(),
                cursor: cursor.to_owned(),
                ..ListParameters::default()
            };
            let error = parameters.rollout_query().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
