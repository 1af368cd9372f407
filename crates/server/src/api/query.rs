//! Query parameters: an unknown one is refused. `?relese=3` would otherwise be a question about another release, or a change of
//! one. What each address takes is read from the description of the API, so that no handler has to care and none can be forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    extract::{MatchedPath, Query, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_syntax::nearest;
use utoipa::openapi::{
    OpenApi, RefOr,
    path::{Operation, Parameter, ParameterIn},
};

use super::error::ApiError;

/// The query parameters of each method and address.
pub(crate) struct QueryParameters(BTreeMap<(Method, String), BTreeSet<String>>);

impl QueryParameters {
    pub(crate) fn new(description: &OpenApi) -> Self {
        let operations = operations(description).into_iter();
        let named = |operation: &Operation| {
            let parameters = operation.parameters.iter().flatten();
            let name = |parameter: &RefOr<Parameter>| match parameter {
                RefOr::T(it) if it.parameter_in == ParameterIn::Query => Some(it.name.clone()),
                RefOr::T(_) | RefOr::Ref(_) => None,
            };
            parameters.filter_map(name).collect()
        };
        Self(
            operations
                .map(|(method, path, operation)| ((method, path.to_owned()), named(operation)))
                .collect(),
        )
    }

    /// Refuses the first parameter that this address doesn't take. Addresses outside of the description take none.
    fn check(&self, method: &Method, path: &str, request: &Request) -> Result<(), ApiError> {
        // A HEAD is answered by the handler of its GET.
        let method = match *method {
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
            return Err(ApiError::bad_request("the query can't be read"));
        };
        let none = BTreeSet::new();
        let known = self.0.get(&(method, path.to_owned())).unwrap_or(&none);
        let Some((unknown, _)) = given.iter().find(|(name, _)| !known.contains(name)) else {
            return Ok(());
        };
        let help = match nearest(unknown, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "this endpoint has none".to_owned(),
            None => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                format!("the known ones are {}", known.join(", "))
            }
        };
        let shown: String = unknown.chars().take(100).collect();
        Err(ApiError::bad_request(format!(
            "unknown query parameter `{shown}`; {help}"
        )))
    }
}

/// The operations of a description: method, address and what it says of them.
pub(super) fn operations(description: &OpenApi) -> Vec<(Method, &str, &Operation)> {
    let mut all = Vec::new();
    for (path, item) in &description.paths.paths {
        let by_method = [
            (Method::GET, &item.get),
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::DELETE, &item.delete),
            (Method::PATCH, &item.patch),
        ];
        for (method, operation) in by_method {
            all.extend(operation.as_ref().map(|it| (method, path.as_str(), it)));
        }
    }
    all
}

/// Answers requests without unknown query parameters.
pub(crate) async fn refuse_unknown(
    State(parameters): State<Arc<QueryParameters>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    if let Some(path) = path.filter(|path| path.as_str().starts_with("/api/"))
        && request.uri().query().is_some()
        && let Err(problem) = parameters.check(request.method(), path.as_str(), &request)
    {
        return problem.into_response();
    }
    next.run(request).await
}
