//! One step of a job: whether it runs, what it runs with, how it went, and what that means for those after it.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use shipway_workflow::{
    expr::{EvalError, Template},
    job::{Conclusion, JournalBody, Level},
    model::{Action, Step},
};

use crate::{
    actions::{self, Call},
    cancel::{Cut, Manner},
    channel::{Channel, Written},
    environment::{Env, base, fixed},
    exec::{self, Bounds, Ended, Invocation},
    hash::Workspace,
    job::Job,
    output::Heard,
    shell,
};

/// How a step went, before `continue-on-error`.
#[derive(Debug)]
struct Went {
    outcome: Conclusion,
    why: Option<String>,
    outputs: Vec<(String, String)>,
    entries: Vec<JournalBody>,
    summary: Option<String>,
}

impl Went {
    fn plainly(outcome: Conclusion, why: Option<String>) -> Self {
        Self {
            outcome,
            why,
            outputs: Vec::new(),
            entries: Vec::new(),
            summary: None,
        }
    }
}

/// What is known of a step before it runs.
struct Plan {
    runs: bool,
    /// Whether it would run in a cancelled job: then it goes on when the job is.
    goes_on: bool,
    name: String,
    /// The job's variables, and its own.
    env: Env,
    timeout: Option<Duration>,
    continues: bool,
}

impl Job {
    /// Runs the step at `index`, or passes it over, and puts it on record.
    pub(crate) async fn step(&mut self, index: usize) -> io::Result<()> {
        let step = self.spec.steps[index].clone();
        let begun = Instant::now();
        let cut = self.cancel.look();
        self.cut_short(cut);
        self.output.heard = Heard::default();
        let plan = self.plan(&step);
        let name = plan
            .as_ref()
            .map_or_else(|_| step.title(), |plan| plan.name.clone());
        let name = self.output.masker.mask(&name).into_owned();
        let log_offset = self.output.log.offset();
        self.journal.note(JournalBody::StepStarted {
            index,
            id: step.id.clone(),
            name: name.clone(),
            log_offset,
        })?;
        let (went, continues) = match plan {
            Ok(plan) if plan.runs => {
                self.output.say(&format!("##[group]{name}"));
                let continues = plan.continues;
                (self.carry_out(index, &step, plan).await, continues)
            }
            Ok(_) => (Went::plainly(Conclusion::Skipped, None), false),
            Err(error) => {
                let why = format!("line {}: {error}\n{}", step.at.line, error.snippet());
                (Went::plainly(Conclusion::Failure, Some(why)), false)
            }
        };
        self.cut_short(self.cancel.cut());
        self.finish(index, &step, &name, went, continues, begun)
    }

    fn cut_short(&mut self, cut: Option<Cut>) {
        if let Some(cut) = cut {
            let minutes = self.spec.timeout_ms as f64 / 60_000.0;
            self.scope.verdict.cut.get_or_insert_with(|| match cut {
                Cut::Asked => "cancelled".to_owned(),
                Cut::TooLong => format!("the job took longer than {minutes} min"),
            });
        }
    }

    fn plan(&self, step: &Step) -> Result<Plan, EvalError> {
        let workspace = self.folders.workspace.clone();
        let files = Workspace(&workspace);
        let outer = self.scope.contexts(&self.spec, &self.scope.env, &files);
        let mut env = self.scope.env.clone();
        let runs = !self.cancel.is_over() && step.if_.holds(&outer)?;
        if !runs {
            let name = match &step.name {
                // A name that can't be known yet is shown as it is written.
                Some(name) => name.resolve_text(&outer).unwrap_or_else(|_| step.title()),
                None => step.title(),
            };
            return Ok(Plan {
                runs,
                goes_on: false,
                name,
                env,
                timeout: None,
                continues: false,
            });
        }
        env.extend(step.env.resolve(&outer)?);
        let contexts = self.scope.contexts(&self.spec, &env, &files);
        let cancelled = outer.with_status(shipway_workflow::expr::Status {
            success: false,
            failure: false,
            cancelled: true,
        });
        let minutes = step.timeout_minutes.as_ref();
        let minutes = minutes
            .map(|minutes| minutes.resolve(&contexts))
            .transpose()?;
        Ok(Plan {
            runs,
            goes_on: step.if_.holds(&cancelled).unwrap_or(false),
            name: match &step.name {
                Some(name) => name.resolve_text(&contexts)?,
                None => step.title(),
            },
            timeout: minutes.and_then(|it| Duration::try_from_secs_f64(it * 60.0).ok()),
            continues: step.continue_on_error.resolve(&contexts)?,
            env,
        })
    }

