//! The plan of a run: jobs in waves, matrix cells, steps, actions and containers, and for each condition whether its value is
//! known before the run.
//!
//! ```text
//! wave 2
//!   test   after build · 2 cells: linux, mac
//!     if: needs.build.outputs.changed == 'true'   known when it runs
//! ```

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use shipway_core::{
    access::Principal,
    aggregate::{Aggregate, fold},
    run::{RunAggregate, RunInput, RunPlan as Ready, RunSpec, RunState},
};
use shipway_workflow::{
    expr::{Contexts, ExprValue, IfCondition, StatusChecks, Template},
    graph::{MatrixCombination, expand_matrix},
    model::{ContainerDefinition, StepAction, WorkflowJob, WorkflowStep},
    runner::RunnerLabels,
};

use super::selection::Cells;
use crate::exit::Failure;

/// What a run would do.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    workflow: String,
    file: String,
    event: String,
    /// Jobs that may run together, one group after the other.
    waves: Vec<Vec<JobPlan>>,
    /// All actions that are used.
    actions: BTreeSet<String>,
    /// All images that are used.
    images: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
struct JobPlan {
    id: String,
    name: String,
    needs: Vec<String>,
    /// None: it has no condition of its own.
    condition: Option<Asked>,
    /// Whether it runs when all goes well.
    runs: Answer,
    /// None: no matrix.
    cells: Option<CellsPlan>,
    /// The workflow it calls.
    calls: Option<String>,
    environment: Option<String>,
    container: Option<String>,
    services: Vec<String>,
    /// Why it, or cells of it, would be left out on this machine.
    left_out: Vec<String>,
    steps: Vec<StepPlan>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum CellsPlan {
    /// These, by their labels.
    Known(Vec<String>),
    /// An expression that has a value when the jobs before have ended.
    Later,
}

#[derive(Debug, Serialize)]
struct StepPlan {
    name: String,
    /// `bash`, `actions/checkout@v4`
    does: String,
    condition: Option<Asked>,
}

/// A condition and its value, if known.
#[derive(Debug, Serialize)]
struct Asked {
    text: String,
    answer: Answer,
}

/// The value of a condition before the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Yes,
    No,
    AfterAFailure,
    WhenCancelled,
    /// For these cells of the matrix alone.
    ForCells(Vec<String>),
    /// It asks for something that is known when it runs.
    Later,
}

impl Answer {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no, skipped",
            Self::AfterAFailure => "only after a failure",
            Self::WhenCancelled => "only when cancelled",
            Self::ForCells(_) => "only for",
            Self::Later => "decided at run time",
        }
    }
}

/// Plans a run.
pub(super) fn plan(spec: &RunSpec, cells: &Cells, labels: &RunnerLabels) -> Result<Plan, Failure> {
    let mut state = RunState::default();
    let open = RunInput::Open(Box::new(spec.clone()));
    let by = Principal::person(spec.actor.as_deref().unwrap_or("you")).actor();
    let events = RunAggregate::decide(&state, open, by, Timestamp::now())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    fold::<RunAggregate>(&mut state, &events);
    let run = state.0.as_deref();
    let run = run.ok_or_else(|| Failure::Failed("the run can't be created".to_owned()))?;
    let ready = run
        .plan()
        .map_err(|error| Failure::usage(error.to_string()))?;
    let mut planner = Planner {
        ready,
        cells,
        labels,
        runs: vec![Answer::Later; ready.workflow.jobs.len()],
        actions: BTreeSet::new(),
        images: BTreeSet::new(),
    };
    let mut waves = Vec::new();
    for wave in in_waves(ready) {
        waves.push(wave.into_iter().map(|at| planner.job(at)).collect());
    }
    let name = ready.workflow.name.clone();
    Ok(Plan {
        workflow: name.unwrap_or_else(|| spec.workflow.path.clone()),
        file: spec.workflow.path.clone(),
        event: spec.event.clone(),
        waves,
        actions: planner.actions,
        images: planner.images,
    })
}

