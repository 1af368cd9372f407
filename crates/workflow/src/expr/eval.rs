//! What an expression comes to.
//!
//! Bounded in time and memory: the tree is at most 50 deep, and all that one evaluation makes is counted against
//! [`BYTES_MAX`].

use std::{cmp::Ordering, collections::BTreeMap, ops::Range};

use super::{
    Expr,
    ast::{Comparison, Function, Kind, Node},
    error::{EvalError, suggestion},
    functions,
    value::Value,
};

/// Bytes of text and references that one evaluation may make; GitHub allows as much for a whole template.
pub(crate) const BYTES_MAX: usize = 10 << 20;

/// Looks at files for `hashFiles`. Implemented by whoever has a workspace.
pub trait HashFiles {
    /// The SHA-256, in hex, over the SHA-256 of each file below the workspace that the patterns take; empty when none is.
    ///
    /// An error says why the files could not be read.
    fn hash_files(&self, patterns: &[String]) -> Result<String, String>;
}

/// How things went so far: what `success()`, `failure()` and `cancelled()` answer. `always()` needs no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Nothing has failed, and nothing was cancelled (for a job: nothing before it was skipped).
    pub success: bool,
    /// Something has failed.
    pub failure: bool,
    /// The run was cancelled.
    pub cancelled: bool,
}

impl Status {
    /// Nothing has happened yet.
    pub const FINE: Self = Self {
        success: true,
        failure: false,
        cancelled: false,
    };
}

/// What expressions can see.
#[derive(Clone, Default)]
pub struct Contexts<'c> {
    values: BTreeMap<String, Value>,
    status: Option<Status>,
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
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a context.
    pub fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_ascii_lowercase(), value);
    }

    /// A context.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// With what the status functions answer.
    #[must_use]
    pub const fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// What the status functions answer; fine when nobody said otherwise.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.unwrap_or(Status::FINE)
    }

    /// With what `hashFiles` looks at.
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

/// What `expr` comes to.
pub(super) fn evaluate(expr: &Expr, contexts: &Contexts<'_>) -> Result<Value, EvalError> {
    let mut evaluation = Evaluation {
        contexts,
        expr,
        left: BYTES_MAX,
    };
    evaluation.node(&expr.root).map(|result| result.value)
}

pub(super) struct Evaluation<'e, 'c> {
    contexts: &'e Contexts<'c>,
    expr: &'e Expr,
    left: usize,
}

/// A value, and whether it came from `.*`: then properties are those of its items.
struct Found {
    value: Value,
    filtered: bool,
}

impl From<Value> for Found {
    fn from(value: Value) -> Self {
        Self {
            value,
            filtered: false,
        }
    }
}

impl Evaluation<'_, '_> {
    fn node(&mut self, node: &Node) -> Result<Found, EvalError> {
        match &node.kind {
            Kind::Literal(value) => Ok(value.clone().into()),
            Kind::Context(name) => self.context(name, node).map(Found::from),
            Kind::Index(pair) => self.index(&pair[0], &pair[1]),
            Kind::Filter(inner) => {
                let collection = self.node(inner)?;
                let items = self.items(&collection, &node.at)?;
                Ok(Found {
                    value: Value::array(items),
                    filtered: true,
                })
            }
            Kind::Not(inner) => Ok(Value::Bool(!self.node(inner)?.value.is_truthy()).into()),
            Kind::And(nodes) => self.first(nodes, |value| !value.is_truthy()),
            Kind::Or(nodes) => self.first(nodes, Value::is_truthy),
            Kind::Compare(comparison, pair) => {
                let (left, right) = (self.node(&pair[0])?.value, self.node(&pair[1])?.value);
                Ok(Value::Bool(compare(*comparison, &left, &right)).into())
            }
            Kind::Call(function, values) => self.call(*function, values, node),
        }
    }

    /// The first value that decides, or the last.
    fn first(
        &mut self,
        nodes: &[Node],
        decides: impl Fn(&Value) -> bool,
    ) -> Result<Found, EvalError> {
        let mut result = Found::from(Value::Null);
        for node in nodes {
            result = self.node(node)?;
            if decides(&result.value) {
                break;
            }
        }
        Ok(result)
    }

