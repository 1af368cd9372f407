//! Who goes on, who waits, who has to make way.

use jiff::Timestamp;
use shipway_workflow::model::QueueMode;

use super::{
    Groups,
    event::{Ask, Body, Input},
    state::{Holder, Place, State},
};
use crate::aggregate::{self, Actor, Event};

type Decider = aggregate::Decider<Groups>;

/// Facts that follow from an input.
pub(super) fn decide(state: &State, input: Input, by: Actor, now: Timestamp) -> Vec<Event<Body>> {
    let mut decider = Decider::new(state, by, now);
    match input {
        Input::Ask(ask) => decider.ask(ask),
        Input::Leave(holder) => {
            if decider.state.member(&holder).is_some() {
                decider.emit(Body::Left { holder });
            }
        }
        Input::Told(notice) => {
            if decider.state.notices.contains_key(&notice) {
                decider.emit(Body::Told { notice });
            }
        }
        Input::Woken => {}
    }
    decider.let_next_in();
    decider.decided()
}

impl Decider {
    fn ask(&mut self, ask: Ask) {
        if self.state.member(&ask.holder).is_some() {
            return;
        }
        let Some(inside) = self.state.inside() else {
            return self.emit(Body::Joined {
                ask,
                place: Place::Inside,
                before: 0,
            });
        };
        let (inside, stopping) = (inside.ask.holder.clone(), inside.stopping);
        if ask.holder.job.is_some() && inside.run == ask.holder.run && inside.job.is_none() {
            // It would wait for itself for ever; see `State::standing`.
            return;
        }
        let newcomer = ask.holder.clone();
        if let Some(newer) = self.loses_to(&ask) {
            let why = format!("{newer} is newer and in the same concurrency group");
            return self.emit(Body::Joined {
                ask,
                place: Place::Dropped { why },
                before: 0,
            });
        }
        if ask.cancel_in_progress && !stopping {
            let why =
                format!("{newcomer} is in the same concurrency group, with `cancel-in-progress`");
            self.emit(Body::StopAsked {
                holder: inside,
                why,
            });
        }
        if ask.queue == QueueMode::Single {
            let replaced: Vec<Holder> = self
                .state
                .waiting()
                .filter(|member| member.ask.queue == QueueMode::Single)
                .map(|member| member.ask.holder.clone())
                .collect();
            for holder in replaced {
                let why =
                    format!("{newcomer} is newer and has taken its place in the concurrency group");
                self.emit(Body::Dropped { holder, why });
            }
        }
        // Runs were numbered in the order in which they came; that they ask in it is not certain.
        let before = self
            .state
            .waiting()
            .position(|member| is_older(&ask, &member.ask));
        let before = before.unwrap_or_else(|| self.state.waiting().count());
        self.emit(Body::Joined {
            ask,
            place: Place::Waiting,
            before,
        });
    }

    /// A newer run that has asked before, and in whose favour this one would be dropped or stopped had they asked in order.
    fn loses_to(&self, ask: &Ask) -> Option<Holder> {
        let newer = |place: &Place| {
            let at_place = self
                .state
                .members
                .iter()
                .filter(move |member| member.place == *place);
            at_place
                .map(|member| &member.ask)
                .find(|other| is_older(ask, other))
        };
        let stopped = newer(&Place::Inside).filter(|other| other.cancel_in_progress);
        let replaced = || {
            newer(&Place::Waiting)
                .filter(|other| ask.queue == QueueMode::Single && other.queue == QueueMode::Single)
        };
        stopped.or_else(replaced).map(|other| other.holder.clone())
    }

    fn let_next_in(&mut self) {
        if self.state.inside().is_some() {
            return;
        }
        let next = self.state.waiting().next();
        if let Some(holder) = next.map(|member| member.ask.holder.clone()) {
            self.emit(Body::LetIn { holder });
        }
    }
}

/// Whether `ask` is of a run that came before the run of `other`. Of jobs the order is that in which they ask.
fn is_older(ask: &Ask, other: &Ask) -> bool {
    let first = |ask: &Ask| ask.holder.job.is_none() && !ask.again;
    first(ask)
        && first(other)
        && ask.holder.run.service == other.holder.run.service
        && ask.holder.run.number < other.holder.run.number
}
