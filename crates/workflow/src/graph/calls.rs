//! Reusable workflows: which files a run needs, and how they are linked. Reads no file itself: the caller
//! calls [`find_called_workflows`] until no file is missing; [`link_calls`] then builds one graph, or returns the mistakes.
//!
//! A called workflow is identified by its path in the run's own repository, or `owner/repo/path@ref`. A call with `./` in a file of
//! another repository refers to that repository at the same ref.

use std::{collections::BTreeMap, sync::Arc};

use shipway_syntax::{SourceFile, nearest};

use super::{
    CALLED_MAX, JobGraph, LEVELS_MAX, LinkError, RunContexts, WorkflowLocation,
    error::{CallInputsError, CallLinkError, InputValueError},
    progress::WorkflowProgress,
    resolve_call_name,
};
use crate::{
    expr::{Contexts, EvalError, ExprValue, Template, join_with_and},
    job::{Conclusion, KEY_MAX},
    model::{
        CallInput, CallSecrets, FilePosition, InputType, ReusableCall, TemplateTable, Workflow,
        WorkflowCall, WorkflowJob, qualify_own_actions,
    },
};

/// Mistakes told at once.
const MISTAKES_MAX: usize = 10;

/// Characters that the cell of a matrix adds to a key: `.256`.
const CELL_CHARACTERS: usize = 4;

/// The names of the workflows that the text of `name` calls, each once. A text with mistakes calls none.
#[must_use]
pub fn find_called_workflows(name: &str, text: &str) -> Vec<String> {
    let parsed = crate::parse(&SourceFile::new(name, text));
    let jobs = parsed.workflow.map(|it| it.jobs).unwrap_or_default();
    let calls = jobs.iter().filter_map(|job| job.calls.as_ref());
    let mut names: Vec<String> = calls
        .map(|call| resolve_call_name(name, &call.workflow))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A workflow that was looked for because it is called.
#[derive(Clone, Copy, Debug)]
pub struct CalledText<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its text, or why there is none.
    pub text: Result<&'a str, &'a str>,
}

/// A called workflow, linked with those that it calls itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkedWorkflow {
    /// The parsed workflow.
    pub workflow: Workflow,
    /// Its edges.
    pub graph: JobGraph,
    /// Its name.
    pub name: String,
    /// How deep the calls from it go, itself counted.
    levels: usize,
    /// The length of the longest key of its jobs and of those it calls.
    key_length: usize,
}

/// The edges of the workflow `name`, with all that it calls. The error is a mistake a line, each with its place.
pub fn link_calls(
    name: &str,
    workflow: &Workflow,
    called: &[CalledText<'_>],
) -> Result<JobGraph, LinkError> {
    let mut linker = CallLinker {
        texts: called.iter().map(|called| (called.name, called)).collect(),
        units: BTreeMap::new(),
        mistakes: Vec::new(),
    };
    let name = name.strip_prefix("./").unwrap_or(name);
    let mut graph = JobGraph::new(workflow);
    linker.calls(&mut graph, workflow, &mut vec![name.to_owned()]);
    if !graph.calls.is_empty() && key_length(workflow, &graph) > KEY_MAX {
        linker.mistakes.push(format!(
            "{name}: the ids of jobs that call each other make a name of more than {KEY_MAX} characters; shorten them"
        ));
    }
    if linker.mistakes.is_empty() {
        return Ok(graph);
    }
    linker.mistakes.truncate(MISTAKES_MAX);
    Err(LinkError {
        mistakes: linker.mistakes,
    })
}

/// The longest key that a job of the workflow, or of one that it calls, can have.
fn key_length(workflow: &Workflow, graph: &JobGraph) -> usize {
    let length = |(at, job): (usize, &WorkflowJob)| {
        let inside = graph.call(at).map_or(0, |unit| 1 + unit.key_length);
        job.id.len() + CELL_CHARACTERS + inside
    };
    let all = workflow.jobs.iter().enumerate().map(length);
    all.max().unwrap_or_default()
}

struct CallLinker<'t> {
    texts: BTreeMap<&'t str, &'t CalledText<'t>>,
    /// Parsed workflows; `None` for one with mistakes.
    units: BTreeMap<String, Option<Arc<LinkedWorkflow>>>,
    mistakes: Vec<String>,
}

