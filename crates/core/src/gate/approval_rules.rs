//! The approvals that an environment requires: how many people, the accepted names and groups, and the excluded people.
//!
//! # Invariants
//!
//! - All rules must hold, and an approval counts for one rule only: a person named in two rules fills one place.
//! - Rules that an earlier version could have written are serialized as it wrote them: digests of configurations and plans stay.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::approver::{ApprovingPerson, ChangePeople, ChangeRole};

/// The entry of `from` for the owners of the changed paths.
pub const OWNERS_FILE: &str = "owners-file";

/// The number of approvals, and the allowed approvers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// How many different people; default 1.
    pub count: u32,
    /// Allowed approvers: names, groups as `@name`, or [`OWNERS_FILE`]; empty for anyone.
    pub from: Vec<String>,
    /// People of the change whose approval does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not: Vec<ChangeRole>,
}

impl ApprovalRule {
    /// One approval by any person.
    #[must_use]
    pub const fn anyone() -> Self {
        Self {
            count: 1,
            from: Vec::new(),
            not: Vec::new(),
        }
    }

    /// Whether its `from` accepts this person.
    #[must_use]
    pub fn names(&self, who: &ApprovingPerson) -> bool {
        self.from.is_empty() || self.from.iter().any(|entry| who.is_named_by(entry))
    }

    /// The part in the change for which this person's approval does not count.
    #[must_use]
    pub fn excluded_role(
        &self,
        who: &ApprovingPerson,
        people: &ChangePeople,
    ) -> Option<ChangeRole> {
        let mut roles = self.not.iter().copied();
        roles.find(|role| people.has_role(who, *role))
    }

    fn accepts(&self, who: &ApprovingPerson, people: &ChangePeople) -> bool {
        self.names(who) && self.excluded_role(who, people).is_none()
    }

    /// Whether more people than those it names may approve: members of groups, owners of paths, or anyone.
    #[must_use]
    pub fn is_open_ended(&self) -> bool {
        let is_list = |entry: &String| entry.starts_with('@') || entry == OWNERS_FILE;
        self.from.is_empty() || self.from.iter().any(is_list)
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
        if !self.not.is_empty() {
            let roles: Vec<String> = self.not.iter().map(ToString::to_string).collect();
            write!(f, ", not by the {}", roles.join(" or the "))?;
        }
        Ok(())
    }
}

/// All approvals that an environment requires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SerializedPolicy", into = "SerializedPolicy")]
pub struct ApprovalPolicy {
    /// Never empty.
    pub rules: Vec<ApprovalRule>,
    /// When a gate that is still pending fails; `None` for [`super::GATE_EXPIRY`].
    pub expires: Option<Duration>,
}

/// One rule is written alone: so it was before there could be several.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SerializedPolicy {
    Rule(ApprovalRule),
    Rules {
        rules: Vec<ApprovalRule>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Duration>,
    },
}

impl From<SerializedPolicy> for ApprovalPolicy {
    fn from(written: SerializedPolicy) -> Self {
        match written {
            SerializedPolicy::Rule(rule) => rule.into(),
            SerializedPolicy::Rules { rules, expires } => Self { rules, expires },
        }
    }
}

impl From<ApprovalPolicy> for SerializedPolicy {
    fn from(policy: ApprovalPolicy) -> Self {
        let ApprovalPolicy { mut rules, expires } = policy;
        match (rules.len(), expires) {
            (1, None) => Self::Rule(rules.remove(0)),
            _ => Self::Rules { rules, expires },
        }
    }
}

impl From<ApprovalRule> for ApprovalPolicy {
    fn from(rule: ApprovalRule) -> Self {
        Self {
            rules: vec![rule],
            expires: None,
        }
    }
}

impl fmt::Display for ApprovalPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.rules.iter().map(ToString::to_string).collect();
        f.write_str(&rules.join(" and "))
    }
}

/// A rule with the approvals that count for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTally {
    pub rule: ApprovalRule,
    /// Names, in the order of their decisions.
    pub approved_by: Vec<String>,
    /// Approvals that are still missing.
    pub missing: u32,
}

