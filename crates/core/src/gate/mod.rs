//! Gates: conditions that a job or a rollout waits for before it continues. One mechanism serves both.
//!
//! A gate is opened with its [`GateSpec`], collects [`GateDecision`]s, and has a [`GateVerdict`] at every moment. What it guards
//! is named by an [`ApprovalBinding`], so that an approval can't be used for something else.
//!
//! # Invariants
//!
//! - A person counts once, whatever number of decisions they send, and in one rule only.
//! - A rejection is final, and so is an approval by enough people: later decisions change nothing.
//! - Groups count as they were at the decision.
//! - An approval gate that is still pending fails after [`GATE_EXPIRY`], or when its rules say.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{duration_text::DurationText, ids::Digest};

mod approval_rules;
mod approver;
mod binding;

pub use approval_rules::{ApprovalPolicy, ApprovalRule, OWNERS_FILE, RuleTally};
pub use approver::{ApprovingPerson, ChangePeople, ChangeRole};
pub use binding::{ApprovalBinding, BoundPart, SeenSubject, describe_parts};

/// An approval gate that is still pending after this time fails, as on GitHub.
pub const GATE_EXPIRY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The condition of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateSpec {
    /// People must approve.
    Approval(ApprovalPolicy),
}

impl GateSpec {
    /// Those of `groups` that its rules name.
    #[must_use]
    pub fn relevant_groups(&self, groups: &[String]) -> Vec<String> {
        let Self::Approval(policy) = self;
        let is_named = |group: &&String| policy.rules.iter().any(|rule| rule.from.contains(group));
        groups.iter().filter(is_named).cloned().collect()
    }
}

impl fmt::Display for GateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approval(policy) => policy.fmt(f),
        }
    }
}

/// The rules of an environment, as of when a run was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentRules {
    pub environment: String,
    /// The approvals that a job needs before it goes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<ApprovalPolicy>,
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
    /// The decider with the groups of that moment; none in snapshots from before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<ApprovingPerson>,
    pub at: Timestamp,
    pub verdict: GateVerdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl GateDecision {
    /// A decision by `person` at `at`.
    #[must_use]
    pub fn new(person: ApprovingPerson, at: Timestamp, verdict: GateVerdict) -> Self {
        Self {
            by: person.name.clone(),
            person: Some(person),
            at,
            verdict,
            reason: None,
        }
    }

    /// The same with the reason or comment of the decider.
    #[must_use]
    pub fn with_reason(mut self, reason: Option<String>) -> Self {
        self.reason = reason;
        self
    }

    fn is_by(&self, who: &ApprovingPerson) -> bool {
        match &self.person {
            Some(person) => person.is_same_person(who),
            None => self.by == who.name,
        }
    }

    fn approver(&self) -> ApprovingPerson {
        self.person.clone().unwrap_or_else(|| ApprovingPerson {
            name: self.by.clone(),
            principal: None,
            groups: Vec::new(),
        })
    }
}

/// A decider whom the gate does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnacceptedDecider {
    pub who: String,
    /// The accepted names and groups.
    pub accepted: String,
    /// The part in the change for which the rules exclude them, although they name them.
    pub excluded_as: Option<ChangeRole>,
}

impl fmt::Display for UnacceptedDecider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted = match self.accepted.as_str() {
            "" => "decisions are accepted from any other person".to_owned(),
            accepted => format!("decisions are accepted from {accepted}"),
        };
        match self.excluded_as {
            Some(role) => write!(
                f,
                "{} is the {role} of the change, whose approval does not count here; {accepted}",
                self.who
            ),
            None => f.write_str(&accepted),
        }
    }
}

/// An opened gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateState {
    pub spec: GateSpec,
    /// The digest of the plan that the gate guards; none at the gate of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// What an approval is for; none at the gate of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<ApprovalBinding>,
    /// The people of the change, whom rules may exclude.
    #[serde(default)]
    pub people: ChangePeople,
    pub opened_at: Timestamp,
    pub decisions: Vec<GateDecision>,
}

impl GateState {
    #[must_use]
    pub fn new(spec: GateSpec, opened_at: Timestamp) -> Self {
        Self {
            spec,
            subject: None,
            binding: None,
            people: ChangePeople::default(),
            opened_at,
            decisions: Vec::new(),
        }
    }

