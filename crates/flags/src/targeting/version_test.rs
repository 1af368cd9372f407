//! `sem_ver`: comparisons of semantic versions.

use std::borrow::Cow;
use std::cmp::Ordering;

use semver::Version;

use super::operand::TargetingOperand;

/// Longer versions are not versions.
const VERSION_BYTES_MAX: usize = 256;

/// How two versions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionOperator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    SameMajor,
    SameMinor,
}

/// What the second argument of `sem_ver` may be.
pub(crate) const VERSION_OPERATORS: [&str; 8] = ["=", "!=", "<", "<=", ">", ">=", "^", "~"];

impl VersionOperator {
    pub(crate) fn parse(text: &str) -> Option<VersionOperator> {
        Some(match text {
            "=" => VersionOperator::Equal,
            "!=" => VersionOperator::NotEqual,
            "<" => VersionOperator::Less,
            "<=" => VersionOperator::LessOrEqual,
            ">" => VersionOperator::Greater,
            ">=" => VersionOperator::GreaterOrEqual,
            "^" => VersionOperator::SameMajor,
            "~" => VersionOperator::SameMinor,
            _ => return None,
        })
    }

    pub(crate) fn matches(self, actual: &Version, expected: &Version) -> bool {
        let order = actual.cmp_precedence(expected);
        let is_same_major = actual.major == expected.major;
        match self {
            VersionOperator::Equal => order == Ordering::Equal,
            VersionOperator::NotEqual => order != Ordering::Equal,
            VersionOperator::Less => order == Ordering::Less,
            VersionOperator::LessOrEqual => order != Ordering::Greater,
            VersionOperator::Greater => order == Ordering::Greater,
            VersionOperator::GreaterOrEqual => order != Ordering::Less,
            VersionOperator::SameMajor => is_same_major,
            VersionOperator::SameMinor => is_same_major && actual.minor == expected.minor,
        }
    }
}

/// The version that a value names: a leading `v` is dropped, missing parts are 0, numbers are read as they are printed.
pub(crate) fn version_from_operand(operand: &TargetingOperand<'_>) -> Option<Version> {
    match operand {
        TargetingOperand::Text(text) => parse_padded_version(text),
        TargetingOperand::Number(_) => parse_padded_version(&operand.to_text()),
        _ => None,
    }
}

pub(crate) fn parse_padded_version(text: &str) -> Option<Version> {
    if text.len() > VERSION_BYTES_MAX {
        return None;
    }
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let core_end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, suffix) = text.split_at(core_end);
    let padded = match core.matches('.').count() {
        0 => Cow::Owned(format!("{core}.0.0{suffix}")),
        1 => Cow::Owned(format!("{core}.0{suffix}")),
        _ => Cow::Borrowed(text),
    };
    Version::parse(&padded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_padded_and_compared_without_build_metadata() {
        for (actual, operator, expected, is_match) in [
            ("v1.2.3", "=", "1.2.3", true),
            ("V1", "=", "1.0.0", true),
            ("1.2-rc.1", "<", "1.2", true),
            ("1.0.0+a", "=", "1.0.0+b", true),
            ("1.10.0", ">", "1.9.0", true),
            ("2.0.0", "^", "2.9.1-x", true),
            ("2.1.0", "~", "2.2.0", false),
            ("1.0.0", "!=", "1.0", false),
            ("1.0.0", ">=", "1.0.0", true),
            ("1.0.1", "<=", "1.0.0", false),
        ] {
            let operator = VersionOperator::parse(operator).unwrap();
            let versions = [actual, expected].map(|text| parse_padded_version(text).unwrap());
            assert_eq!(
                operator.matches(&versions[0], &versions[1]),
                is_match,
                "{actual} {expected}"
            );
        }
    }

    #[test]
    fn other_texts_are_not_versions() {
        for text in [
            "",
            "v",
            "1.2.3.4",
            "01.0.0",
            "1.x",
            "not-a-version",
            "-1",
            "1e3",
        ] {
            assert_eq!(parse_padded_version(text), None, "{text}");
        }
        assert_eq!(parse_padded_version(&"1".repeat(10_000)), None);
        for operator in ["", "==", "===", "eq"] {
            assert_eq!(VersionOperator::parse(operator), None);
        }
    }
}
