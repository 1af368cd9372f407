//! Query parameters: an unknown one, and a number out of range, are refused. `?relese=3` would otherwise be a question about another
//! release, or a change of one. What each address takes is read from the description of the API, so that no handler has to care and
//! none can be forgotten.

use std::{collections::BTreeMap, fmt, sync::Arc};

use axum::{
    extract::{MatchedPath, Query, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_syntax::nearest;
use utoipa::{
    Number,
    openapi::{
        OpenApi, RefOr, Schema,
        path::{Operation, Parameter, ParameterIn},
    },
};

use super::error::ApiError;

/// The query parameters of each method and address.
pub(crate) struct QueryParameters(BTreeMap<(Method, String), KnownParameters>);

/// Query parameters by name.
type KnownParameters = BTreeMap<String, ParameterRange>;

/// The values that a parameter may have, if it is a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ParameterRange {
    minimum: Option<i128>,
    maximum: Option<i128>,
}

impl ParameterRange {
    fn from_schema(schema: Option<&RefOr<Schema>>) -> Self {
        let Some(RefOr::T(Schema::Object(schema))) = schema else {
            return Self::default();
        };
        let bound = |number: &Option<Number>| {
            number.as_ref().and_then(|number| match *number {
                Number::Int(number) => i128::try_from(number).ok(),
                Number::UInt(number) => i128::try_from(number).ok(),
                // No parameter has a fraction as its limit.
                Number::Float(_) => None,
            })
        };
        Self {
            minimum: bound(&schema.minimum),
            maximum: bound(&schema.maximum),
        }
    }

    /// Whether a value is within the range. Other values than integers are checked by the handler.
    fn contains(self, value: &str) -> bool {
        let Ok(number) = value.parse::<i128>() else {
            return true;
        };
        self.minimum.is_none_or(|minimum| minimum <= number)
            && self.maximum.is_none_or(|maximum| number <= maximum)
    }
}

impl fmt::Display for ParameterRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.minimum, self.maximum) {
            (Some(minimum), Some(maximum)) => write!(f, "{minimum} to {maximum}"),
            (Some(minimum), None) => write!(f, "at least {minimum}"),
            (None, Some(maximum)) => write!(f, "at most {maximum}"),
            (None, None) => f.write_str("a number"),
        }
    }
}

impl QueryParameters {
    pub(crate) fn new(description: &OpenApi) -> Self {
        let operations = operations(description).into_iter();
        let named = |operation: &Operation| {
            let parameters = operation.parameters.iter().flatten();
            let name = |parameter: &RefOr<Parameter>| match parameter {
                RefOr::T(it) if it.parameter_in == ParameterIn::Query => {
                    let range = ParameterRange::from_schema(it.schema.as_ref());
                    Some((it.name.clone(), range))
                }
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

    /// Refuses the first parameter that this operation doesn't take, or whose number is out of range. A method that the address does not
    /// have is refused by the router.
    fn check(&self, method: &Method, path: &str, request: &Request) -> Result<(), ApiError> {
        // A HEAD is answered by the handler of its GET.
        let method = match *method {
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
            return Err(ApiError::bad_request("the query can't be read"));
        };
        let Some(known) = self.0.get(&(method, path.to_owned())) else {
            return Ok(());
        };
        let Some((unknown, _)) = given.iter().find(|(name, _)| !known.contains_key(name)) else {
            return check_ranges(known, &given);
        };
        let help = match nearest(unknown, known.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "this endpoint has none".to_owned(),
            None => {
                let known: Vec<&str> = known.keys().map(String::as_str).collect();
                format!("the known ones are {}", known.join(", "))
            }
        };
        let shown: String = unknown.chars().take(100).collect();
        Err(ApiError::bad_request(format!(
            "unknown query parameter `{shown}`; {help}"
        )))
    }
}

fn check_ranges(known: &KnownParameters, given: &[(String, String)]) -> Result<(), ApiError> {
    for (name, value) in given {
        let range = known.get(name).copied().unwrap_or_default();
        if !range.contains(value) {
            let shown: String = value.chars().take(40).collect();
            let why = format!("`{name}` must be {range}, but it is {shown}");
            return Err(ApiError::bad_request(why));
        }
    }
    Ok(())
}

/// The operations of a description: method, address and what it says of them.
pub(crate) fn operations(description: &OpenApi) -> Vec<(Method, &str, &Operation)> {
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