impl CallLinker<'_> {
    /// Links what the jobs of the last of `chain` call; gives how deep that goes.
    fn calls(
        &mut self,
        graph: &mut JobGraph,
        workflow: &Workflow,
        chain: &mut Vec<String>,
    ) -> usize {
        let mut levels = 0;
        let name = chain.last().cloned().unwrap_or_default();
        for (at, job) in workflow.jobs.iter().enumerate() {
            let Some(call) = &job.calls else { continue };
            let place = if call.at == FilePosition::default() {
                job.at
            } else {
                call.at
            };
            let target = resolve_call_name(&name, &call.workflow);
            match self.unit(&target, chain) {
                Ok(Some(unit)) => {
                    levels = levels.max(unit.levels);
                    let asked = unit.workflow.on.workflow_call.iter();
                    for mistake in asked.flat_map(|it| call_mistakes(job, call, &unit.name, it)) {
                        let message = mistake.message;
                        self.mistakes
                            .push(format!("{name}:{place}: error: {message}"));
                    }
                    graph.calls.insert(at, unit);
                }
                // Already reported.
                Ok(None) => {}
                Err(mistake) => self
                    .mistakes
                    .push(format!("{name}:{place}: error: {mistake}")),
            }
        }
        levels
    }

    /// The workflow `target`; `None` if its mistakes are already reported.
    fn unit(
        &mut self,
        target: &str,
        chain: &mut Vec<String>,
    ) -> Result<Option<Arc<LinkedWorkflow>>, CallLinkError> {
        if let Some(from) = chain.iter().position(|name| name == target) {
            return Err(CallLinkError::Cycle {
                chain: chain[from..].join(" calls "),
                target: target.to_owned(),
            });
        }
        let too_deep = |levels: usize| {
            (chain.len() + levels > LEVELS_MAX).then(|| CallLinkError::TooDeep {
                chain: chain.join(" calls "),
                target: target.to_owned(),
            })
        };
        if let Some(known) = self.units.get(target) {
            return match known.as_ref().and_then(|unit| too_deep(unit.levels)) {
                Some(mistake) => Err(mistake),
                None => Ok(known.clone()),
            };
        }
        if let Some(mistake) = too_deep(1) {
            return Err(mistake);
        }
        if self.units.len() >= CALLED_MAX {
            return Err(CallLinkError::TooMany);
        }
        self.units.insert(target.to_owned(), None);
        let workflow = match self.read(target)? {
            Ok(workflow) => workflow,
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                return Ok(None);
            }
        };
        let mut graph = JobGraph::new(&workflow);
        chain.push(target.to_owned());
        let levels = 1 + self.calls(&mut graph, &workflow, chain);
        chain.pop();
        let unit = Arc::new(LinkedWorkflow {
            key_length: key_length(&workflow, &graph),
            workflow,
            graph,
            name: target.to_owned(),
            levels,
        });
        self.units.insert(target.to_owned(), Some(unit.clone()));
        Ok(Some(unit))
    }

    /// What the file says. The outer error is the caller's, the inner ones are the file's own.
    fn read(&self, target: &str) -> Result<Result<Workflow, Vec<String>>, CallLinkError> {
        let called = self
            .texts
            .get(target)
            .ok_or_else(|| CallLinkError::NotRead {
                target: target.to_owned(),
            })?;
        let text = called.text.map_err(|why| CallLinkError::Unavailable {
            target: target.to_owned(),
            why: why.to_owned(),
        })?;
        let source = SourceFile::new(target, text);
        let parsed = crate::parse(&source);
        let Some(mut workflow) = parsed.workflow else {
            let errors = parsed.diagnostics.iter().filter(|it| it.is_error());
            return Ok(Err(errors.map(|it| it.one_line(&source)).collect()));
        };
        if let Ok(WorkflowLocation::Elsewhere {
            repository,
            reference,
            ..
        }) = WorkflowLocation::parse(target)
        {
            for job in &mut workflow.jobs {
                qualify_own_actions(&mut job.steps, repository, reference);
            }
        }
        if workflow.on.workflow_call.is_none() {
            return Err(CallLinkError::NotCallable {
                target: target.to_owned(),
            });
        }
        Ok(Ok(workflow))
    }
}