/// The places of jobs, those first that need none, then those that need only them, and so on.
fn in_waves(ready: &Ready) -> Vec<Vec<usize>> {
    let count = ready.workflow.jobs.len();
    let mut wave_of: Vec<Option<usize>> = vec![None; count];
    let mut waves: Vec<Vec<usize>> = Vec::new();
    // Needs have no circles: each round finds some, at most one wave each.
    for wave in 0..count {
        let is_free = |at: &usize| {
            let before = |need: &usize| wave_of[*need].is_some_and(|its| its < wave);
            wave_of[*at].is_none() && ready.graph.needs(*at).iter().all(before)
        };
        let free: Vec<usize> = (0..count).filter(is_free).collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|at| wave_of[*at] = Some(wave));
        waves.push(free);
    }
    waves
}

struct Planner<'p> {
    ready: &'p Ready,
    cells: &'p Cells,
    labels: &'p RunnerLabels,
    /// The answers per job.
    runs: Vec<Answer>,
    actions: BTreeSet<String>,
    images: BTreeSet<String>,
}

impl Planner<'_> {
    fn job(&mut self, at: usize) -> JobPlan {
        let ready = self.ready;
        let job = &ready.workflow.jobs[at];
        let runs = self.whether(at, job);
        self.runs[at] = runs.clone();
        let contexts = self.contexts();
        let cells = self.matrix(job, &contexts);
        let labels = cells.as_ref().map(|cells| match cells {
            Some(cells) => CellsPlan::Known(cells.iter().map(|it| it.label.clone()).collect()),
            None => CellsPlan::Later,
        });
        let cells = cells.flatten().unwrap_or_default();
        let container = job.container.as_ref().map(|it| self.image(it, &contexts));
        let services = job.services.written().iter();
        let services = services
            .map(|(name, container)| format!("{name} ({})", self.image(container, &contexts)))
            .collect();
        let names = job
            .name
            .as_ref()
            .map(|name| resolved_or_raw_text(name, &contexts));
        let left_out = self.runner_mismatches(job, &cells, &contexts);
        JobPlan {
            id: job.id.clone(),
            name: names.unwrap_or_else(|| job.id.clone()),
            needs: job.needs.clone(),
            condition: condition_plan(&job.if_, &runs),
            runs,
            cells: labels,
            calls: job.calls.as_ref().map(|call| call.workflow.clone()),
            environment: job
                .environment
                .as_ref()
                .map(|it| resolved_or_raw_text(&it.name, &contexts)),
            container,
            services,
            left_out,
            steps: job
                .steps
                .iter()
                .map(|step| self.step(job, step, &cells))
                .collect(),
        }
    }

    /// The contexts before the run. Names that are left out, and expressions that use them, have no value yet.
    fn contexts(&self) -> Contexts<'static> {
        let ground = &self.ready.ground;
        Contexts::new()
            .with("github", ground.github.clone())
            .with("inputs", ground.inputs.clone())
            .with("vars", ground.vars.clone())
            .with_status(StatusChecks::FINE)
    }

    fn whether(&self, at: usize, job: &WorkflowJob) -> Answer {
        let needs = self.ready.graph.needs(at);
        let skipped = needs.iter().any(|&need| self.runs[need] == Answer::No);
        let open = needs.iter().any(|&need| self.runs[need] != Answer::Yes);
        let fine = StatusChecks {
            success: !skipped,
            ..StatusChecks::FINE
        };
        let contexts = self.contexts().with_status(fine);
        match answer(&job.if_, &contexts) {
            // It hangs on theirs.
            Answer::Yes if open && !job.if_.calls_status() => Answer::Later,
            answer => answer,
        }
    }

    /// The cells that would run; inside, none: they are known later. None: there is no matrix.
    fn matrix(
        &self,
        job: &WorkflowJob,
        contexts: &Contexts<'_>,
    ) -> Option<Option<Vec<MatrixCombination>>> {
        let matrix = job.strategy.as_ref()?.matrix.as_ref()?;
        let cells = expand_matrix(matrix, contexts).ok();
        Some(cells.map(|cells| {
            let taken = cells.into_iter().filter(|it| self.cells.take(&it.values));
            taken.collect()
        }))
    }

    /// Why this machine can't run the job or cells of it. What `runs-on` asks for may be known only when it runs.
    fn runner_mismatches(
        &self,
        job: &WorkflowJob,
        cells: &[MatrixCombination],
        contexts: &Contexts<'_>,
    ) -> Vec<String> {
        let Some(runs_on) = &job.runs_on else {
            return Vec::new();
        };
        let mismatch = |contexts: &Contexts<'_>| {
            let request = runs_on.resolve(contexts).ok()?;
            self.labels.check(&request).err()
        };
        let has_matrix = job.strategy.as_ref().is_some_and(|it| it.matrix.is_some());
        if !has_matrix {
            return mismatch(contexts).iter().map(ToString::to_string).collect();
        }
        let of_cell = |cell: &MatrixCombination| {
            let why = mismatch(&contexts.clone().with("matrix", cell.values.clone()))?;
            Some(format!("{}: {why}", cell.label))
        };
        cells.iter().filter_map(of_cell).collect()
    }

    fn image(&mut self, container: &ContainerDefinition, contexts: &Contexts<'_>) -> String {
        let image = resolved_or_raw_text(&container.image, contexts);
        self.images.insert(image.clone());
        image
    }

    fn step(
        &mut self,
        job: &WorkflowJob,
        step: &WorkflowStep,
        cells: &[MatrixCombination],
    ) -> StepPlan {
        let mut contexts = self.contexts();
        if let [only] = cells {
            contexts.set("matrix", only.values.clone());
        } else if cells.is_empty() && job.strategy.is_none() {
            contexts.set("matrix", ExprValue::Null);
        }
        let name = match &step.name {
            Some(name) => resolved_or_raw_text(name, &contexts),
            None => step.title(),
        };
        let does = match &step.action {
            StepAction::Run { shell, .. } => {
                let outer = job.defaults.or(&self.ready.workflow.defaults).shell;
                let outer = || outer.map(|shell| resolved_or_raw_text(&shell, &contexts));
                let shell = shell.clone().or_else(outer);
                shell.unwrap_or_else(|| "bash".to_owned())
            }
            StepAction::Uses { action, .. } => {
                match action.strip_prefix("docker://") {
                    Some(image) => self.images.insert(image.to_owned()),
                    None => self.actions.insert(action.clone()),
                };
                action.clone()
            }
            StepAction::Wait { .. } | StepAction::WaitAll => "waits".to_owned(),
            StepAction::Cancel { .. } => "cancels".to_owned(),
        };
        let of_cells: Vec<(Answer, &str)> = cells
            .iter()
            .map(|cell| {
                let contexts = self.contexts().with("matrix", cell.values.clone());
                (answer(&step.if_, &contexts), cell.label.as_str())
            })
            .collect();
        let answer = match of_cells.as_slice() {
            [] => answer(&step.if_, &contexts),
            [(first, _), rest @ ..] if rest.iter().all(|(it, _)| it == first) => first.clone(),
            all => Answer::ForCells(
                all.iter()
                    .filter(|(answer, _)| *answer != Answer::No)
                    .map(|(_, label)| (*label).to_owned())
                    .collect(),
            ),
        };
        StepPlan {
            name,
            does,
            condition: condition_plan(&step.if_, &answer),
        }
    }
}

