//! Completes the description of the API: what holds for all operations is stated once, here, and not at each handler.
//!
//! - Errors are problem documents with the media type `application/problem+json`.
//! - Every operation may answer with the errors of the layers before its handler: origin, authentication, permission, store.
//! - `limit` is at least 1 and at most [`LIMIT_MAX`]; other integers have the maximum of their format. [`super::query`] checks requests against that.

use utoipa::{
    Number,
    openapi::{
        Content, KnownFormat, OpenApi, Ref, RefOr, Response, Schema, SchemaFormat,
        path::{Operation, Parameter},
        schema::Object,
    },
};

use super::lists::LIMIT_MAX;

const PROBLEM: &str = "application/problem+json";

/// Statuses that any operation may answer with.
const COMMON: [(&str, &str); 7] = [
    ("400", "The request is malformed; the detail says where"),
    ("401", "Authentication is required"),
    ("403", "The caller may not do this, or another site sent it"),
    (
        "404",
        "There is no such thing, or the caller may not know of it",
    ),
    ("421", "The request is for another host"),
    (
        "429",
        "Too many requests; `Retry-After` says when to try again",
    ),
    (
        "503",
        "The event log can't be read or written, or the server is stopping",
    ),
];

/// Statuses of operations that may change something.
const CHANGES: [(&str, &str); 4] = [
    ("409", "The state of the object doesn't allow this"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
    ("422", "A field of the body is missing or unknown"),
];

/// Completes the description.
pub(super) fn complete_description(description: &mut OpenApi) {
    for item in description.paths.paths.values_mut() {
        let reading = [&mut item.get];
        for operation in reading.into_iter().flatten() {
            complete_operation(operation, &[]);
        }
        let changing = [
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        for operation in changing.into_iter().flatten() {
            complete_operation(operation, &CHANGES);
        }
    }
}

fn complete_operation(operation: &mut Operation, more: &[(&str, &str)]) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && is_error(status)
        {
            response.content.clear();
            response.content.insert(PROBLEM.to_owned(), problem());
        }
    }
    for (status, text) in COMMON.iter().chain(more) {
        let known = &mut operation.responses.responses;
        if !known.contains_key(*status) {
            let mut response = Response::new(*text);
            response.content.insert(PROBLEM.to_owned(), problem());
            known.insert((*status).to_owned(), RefOr::T(response));
        }
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            limit_parameter(parameter);
        }
    }
}

fn is_error(status: &str) -> bool {
    status.starts_with('4') || status.starts_with('5')
}

fn problem() -> RefOr<Content> {
    let schema = Ref::from_schema_name("Problem");
    RefOr::T(Content::new(Some(schema)))
}

fn limit_parameter(parameter: &mut Parameter) {
    let is_limit = parameter.name == "limit";
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else {
        return;
    };
    if is_limit {
        schema.minimum = Some(Number::UInt(1));
        schema.maximum = Some(Number::UInt(LIMIT_MAX as usize));
    } else if schema.maximum.is_none() {
        schema.maximum = integer_maximum(schema).map(Number::UInt);
    }
}

/// The largest number of an integer format.
const fn integer_maximum(schema: &Object) -> Option<usize> {
    match schema.format {
        Some(SchemaFormat::KnownFormat(KnownFormat::Int32)) => Some(i32::MAX as usize),
        Some(SchemaFormat::KnownFormat(KnownFormat::Int64)) => Some(i64::MAX as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    const SCHEMAS: &str = "#/components/schemas/";

    fn collect_references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                let reference = fields.get("$ref").and_then(Value::as_str);
                found.extend(reference.and_then(|it| it.strip_prefix(SCHEMAS)));
                fields
                    .values()
                    .for_each(|value| collect_references(value, found));
            }
            Value::Array(items) => items
                .iter()
                .for_each(|item| collect_references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_that_the_description_refers_to_is_in_it() {
        let description = serde_json::to_value(crate::api::openapi()).unwrap();
        let mut found = BTreeSet::new();
        collect_references(&description, &mut found);
        let schemas = description["components"]["schemas"].as_object().unwrap();
        let missing: Vec<_> = found
            .into_iter()
            .filter(|name| !schemas.contains_key(*name))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn operation_ids_are_unique() {
        let description = crate::api::openapi();
        let operations = super::super::query::operations(&description);
        let mut ids = BTreeSet::new();
        for (method, path, operation) in operations {
            let id = operation.operation_id.clone();
            assert!(id.is_some_and(|id| ids.insert(id)), "{method} {path}");
        }
    }
}
