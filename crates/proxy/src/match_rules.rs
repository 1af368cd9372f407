//! Rules that send certain requests to one release, compiled once per snapshot.
//!
//! A pattern must match the whole value, as in Istio and Envoy. Patterns match bytes (`\w` is ASCII), their automaton and the
//! length of the values are bounded: no client can make matching slow.

use http::{HeaderMap, HeaderName, header::COOKIE};
use regex::bytes::{Regex, RegexBuilder};

use crate::protocol::{RequestMatch, RouteBackend, RouteRule, ValueComparison};

/// Size limit of a pattern's automaton; more than any pattern needs that tells testers from others.
const PATTERN_BYTES_MAX: usize = 128 * 1024;
/// Longer values match no pattern: browsers store cookies of up to 4 KiB, and time grows with the length.
const VALUE_BYTES_MAX: usize = 4 * 1024;

/// Rules in order, each with the index of its backend.
#[derive(Debug, Default)]
pub(crate) struct CompiledRules(Vec<(RuleMatch, usize)>);

/// Why a rule can't be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not a valid header name.
    #[error("`{0}` is not a valid header name")]
    Name(String),
    /// Not a valid pattern, or one that is too large.
    #[error("`{0}` is not a valid pattern: {1}")]
    Pattern(String, String),
}

/// A compiled condition on a request's head.
#[derive(Debug)]
enum RuleMatch {
    Header(HeaderName, ValueMatch),
    Cookie(String, ValueMatch),
    All(Vec<RuleMatch>),
}

#[derive(Debug)]
enum ValueMatch {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Pattern(Regex),
    Present,
}

impl CompiledRules {
    /// Appends rules. A rule whose release is not among the backends is left out.
    pub(crate) fn add_rules(
        &mut self,
        rules: &[RouteRule],
        backends: &[RouteBackend],
    ) -> Result<(), RuleError> {
        for rule in rules {
            let leads_to = |it: &RouteBackend| it.release == rule.release;
            if let Some(backend) = backends.iter().position(leads_to) {
                self.0.push((RuleMatch::compile(&rule.only_if)?, backend));
            }
        }
        Ok(())
    }

    /// The backend of the first usable rule that matches.
    pub(crate) fn matching_backend(
        &self,
        headers: &HeaderMap,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut rules = self.0.iter();
        rules
            .find(|(rule_match, backend)| usable(*backend) && rule_match.matches(headers))
            .map(|(_, backend)| *backend)
    }
}

impl RuleMatch {
    fn compile(wanted: &RequestMatch) -> Result<Self, RuleError> {
        Ok(match wanted {
            RequestMatch::Header {
                name,
                value,
                compared,
            } => Self::Header(
                HeaderName::try_from(name.as_str()).map_err(|_| RuleError::Name(name.clone()))?,
                ValueMatch::compile(*compared, value)?,
            ),
            RequestMatch::Cookie {
                name,
                value,
                compared,
            } => Self::Cookie(name.clone(), ValueMatch::compile(*compared, value)?),
            RequestMatch::All(all) => {
                Self::All(all.iter().map(Self::compile).collect::<Result<_, _>>()?)
            }
        })
    }

    fn matches(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Header(name, value_match) => {
                let mut values = headers.get_all(name).iter();
                values.any(|value| value_match.matches(value.as_bytes()))
            }
            Self::Cookie(name, value_match) => cookie_value(headers, name)
                .is_some_and(|value| value_match.matches(value.as_bytes())),
            Self::All(all) => all.iter().all(|it| it.matches(headers)),
        }
    }
}

impl ValueMatch {
    fn compile(compared: ValueComparison, value: &str) -> Result<Self, RuleError> {
        Ok(match compared {
            ValueComparison::Exact => Self::Exact(value.into()),
            ValueComparison::Prefix => Self::Prefix(value.into()),
            ValueComparison::Regex => Self::Pattern(compile_pattern(value)?),
            ValueComparison::Present => Self::Present,
        })
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => value == wanted,
            Self::Prefix(wanted) => value.starts_with(wanted),
            Self::Pattern(pattern) => value.len() <= VALUE_BYTES_MAX && pattern.is_match(value),
            Self::Present => !value.is_empty(),
        }
    }
}

fn compile_pattern(text: &str) -> Result<Regex, RuleError> {
    let built = |text: &str| {
        RegexBuilder::new(text)
            .unicode(false)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
    };
    let bad = |error: regex::Error| RuleError::Pattern(text.to_owned(), error.to_string());
    // Without the group first: inside it `a)(b` would be accepted.
    built(text).map_err(bad)?;
    built(&format!(r"\A(?:{text})\z")).map_err(bad)
}

/// The value of a cookie; empty counts as absent.
pub(crate) fn cookie_value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(it, value)| *it == name && !value.is_empty())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(compared: ValueComparison, value: &str) -> Result<CompiledRules, RuleError> {
        let only_if = RequestMatch::Header {
            name: "x-user".to_owned(),
            value: value.to_owned(),
            compared,
        };
        let backend = RouteBackend {
            release: 4,
            weight: 0,
            instances: Vec::new(),
        };
        let rule = RouteRule {
            only_if,
            release: 4,
        };
        let mut rules = CompiledRules::default();
        rules.add_rules(&[rule], &[backend]).map(|()| rules)
    }

    fn fits(compared: ValueComparison, value: &str, said: &[u8]) -> bool {
        let said = http::HeaderValue::from_bytes(said).unwrap();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-user"), said)]);
        rules(compared, value)
            .unwrap()
            .matching_backend(&headers, |_| true)
            == Some(0)
    }

    #[test]
    fn a_pattern_fits_the_whole_value() {
        let pattern = |text: &str, said: &str| fits(ValueComparison::Regex, text, said.as_bytes());
        assert!(pattern("eu-[0-9]+", "eu-17"));
        assert!(!pattern("eu-[0-9]+", "eu-17x") && !pattern("eu-[0-9]+", "xeu-17"));
        assert!(pattern("a|ab", "ab"), "the longer one fits as a whole");
        assert!(pattern("(?i)beta", "BETA") && !pattern("beta", "BETA"));
        assert!(fits(ValueComparison::Regex, ".*", b"caf\xe9"), "any byte");
        let long = "a".repeat(VALUE_BYTES_MAX);
        assert!(pattern("a*", &long) && !pattern("a*", &format!("{long}a")));
    }

    #[test]
    fn what_is_there_says_something() {
        assert!(fits(ValueComparison::Present, "", b"0"));
        assert!(!fits(ValueComparison::Present, "", b""));
        let none = HeaderMap::new();
        let present = rules(ValueComparison::Present, "").unwrap();
        assert_eq!(present.matching_backend(&none, |_| true), None);
        assert!(
            fits(ValueComparison::Prefix, "eu-", b"eu-")
                && !fits(ValueComparison::Prefix, "eu-", b"e")
        );
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_refused() {
        for bad in ["(", "a)(b", "(?=a)", "(a{500}){500}", "(?x)a#"] {
            let error = rules(ValueComparison::Regex, bad).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    /// The pattern that stops engines which try again.
    #[test]
    fn no_visitor_makes_a_pattern_think_for_long() {
        let evil = format!("{}!", "a".repeat(VALUE_BYTES_MAX - 1));
        let started_at = std::time::Instant::now();
        for _ in 0..20 {
            assert!(!fits(ValueComparison::Regex, "(a+)+", evil.as_bytes()));
        }
        let took = started_at.elapsed();
        assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    }
}