/// What a condition comes to, as far as the contexts know.
fn answer(condition: &IfCondition, contexts: &Contexts<'_>) -> Answer {
    match condition.holds(contexts) {
        Err(_) => return Answer::Later,
        Ok(true) => return Answer::Yes,
        Ok(false) => {}
    }
    let (bad, over) = (
        StatusChecks {
            success: false,
            failure: true,
            cancelled: false,
        },
        StatusChecks {
            success: false,
            failure: false,
            cancelled: true,
        },
    );
    let holds = |status| condition.holds(&contexts.clone().with_status(status));
    match (holds(bad), holds(over)) {
        (Ok(true), _) => Answer::AfterAFailure,
        (_, Ok(true)) => Answer::WhenCancelled,
        (Err(_), _) | (_, Err(_)) => Answer::Later,
        (Ok(false), Ok(false)) => Answer::No,
    }
}

fn condition_plan(condition: &IfCondition, answer: &Answer) -> Option<Asked> {
    let text = condition.text().trim();
    (!text.is_empty()).then(|| Asked {
        text: text.to_owned(),
        answer: answer.clone(),
    })
}

/// Its text, or as it is written when it has none yet.
fn resolved_or_raw_text(template: &Template, contexts: &Contexts<'_>) -> String {
    template
        .resolve_text(contexts)
        .unwrap_or_else(|_| template.text().to_owned())
}