    async fn carry_out(&mut self, index: usize, step: &Step, plan: Plan) -> Went {
        let failed = |why: String| Went::plainly(Conclusion::Failure, Some(why));
        let channel = match Channel::create(&self.folders.temp, index) {
            Ok(channel) => channel,
            Err(error) => return failed(format!("the step's files can't be made: {error}")),
        };
        let env = self.environment(step, &plan.env, &channel);
        let unsecure = env.get("ACTIONS_ALLOW_UNSECURE_COMMANDS");
        self.output.heard.unsecure = unsecure.is_some_and(|it| it.eq_ignore_ascii_case("true"));
        let mut left = actions::Left::default();
        let ended = match &step.action {
            Action::Run {
                script,
                shell,
                working_directory,
            } => {
                let folder = working_directory.as_ref();
                match self.invocation(index, script, shell.as_deref(), folder, &plan, env) {
                    Ok(invocation) => self.run_script(&invocation, &plan).await,
                    Err(why) => Ended::Badly(why),
                }
            }
            Action::Uses { action, .. } => {
                self.run_action(action, step, &plan, env.into_vec(), &mut left)
                    .await
            }
        };
        let mut written = channel.close();
        let heard = &mut self.output.heard;
        written.mistake = heard.failed.take().or(written.mistake);
        left.outputs.append(&mut heard.outputs);
        left.outputs.append(&mut written.outputs);
        self.take_over(&mut written);
        let (outcome, why) = match (ended, written.mistake) {
            (Ended::Fine, None) => (Conclusion::Success, None),
            (Ended::Fine, Some(why)) | (Ended::Badly(why), _) => (Conclusion::Failure, Some(why)),
            (Ended::TimedOut, _) => {
                let minutes = plan.timeout.unwrap_or_default().as_secs_f64() / 60.0;
                let why = format!("the step took longer than {minutes} min");
                (Conclusion::Failure, Some(why))
            }
            (Ended::Cancelled, _) => {
                self.cut_short(self.cancel.cut());
                (Conclusion::Cancelled, self.scope.verdict.cut.clone())
            }
        };
        Went {
            outcome,
            why,
            outputs: last_of_each(left.outputs),
            entries: left.entries,
            summary: written.summary,
        }
    }

    /// What the step wrote for those after it.
    fn take_over(&mut self, written: &mut Written) {
        let heard = &mut self.output.heard;
        self.scope.env.extend(heard.env.drain(..));
        self.scope.env.extend(written.env.drain(..));
        self.scope.paths.append(&mut heard.paths);
        self.scope.paths.append(&mut written.paths);
        for complaint in &written.complaints {
            self.output.annotate(Level::Error, complaint);
        }
    }

    /// The whole environment of a step's processes.
    fn environment(&self, step: &Step, own: &Env, channel: &Channel) -> Env {
        let mut env = base(&self.folders);
        env.extend(own.iter().cloned());
        if !self.scope.paths.is_empty() {
            let path = env.get("PATH").unwrap_or_default().to_owned();
            let added = self.scope.paths.iter().rev().map(String::as_str);
            let all: Vec<&str> = added.chain([path.as_str()]).collect();
            env.set("PATH", all.join(":"));
        }
        let (github, runner) = self.scope.machine(&step.id);
        env.extend(fixed(&self.spec, &github, &runner).into_vec());
        channel.announce(&mut env);
        env
    }