/// A mistake in a call.
#[derive(Clone, Debug)]
pub(crate) struct CallMistake {
    /// The entry that is wrong, by the key of its table (`with`, `secrets`) and its name; none when one is missing.
    pub(crate) key: Option<(&'static str, String)>,
    /// The problem and its solution.
    pub(crate) message: String,
}

/// The mistakes in a call of the workflow `name`, whose `workflow_call` is `asked`, that can be found statically.
pub(crate) fn call_mistakes(
    job: &WorkflowJob,
    call: &ReusableCall,
    name: &str,
    asked: &WorkflowCall,
) -> Vec<CallMistake> {
    let mut found = Vec::new();
    let missing = |message: String| CallMistake { key: None, message };
    if let TemplateTable::Entries(given) = &call.with {
        let known: Vec<&str> = asked.inputs.iter().map(|(name, _)| name.as_str()).collect();
        for (entry, message) in unknown("input", &names(given), &known, name) {
            let key = Some(("with", entry));
            found.push(CallMistake { key, message });
        }
        for (input_name, input) in &asked.inputs {
            match call.with.get(input_name).map(|given| (given, given.as_literal())) {
                None if input.required => found.push(missing(format!(
                    "the job `{}` must give the input `{input_name}`, which {name} requires; add it to `with`",
                    job.id
                ))),
                Some((given, Some(_))) => {
                    let written = InputStyle::for_input(call, input_name);
                    let literal = typed(input_name, input.kind, given, written, &Contexts::new());
                    found.extend(literal.err().map(|why| CallMistake {
                        key: Some(("with", input_name.clone())),
                        message: format!("the job `{}`: {why}", job.id),
                    }));
                }
                None | Some((_, None)) => {}
            }
        }
    }
    if let CallSecrets::Named(TemplateTable::Entries(given)) = &call.secrets {
        let known: Vec<&str> = (asked.secrets.iter())
            .map(|(name, _)| name.as_str())
            .collect();
        for (entry, message) in unknown("secret", &names(given), &known, name) {
            let key = Some(("secrets", entry));
            found.push(CallMistake { key, message });
        }
        let required = asked.secrets.iter().filter(|(_, required)| *required);
        let is_given = |name: &str| names(given).iter().any(|it| it.eq_ignore_ascii_case(name));
        found.extend(required.filter(|(secret, _)| !is_given(secret)).map(|(secret, _)| {
            missing(format!(
                "the job `{}` must give the secret `{secret}`, which {name} requires; add it to `secrets`, or write `secrets: inherit`",
                job.id
            ))
        }));
    }
    found
}

fn names(entries: &[(String, Template)]) -> Vec<&str> {
    entries.iter().map(|(name, _)| name.as_str()).collect()
}

/// The names among `given` that the called workflow doesn't know, each with a sentence about it.
fn unknown(what: &str, given: &[&str], known: &[&str], called: &str) -> Vec<(String, String)> {
    let is_unknown = |name: &&&str| !known.iter().any(|known| known.eq_ignore_ascii_case(name));
    let described = |name: &&str| {
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "it has none".to_owned(),
            None => format!("it has {}", join_with_and(known.iter().copied())),
        };
        let message = format!("{called} has no {what} `{name}`; {help}");
        ((*name).to_owned(), message)
    };
    given.iter().filter(is_unknown).map(described).collect()
}

impl LinkedWorkflow {
    /// The `inputs` context of its jobs, as `job` calls it.
    pub(super) fn inputs(
        &self,
        job: &WorkflowJob,
        contexts: &Contexts<'_>,
    ) -> Result<ExprValue, CallInputsError> {
        let nothing = WorkflowCall::default();
        let asked = self.workflow.on.workflow_call.as_ref().unwrap_or(&nothing);
        let call = job.calls.as_ref();
        let mut with = call.map(|call| &call.with);
        let computed = with.map(|with| with.resolve_computed(contexts));
        let computed = computed.transpose().map_err(CallInputsError::Table)?;
        let computed = computed.flatten();
        if let Some(computed) = &computed {
            let known: Vec<&str> = asked.inputs.iter().map(|(name, _)| name.as_str()).collect();
            let given: Vec<&str> = computed.iter().map(|(name, _)| name.as_str()).collect();
            let mistakes = unknown("input", &given, &known, &self.name);
            let mistakes: Vec<String> = mistakes.into_iter().map(|(_, it)| it).collect();
            if !mistakes.is_empty() {
                return Err(CallInputsError::Unknown(mistakes));
            }
            with = None;
        }
        let computed = computed.unwrap_or_default();
        let mut inputs = Vec::new();
        for (name, input) in &asked.inputs {
            let ready = computed
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            let value = match (with.and_then(|with| with.get(name)), ready) {
                (Some(given), _) => {
                    let written =
                        call.map_or(InputStyle::Bare, |call| InputStyle::for_input(call, name));
                    typed(name, input.kind, given, written, contexts)
                }
                (None, Some((_, value))) => fits(name, input.kind, value),
                (None, None) if input.required => {
                    return Err(CallInputsError::Missing(name.clone()));
                }
                (None, None) => default(name, input, contexts),
            };
            inputs.push((name.as_str(), value?));
        }
        Ok(ExprValue::object(inputs))
    }