    /// The same for this binding.
    #[must_use]
    pub fn bound_to(mut self, binding: ApprovalBinding) -> Self {
        self.subject = Some(binding.plan.clone());
        self.binding = Some(binding);
        self
    }

    /// The same for a change of these people.
    #[must_use]
    pub fn for_change_of(mut self, people: ChangePeople) -> Self {
        self.people = people;
        self
    }

    /// The names of those who approved, in order.
    #[must_use]
    pub fn approvers(&self) -> Vec<&str> {
        let approvals = (self.decisions.iter()).filter(|it| it.verdict == GateVerdict::Pass);
        approvals.map(|it| it.by.as_str()).collect()
    }

    /// Each rule with the approvals that count for it; empty for gates that people do not open.
    #[must_use]
    pub fn tallies(&self) -> Vec<RuleTally> {
        let GateSpec::Approval(policy) = &self.spec;
        let expires_at = self.expires_at();
        // An approval that arrives after the expiry and before its timer comes too late.
        let is_in_time = |it: &&GateDecision| expires_at.is_none_or(|at| it.at < at);
        let people: Vec<ApprovingPerson> = (self.decisions.iter())
            .filter(|it| it.verdict == GateVerdict::Pass)
            .filter(is_in_time)
            .map(GateDecision::approver)
            .collect();
        let approvals: Vec<&ApprovingPerson> = people.iter().collect();
        policy.tally(&approvals, &self.people)
    }

    /// The approvals so far and the missing ones; empty before the first approval.
    #[must_use]
    pub fn describe_progress(&self) -> String {
        let approvers = self.approvers();
        if approvers.is_empty() {
            return String::new();
        }
        let missing: Vec<String> = (self.tallies().iter())
            .filter(|tally| tally.missing > 0)
            .map(|tally| ApprovalRule {
                count: tally.missing,
                ..tally.rule.clone()
            })
            .map(|rule| rule.to_string())
            .collect();
        let approved = format!("approved by {}", approvers.join(", "));
        match missing.as_slice() {
            [] => approved,
            missing => format!("{approved}; missing: {}", missing.join(" and ")),
        }
    }

