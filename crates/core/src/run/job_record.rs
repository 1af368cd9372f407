//! The record of a job of a run: its attempts and what they reported.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    event::{Annotation, StepLine},
    resume_point::ResumePoint,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Finished steps, in order.
    pub steps: Vec<StepLine>,
    pub why: Option<String>,
    /// What its steps pointed out, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
    /// Why a file that it left can't be stored for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// How often it began anew by itself in this attempt at the run.
    pub retried: u32,
    /// The attempt and step that this attempt resumes; `None`: it starts at its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_point: Option<ResumePoint>,
    /// The attempts before this one, each with its own folder and log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierAttempt>,
}

/// An attempt at a job that another one followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierAttempt {
    pub started_at: Option<Timestamp>,
    /// When it ended, or was given up.
    pub finished_at: Option<Timestamp>,
    /// Why it didn't succeed, if it didn't.
    pub why: Option<String>,
}

impl JobRecord {
    /// Which attempt at the job this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.earlier.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }

    pub(super) fn anew(&mut self, retried: u32) {
        let mut earlier = std::mem::take(&mut self.earlier);
        earlier.push(EarlierAttempt {
            started_at: self.started_at,
            finished_at: self.finished_at,
            why: self.why.take(),
        });
        *self = Self {
            earlier,
            retried,
            ..Self::default()
        };
    }

    pub(super) fn end(&mut self, at: Timestamp, why: Option<String>) {
        (self.finished_at, self.why) = (Some(at), why);
        self.storage = None;
    }

    pub(super) fn retry(&mut self, at: Timestamp, why: String) {
        (self.finished_at, self.why) = (Some(at), Some(why));
        let retried = self.retried + 1;
        self.anew(retried);
    }

    /// Records that the new attempt resumes at a step of the previous one.
    pub(super) fn goes_on_at(&mut self, step: &str) {
        self.resume_point = Some(ResumePoint {
            attempt: self.attempt().saturating_sub(1),
            step: step.to_owned(),
        });
    }
}