    /// Conclusion, outputs and failure reason of a call whose jobs have all ended.
    pub(super) fn conclusion(
        &self,
        progress: &WorkflowProgress,
        ground: &RunContexts,
    ) -> (Conclusion, Vec<(String, String)>, Option<String>) {
        let jobs = self.workflow.jobs.iter().enumerate();
        let jobs = jobs.map(|(at, job)| (job.id.as_str(), JobGraph::job_context(progress, at)));
        let contexts = ground.contexts().with("jobs", ExprValue::object(jobs));
        let asked = self.workflow.on.workflow_call.iter();
        let outputs: Result<Vec<_>, EvalError> = asked
            .flat_map(|asked| &asked.outputs)
            .map(|(name, value)| Ok((name.clone(), value.resolve_text(&contexts)?)))
            .collect();
        let blamed = progress.blamed();
        let why = blamed.map(|(at, why)| format!("`{}`: {why}", self.workflow.jobs[at].id));
        match outputs {
            Err(error) => {
                let why = format!("the outputs of {} have no value: {error}", self.name);
                (Conclusion::Failure, Vec::new(), Some(why))
            }
            Ok(outputs) if progress.nothing_ran() => (Conclusion::Skipped, outputs, None),
            Ok(outputs) => (progress.conclusion(), outputs, why),
        }
    }
}

impl ReusableCall {
    /// The `secrets` context of the called workflow. `contexts` are those of the calling job, its `secrets` among them.
    pub fn secrets(&self, contexts: &Contexts<'_>) -> Result<ExprValue, EvalError> {
        let all = contexts.get("secrets").cloned().unwrap_or_default();
        match &self.secrets {
            CallSecrets::Inherit => Ok(all),
            CallSecrets::Named(table) => {
                let token = all.get("GITHUB_TOKEN");
                let token =
                    (token != ExprValue::Null).then_some(("GITHUB_TOKEN".to_owned(), token));
                let named = table.resolve(contexts)?;
                let named = named
                    .into_iter()
                    .map(|(name, text)| (name, ExprValue::from(text)));
                Ok(ExprValue::object(token.into_iter().chain(named)))
            }
        }
    }
}

fn default(
    name: &str,
    input: &CallInput,
    contexts: &Contexts<'_>,
) -> Result<ExprValue, InputValueError> {
    match &input.default {
        // The parser accepts text only for inputs of type string.
        Some(default) => typed(name, input.kind, default, InputStyle::Bare, contexts),
        None => Ok(input.kind.empty()),
    }
}

/// How a value without an expression is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InputStyle {
    /// `true`, `3`
    Bare,
    /// `'true'`, `abc`
    Text,
}

impl InputStyle {
    fn for_input(call: &ReusableCall, name: &str) -> Self {
        let mut texts = call.texts.iter();
        match texts.any(|text| text.eq_ignore_ascii_case(name)) {
            true => Self::Text,
            false => Self::Bare,
        }
    }
}

/// The value of an input. GitHub makes a text of what isn't one, and nothing else of a text: `'true'` is no boolean.
fn typed(
    name: &str,
    kind: InputType,
    template: &Template,
    written: InputStyle,
    contexts: &Contexts<'_>,
) -> Result<ExprValue, InputValueError> {
    let value = template
        .resolve(contexts)
        .map_err(|error| InputValueError::NoValue {
            name: name.to_owned(),
            error,
        })?;
    match (kind, template.as_literal()) {
        (_, Some(_)) if written == InputStyle::Text => fits(name, kind, &value),
        (InputType::Boolean, Some(text @ ("true" | "false"))) => {
            Ok(ExprValue::Bool(text == "true"))
        }
        (InputType::Number, Some(text)) if !text.trim().is_empty() => fits(
            name,
            kind,
            &ExprValue::Number(ExprValue::from(text).to_number()),
        )
        .map_err(|_| mismatch(name, kind, &value)),
        _ => fits(name, kind, &value),
    }
}

fn fits(name: &str, kind: InputType, value: &ExprValue) -> Result<ExprValue, InputValueError> {
    match (kind, value) {
        (InputType::Boolean, ExprValue::Bool(_)) => Ok(value.clone()),
        (InputType::Number, ExprValue::Number(number)) if !number.is_nan() => Ok(value.clone()),
        (InputType::String | InputType::Choice | InputType::Environment, value)
            if value.is_primitive() =>
        {
            Ok(ExprValue::from(value.to_text().to_string()))
        }
        _ => Err(mismatch(name, kind, value)),
    }
}

fn mismatch(name: &str, kind: InputType, value: &ExprValue) -> InputValueError {
    InputValueError::WrongType {
        name: name.to_owned(),
        kind,
        value: value.clone(),
    }
}
