//! Where a step of a job that has ended stood: its folder and its variables, for a shell there. Nothing runs here, and nothing
//! is changed.
//!
//! Without secrets nothing is given that holds one: neither what expressions make of them nor what steps have left that was
//! masked.

use std::path::PathBuf;

use shipway_workflow::{
    expr::{EvalError, Template},
    job::{JobSpec, Resume},
    model::{Action, Step, Table},
};

use crate::{
    environment::{Env, Folders},
    frame::{Frame, Stage},
    hash::Workspace,
    job::masker,
    mask::Masker,
    past::{Lost, Past},
    scope::Scope,
};

/// Where a step stood.
#[derive(Clone, Debug)]
pub struct Stand {
    /// The folder that its command ran in.
    pub folder: PathBuf,
    /// All variables.
    pub env: Vec<(String, String)>,
    /// The step's id.
    pub step: String,
    /// What people call it.
    pub name: String,
    /// What it runs: a script, or an action; masked.
    pub command: String,
    /// Variables that are left out as they hold a secret.
    pub left_out: Vec<String>,
    /// What differs from the step's own run, in sentences.
    pub differs: Vec<String>,
}

/// The files through which a step speaks to its job. In a shell nobody hears.
const CHANNEL: [&str; 5] = [
    "GITHUB_OUTPUT",
    "GITHUB_ENV",
    "GITHUB_PATH",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
];

/// Whether somebody gets what holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Those of the spec, and what steps have left that holds one.
    Given,
    /// None; the spec had better hold none.
    Withheld,
}

/// Where the step stood that `resume` names, in the job of `spec`.
pub fn stand(spec: &JobSpec, resume: &Resume, secrets: Secrets) -> Result<Stand, Lost> {
    let past = Past::read(resume, &spec.steps)?;
    let secrets = secrets == Secrets::Given;
    let folders = Folders::of(&spec.folder, &past.base);
    let step = &spec.steps[past.place];
    let unknown = |error: EvalError| Lost::Unreadable(format!("{error}\n{}", error.snippet()));
    let (mut scope, mut frame) = (Scope::new(spec, &folders), Frame::default());
    let files = Workspace(&folders.workspace);
    scope.begin(spec, &files).map_err(unknown)?;
    let mut left_out = Vec::new();
    for done in &past.done {
        let kept = done.kept.as_ref();
        if let Some(kept) = kept {
            kept.apply(&mut scope, secrets);
            left_out.extend(kept.secret.iter().filter(|_| !secrets).cloned());
        }
        if done.stage == Stage::Main {
            let hidden = kept.filter(|_| secrets).map_or(&[][..], |it| &it.outputs);
            let outputs: Vec<_> = done.outputs.iter().chain(hidden).cloned().collect();
            frame.add_step(&done.id, done.outcome, done.conclusion, &outputs);
        }
    }
    let seen = frame.seen(&step.id);
    let mut own = scope.env.clone();
    let contexts = scope.contexts(spec, &frame, &seen, &own, &files);
    own.extend(step.env.resolve(&contexts).map_err(unknown)?);
    let contexts = scope.contexts(spec, &frame, &seen, &own, &files);
    let text = |template: &Template| {
        let resolved = template.resolve_text(&contexts);
        resolved.unwrap_or_else(|_| template.text().to_owned())
    };
    let name = step.name.as_ref().map_or_else(|| step.title(), text);
    let mut masker = masker(spec);
    past.masks.iter().for_each(|mask| masker.add(mask));
    let masked = |text: &str| masker.mask(text).into_owned();
    let mut env = scope.environment(spec, &folders, &seen, &own);
    if !secrets {
        let tables = spec.env.iter().chain([&step.env]);
        let of_secrets: Vec<&str> = tables.flat_map(of_secrets).collect();
        left_out.extend(without(&mut env, &of_secrets, &past.masks));
    }
    for name in CHANNEL {
        env.set(name, "/dev/null");
    }
    let workdir = match &step.action {
        Action::Run {
            working_directory, ..
        } => working_directory
            .as_ref()
            .or(spec.defaults.working_directory.as_ref()),
        Action::Uses { .. } | Action::Wait { .. } | Action::WaitAll | Action::Cancel { .. } => None,
    };
    let workdir = match workdir.map(text).as_deref() {
        None | Some("") => folders.workspace.clone(),
        Some(folder) => folders.workspace.join(folder),
    };
    left_out.sort();
    left_out.dedup();
    Ok(Stand {
        folder: if workdir.is_dir() {
            workdir
        } else {
            folders.workspace.clone()
        },
        env: env.into_vec(),
        step: step.id.clone(),
        name: masked(&name),
        command: masked(&command(step, text)),
        left_out,
        differs: differs(spec, step),
    })
}

/// What a step runs.
fn command(step: &Step, text: impl Fn(&Template) -> String) -> String {
    match &step.action {
        Action::Run { script, .. } => text(script),
        Action::Uses { action, .. } => format!("uses: {action}"),
        Action::Wait { .. } | Action::WaitAll | Action::Cancel { .. } => step.title(),
    }
}

fn differs(spec: &JobSpec, step: &Step) -> Vec<String> {
    let mut differs = Vec::new();
    if let Some(container) = &spec.container {
        let image = container.image.text();
        differs.push(format!("the job ran in the container {image}, and this shell doesn't: its programs and its paths (/__w/…) are not here, the job's files are"));
    }
    if !spec.services.is_empty() {
        let names: Vec<&str> = spec
            .services
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        differs.push(format!("the job's services are gone: {}", names.join(", ")));
    }
    if matches!(step.action, Action::Uses { .. }) {
        differs.push(
            "the step is an action: its inputs (INPUT_…) are not among the variables".to_owned(),
        );
    }
    differs
}

/// The variables that are made of secrets.
fn of_secrets(table: &Table) -> impl Iterator<Item = &str> {
    let entries = match table {
        Table::Entries(entries) => entries.as_slice(),
        Table::Computed(_) => &[],
    };
    let of_secrets = |text: &str| text.contains("${{") && text.contains("secrets");
    let meant = entries.iter().filter(move |(_, it)| of_secrets(it.text()));
    meant.map(|(name, _)| name.as_str())
}

/// Takes the variables out that have one of these names, or hold one of `masks`; their names.
fn without(env: &mut Env, names: &[&str], masks: &[String]) -> Vec<String> {
    let masker = Masker::new(masks.iter().cloned());
    let all = std::mem::take(env).into_vec();
    let (hidden, shown): (Vec<_>, Vec<_>) = (all.into_iter())
        .partition(|(name, value)| names.contains(&name.as_str()) || masker.finds(value));
    env.extend(shown);
    hidden.into_iter().map(|(name, _)| name).collect()
}
