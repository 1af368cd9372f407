//! Rules that lead certain requests to one release: what a header or cookie must say, made ready once for each snapshot.
//!
//! A pattern must fit the whole value, as with Istio and Envoy. It is of bytes (`\w` is ASCII's), its automaton is bounded, and
//! it is asked about values of a bounded length only, so that no visitor can make the proxy think for long.

use http::{HeaderMap, HeaderName, header::COOKIE};
use regex::bytes::{Regex, RegexBuilder};

use crate::protocol::{Backend, Compared, Match, Rule};

/// Of a pattern's automaton, in bytes; more than any pattern needs that tells testers from others.
const PATTERN_BYTES_MAX: usize = 128 * 1024;
/// Longer values fit no pattern: browsers keep cookies of up to 4 KiB, and time grows with the length.
const VALUE_BYTES_MAX: usize = 4 * 1024;

/// Rules in their order, with the backend that each leads to.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<(Fits, usize)>);

/// Why rules can't be made ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No header can have that name.
    #[error("`{0}` can't be the name of a header")]
    Name(String),
    /// Not a pattern, or one that is too large.
    #[error("`{0}` is no pattern to match: {1}")]
    Pattern(String, String),
}

/// What a request must have, ready to be compared.
#[derive(Debug)]
enum Fits {
    Header(HeaderName, Says),
    Cookie(String, Says),
    All(Vec<Fits>),
}

#[derive(Debug)]
enum Says {
    Exactly(Vec<u8>),
    Prefix(Vec<u8>),
    Pattern(Regex),
    Anything,
}

impl Rules {
    /// Adds rules behind those there are. A rule that leads to none of the backends is left out.
    pub(crate) fn add(&mut self, rules: &[Rule], backends: &[Backend]) -> Result<(), RuleError> {
        for rule in rules {
            let leads_to = |it: &Backend| it.release == rule.release;
            if let Some(backend) = backends.iter().position(leads_to) {
                self.0.push((Fits::of(&rule.only_if)?, backend));
            }
        }
        Ok(())
    }

    /// The backend of the first rule that the request fits, among those that are usable.
    pub(crate) fn backend(
        &self,
        headers: &HeaderMap,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut rules = self.0.iter();
        rules
            .find(|(fits, backend)| usable(*backend) && fits.fit(headers))
            .map(|(_, backend)| *backend)
    }
}

impl Fits {
    fn of(wanted: &Match) -> Result<Self, RuleError> {
        Ok(match wanted {
            Match::Header {
                name,
                value,
                compared,
            } => Self::Header(
                HeaderName::try_from(name.as_str()).map_err(|_| RuleError::Name(name.clone()))?,
                Says::of(*compared, value)?,
            ),
            Match::Cookie {
                name,
                value,
                compared,
            } => Self::Cookie(name.clone(), Says::of(*compared, value)?),
            Match::All(all) => Self::All(all.iter().map(Self::of).collect::<Result<_, _>>()?),
        })
    }

    fn fit(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Header(name, says) => {
                let mut values = headers.get_all(name).iter();
                values.any(|value| says.fits(value.as_bytes()))
            }
            Self::Cookie(name, says) => {
                cookie(headers, name).is_some_and(|value| says.fits(value.as_bytes()))
            }
            Self::All(all) => all.iter().all(|it| it.fit(headers)),
        }
    }
}

impl Says {
    fn of(compared: Compared, value: &str) -> Result<Self, RuleError> {
        Ok(match compared {
            Compared::Exact => Self::Exactly(value.into()),
            Compared::Prefix => Self::Prefix(value.into()),
            Compared::Regex => Self::Pattern(pattern(value)?),
            Compared::Present => Self::Anything,
        })
    }

    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Exactly(wanted) => value == wanted,
            Self::Prefix(wanted) => value.starts_with(wanted),
            Self::Pattern(pattern) => value.len() <= VALUE_BYTES_MAX && pattern.is_match(value),
            Self::Anything => !value.is_empty(),
        }
    }
}

fn pattern(text: &str) -> Result<Regex, RuleError> {
    let built = |text: &str| {
        RegexBuilder::new(text)
            .unicode(false)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
    };
    let bad = |error: regex::Error| RuleError::Pattern(text.to_owned(), error.to_string());
    // By itself first: within the brackets `a)(b` would pass.
    built(text).map_err(bad)?;
    built(&format!(r"\A(?:{text})\z")).map_err(bad)
}

/// The value of a cookie among those of a request; one that is empty is none.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
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

    fn rules(compared: Compared, value: &str) -> Result<Rules, RuleError> {
        let only_if = Match::Header {
            name: "x-user".to_owned(),
            value: value.to_owned(),
            compared,
        };
        let backend = Backend {
            release: 4,
            weight: 0,
            instances: Vec::new(),
        };
        let rule = Rule {
            only_if,
            release: 4,
        };
        let mut rules = Rules::default();
        rules.add(&[rule], &[backend]).map(|()| rules)
    }

    fn fits(compared: Compared, value: &str, said: &[u8]) -> bool {
        let said = http::HeaderValue::from_bytes(said).unwrap();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-user"), said)]);
        rules(compared, value).unwrap().backend(&headers, |_| true) == Some(0)
    }

    #[test]
    fn a_pattern_fits_the_whole_value() {
        let pattern = |text: &str, said: &str| fits(Compared::Regex, text, said.as_bytes());
        assert!(pattern("eu-[0-9]+", "eu-17"));
        assert!(!pattern("eu-[0-9]+", "eu-17x") && !pattern("eu-[0-9]+", "xeu-17"));
        assert!(pattern("a|ab", "ab"), "the longer one fits as a whole");
        assert!(pattern("(?i)beta", "BETA") && !pattern("beta", "BETA"));
        assert!(fits(Compared::Regex, ".*", b"caf\xe9"), "any byte");
        let long = "a".repeat(VALUE_BYTES_MAX);
        assert!(pattern("a*", &long) && !pattern("a*", &format!("{long}a")));
    }

    #[test]
    fn what_is_there_says_something() {
        assert!(fits(Compared::Present, "", b"0"));
        assert!(!fits(Compared::Present, "", b""));
        let none = HeaderMap::new();
        let present = rules(Compared::Present, "").unwrap();
        assert_eq!(present.backend(&none, |_| true), None);
        assert!(fits(Compared::Prefix, "eu-", b"eu-") && !fits(Compared::Prefix, "eu-", b"e"));
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_refused() {
        for bad in ["(", "a)(b", "(?=a)", "(a{500}){500}", "(?x)a#"] {
            let error = rules(Compared::Regex, bad).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    /// The pattern that stops engines which try again.
    #[test]
    fn no_visitor_makes_a_pattern_think_for_long() {
        let evil = format!("{}!", "a".repeat(VALUE_BYTES_MAX - 1));
        let begun = std::time::Instant::now();
        for _ in 0..20 {
            assert!(!fits(Compared::Regex, "(a+)+", evil.as_bytes()));
        }
        let took = begun.elapsed();
        assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    }
}