impl Plan {
    /// The plan for people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{} · {} · {}\n", self.workflow, self.file, self.event);
        for (number, wave) in self.waves.iter().enumerate() {
            text.push_str(&format!("\nwave {}\n", number + 1));
            wave.iter().for_each(|job| text.push_str(&job.text()));
        }
        let listed = |what: &str, names: &BTreeSet<String>| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            match names.as_slice() {
                [] => String::new(),
                names => format!("{what}: {}\n", names.join(", ")),
            }
        };
        let (actions, images) = (
            listed("Actions", &self.actions),
            listed("Images", &self.images),
        );
        if !actions.is_empty() || !images.is_empty() {
            text.push('\n');
        }
        text + &actions + &images
    }
}

impl JobPlan {
    fn text(&self) -> String {
        let mut head = vec![self.id.clone()];
        if self.name != self.id {
            head.push(format!("“{}”", self.name));
        }
        if !self.needs.is_empty() {
            head.push(format!("after {}", self.needs.join(", ")));
        }
        match &self.cells {
            None => {}
            Some(CellsPlan::Later) => head.push("a matrix computed at run time".to_owned()),
            Some(CellsPlan::Known(cells)) => {
                let count = cells.len();
                let shown: Vec<&str> = cells.iter().take(12).map(String::as_str).collect();
                let more = if count > shown.len() { ", …" } else { "" };
                let word = if count == 1 { "cell" } else { "cells" };
                head.push(format!("{count} {word}: {}{more}", shown.join("; ")));
            }
        }
        let more = [
            ("in", &self.container),
            ("environment", &self.environment),
            ("calls", &self.calls),
        ];
        for (word, what) in more {
            head.extend(what.as_ref().map(|what| format!("{word} {what}")));
        }
        if !self.services.is_empty() {
            head.push(format!("beside {}", self.services.join(", ")));
        }
        let mut text = format!("  {}\n", head.join(" · "));
        match &self.condition {
            Some(asked) => text.push_str(&format!("    {}\n", asked.to_text())),
            None if self.runs != Answer::Yes => {
                let why = "as the jobs before it";
                text.push_str(&format!("    {}: {why}\n", self.runs.as_str()));
            }
            None => {}
        }
        for why in &self.left_out {
            text.push_str(&format!("    left out: {why}\n"));
        }
        for (number, step) in self.steps.iter().enumerate() {
            let (name, does) = (&step.name, &step.does);
            let does = if name.ends_with(does.as_str()) {
                String::new()
            } else {
                format!("  ({does})")
            };
            text.push_str(&format!("    {:>2} {name}{does}\n", number + 1));
            if let Some(asked) = &step.condition {
                text.push_str(&format!("       {}\n", asked.to_text()));
            }
        }
        text
    }
}

impl Asked {
    fn to_text(&self) -> String {
        let text = self.text.replace('\n', " ");
        let cells = match &self.answer {
            Answer::ForCells(cells) => format!(" {}", cells.join("; ")),
            _ => String::new(),
        };
        format!("if {text}: {}{cells}", self.answer.as_str())
    }
}