    fn context(&self, name: &str, node: &Node) -> Result<Value, EvalError> {
        self.contexts.values.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.contexts.values.keys().map(String::as_str).collect();
            self.error(
                &node.at,
                format!("unknown name `{name}` ({})", suggestion(name, &known)),
            )
        })
    }

    fn case(&mut self, values: &[Node]) -> Result<Found, EvalError> {
        let (pairs, otherwise) = values.as_chunks::<2>();
        for [condition, value] in pairs {
            match self.node(condition)?.value {
                Value::Bool(true) => return self.node(value),
                Value::Bool(false) => {}
                other => {
                    return Err(self.error(
                        &condition.at,
                        format!("case: a condition is true or false, not {}", other.kind()),
                    ));
                }
            }
        }
        self.node(&otherwise[0])
    }

    /// All items of a collection; of a filtered one, the items of each of its items.
    fn items(&mut self, collection: &Found, at: &Range<usize>) -> Result<Vec<Value>, EvalError> {
        let mut items = Vec::new();
        let mut add = |value: &Value| match value {
            Value::Array(array) => items.extend(array.iter().cloned()),
            Value::Object(object) => items.extend(object.iter().map(|(_, value)| value.clone())),
            _ => {}
        };
        match &collection.value {
            Value::Array(array) if collection.filtered => array.iter().for_each(&mut add),
            value => add(value),
        }
        self.spend(items.len() * size_of::<Value>(), at)?;
        Ok(items)
    }

    /// The index is asked only when there is something to look into, as in GitHub's runner.
    fn index(&mut self, collection: &Node, index: &Node) -> Result<Found, EvalError> {
        let result = self.node(collection)?;
        match &result.value {
            Value::Array(array) if result.filtered => {
                let key = self.node(index)?.value;
                let found: Vec<Value> = array
                    .iter()
                    .filter_map(|item| look_up(item, &key))
                    .collect();
                self.spend(found.len() * size_of::<Value>(), &collection.at)?;
                Ok(Found {
                    value: Value::array(found),
                    filtered: true,
                })
            }
            value @ (Value::Array(_) | Value::Object(_)) => {
                let key = self.node(index)?.value;
                Ok(look_up(value, &key).unwrap_or_default().into())
            }
            _ => Ok(Value::Null.into()),
        }
    }

    /// Values that the answer doesn't depend on are not asked, so their errors don't count: as in GitHub's runner.
    fn call(
        &mut self,
        function: Function,
        values: &[Node],
        node: &Node,
    ) -> Result<Found, EvalError> {
        let answer = match function {
            Function::Case => return self.case(values),
            Function::Contains => Ok(self.search(values, functions::contains)?),
            Function::StartsWith => Ok(self.search(values, functions::starts_with)?),
            Function::EndsWith => Ok(self.search(values, functions::ends_with)?),
            Function::Format => self.format(values)?,
            Function::Join => {
                let items = self.node(&values[0])?.value;
                let several = matches!(&items, Value::Array(items) if items.len() > 1);
                let separator = match values.get(1).filter(|_| several) {
                    Some(node) => Some(self.node(node)?.value),
                    None => None,
                };
                functions::join(&items, separator.as_ref(), self.left)
            }
            Function::ToJson => functions::to_json(&self.node(&values[0])?.value, self.left),
            Function::FromJson => return self.parsed_json(&values[0], node),
            Function::HashFiles => {
                let patterns = self.all(values)?;
                self.hash_files(&patterns)
            }
            Function::Success if !values.is_empty() => {
                let results = self.results_of(values)?;
                Ok(Value::Bool(
                    results.iter().all(|result| result == "success"),
                ))
            }
            Function::Failure if !values.is_empty() => {
                let results = self.results_of(values)?;
                Ok(Value::Bool(
                    results.iter().any(|result| result == "failure"),
                ))
            }
            Function::Success => self.status(|status| status.success),
            Function::Failure => self.status(|status| status.failure),
            Function::Cancelled => self.status(|status| status.cancelled),
            Function::Always => Ok(Value::Bool(true)),
        };
        let value = answer.map_err(|message| self.failed(function, &message, node))?;
        if let Value::String(text) = &value {
            self.spend(text.len(), &node.at)?;
        }
        Ok(value.into())
    }

    fn failed(&self, function: Function, message: &str, node: &Node) -> EvalError {
        self.error(&node.at, format!("{}: {message}", function.name()))
    }

    fn all(&mut self, values: &[Node]) -> Result<Vec<Value>, EvalError> {
        values
            .iter()
            .map(|value| Ok(self.node(value)?.value))
            .collect()
    }

    /// `contains`, `startsWith`, `endsWith`: nothing is looked for where nothing can be found.
    fn search(
        &mut self,
        values: &[Node],
        found: fn(&Value, &Value) -> Value,
    ) -> Result<Value, EvalError> {
        let searched = self.node(&values[0])?.value;
        match &searched {
            Value::Object(_) => return Ok(Value::Bool(false)),
            Value::Array(items) if items.is_empty() => return Ok(Value::Bool(false)),
            _ => {}
        }
        let item = self.node(&values[1])?.value;
        Ok(found(&searched, &item))
    }

    /// The results of the jobs that are named, for `success('build')` in the `if` of a job.
    fn results_of(&mut self, names: &[Node]) -> Result<Vec<String>, EvalError> {
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

    /// Only the values whose places are in the pattern are asked, each once.
    fn format(&mut self, values: &[Node]) -> Result<Result<Value, String>, EvalError> {
        let pattern = self.node(&values[0])?.value;
        let given = &values[1..];
        let mut texts = vec![None; given.len()];
        match functions::places(&pattern, given.len()) {
            Ok(places) => {
                for place in places {
                    if texts[place].is_none() {
                        texts[place] = Some(self.node(&given[place])?.value.to_text());
                    }
                }
            }
            Err(message) => return Ok(Err(message)),
        }
        Ok(functions::format(&pattern, &texts, self.left))
    }

    fn parsed_json(&mut self, value: &Node, node: &Node) -> Result<Found, EvalError> {
        let text = self.node(value)?.value.to_text();
        let value = functions::from_json(&text)
            .map_err(|message| self.failed(Function::FromJson, &message, node))?;
        // What JSON makes is some times as large as its text.
        self.spend(text.len().saturating_mul(2), &node.at)?;
        Ok(value.into())
    }

    fn status(&self, part: fn(Status) -> bool) -> Result<Value, String> {
        let status = self
            .contexts
            .status
            .ok_or("it can only be asked in the `if` of a step or a job")?;
        Ok(Value::Bool(part(status)))
    }

    fn hash_files(&self, patterns: &[Value]) -> Result<Value, String> {
        let files = self
            .contexts
            .files
            .ok_or("it can only be asked in steps, where there is a workspace")?;
        let patterns: Vec<String> = patterns
            .iter()
            .map(|pattern| pattern.to_text().to_string())
            .collect();
        files.hash_files(&patterns).map(Value::from)
    }

    fn spend(&mut self, bytes: usize, at: &Range<usize>) -> Result<(), EvalError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.error(at, functions::TOO_LARGE.to_owned())),
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
fn look_up(collection: &Value, key: &Value) -> Option<Value> {
    match collection {
        Value::Object(object) if key.is_primitive() => object.get(&key.to_text()).cloned(),
        Value::Array(items) => {
            let at = key.to_number().floor();
            (at >= 0.0 && at < items.len() as f64).then(|| items[at as usize].clone())
        }
        _ => None,
    }
}

fn compare(comparison: Comparison, left: &Value, right: &Value) -> bool {
    let order = || left.loosely_compare(right);
    match comparison {
        Comparison::Equal => left.loosely_equals(right),
        Comparison::NotEqual => !left.loosely_equals(right),
        Comparison::Less => order() == Some(Ordering::Less),
        Comparison::Greater => order() == Some(Ordering::Greater),
        Comparison::LessOrEqual => order() == Some(Ordering::Less) || left.loosely_equals(right),
        Comparison::GreaterOrEqual => {
            order() == Some(Ordering::Greater) || left.loosely_equals(right)
        }
    }
}
