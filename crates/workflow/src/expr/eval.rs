//! Evaluation of expressions.
//!
//! Bounded in time and memory: the tree is at most 50 deep, and all that one evaluation makes is counted against
//! [`BYTES_MAX`].

use std::{cmp::Ordering, collections::BTreeMap, ops::Range};

use super::{
    Expr,
    ast::{BuiltinFunction, ComparisonOperator, ExprKind, ExprNode},
    error::{EvalError, suggestion},
    functions::{self, FunctionError, HashFilesError},
    value::ExprValue,
};

/// Bytes of text and references that one evaluation may make; GitHub allows as much for a whole template.
pub(crate) const BYTES_MAX: usize = 10 << 20;

/// Reads files for `hashFiles`. Implemented by the worker, which has the workspace.
pub trait HashFiles {
    /// The SHA-256, in hex, over the SHA-256 of each file below the workspace that the patterns take; empty when none is.
    ///
    /// The error says why the files could not be read.
    fn hash_files(&self, patterns: &[String]) -> Result<String, HashFilesError>;
}

/// The results of `success()`, `failure()` and `cancelled()` at this point of the run. `always()` needs no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusChecks {
    /// Nothing has failed, and nothing was cancelled (for a job: nothing before it was skipped).
    pub success: bool,
    /// Something has failed.
    pub failure: bool,
    /// The run was cancelled.
    pub cancelled: bool,
}

impl StatusChecks {
    /// Nothing has happened yet.
    pub const FINE: Self = Self {
        success: true,
        failure: false,
        cancelled: false,
    };
}

/// The contexts that an expression can read, and the state behind its functions.
#[derive(Clone, Default)]
pub struct Contexts<'c> {
    values: BTreeMap<String, ExprValue>,
    status: Option<StatusChecks>,
    files: Option<&'c dyn HashFiles>,
}

impl<'c> Contexts<'c> {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a context.
    #[must_use]
    pub fn with(mut self, name: &str, value: ExprValue) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a context.
    pub fn set(&mut self, name: &str, value: ExprValue) {
        self.values.insert(name.to_ascii_lowercase(), value);
    }

    /// A context.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ExprValue> {
        self.values.get(name)
    }

    /// Sets the results of the status functions.
    #[must_use]
    pub const fn with_status(mut self, status: StatusChecks) -> Self {
        self.status = Some(status);
        self
    }

    /// The status checks; [`StatusChecks::FINE`] unless set.
    #[must_use]
    pub fn status(&self) -> StatusChecks {
        self.status.unwrap_or(StatusChecks::FINE)
    }

    /// Sets the reader for `hashFiles`.
    #[must_use]
    pub const fn with_files(mut self, files: &'c dyn HashFiles) -> Self {
        self.files = Some(files);
        self
    }
}

impl std::fmt::Debug for Contexts<'_> {
    /// Names only: secrets are among the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contexts")
            .field("names", &self.values.keys())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The value of `expr`.
pub(super) fn evaluate(expr: &Expr, contexts: &Contexts<'_>) -> Result<ExprValue, EvalError> {
    let mut evaluation = ExprEvaluator {
        contexts,
        expr,
        left: BYTES_MAX,
    };
    evaluation.node(&expr.root).map(|result| result.value)
}

pub(super) struct ExprEvaluator<'e, 'c> {
    contexts: &'e Contexts<'c>,
    expr: &'e Expr,
    left: usize,
}

/// A value, and whether it came from `.*`: then properties are those of its items.
struct FilteredValue {
    value: ExprValue,
    filtered: bool,
}

impl From<ExprValue> for FilteredValue {
    fn from(value: ExprValue) -> Self {
        Self {
            value,
            filtered: false,
        }
    }
}

impl ExprEvaluator<'_, '_> {
    fn node(&mut self, node: &ExprNode) -> Result<FilteredValue, EvalError> {
        match &node.kind {
            ExprKind::Literal(value) => Ok(value.clone().into()),
            ExprKind::Context(name) => self.context(name, node).map(FilteredValue::from),
            ExprKind::Index(pair) => self.index(&pair[0], &pair[1]),
            ExprKind::Filter(inner) => {
                let collection = self.node(inner)?;
                let items = self.items(&collection, &node.at)?;
                Ok(FilteredValue {
                    value: ExprValue::array(items),
                    filtered: true,
                })
            }
            ExprKind::Not(inner) => {
                Ok(ExprValue::Bool(!self.node(inner)?.value.is_truthy()).into())
            }
            ExprKind::And(nodes) => self.first(nodes, |value| !value.is_truthy()),
            ExprKind::Or(nodes) => self.first(nodes, ExprValue::is_truthy),
            ExprKind::Compare(comparison, pair) => {
                let (left, right) = (self.node(&pair[0])?.value, self.node(&pair[1])?.value);
                Ok(ExprValue::Bool(compare(*comparison, &left, &right)).into())
            }
            ExprKind::Call(function, values) => self.call(*function, values, node),
        }
    }

