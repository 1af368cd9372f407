//! What the facts of a group add up to.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use shipway_workflow::job::JobKey;

use super::event::{Ask, Body, News, Notice, Standing};
use crate::{aggregate::Event, ids::RunId};

/// Who wants a group: a run, or one of its jobs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// The job; none when it is the run as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobKey>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.job {
            None => write!(f, "{}", self.run.number),
            Some(job) => write!(f, "{} ({job})", self.run.number),
        }
    }
}

/// Where somebody is who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// It goes on.
    Inside,
    /// It waits.
    Waiting,
    /// It lost its place, and has not left yet.
    Dropped {
        /// Why.
        why: String,
    },
}

/// Somebody who asked and has not left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What was asked.
    pub ask: Ask,
    /// Where it is.
    pub place: Place,
    /// Whether it was told to stop.
    #[serde(default)]
    pub stopping: bool,
}

/// The state of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Who asked and has not left; those that wait in their order.
    pub members: Vec<Member>,
    /// What somebody has yet to hear, by number.
    pub notices: BTreeMap<u64, Notice>,
    /// The number of the last notice.
    pub last_notice: u64,
}

impl State {
    /// Who goes on.
    #[must_use]
    pub fn inside(&self) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.place == Place::Inside)
    }

    /// Those that wait, the next first.
    pub fn waiting(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.place == Place::Waiting)
    }

    /// Somebody who asked and has not left.
    #[must_use]
    pub fn member(&self, holder: &Holder) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.ask.holder == *holder)
    }

    /// How somebody who has just asked stands. Who has no place here would wait for itself.
    #[must_use]
    pub fn standing(&self, holder: &Holder) -> Standing {
        match self.member(holder).map(|member| &member.place) {
            Some(Place::Inside) => Standing::Entered,
            Some(Place::Waiting) => Standing::Waiting {
                held_by: self.held_by(),
            },
            Some(Place::Dropped { why }) => Standing::Dropped { why: why.clone() },
            None => Standing::Dropped {
                why: "the run as a whole holds the group, so the job would wait for itself; give one of the two another `concurrency` group".to_owned(),
            },
        }
    }

    fn held_by(&self) -> String {
        self.inside()
            .map(|member| member.ask.holder.to_string())
            .unwrap_or_default()
    }

    fn member_mut(&mut self, holder: &Holder) -> Option<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.ask.holder == *holder)
    }

    fn tell(&mut self, holder: &Holder, news: News) {
        let Some(ticket) = self.member(holder).map(|member| member.ask.ticket) else {
            return;
        };
        // Of how somebody stands only the last word is worth hearing.
        if matches!(news, News::Stands(_)) {
            self.notices.retain(|_, notice| {
                notice.holder != *holder || matches!(notice.news, News::Stop { .. })
            });
        }
        self.last_notice += 1;
        let notice = Notice {
            holder: holder.clone(),
            ticket,
            news,
        };
        self.notices.insert(self.last_notice, notice);
    }

    fn joined(&mut self, ask: &Ask, place: &Place, before: usize) {
        let member = Member {
            ask: ask.clone(),
            place: place.clone(),
            stopping: false,
        };
        let at = (self.members.iter().enumerate())
            .filter(|(_, member)| member.place == Place::Waiting)
            .nth(before)
            .map_or(self.members.len(), |(at, _)| at);
        self.members.insert(at, member);
    }

    fn let_in(&mut self, holder: &Holder) {
        if let Some(member) = self.member_mut(holder) {
            member.place = Place::Inside;
        }
        self.tell(holder, News::Stands(Standing::Entered));
        let held_by = holder.to_string();
        let waiting: Vec<Holder> = self
            .waiting()
            .map(|member| member.ask.holder.clone())
            .collect();
        for holder in waiting {
            let held_by = held_by.clone();
            self.tell(&holder, News::Stands(Standing::Waiting { held_by }));
        }
    }
}

/// Folds one fact.
pub(super) fn apply(state: &mut State, event: &Event<Body>) {
    match &event.body {
        Body::Joined { ask, place, before } => state.joined(ask, place, *before),
        Body::LetIn { holder } => state.let_in(holder),
        Body::Dropped { holder, why } => {
            if let Some(member) = state.member_mut(holder) {
                member.place = Place::Dropped { why: why.clone() };
            }
            let why = why.clone();
            state.tell(holder, News::Stands(Standing::Dropped { why }));
        }
        Body::StopAsked { holder, why } => {
            if let Some(member) = state.member_mut(holder) {
                member.stopping = true;
            }
            state.tell(holder, News::Stop { why: why.clone() });
        }
        Body::Left { holder } => {
            state.members.retain(|member| member.ask.holder != *holder);
            state.notices.retain(|_, notice| notice.holder != *holder);
        }
        Body::Told { notice } => {
            state.notices.remove(notice);
        }
    }
}