impl ApprovalPolicy {
    /// The names and groups of all rules, each once; empty if some rule accepts anyone.
    #[must_use]
    pub fn accepted(&self) -> Vec<String> {
        if self.rules.iter().any(|rule| rule.from.is_empty()) {
            return Vec::new();
        }
        let mut accepted: Vec<String> = Vec::new();
        for entry in self.rules.iter().flat_map(|rule| &rule.from) {
            if !accepted.contains(entry) {
                accepted.push(entry.clone());
            }
        }
        accepted
    }

    /// Assigns the approvals to the rules so that as many places as possible are filled, each approval to one place.
    #[must_use]
    pub fn tally(&self, approvals: &[&ApprovingPerson], people: &ChangePeople) -> Vec<RuleTally> {
        let mut assignment = PlaceAssignment::new(self);
        for index in 0..approvals.len() {
            let accepts = |rule: usize, approval: usize| {
                self.rules[rule].accepts(approvals[approval], people)
            };
            assignment.assign(index, &accepts);
        }
        let tally = |(index, rule): (usize, &ApprovalRule)| {
            let mut taken: Vec<usize> = assignment.taken[index].clone();
            taken.sort_unstable();
            RuleTally {
                rule: rule.clone(),
                missing: rule.count.saturating_sub(taken.len() as u32),
                approved_by: (taken.into_iter())
                    .map(|approval| approvals[approval].name.clone())
                    .collect(),
            }
        };
        self.rules.iter().enumerate().map(tally).collect()
    }

    /// The first rule that the people named in all rules can't fulfil, each approving once. Rules that more people than those named may
    /// fulfil are left out.
    #[must_use]
    pub fn unreachable_rule(&self) -> Option<RuleTally> {
        let closed = Self {
            rules: (self.rules.iter())
                .filter(|rule| !rule.is_open_ended())
                .cloned()
                .collect(),
            expires: None,
        };
        let mut people: Vec<ApprovingPerson> = Vec::new();
        for name in closed.rules.iter().flat_map(|rule| &rule.from) {
            if !people.iter().any(|person| person.name == *name) {
                people.push(ApprovingPerson {
                    name: name.clone(),
                    principal: None,
                    groups: Vec::new(),
                });
            }
        }
        let people: Vec<&ApprovingPerson> = people.iter().collect();
        let tallies = closed.tally(&people, &ChangePeople::default());
        tallies.into_iter().find(|tally| tally.missing > 0)
    }
}

/// Places of rules and the approvals in them: a bipartite matching that grows by augmenting paths.
struct PlaceAssignment {
    /// The number of places of each rule.
    counts: Vec<usize>,
    /// For each rule the approvals in its places, by index.
    taken: Vec<Vec<usize>>,
}

impl PlaceAssignment {
    fn new(policy: &ApprovalPolicy) -> Self {
        Self {
            counts: policy.rules.iter().map(|it| it.count as usize).collect(),
            taken: vec![Vec::new(); policy.rules.len()],
        }
    }

    /// Gives an approval a place; approvals that have one may move to another rule for it.
    fn assign(&mut self, approval: usize, accepts: &dyn Fn(usize, usize) -> bool) {
        let mut visited = vec![false; self.counts.len()];
        self.fill_seat(approval, accepts, &mut visited);
    }

