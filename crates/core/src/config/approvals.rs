//! `approvals`: a number, one rule, or a list of rules.

use std::time::Duration;

use shipway_syntax::{Diagnostic, MappingFields, Span, Spanned, YamlNode};

use crate::{
    field_values::{Problems, later, unknown_choice},
    gate::{ApprovalPolicy, ApprovalRule, ChangeRole, OWNERS_FILE},
};

const KEYS: &[&str] = &["count", "from", "not", "expires"];
/// The most approvals that one rule may require.
const COUNT_MAX: u32 = 100;
/// The most rules of an environment, and the most entries of a list of people.
const ENTRIES_MAX: usize = 50;
/// The longest name of a person or a group, in bytes.
const NAME_BYTES_MAX: usize = 100;
const EXAMPLE: &str = "for example `approvals: { count: 2, from: [alice, \"@platform\"] }`; leave it out for continuous deployment";

/// The approvals of an environment.
pub(super) fn approvals(
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> Option<ApprovalPolicy> {
    let node = fields.get("approvals")?;
    if let Some(text) = node.as_scalar_text() {
        return count_alone(text, node.span, problems);
    }
    let nodes = node.as_sequence().unwrap_or(std::slice::from_ref(node));
    if nodes.is_empty() || nodes.len() > ENTRIES_MAX {
        let message = format!("`approvals` must have 1 to {ENTRIES_MAX} rules");
        problems.push(Diagnostic::error("wrong-type", node.span, message).help(EXAMPLE));
        return None;
    }
    let before = problems.len();
    let mut rules = Vec::new();
    let mut expires: Option<Duration> = None;
    for node in nodes {
        let (rule, expiry) = rule(node, problems)?;
        rules.push(rule);
        // All rules belong to one gate: the shortest expiry ends it.
        expires = expires.into_iter().chain(expiry).min();
    }
    let policy = ApprovalPolicy { rules, expires };
    if problems.len() == before {
        refuse_unreachable(&policy, node.span, problems);
    }
    Some(policy)
}

/// `approvals: 2`: that many people, without a list of names.
fn count_alone(text: &str, span: Span, problems: &mut Problems) -> Option<ApprovalPolicy> {
    let count = text.parse::<u32>().ok();
    let count = count.filter(|it| (1..=COUNT_MAX).contains(it));
    if count.is_none() {
        let message = format!(
            "`approvals` must be a number from 1 to {COUNT_MAX}, a rule or a list of rules, but this is `{text}`"
        );
        problems.push(Diagnostic::error("wrong-type", span, message).help(EXAMPLE));
    }
    let rule = ApprovalRule::anyone();
    count.map(|count| ApprovalRule { count, ..rule }.into())
}

fn rule(node: &YamlNode, problems: &mut Problems) -> Option<(ApprovalRule, Option<Duration>)> {
    let fields = MappingFields::read(node, "approvals", KEYS, problems)?;
    let expires = fields.duration("expires", problems);
    if expires.is_some_and(|it| it.is_zero()) {
        let message = "`expires: 0s` rejects every rollout at once";
        problems.push(Diagnostic::error("bad-value", node.span, message).help(
            "say how long a rollout waits for approval, such as `7d`; the default is 30 days",
        ));
    }
    let count = fields.integer("count", 1, COUNT_MAX, problems);
    let from = people(&fields, "from", problems);
    if from.iter().any(|entry| entry == OWNERS_FILE) {
        problems.push(later(node.span, "`owners-file`").help("name people or groups in `from`"));
    }
    let rule = ApprovalRule {
        count: count.unwrap_or(1),
        from,
        not: excluded_roles(&fields, problems),
    };
    Some((rule, expires))
}

/// A list of names and groups. A list that is written must not be empty.
pub(super) fn people(
    fields: &MappingFields<'_>,
    key: &str,
    problems: &mut Problems,
) -> Vec<String> {
    let Some(node) = fields.get(key) else {
        return Vec::new();
    };
    let names = fields.strings(key, problems);
    if node.as_sequence().is_some_and(<[YamlNode]>::is_empty) {
        let message = format!("`{key}` is an empty list");
        problems.push(
            Diagnostic::error("bad-value", node.span, message)
                .help(format!("name people or groups, or leave `{key}` out")),
        );
    }
    if names.len() > ENTRIES_MAX {
        let message = format!("`{key}` has more than {ENTRIES_MAX} entries");
        problems.push(
            Diagnostic::error("bad-value", node.span, message)
                .help("put the people into a group, and name the group"),
        );
        return Vec::new();
    }
    let valid = names
        .into_iter()
        .filter(|name| is_valid_name(name, problems));
    valid.map(|name| name.value).collect()
}

fn is_valid_name(name: &Spanned<String>, problems: &mut Problems) -> bool {
    let text = name.value.as_str();
    let bare = text.strip_prefix('@').unwrap_or(text);
    let is_valid = !bare.is_empty()
        && bare.trim() == bare
        && text.len() <= NAME_BYTES_MAX
        && !text.contains(|it: char| it.is_control() || it == ',');
    if !is_valid {
        let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
        problems.push(
            Diagnostic::error(
                "bad-value",
                name.span,
                format!("`{shown}` is not the name of a person or a group"),
            )
            .help("write a user name, or a group as \"@platform\""),
        );
    }
    is_valid
}

fn excluded_roles(fields: &MappingFields<'_>, problems: &mut Problems) -> Vec<ChangeRole> {
    let mut roles = Vec::new();
    for word in fields.strings("not", problems) {
        let mut known = ChangeRole::WORDS.iter();
        match known.find(|(name, _)| *name == word.value) {
            Some((_, role)) if roles.contains(role) => {}
            Some((_, role)) => roles.push(*role),
            None => problems.push(unknown_choice(
                &word,
                "`not`",
                &ChangeRole::WORDS.map(|(name, _)| name),
            )),
        }
    }
    roles
}

/// Refuses approvals that can never be complete.
fn refuse_unreachable(policy: &ApprovalPolicy, span: Span, problems: &mut Problems) {
    let Some(tally) = policy.unreachable_rule() else {
        return;
    };
    let people = tally.approved_by.len();
    let message = if policy.rules.len() == 1 {
        format!(
            "{} approvals are required, but only {people} people may approve",
            tally.rule.count
        )
    } else {
        format!(
            "the people named can't fulfil all rules: `{}` gets only {people}, because each person counts in one rule only",
            tally.rule
        )
    };
    problems.push(
        Diagnostic::error("bad-value", span, message)
            .help("name more people or a group, or lower `count`"),
    );
}

#[cfg(test)]
mod tests {
    use shipway_syntax::SourceFile;

    use crate::{
        config::parse,
        gate::{ApprovalPolicy, ChangeRole},
    };

    /// The approvals that a file with this value asks for, or its problems.
    fn read(approvals: &str) -> Result<ApprovalPolicy, String> {
        let text = format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production:\n    approvals: {approvals}\n"
        );
        let source = SourceFile::new("shipway.yaml", text.as_str());
        let lines = |problems: &[shipway_syntax::Diagnostic]| {
            let lines = problems.iter().map(|it| it.one_line(&source));
            lines.collect::<Vec<_>>().join("\n")
        };
        match parse(&source) {
            Ok((config, warnings)) if warnings.is_empty() => {
                Ok(config.environments[0].approvals.clone().unwrap())
            }
            Ok((_, warnings)) => Err(lines(&warnings)),
            Err(problems) => Err(lines(&problems)),
        }
    }

    #[test]
    fn a_number_one_rule_and_a_list_of_rules_are_read() {
        assert_eq!(read("2").unwrap().to_string(), "2 approvals");
        assert_eq!(
            read("{ from: [alice, '@ops'], not: [author, triggerer] }")
                .unwrap()
                .to_string(),
            "1 approval from alice, @ops, not by the author or the triggerer"
        );
        let several = read(
            "[{ count: 2, from: ['@platform'], expires: 7d }, { from: '@security', not: author, expires: 2d }]",
        )
        .unwrap();
        assert_eq!(
            several.to_string(),
            "2 approvals from @platform and 1 approval from @security, not by the author"
        );
        assert_eq!(several.expires.unwrap().as_secs(), 2 * 86_400);
        assert_eq!(several.rules[1].not, [ChangeRole::Author]);
    }

    #[test]
    fn approvals_that_cannot_be_given_or_understood_are_refused() {
        let too_long = format!("{{ from: [{}] }}", "x".repeat(200));
        let crowd = format!("{{ from: [{}] }}", "x, ".repeat(60));
        for (written, expected) in [
            ("0", "must be a number from 1 to 100"),
            ("-1", "must be a number from 1 to 100"),
            ("many", "but this is `many`"),
            ("[]", "must have 1 to 50 rules"),
            ("{ from: [] }", "`from` is an empty list"),
            ("{ from: ['@'] }", "`@` is not the name of a person"),
            ("{ from: [\"a\\u001b[2J\"] }", "is not the name of a person"),
            (too_long.as_str(), "is not the name of a person"),
            (crowd.as_str(), "more than 50 entries"),
            (
                "{ count: 3, from: [ann, bob] }",
                "only 2 people may approve",
            ),
            (
                "[{ from: [ann] }, { from: [ann] }]",
                "each person counts in one rule only",
            ),
            ("{ not: [writer] }", "`not` must be one of author"),
            ("{ expires: 0s }", "rejects every rollout at once"),
            (
                "{ from: owners-file }",
                "`owners-file` is not supported yet",
            ),
            ("{ people: 2 }", "people"),
        ] {
            let refused = read(written).unwrap_err();
            assert!(refused.contains(expected), "{written}: {refused}");
        }
    }
}
