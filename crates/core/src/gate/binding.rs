//! What an approval is for: it counts for exactly this artifact, configuration, plan and environment.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, EnvironmentName};

/// The subject of a gate. An approval given for one binding does not count for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalBinding {
    pub artifact: Digest,
    /// The digest of the release's `shipway.yaml`.
    pub configuration: Digest,
    /// The digest of the plan's actions; two plans that do the same have the same.
    pub plan: Digest,
    pub environment: EnvironmentName,
}

/// A part of an [`ApprovalBinding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundPart {
    Artifact,
    Configuration,
    Plan,
    Environment,
}

impl fmt::Display for BoundPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Artifact => "artifact",
            Self::Configuration => "configuration",
            Self::Plan => "plan",
            Self::Environment => "environment",
        })
    }
}

impl ApprovalBinding {
    /// The parts in which `other` differs.
    #[must_use]
    pub fn changed_parts(&self, other: &Self) -> Vec<BoundPart> {
        [
            (self.artifact != other.artifact, BoundPart::Artifact),
            (
                self.configuration != other.configuration,
                BoundPart::Configuration,
            ),
            (self.plan != other.plan, BoundPart::Plan),
            (
                self.environment != other.environment,
                BoundPart::Environment,
            ),
        ]
        .into_iter()
        .filter_map(|(is_changed, part)| is_changed.then_some(part))
        .collect()
    }
}

/// What the person who decides has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SeenSubject {
    /// The request names nothing.
    #[default]
    Unspecified,
    Plan(Digest),
    Binding(Box<ApprovalBinding>),
}

impl SeenSubject {
    /// The parts of `current` that are not those which were seen.
    #[must_use]
    pub fn outdated_parts(&self, current: &ApprovalBinding) -> Vec<BoundPart> {
        match self {
            Self::Unspecified => Vec::new(),
            Self::Plan(plan) if *plan == current.plan => Vec::new(),
            Self::Plan(_) => vec![BoundPart::Plan],
            Self::Binding(seen) => seen.changed_parts(current),
        }
    }
}

/// `the artifact and the plan`.
#[must_use]
pub fn describe_parts(parts: &[BoundPart]) -> String {
    let names: Vec<String> = parts.iter().map(|part| format!("the {part}")).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_in_each_part_is_named() {
        let digest = |text: &str| Digest::compute(text.as_bytes());
        let seen = ApprovalBinding {
            artifact: digest("a"),
            configuration: digest("c"),
            plan: digest("p"),
            environment: "production".parse().unwrap(),
        };
        assert_eq!(seen.changed_parts(&seen), []);
        let current = ApprovalBinding {
            artifact: digest("a2"),
            plan: digest("p2"),
            ..seen.clone()
        };
        let parts = SeenSubject::Binding(Box::new(seen.clone())).outdated_parts(&current);
        assert_eq!(describe_parts(&parts), "the artifact and the plan");
        let parts = SeenSubject::Plan(seen.plan).outdated_parts(&current);
        assert_eq!(describe_parts(&parts), "the plan");
        assert_eq!(SeenSubject::Unspecified.outdated_parts(&current), []);
    }
}