    /// The first value that decides, or the last.
    fn first(
        &mut self,
        nodes: &[ExprNode],
        decides: impl Fn(&ExprValue) -> bool,
    ) -> Result<FilteredValue, EvalError> {
        let mut result = FilteredValue::from(ExprValue::Null);
        for node in nodes {
            result = self.node(node)?;
            if decides(&result.value) {
                break;
            }
        }
        Ok(result)
    }

    fn context(&self, name: &str, node: &ExprNode) -> Result<ExprValue, EvalError> {
        self.contexts.values.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.contexts.values.keys().map(String::as_str).collect();
            self.error(
                &node.at,
                format!("unknown name `{name}` ({})", suggestion(name, &known)),
            )
        })
    }

    fn case(&mut self, values: &[ExprNode]) -> Result<FilteredValue, EvalError> {
        let (pairs, otherwise) = values.as_chunks::<2>();
        for [condition, value] in pairs {
            match self.node(condition)?.value {
                ExprValue::Bool(true) => return self.node(value),
                ExprValue::Bool(false) => {}
                other => {
                    return Err(self.error(
                        &condition.at,
                        format!(
                            "case: a condition must be a boolean, but this is {}",
                            other.kind()
                        ),
                    ));
                }
            }
        }
        self.node(&otherwise[0])
    }

    /// All items of a collection; of a filtered one, the items of each of its items.
    fn items(
        &mut self,
        collection: &FilteredValue,
        at: &Range<usize>,
    ) -> Result<Vec<ExprValue>, EvalError> {
        let mut items = Vec::new();
        let mut add = |value: &ExprValue| match value {
            ExprValue::Array(array) => items.extend(array.iter().cloned()),
            ExprValue::Object(object) => {
                items.extend(object.iter().map(|(_, value)| value.clone()))
            }
            _ => {}
        };
        match &collection.value {
            ExprValue::Array(array) if collection.filtered => array.iter().for_each(&mut add),
            value => add(value),
        }
        self.spend(items.len() * size_of::<ExprValue>(), at)?;
        Ok(items)
    }

    /// The index is evaluated only if the collection exists, as in GitHub's runner.
    fn index(
        &mut self,
        collection: &ExprNode,
        index: &ExprNode,
    ) -> Result<FilteredValue, EvalError> {
        let result = self.node(collection)?;
        match &result.value {
            ExprValue::Array(array) if result.filtered => {
                let key = self.node(index)?.value;
                let found: Vec<ExprValue> = array
                    .iter()
                    .filter_map(|item| get_property(item, &key))
                    .collect();
                self.spend(found.len() * size_of::<ExprValue>(), &collection.at)?;
                Ok(FilteredValue {
                    value: ExprValue::array(found),
                    filtered: true,
                })
            }
            value @ (ExprValue::Array(_) | ExprValue::Object(_)) => {
                let key = self.node(index)?.value;
                Ok(get_property(value, &key).unwrap_or_default().into())
            }
            _ => Ok(ExprValue::Null.into()),
        }
    }

    /// Arguments that the result doesn't depend on are not evaluated, so their errors don't count, as in GitHub's runner.
    fn call(
        &mut self,
        function: BuiltinFunction,
        values: &[ExprNode],
        node: &ExprNode,
    ) -> Result<FilteredValue, EvalError> {
        let answer = match function {
            BuiltinFunction::Case => return self.case(values),
            BuiltinFunction::Contains => Ok(self.search(values, functions::contains)?),
            BuiltinFunction::StartsWith => Ok(self.search(values, functions::starts_with)?),
            BuiltinFunction::EndsWith => Ok(self.search(values, functions::ends_with)?),
            BuiltinFunction::Format => self.format(values)?,
            BuiltinFunction::Join => {
                let items = self.node(&values[0])?.value;
                let several = matches!(&items, ExprValue::Array(items) if items.len() > 1);
                let separator = match values.get(1).filter(|_| several) {
                    Some(node) => Some(self.node(node)?.value),
                    None => None,
                };
                functions::join(&items, separator.as_ref(), self.left)
            }
            BuiltinFunction::ToJson => functions::to_json(&self.node(&values[0])?.value, self.left),
            BuiltinFunction::FromJson => return self.parsed_json(&values[0], node),
            BuiltinFunction::HashFiles => {
                let patterns = self.all(values)?;
                self.hash_files(&patterns)
            }
            BuiltinFunction::Success if !values.is_empty() => {
                let results = self.results_of(values)?;
                Ok(ExprValue::Bool(
                    results.iter().all(|result| result == "success"),
                ))
            }
            BuiltinFunction::Failure if !values.is_empty() => {
                let results = self.results_of(values)?;
                Ok(ExprValue::Bool(
                    results.iter().any(|result| result == "failure"),
                ))
            }
            BuiltinFunction::Success => self.status(|status| status.success),
            BuiltinFunction::Failure => self.status(|status| status.failure),
            BuiltinFunction::Cancelled => self.status(|status| status.cancelled),
            BuiltinFunction::Always => Ok(ExprValue::Bool(true)),
        };
        let value = answer.map_err(|error| self.failed(function, &error, node))?;
        if let ExprValue::String(text) = &value {
            self.spend(text.len(), &node.at)?;
        }
        Ok(value.into())
    }

    fn failed(
        &self,
        function: BuiltinFunction,
        error: &FunctionError,
        node: &ExprNode,
    ) -> EvalError {
        self.error(&node.at, format!("{}: {error}", function.name()))
    }

    fn all(&mut self, values: &[ExprNode]) -> Result<Vec<ExprValue>, EvalError> {
        values
            .iter()
            .map(|value| Ok(self.node(value)?.value))
            .collect()
    }

    /// `contains`, `startsWith`, `endsWith`. The second argument is not evaluated if the first can't contain anything.
    fn search(
        &mut self,
        values: &[ExprNode],
        found: fn(&ExprValue, &ExprValue) -> ExprValue,
    ) -> Result<ExprValue, EvalError> {
        let searched = self.node(&values[0])?.value;
        match &searched {
            ExprValue::Object(_) => return Ok(ExprValue::Bool(false)),
            ExprValue::Array(items) if items.is_empty() => return Ok(ExprValue::Bool(false)),
            _ => {}
        }
        let item = self.node(&values[1])?.value;
        Ok(found(&searched, &item))
    }

    /// The results of the jobs that are named, for `success('build')` in the `if` of a job.
    fn results_of(&mut self, names: &[ExprNode]) -> Result<Vec<String>, EvalError> {
        let needs = self.contexts.get("needs").cloned().unwrap_or_default();
        let names = self.all(names)?;
        Ok(names
            .iter()
            .map(|name| {
                needs
                    .get(&name.to_text())
                    .get("result")
                    .to_text()
                    .to_string()
            })
            .collect())
    }

    /// Only the arguments that the pattern refers to are evaluated, each once.
    fn format(
        &mut self,
        values: &[ExprNode],
    ) -> Result<Result<ExprValue, FunctionError>, EvalError> {
        let pattern = self.node(&values[0])?.value;
        let given = &values[1..];
        let mut texts = vec![None; given.len()];
        match functions::placeholder_indexes(&pattern, given.len()) {
            Ok(places) => {
                for place in places {
                    if texts[place].is_none() {
                        texts[place] = Some(self.node(&given[place])?.value.to_text());
                    }
                }
            }
            Err(error) => return Ok(Err(error)),
        }
        Ok(functions::format(&pattern, &texts, self.left))
    }

    fn parsed_json(
        &mut self,
        value: &ExprNode,
        node: &ExprNode,
    ) -> Result<FilteredValue, EvalError> {
        let text = self.node(value)?.value.to_text();
        let value = functions::from_json(&text)
            .map_err(|error| self.failed(BuiltinFunction::FromJson, &error, node))?;
        // Parsed JSON takes a multiple of the size of its text.
        self.spend(text.len().saturating_mul(2), &node.at)?;
        Ok(value.into())
    }

    fn status(&self, part: fn(StatusChecks) -> bool) -> Result<ExprValue, FunctionError> {
        let status = self.contexts.status.ok_or(FunctionError::NoStatus)?;
        Ok(ExprValue::Bool(part(status)))
    }

    fn hash_files(&self, patterns: &[ExprValue]) -> Result<ExprValue, FunctionError> {
        let files = self.contexts.files.ok_or(FunctionError::NoWorkspace)?;
        let patterns: Vec<String> = patterns
            .iter()
            .map(|pattern| pattern.to_text().to_string())
            .collect();
        Ok(ExprValue::from(files.hash_files(&patterns)?))
    }

    fn spend(&mut self, bytes: usize, at: &Range<usize>) -> Result<(), EvalError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.error(at, FunctionError::TooLarge.to_string())),
        }
    }

    fn error(&self, at: &Range<usize>, message: String) -> EvalError {
        let relative = |place: usize| place.saturating_sub(self.expr.offset);
        EvalError {
            message,
            expression: self.expr.text.to_string(),
            at: relative(at.start)..relative(at.end),
        }
    }
}

/// The property or item `key` of a collection, when there is one.
fn get_property(collection: &ExprValue, key: &ExprValue) -> Option<ExprValue> {
    match collection {
        ExprValue::Object(object) if key.is_primitive() => object.get(&key.to_text()).cloned(),
        ExprValue::Array(items) => {
            let at = key.to_number().floor();
            (at >= 0.0 && at < items.len() as f64).then(|| items[at as usize].clone())
        }
        _ => None,
    }
}

fn compare(comparison: ComparisonOperator, left: &ExprValue, right: &ExprValue) -> bool {
    let order = || left.loosely_compare(right);
    match comparison {
        ComparisonOperator::Equal => left.loosely_equals(right),
        ComparisonOperator::NotEqual => !left.loosely_equals(right),
        ComparisonOperator::Less => order() == Some(Ordering::Less),
        ComparisonOperator::Greater => order() == Some(Ordering::Greater),
        ComparisonOperator::LessOrEqual => {
            order() == Some(Ordering::Less) || left.loosely_equals(right)
        }
        ComparisonOperator::GreaterOrEqual => {
            order() == Some(Ordering::Greater) || left.loosely_equals(right)
        }
    }
}
