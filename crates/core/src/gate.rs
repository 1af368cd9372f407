//! Gates: conditions that a job or a rollout waits for before it continues. One mechanism serves both.
//!
//! A gate is opened with its [`GateSpec`], collects [`GateDecision`]s, and has a [`GateVerdict`] at every moment. What it guards
//! is named by a digest, so that an approval can't be used for something else.
//!
//! # Invariants
//!
//! - A person counts once, whatever number of decisions they send.
//! - A rejection is final, and so is an approval by enough people: later decisions change nothing.
//! - A gate that is still pending fails after [`GATE_EXPIRY`].

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::Digest;

/// A gate that is still pending after this time fails, as on GitHub.
pub const GATE_EXPIRY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The condition of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateSpec {
    /// People must approve.
    Approval(ApprovalRule),
}

impl GateSpec {
    /// The names and groups that may decide; empty for anyone.
    #[must_use]
    pub fn deciders(&self) -> &[String] {
        match self {
            Self::Approval(rule) => &rule.from,
        }
    }
}

impl fmt::Display for GateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approval(rule) => rule.fmt(f),
        }
    }
}

/// The number of approvals, and the allowed approvers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// How many different people; default 1.
    pub count: u32,
    /// Allowed approvers: names, or groups as `@name`; empty for anyone.
    pub from: Vec<String>,
}

impl ApprovalRule {
    /// One approval by any person.
    #[must_use]
    pub const fn anyone() -> Self {
        Self {
            count: 1,
            from: Vec::new(),
        }
    }
}

impl fmt::Display for ApprovalRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} approval{}",
            self.count,
            if self.count == 1 { "" } else { "s" }
        )?;
        if !self.from.is_empty() {
            write!(f, " from {}", self.from.join(", "))?;
        }
        Ok(())
    }
}

/// The rules of an environment, as of when a run was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentRules {
    pub environment: String,
    /// The approvals that a job needs before it goes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<ApprovalRule>,
}

/// The result of a gate so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    Pass,
    Fail,
    /// Neither yet.
    Pending,
}

/// The answer of one decider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateDecision {
    /// The name of the decider.
    pub by: String,
    pub at: Timestamp,
    pub verdict: GateVerdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A decider whom the gate does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnacceptedDecider {
    pub who: String,
    /// The accepted names and groups.
    pub accepted: String,
}

/// An opened gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateState {
    pub spec: GateSpec,
    /// The digest of what the gate guards; a rollout's gate guards its plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    pub opened_at: Timestamp,
    pub decisions: Vec<GateDecision>,
}

impl GateState {
    #[must_use]
    pub const fn new(spec: GateSpec, subject: Option<Digest>, opened_at: Timestamp) -> Self {
        Self {
            spec,
            subject,
            opened_at,
            decisions: Vec::new(),
        }
    }

    /// The names of those who approved, in order.
    #[must_use]
    pub fn approvers(&self) -> Vec<&str> {
        let approvals = (self.decisions.iter()).filter(|it| it.verdict == GateVerdict::Pass);
        approvals.map(|it| it.by.as_str()).collect()
    }

    /// When it fails unless it is decided before.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.opened_at.checked_add(GATE_EXPIRY).ok()
    }

    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> GateVerdict {
        let is_rejected = (self.decisions.iter()).any(|it| it.verdict == GateVerdict::Fail);
        let GateSpec::Approval(rule) = &self.spec;
        if is_rejected {
            GateVerdict::Fail
        } else if self.approvers().len() >= rule.count as usize {
            GateVerdict::Pass
        } else if self.expires_at().is_some_and(|at| at <= now) {
            GateVerdict::Fail
        } else {
            GateVerdict::Pending
        }
    }

    /// Whether `who`, a member of `groups` (each as `@name`), may decide.
    ///
    /// # Errors
    ///
    /// The gate accepts neither the name nor any of the groups.
    pub fn accept_decider(&self, who: &str, groups: &[String]) -> Result<(), UnacceptedDecider> {
        let deciders = self.spec.deciders();
        let is_accepted = |it: &String| it == who || groups.contains(it);
        if deciders.is_empty() || deciders.iter().any(is_accepted) {
            return Ok(());
        }
        Err(UnacceptedDecider {
            who: who.to_owned(),
            accepted: deciders.join(", "),
        })
    }

    /// Whether this person has decided already.
    #[must_use]
    pub fn has_decision_by(&self, who: &str) -> bool {
        self.decisions.iter().any(|it| it.by == who)
    }

    /// Records a decision. A second one by the same person is ignored.
    pub fn record_decision(&mut self, decision: GateDecision) {
        if !self.has_decision_by(&decision.by) {
            self.decisions.push(decision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn gate(count: u32, from: &[&str]) -> GateState {
        let from = from.iter().map(ToString::to_string).collect();
        let rule = ApprovalRule { count, from };
        GateState::new(GateSpec::Approval(rule), None, START)
    }

    fn decide(gate: &mut GateState, by: &str, verdict: GateVerdict) -> GateVerdict {
        gate.record_decision(GateDecision {
            by: by.to_owned(),
            at: START,
            verdict,
            reason: None,
        });
        gate.verdict(START)
    }

    #[test]
    fn a_person_counts_once_and_enough_people_pass_it() {
        let mut gate = gate(2, &[]);
        assert_eq!(gate.verdict(START), GateVerdict::Pending);
        for by in ["ada", "ada"] {
            let verdict = decide(&mut gate, by, GateVerdict::Pass);
            assert_eq!(verdict, GateVerdict::Pending);
        }
        let verdict = decide(&mut gate, "bob", GateVerdict::Pass);
        assert_eq!(verdict, GateVerdict::Pass);
        assert_eq!(gate.approvers(), ["ada", "bob"]);
    }

    #[test]
    fn a_rejection_fails_it_even_beside_approvals() {
        let mut gate = gate(1, &[]);
        decide(&mut gate, "ada", GateVerdict::Fail);
        let verdict = decide(&mut gate, "bob", GateVerdict::Pass);
        assert_eq!(verdict, GateVerdict::Fail);
    }

    #[test]
    fn it_fails_after_thirty_days_unless_it_passed_before() {
        let mut gate = gate(1, &[]);
        let late = gate.expires_at().unwrap();
        assert_eq!(late, "1970-01-31T00:00:00Z".parse().unwrap());
        assert_eq!(gate.verdict(late), GateVerdict::Fail);
        decide(&mut gate, "ada", GateVerdict::Pass);
        assert_eq!(gate.verdict(late), GateVerdict::Pass);
    }

    #[test]
    fn only_named_people_and_members_of_named_groups_are_accepted() {
        let gate = gate(1, &["ada", "@ops"]);
        assert_eq!(gate.accept_decider("ada", &[]), Ok(()));
        assert_eq!(gate.accept_decider("bob", &["@ops".to_owned()]), Ok(()));
        let refused = gate.accept_decider("bob", &[]).unwrap_err();
        assert_eq!(
            (refused.who.as_str(), refused.accepted.as_str()),
            ("bob", "ada, @ops")
        );
    }
}