    /// When it fails unless it is decided before.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.opened_at.checked_add(self.expiry()).ok()
    }

    /// How long it may be pending.
    #[must_use]
    pub fn expiry(&self) -> SignedDuration {
        let GateSpec::Approval(policy) = &self.spec;
        let expires: Option<Duration> = policy.expires;
        expires
            .and_then(|it| SignedDuration::try_from(it).ok())
            .unwrap_or(GATE_EXPIRY)
    }

    /// Why it fails once it has expired.
    #[must_use]
    pub fn describe_expiry(&self) -> String {
        let hours = self.expiry().as_hours();
        match (hours, hours % 24) {
            (48.., 0) => format!("not approved within {} days", hours / 24),
            _ => {
                let expiry = Duration::try_from(self.expiry()).unwrap_or_default();
                format!("not approved within {}", DurationText(expiry))
            }
        }
    }

    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> GateVerdict {
        let is_rejected = (self.decisions.iter()).any(|it| it.verdict == GateVerdict::Fail);
        if is_rejected {
            GateVerdict::Fail
        } else if self.tallies().iter().all(|tally| tally.missing == 0) {
            GateVerdict::Pass
        } else if self.expires_at().is_some_and(|at| at <= now) {
            GateVerdict::Fail
        } else {
            GateVerdict::Pending
        }
    }

    /// Whether the rules name this person: those may reject.
    ///
    /// # Errors
    ///
    /// No rule names the person or one of their groups.
    pub fn accept_decider(&self, who: &ApprovingPerson) -> Result<(), UnacceptedDecider> {
        let GateSpec::Approval(policy) = &self.spec;
        if policy.rules.iter().any(|rule| rule.names(who)) {
            return Ok(());
        }
        Err(self.unaccepted(who, None))
    }

    /// Whether an approval by this person counts.
    ///
    /// # Errors
    ///
    /// No rule names the person, or those that do exclude them for their part in the change.
    pub fn accept_approver(&self, who: &ApprovingPerson) -> Result<(), UnacceptedDecider> {
        self.accept_decider(who)?;
        let GateSpec::Approval(policy) = &self.spec;
        let mut excluded = None;
        for rule in policy.rules.iter().filter(|rule| rule.names(who)) {
            match rule.excluded_role(who, &self.people) {
                None => return Ok(()),
                role => excluded = excluded.or(role),
            }
        }
        Err(self.unaccepted(who, excluded))
    }

    fn unaccepted(
        &self,
        who: &ApprovingPerson,
        excluded_as: Option<ChangeRole>,
    ) -> UnacceptedDecider {
        let GateSpec::Approval(policy) = &self.spec;
        UnacceptedDecider {
            who: who.name.clone(),
            accepted: policy.accepted().join(", "),
            excluded_as,
        }
    }

    /// Whether this person has decided already.
    #[must_use]
    pub fn has_decision_by(&self, who: &ApprovingPerson) -> bool {
        self.decisions.iter().any(|it| it.is_by(who))
    }

    /// Records a decision. A second one by the same person is ignored.
    pub fn record_decision(&mut self, decision: GateDecision) {
        if !self.has_decision_by(&decision.approver()) {
            self.decisions.push(decision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Principal;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn gate(count: u32, from: &[&str]) -> GateState {
        let rule = ApprovalRule {
            count,
            from: from.iter().map(ToString::to_string).collect(),
            not: Vec::new(),
        };
        GateState::new(GateSpec::Approval(rule.into()), START)
    }

    fn person(name: &str, groups: &[&str]) -> ApprovingPerson {
        let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        ApprovingPerson::new(&Principal::person(name).actor(), &groups)
    }

    fn decide(gate: &mut GateState, by: &str, verdict: GateVerdict) -> GateVerdict {
        gate.record_decision(GateDecision::new(person(by, &[]), START, verdict));
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
    fn it_fails_after_thirty_days_or_its_own_expiry_unless_it_passed_before() {
        let mut gate = gate(1, &[]);
        let late = gate.expires_at().unwrap();
        assert_eq!(late, "1970-01-31T00:00:00Z".parse().unwrap());
        assert_eq!(gate.verdict(late), GateVerdict::Fail);
        let mut hurried = gate.clone();
        let GateSpec::Approval(policy) = &mut hurried.spec;
        policy.expires = Some(Duration::from_secs(60));
        assert_eq!(
            hurried.verdict(START + Duration::from_secs(60)),
            GateVerdict::Fail
        );
        // The timer may be late: an approval after the expiry counts no more.
        let too_late = START + Duration::from_secs(61);
        hurried.record_decision(GateDecision::new(
            person("ada", &[]),
            too_late,
            GateVerdict::Pass,
        ));
        assert_eq!(hurried.verdict(too_late), GateVerdict::Fail);
        decide(&mut gate, "ada", GateVerdict::Pass);
        assert_eq!(gate.verdict(late), GateVerdict::Pass);
    }

    #[test]
    fn only_named_people_and_members_of_named_groups_are_accepted() {
        let gate = gate(1, &["ada", "@ops"]);
        assert_eq!(gate.accept_approver(&person("ada", &[])), Ok(()));
        assert_eq!(gate.accept_approver(&person("bob", &["@ops"])), Ok(()));
        let refused = gate.accept_approver(&person("bob", &[])).unwrap_err();
        assert_eq!(refused.to_string(), "decisions are accepted from ada, @ops");
    }

    #[test]
    fn the_author_may_reject_and_not_approve_and_groups_count_as_of_the_decision() {
        let mut gate = gate(1, &["ada", "@ops"]);
        let GateSpec::Approval(policy) = &mut gate.spec;
        policy.rules[0].not = vec![ChangeRole::Author];
        gate.people.author = Some("Ada <ada@example.com>".to_owned());
        let ada = person("ada", &[]);
        assert_eq!(gate.accept_decider(&ada), Ok(()));
        let refused = gate.accept_approver(&ada).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "ada is the author of the change, whose approval does not count here; decisions are accepted from ada, @ops"
        );
        // Recorded anyway, it does not count.
        gate.record_decision(GateDecision::new(ada, START, GateVerdict::Pass));
        assert_eq!(gate.verdict(START), GateVerdict::Pending);
        gate.record_decision(GateDecision::new(
            person("bob", &["@ops"]),
            START,
            GateVerdict::Pass,
        ));
        assert_eq!(gate.verdict(START), GateVerdict::Pass);
        assert_eq!(gate.tallies()[0].approved_by, ["bob"]);
    }
}