    fn invocation(
        &mut self,
        index: usize,
        script: &Template,
        own_shell: Option<&str>,
        folder: Option<&Template>,
        plan: &Plan,
        env: Env,
    ) -> Result<Invocation, String> {
        let workspace = self.folders.workspace.clone();
        let files = Workspace(&workspace);
        let contexts = self.scope.contexts(&self.spec, &plan.env, &files);
        let text = |template: &Template| {
            let text = template.resolve_text(&contexts);
            text.map_err(|error| format!("{error}\n{}", error.snippet()))
        };
        let defaults = &self.spec.defaults;
        let shell_name = match own_shell {
            Some(shell) => Some(shell.to_owned()),
            None => defaults.shell.as_ref().map(text).transpose()?,
        };
        let folder = folder.or(defaults.working_directory.as_ref());
        let folder = folder.map(text).transpose()?.unwrap_or_default();
        let workdir = workspace.join(folder);
        let script = text(script)?;
        let shell_name = shell_name.as_deref();
        let file = format!("step-{index}.{}", shell::extension(shell_name));
        let file = self.folders.temp.join(file);
        let path = env.get("PATH").unwrap_or_default();
        let line =
            shell::command_line(shell_name, &file, path).map_err(|error| error.to_string())?;
        self.say_script(&script, &line);
        if !workdir.is_dir() {
            let workdir = workdir.display();
            return Err(format!("the working directory {workdir} does not exist"));
        }
        fs::write(&file, shell::prepared(shell_name, &script))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Invocation {
            line,
            workdir,
            env: env.into_vec(),
        })
    }

    /// The head of a step in the log: what is run, and by what.
    fn say_script(&mut self, script: &str, line: &shell::CommandLine) {
        let mut head: Vec<String> = script.lines().map(|line| format!("  {line}")).collect();
        head.push(format!(
            "  shell: {} {}",
            line.program,
            line.arguments.join(" ")
        ));
        self.output.say(&head.join("\n"));
        self.output.say("##[endgroup]");
    }

    async fn run_script(&mut self, invocation: &Invocation, plan: &Plan) -> Ended {
        let bounds = Bounds {
            timeout: plan.timeout,
            cancel: &mut self.cancel,
            goes_on: plan.goes_on,
        };
        let result = exec::run(invocation, bounds, &mut self.pipe, &mut self.output).await;
        let program = &invocation.line.program;
        result.unwrap_or_else(|error| Ended::Badly(format!("{program} can't be run: {error}")))
    }

    async fn run_action(
        &mut self,
        action: &str,
        step: &Step,
        plan: &Plan,
        env: Vec<(String, String)>,
        left: &mut actions::Left,
    ) -> Ended {
        let Action::Uses { with, .. } = &step.action else {
            return Ended::Fine;
        };
        let workspace = self.folders.workspace.clone();
        let files = Workspace(&workspace);
        let contexts = self.scope.contexts(&self.spec, &plan.env, &files);
        let with = match with.resolve(&contexts) {
            Ok(with) => with,
            Err(error) => return Ended::Badly(format!("with: {error}\n{}", error.snippet())),
        };
        for (name, value) in &with {
            self.output.say(&format!("  {name}: {value}"));
        }
        self.output.say("##[endgroup]");
        self.output.log.flush();
        let call = Call::new(&self.spec, &self.folders, with, &env, &mut self.output);
        let late = tokio::time::sleep(plan.timeout.unwrap_or(Duration::MAX));
        tokio::select! {
            result = actions::run(action, step.at.line, call) => match result {
                Ok(done) => {
                    *left = done;
                    Ended::Fine
                }
                Err(why) => Ended::Badly(why),
            },
            // What is built in has nothing to clean up.
            Manner::Politely | Manner::AtOnce = self.cancel.must_end(plan.goes_on) => Ended::Cancelled,
            () = late => Ended::TimedOut,
        }
    }

    /// Writes down how a step ended, and what that means for those after it.
    fn finish(
        &mut self,
        index: usize,
        step: &Step,
        name: &str,
        went: Went,
        continues: bool,
        begun: Instant,
    ) -> io::Result<()> {
        if let Some(why) = &went.why {
            self.output.say(&format!("##[error]{why}"));
        }
        let conclusion = match went.outcome {
            Conclusion::Failure if continues => Conclusion::Success,
            outcome => outcome,
        };
        if conclusion == Conclusion::Failure {
            let why = went.why.as_deref().unwrap_or("failed");
            let why = why.lines().next().unwrap_or(why);
            let failed = &mut self.scope.verdict.failed;
            failed.get_or_insert_with(|| format!("step {name:?}: {why}"));
        }
        self.scope
            .add_step(&step.id, went.outcome, conclusion, &went.outputs);
        let annotations = std::mem::take(&mut self.output.heard.annotations);
        let count = u32::try_from(annotations.len()).unwrap_or(u32::MAX);
        for entry in went.entries.into_iter().chain(annotations) {
            self.journal.note(entry)?;
        }
        let masker = &self.output.masker;
        if let Some(summary) = &went.summary {
            let path = self.folders.summaries.join(format!("{index}.md"));
            // Without it the step is no worse.
            let _ = fs::write(path, masker.mask(summary).as_bytes());
        }
        // A secret among the outputs is of use to later steps, and not for the journal.
        let plain = |(_, value): &(String, String)| !masker.finds(value);
        let body = JournalBody::StepFinished {
            index,
            id: step.id.clone(),
            outcome: went.outcome,
            conclusion,
            outputs: went.outputs.into_iter().filter(plain).collect(),
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            log_offset: self.output.log.offset(),
            summary: went.summary.is_some(),
            annotations: count,
            why: went.why.map(|why| masker.mask(&why).into_owned()),
        };
        self.journal.record(body)
    }
}

/// Set twice, the later value counts.
fn last_of_each(outputs: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut each = Env::default();
    each.extend(outputs);
    each.into_vec()
}