    /// Depth is bounded by the number of rules: each is visited once.
    fn fill_seat(
        &mut self,
        approval: usize,
        accepts: &dyn Fn(usize, usize) -> bool,
        visited: &mut [bool],
    ) -> bool {
        for rule in 0..self.counts.len() {
            if visited[rule] || !accepts(rule, approval) {
                continue;
            }
            visited[rule] = true;
            if self.taken[rule].len() < self.counts[rule] {
                self.taken[rule].push(approval);
                return true;
            }
            for place in 0..self.taken[rule].len() {
                let other = self.taken[rule][place];
                if self.fill_seat(other, accepts, visited) {
                    self.taken[rule][place] = approval;
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(count: u32, from: &[&str]) -> ApprovalRule {
        ApprovalRule {
            count,
            from: from.iter().map(ToString::to_string).collect(),
            not: Vec::new(),
        }
    }

    fn policy(rules: Vec<ApprovalRule>) -> ApprovalPolicy {
        ApprovalPolicy {
            rules,
            expires: None,
        }
    }

    fn person(name: &str, groups: &[&str]) -> ApprovingPerson {
        ApprovingPerson {
            name: name.to_owned(),
            principal: None,
            groups: groups.iter().map(ToString::to_string).collect(),
        }
    }

    fn missing(policy: &ApprovalPolicy, people: &[ApprovingPerson]) -> u32 {
        let approvals: Vec<&ApprovingPerson> = people.iter().collect();
        let tallies = policy.tally(&approvals, &ChangePeople::default());
        tallies.iter().map(|it| it.missing).sum()
    }

    #[test]
    fn one_person_fills_one_place_and_moves_where_another_can_take_it() {
        let two = policy(vec![rule(1, &["@platform"]), rule(1, &["@security"])]);
        let ada = person("ada", &["@platform", "@security"]);
        assert_eq!(missing(&two, std::slice::from_ref(&ada)), 1);
        // Ada took the place of @platform first; bob is in no other group, so she moves to @security.
        let bob = person("bob", &["@platform"]);
        assert_eq!(missing(&two, &[ada.clone(), bob.clone()]), 0);
        assert_eq!(missing(&two, &[bob, ada]), 0);
    }

    #[test]
    fn a_rule_alone_is_written_as_it_always_was() {
        let old = serde_json::json!({ "count": 2, "from": ["ada", "@ops"] });
        let read: ApprovalPolicy = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(read, rule(2, &["ada", "@ops"]).into());
        assert_eq!(serde_json::to_value(&read).unwrap(), old);
        let several = policy(vec![rule(1, &[]), rule(1, &["ada"])]);
        let written = serde_json::to_value(&several).unwrap();
        let again: ApprovalPolicy = serde_json::from_value(written).unwrap();
        assert_eq!(again, several);
    }

    #[test]
    fn rules_that_the_named_people_can_never_fulfil_are_found() {
        let reachable = |rules| policy(rules).unreachable_rule().is_none();
        assert!(reachable(vec![rule(2, &["ada", "bob"])]));
        assert!(!reachable(vec![rule(3, &["ada", "bob"])]));
        assert!(reachable(vec![rule(3, &["ada", "@ops"])]));
        assert!(reachable(vec![rule(100, &[])]));
        // A name written twice is one person, and a person fills one place.
        assert!(!reachable(vec![rule(2, &["ada", "ada"])]));
        assert!(!reachable(vec![rule(1, &["ada"]), rule(1, &["ada"])]));
        assert!(reachable(vec![rule(1, &["ada"]), rule(1, &["ada", "bob"])]));
    }

    proptest! {
        /// The assignment fills as many places as trying all assignments would.
        #[test]
        fn no_other_assignment_fills_more_places(
            counts in proptest::collection::vec(1_u32..3, 1..4),
            memberships in proptest::collection::vec(0_u8..8, 0..6),
        ) {
            let rules: Vec<ApprovalRule> = counts
                .iter()
                .enumerate()
                .map(|(index, count)| rule(*count, &[&format!("@g{index}")]))
                .collect();
            let people: Vec<ApprovingPerson> = memberships
                .iter()
                .enumerate()
                .map(|(index, mask)| {
                    let groups: Vec<String> = (0..counts.len())
                        .filter(|bit| mask & (1 << bit) != 0)
                        .map(|bit| format!("@g{bit}"))
                        .collect();
                    ApprovingPerson { name: format!("p{index}"), principal: None, groups }
                })
                .collect();
            let total: u32 = counts.iter().sum();
            let policy = policy(rules);
            let found = total - missing(&policy, &people);
            prop_assert_eq!(found, best(&policy, &people, &mut counts.clone(), 0));
            let approvals: Vec<&ApprovingPerson> = people.iter().collect();
            let mut seated: Vec<String> = policy
                .tally(&approvals, &ChangePeople::default())
                .into_iter()
                .flat_map(|tally| tally.approved_by)
                .collect();
            seated.sort();
            let all = seated.len();
            seated.dedup();
            prop_assert_eq!(seated.len(), all, "a person has one place");
        }
    }

    /// The most places that people from `at` on can fill, by trying everything.
    fn best(
        policy: &ApprovalPolicy,
        people: &[ApprovingPerson],
        open: &mut [u32],
        at: usize,
    ) -> u32 {
        let Some(person) = people.get(at) else {
            return 0;
        };
        let mut most = best(policy, people, open, at + 1);
        for index in 0..open.len() {
            if open[index] > 0 && policy.rules[index].names(person) {
                open[index] -= 1;
                most = most.max(1 + best(policy, people, open, at + 1));
                open[index] += 1;
            }
        }
        most
    }
}
