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
mod break_glass;
mod deployment_rules;
mod freeze;
mod window_starts;

pub use approval_rules::{ApprovalPolicy, ApprovalRule, OWNERS_FILE, RuleTally};
pub use approver::{ApprovingPerson, ChangePeople, ChangeRole};
pub use binding::{ApprovalBinding, BoundPart, SeenSubject, describe_parts};
pub use break_glass::{BrokenGlass, GlassReview};
pub use deployment_rules::DeploymentRules;
pub use freeze::{ActiveFreeze, FreezeCalendar, FreezeWindow};
pub use window_starts::{RecurrenceRule, UnusableRule, WindowStarts};

/// An approval gate that is still pending after this time fails, as on GitHub.
pub const GATE_EXPIRY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The condition of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateSpec {
    /// People must approve.
    Approval(ApprovalPolicy),
    /// This much time must have passed since the rollout was ordered.
    Wait(Duration),
    /// No window of the calendar may be in force.
    Freeze(FreezeCalendar),
}

impl GateSpec {
    /// The rules of approval, where people open the gate.
    #[must_use]
    pub const fn approvals(&self) -> Option<&ApprovalPolicy> {
        match self {
            Self::Approval(policy) => Some(policy),
            Self::Wait(_) | Self::Freeze(_) => None,
        }
    }

    fn rules(&self) -> &[ApprovalRule] {
        self.approvals().map_or(&[], |policy| &policy.rules)
    }

    /// Those of `groups` that its rules name.
    #[must_use]
    pub fn relevant_groups(&self, groups: &[String]) -> Vec<String> {
        let is_named = |group: &&String| self.rules().iter().any(|rule| rule.from.contains(group));
        groups.iter().filter(is_named).cloned().collect()
    }
}

impl fmt::Display for GateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approval(policy) => policy.fmt(f),
            Self::Wait(duration) => write!(f, "{} since the order", DurationText(*duration)),
            Self::Freeze(calendar) => write!(f, "the end of a freeze: {calendar}"),
        }
    }
}

/// The rules of an environment, as of when a run was ordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentRules {
    pub environment: String,
    /// The approvals that a job needs before it goes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<ApprovalPolicy>,
    /// Its further requirements; only `branches` applies to jobs.
    #[serde(default, skip_serializing_if = "DeploymentRules::is_default")]
    pub rules: DeploymentRules,
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
    /// When time alone opens it, as far as was known at its opening: the end of a wait or of a freeze.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    pub decisions: Vec<GateDecision>,
}

impl GateState {
    /// A gate that is reached at `opened_at`, of a rollout or run ordered at `ordered_at`.
    #[must_use]
    pub fn new(spec: GateSpec, ordered_at: Timestamp, opened_at: Timestamp) -> Self {
        let opens_at = match &spec {
            GateSpec::Approval(_) => None,
            GateSpec::Wait(duration) => ordered_at.checked_add(*duration).ok(),
            GateSpec::Freeze(calendar) => calendar.next_opening(opened_at),
        };
        Self {
            spec,
            subject: None,
            binding: None,
            people: ChangePeople::default(),
            opened_at,
            opens_at,
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
        let Some(policy) = self.spec.approvals() else {
            return Vec::new();
        };
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

    /// When it fails unless it is decided before; gates that time opens never fail.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.spec.approvals()?;
        self.opened_at.checked_add(self.expiry()).ok()
    }

    /// The next moment at which time alone changes the verdict.
    #[must_use]
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.spec {
            GateSpec::Approval(_) => self.expires_at(),
            GateSpec::Wait(_) => self.opens_at,
            GateSpec::Freeze(calendar) => calendar.next_opening(now),
        }
    }

    /// The end of a wait, or the freeze in force at `now`; none where people open the gate.
    #[must_use]
    pub fn describe_time(&self, now: Timestamp) -> Option<String> {
        match &self.spec {
            GateSpec::Approval(_) => None,
            GateSpec::Wait(_) => self.opens_at.map(|at| format!("continues at {at:.0}")),
            GateSpec::Freeze(calendar) => calendar.active(now).map(|it| it.to_string()),
        }
    }

    /// How long it may be pending.
    #[must_use]
    pub fn expiry(&self) -> SignedDuration {
        let policy = self.spec.approvals();
        policy
            .and_then(|policy| policy.expires)
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
        let opened = |is_open: bool| match is_open {
            true => GateVerdict::Pass,
            false => GateVerdict::Pending,
        };
        match &self.spec {
            GateSpec::Approval(_) => {}
            GateSpec::Wait(_) => return opened(self.opens_at.is_none_or(|at| at <= now)),
            GateSpec::Freeze(calendar) => return opened(calendar.active(now).is_none()),
        }
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
        if self.spec.rules().iter().any(|rule| rule.names(who)) {
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
        let mut excluded = None;
        for rule in self.spec.rules().iter().filter(|rule| rule.names(who)) {
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
        let policy = self.spec.approvals();
        let accepted = policy.map(ApprovalPolicy::accepted).unwrap_or_default();
        UnacceptedDecider {
            who: who.name.clone(),
            accepted: accepted.join(", "),
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
        GateState::new(GateSpec::Approval(rule.into()), START, START)
    }

    fn change_policy(gate: &mut GateState, change: impl FnOnce(&mut ApprovalPolicy)) {
        match &mut gate.spec {
            GateSpec::Approval(policy) => change(policy),
            GateSpec::Wait(_) | GateSpec::Freeze(_) => panic!("an approval"),
        }
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
        change_policy(&mut hurried, |policy| {
            policy.expires = Some(Duration::from_secs(60));
        });
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
        change_policy(&mut gate, |policy| {
            policy.rules[0].not = vec![ChangeRole::Author];
        });
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

    #[test]
    fn a_wait_counts_from_the_order_and_a_freeze_opens_with_its_window() {
        let ordered = "2026-12-04T15:00:00Z".parse().unwrap();
        let opened = "2026-12-04T16:30:00Z".parse().unwrap();
        let hour = Duration::from_secs(3600);
        let wait = GateState::new(GateSpec::Wait(2 * hour), ordered, opened);
        assert_eq!(wait.verdict(opened), GateVerdict::Pending);
        assert_eq!(
            wait.wakes_at(opened).unwrap().to_string(),
            "2026-12-04T17:00:00Z"
        );
        assert_eq!(wait.verdict(ordered + 2 * hour), GateVerdict::Pass);
        // A clock that goes back makes it wait again, and never fails it.
        assert_eq!(wait.verdict(START), GateVerdict::Pending);
        let window = FreezeWindow {
            starts: WindowStarts::Cron("0 16 * * FRI".to_owned()),
            lasts: hour,
            zone: None,
            reason: Some("inventory".to_owned()),
        };
        let calendar = FreezeCalendar {
            windows: vec![window],
        };
        let freeze = GateState::new(GateSpec::Freeze(calendar), ordered, opened);
        assert_eq!(freeze.verdict(opened), GateVerdict::Pending);
        assert_eq!(freeze.opens_at, freeze.wakes_at(opened));
        assert_eq!(
            freeze.describe_time(opened).unwrap(),
            "frozen until 2026-12-04 17:00 UTC (inventory)"
        );
        assert_eq!(freeze.verdict(freeze.opens_at.unwrap()), GateVerdict::Pass);
        assert!(freeze.accept_approver(&person("ada", &[])).is_err());
    }
}
