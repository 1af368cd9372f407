//! A step of the job itself: begun and finished in the journal, and what its end means to the job. Before the first come the
//! parts of actions that run first, after the last those that run last.

use std::{fs, io, time::Instant};

use shipway_workflow::job::{Conclusion, JournalBody};

use crate::{
    frame::Stage,
    hand::{Task, Went, concluded},
    job::Job,
    output::Heard,
};

/// What the journal calls a step.
struct Line {
    index: usize,
    id: String,
    name: String,
}

impl Job {
    /// What actions do before the job's first step.
    pub(crate) async fn pre_steps(&mut self) -> io::Result<()> {
        self.frame.stage = Stage::Pre;
        for (place, step) in self.hand.spec.clone().steps.iter().enumerate() {
            if let Some(known) = self.hand.library.pre_of(step) {
                let mut task = Task::of(self.frame.key(place), step);
                task.condition = known.condition(Stage::Pre);
                task.known = Some(known);
                self.step(task).await?;
            }
        }
        self.frame.stage = Stage::Main;
        Ok(())
    }

    /// The steps of the job.
    pub(crate) async fn main_steps(&mut self) -> io::Result<()> {
        for (place, step) in self.hand.spec.clone().steps.iter().enumerate() {
            let task = Task::of(self.frame.key(place), step);
            self.step(task).await?;
        }
        Ok(())
    }

    /// What actions do after the job's last step: the last one first.
    pub(crate) async fn post_steps(&mut self) -> io::Result<()> {
        self.frame.stage = Stage::Post;
        while let Some(post) = self.frame.posts.pop() {
            self.step(Task::from(post)).await?;
        }
        Ok(())
    }

    /// Runs a step, or passes it over, and puts it on record.
    async fn step(&mut self, task: Task) -> io::Result<()> {
        let begun = Instant::now();
        let (hand, frame) = (&mut self.hand, &mut self.frame);
        let step = task.step.clone();
        let cut = hand.cancel.look();
        hand.cut_short(cut);
        hand.output.heard = Heard::default();
        let plan = hand.plan(frame, &task);
        let name = plan
            .as_ref()
            .map_or_else(|_| task.title(frame.stage), |plan| plan.name.clone());
        let line = Line {
            index: self.begun,
            id: match frame.stage {
                Stage::Pre => format!("{}.pre", step.id),
                Stage::Main => step.id.clone(),
                Stage::Post => format!("{}.post", step.id),
            },
            name: hand.output.masker.mask(&name).into_owned(),
        };
        self.begun += 1;
        self.journal.note(JournalBody::StepStarted {
            index: line.index,
            id: line.id.clone(),
            name: line.name.clone(),
            log_offset: hand.output.log.offset(),
        })?;
        let (went, continues) = match plan {
            Ok(plan) if plan.runs => {
                hand.output.say(&format!("##[group]{}", line.name));
                let continues = plan.continues;
                (hand.carry_out(frame, task, plan).await, continues)
            }
            Ok(_) => (Went::plainly(Conclusion::Skipped, None), false),
            Err(error) => (Went::unplanned(&step, &error), false),
        };
        hand.cut_short(hand.cancel.cut());
        self.finish(line, went, continues, begun)
    }

    /// Writes down how a step ended, and what that means for those after it.
    fn finish(
        &mut self,
        line: Line,
        went: Went,
        continues: bool,
        begun: Instant,
    ) -> io::Result<()> {
        let Line { index, id, name } = line;
        let hand = &mut self.hand;
        if let Some(why) = &went.why
            && went.outcome != Conclusion::Skipped
        {
            hand.output.say(&format!("##[error]{why}"));
        }
        let conclusion = concluded(went.outcome, continues);
        if conclusion == Conclusion::Failure {
            let why = went.why.as_deref().unwrap_or("failed");
            let why = why.lines().next().unwrap_or(why);
            let failed = &mut hand.scope.verdict.failed;
            failed.get_or_insert_with(|| format!("step {name:?}: {why}"));
        }
        if self.frame.stage == Stage::Main {
            self.frame
                .add_step(&id, went.outcome, conclusion, &went.outputs);
        }
        let annotations = std::mem::take(&mut hand.output.heard.annotations);
        let count = u32::try_from(annotations.len()).unwrap_or(u32::MAX);
        let artifacts = hand.runtime.shelf.take_fresh();
        for entry in (went.entries.into_iter())
            .chain(artifacts)
            .chain(annotations)
        {
            self.journal.note(entry)?;
        }
        let masker = &hand.output.masker;
        if let Some(summary) = &went.summary {
            let path = hand.folders.summaries.join(format!("{index}.md"));
            // Without it the step is no worse.
            let _ = fs::write(path, masker.mask(summary).as_bytes());
        }
        // A secret among the outputs is of use to later steps, and not for the journal.
        let plain = |(_, value): &(String, String)| !masker.finds(value);
        let body = JournalBody::StepFinished {
            index,
            id,
            outcome: went.outcome,
            conclusion,
            outputs: went.outputs.into_iter().filter(plain).collect(),
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            log_offset: hand.output.log.offset(),
            summary: went.summary.is_some(),
            annotations: count,
            why: went.why.map(|why| masker.mask(&why).into_owned()),
        };
        self.journal.record(body)
    }
}
