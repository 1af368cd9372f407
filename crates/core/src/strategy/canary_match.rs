//! Requests that reach the new release in addition to its weight: those that match a rule, and copies (mirroring).
//!
//! ```
//! use shipway_core::rollout::canary_match::{RequestMatch, TextMatch};
//! let asked = RequestMatch { headers: [("x-canary".to_owned(), TextMatch::Is("1".to_owned()))].into(), ..RequestMatch::default() };
//! assert_eq!(asked.to_string(), "header x-canary: 1");
//! ```

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields, Span, YamlNode};

use crate::{ids::ReleaseNumber, weight::Weight};

/// What a request must have: all of it. As Gateway API and Istio read a match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMatch {
    /// Headers, by name in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextMatch>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, TextMatch>,
}

/// What a header or cookie must say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextMatch {
    Is(String),
    /// This, and perhaps more.
    Prefix(String),
    /// What this regular expression fits as a whole.
    Regex(String),
    Present,
}

/// Letters of a regular expression; more than tells testers from others.
const PATTERN_CHARS_MAX: usize = 200;
/// Of its automaton, in bytes. The proxy takes twice that, so it takes whatever is taken here.
const PATTERN_BYTES_MAX: usize = 64 * 1024;

/// Copies of requests whose answers are thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficMirror {
    /// Of how many requests.
    pub share: Weight,
    pub methods: MirrorScope,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorScope {
    /// Those that change nothing: GET, HEAD, OPTIONS.
    #[default]
    Safe,
    /// Those with a body of up to 64 KiB too.
    All,
}

/// Requests that reach a release in addition to its weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficMatch {
    /// Requests that fit one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RequestMatch>,
    /// Copies of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<TrafficMirror>,
    pub release: ReleaseNumber,
}

impl TrafficMatch {
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.matches.is_empty() && self.mirror.is_none()
    }
}

impl fmt::Display for TrafficMatch {
    /// `; header x-canary: 1 to #4; copies of 10% to #4`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, it) in self.matches.iter().enumerate() {
            write!(f, "{}{it}", if index == 0 { "; " } else { " or " })?;
        }
        if !self.matches.is_empty() {
            write!(f, " to {}", self.release)?;
        }
        if let Some(mirror) = self.mirror {
            write!(f, "; copies of {} to {}", mirror.share, self.release)?;
        }
        Ok(())
    }
}

impl fmt::Display for RequestMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.headers.iter().map(|it| ("header", ": ", it));
        let cookies = self.cookies.iter().map(|it| ("cookie", "=", it));
        for (index, (kind, is, (name, text))) in headers.chain(cookies).enumerate() {
            let and = if index == 0 { "" } else { " and " };
            match text {
                TextMatch::Is(value) => write!(f, "{and}{kind} {name}{is}{value}")?,
                TextMatch::Prefix(value) => write!(f, "{and}{kind} {name}{is}{value}…")?,
                TextMatch::Regex(value) => write!(f, "{and}{kind} {name}{is}/{value}/")?,
                TextMatch::Present => write!(f, "{and}{kind} {name}")?,
            }
        }
        Ok(())
    }
}

/// `match`: one mapping, or a list of which any may fit.
pub(super) fn matches(node: &YamlNode, problems: &mut Vec<Diagnostic>) -> Vec<RequestMatch> {
    let nodes = match node.as_sequence() {
        Some(nodes) => nodes.iter().collect(),
        None => vec![node],
    };
    nodes
        .into_iter()
        .filter_map(|node| one(node, problems))
        .collect()
}

fn one(node: &YamlNode, problems: &mut Vec<Diagnostic>) -> Option<RequestMatch> {
    let fields = MappingFields::read(node, "match", &["header", "cookie"], problems)?;
    let headers = texts(&fields, "header", problems);
    let found = RequestMatch {
        headers: headers
            .into_iter()
            .map(|(name, text)| (name.to_ascii_lowercase(), text))
            .collect(),
        cookies: texts(&fields, "cookie", problems),
    };
    let says_nothing = fields.get("header").is_none() && fields.get("cookie").is_none();
    if says_nothing {
        problems.push(
            Diagnostic::error("bad-value", node.span, "`match` needs at least one condition")
                .help("for example `match: { header: { x-canary: \"1\" } }` or `match: { cookie: { beta: \"yes\" } }`"),
        );
    }
    (found != RequestMatch::default()).then_some(found)
}

/// By name, a value or `{ prefix: … }` and the like.
fn texts(
    fields: &MappingFields<'_>,
    key: &'static str,
    problems: &mut Vec<Diagnostic>,
) -> BTreeMap<String, TextMatch> {
    let Some(node) = fields.get(key) else {
        return BTreeMap::new();
    };
    let Some(entries) = node.as_mapping() else {
        problems.push(
            Diagnostic::error(
                "wrong-type",
                node.span,
                format!("`{key}` maps names to values"),
            )
            .help(format!("for example `{key}: {{ beta: \"yes\" }}`")),
        );
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for (name, value) in entries {
        let is_token = !name.text.is_empty()
            && (name.text.bytes()).all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
        if !is_token {
            let message = format!("`{}` is not a valid name of a {key}", name.text);
            problems.push(Diagnostic::error("bad-value", name.span, message));
            continue;
        }
        if let Some(text) = text(value, problems) {
            found.insert(name.text.clone(), text);
        }
    }
    found
}

fn text(node: &YamlNode, problems: &mut Vec<Diagnostic>) -> Option<TextMatch> {
    let Some(text) = node.as_scalar_text() else {
        return text_match(node, problems);
    };
    printable(text.to_owned(), node.span, problems).map(TextMatch::Is)
}

/// `{ prefix: eu- }`, `{ regex: "eu-[0-9]+" }`, `{ present: true }`.
fn text_match(node: &YamlNode, problems: &mut Vec<Diagnostic>) -> Option<TextMatch> {
    const WAYS: [&str; 3] = ["prefix", "regex", "present"];
    const HELP: &str =
        "write `{ prefix: eu- }`, `{ regex: \"eu-[0-9]+\" }` or `{ present: true }`, or the value";
    let fields = MappingFields::read(node, "the value to match", &WAYS, problems)?;
    let ways = WAYS.iter().filter(|way| fields.get(way).is_some()).count();
    if ways != 1 {
        let message = if ways == 0 {
            "the value to match is missing"
        } else {
            "use only one of value, prefix, regex and present"
        };
        problems.push(Diagnostic::error("bad-value", node.span, message).help(HELP));
        return None;
    }
    if let Some(prefix) = fields.string("prefix", problems) {
        return printable(prefix.value, prefix.span, problems).map(TextMatch::Prefix);
    }
    if let Some(regex) = fields.string("regex", problems) {
        let pattern = printable(regex.value, regex.span, problems)?;
        return match check_pattern(&pattern) {
            Ok(()) => Some(TextMatch::Regex(pattern)),
            Err(why) => {
                let message = format!("`{pattern}` can't be matched: {why}");
                problems.push(Diagnostic::error("bad-value", regex.span, message).help(
                    "the syntax is RE2's, as with Istio: no look-around, no back-references",
                ));
                None
            }
        };
    }
    match fields.bool("present", problems) {
        Some(true) => Some(TextMatch::Present),
        Some(false) => {
            problems.push(
                Diagnostic::error(
                    "bad-value",
                    node.span,
                    "requests can't be matched by what they lack",
                )
                .help("requests that match no rule are split by weight"),
            );
            None
        }
        None => None,
    }
}

#[derive(Debug, thiserror::Error)]
enum MatchPatternError {
    #[error("it is longer than {PATTERN_CHARS_MAX} characters")]
    TooLong,
    #[error("its repetitions make it too large")]
    TooBig,
    #[error("{0}")]
    Syntax(String),
}

/// Checks that the proxy can match whole values with `pattern`, within its limits.
fn check_pattern(pattern: &str) -> Result<(), MatchPatternError> {
    if pattern.len() > PATTERN_CHARS_MAX {
        return Err(MatchPatternError::TooLong);
    }
    for text in [pattern, &format!(r"\A(?:{pattern})\z")] {
        let built = regex::bytes::RegexBuilder::new(text)
            .unicode(false)
            .size_limit(PATTERN_BYTES_MAX)
            .build();
        match built {
            Ok(_) => {}
            Err(regex::Error::CompiledTooBig(_)) => {
                return Err(MatchPatternError::TooBig);
            }
            // The last line is the message; the lines before it draw the position.
            Err(error) => {
                let told = error.to_string();
                let last = told.lines().last().unwrap_or_default();
                let message = last.trim_start_matches("error: ").to_owned();
                return Err(MatchPatternError::Syntax(message));
            }
        }
    }
    Ok(())
}

fn printable(value: String, span: Span, problems: &mut Vec<Diagnostic>) -> Option<String> {
    let fits = !value.is_empty() && value.bytes().all(|it| (0x20..0x7f).contains(&it));
    if !fits {
        problems.push(
            Diagnostic::error(
                "bad-value",
                span,
                "a value to match must be printable ASCII",
            )
            .help("quote it, for example \"1\""),
        );
    }
    fits.then_some(value)
}

/// `mirror: 10%`, or `mirror: { share: 10%, methods: all }`.
pub(super) fn mirror(node: &YamlNode, problems: &mut Vec<Diagnostic>) -> Option<TrafficMirror> {
    let (share, methods) = match node.as_scalar_text() {
        Some(text) => (Some((text.to_owned(), node.span)), MirrorScope::Safe),
        None => {
            let fields = MappingFields::read(node, "mirror", &["share", "methods"], problems)?;
            fields.require("share", problems);
            let words = [("safe", MirrorScope::Safe), ("all", MirrorScope::All)];
            let methods = crate::field_values::one_of(&fields, "methods", &words, problems);
            let share = fields.string("share", problems);
            (
                share.map(|it| (it.value, it.span)),
                methods.unwrap_or_default(),
            )
        }
    };
    let (text, span) = share?;
    match text.parse::<Weight>() {
        Ok(share) if !share.is_zero() => Some(TrafficMirror { share, methods }),
        Ok(_) => {
            problems.push(
                Diagnostic::error(
                    "bad-value",
                    span,
                    "a mirror with a share of 0 measures nothing",
                )
                .help("set a share above 0, or remove `mirror`"),
            );
            None
        }
        Err(error) => {
            problems.push(Diagnostic::error("bad-value", span, error.to_string()));
            None
        }
    }
}

/// The schema of `match`.
pub(super) fn match_schema() -> Value {
    let texts = json!({ "type": "object", "minProperties": 1, "additionalProperties": { "oneOf": [
        { "type": ["string", "number", "boolean"] },
        { "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": {
            "prefix": { "type": "string" },
            "regex": { "type": "string", "maxLength": PATTERN_CHARS_MAX, "description": "A regular expression (RE2 syntax) that matches the whole value." },
            "present": { "const": true, "description": "It is present and not empty." }
        } }
    ] } });
    let one = json!({ "type": "object", "minProperties": 1, "additionalProperties": false, "properties": { "header": with_description(&texts, "Conditions on request headers."), "cookie": with_description(&texts, "Conditions on cookies.") } });
    json!({ "description": "Requests that go to the new release from the first step on, whatever its weight.", "oneOf": [one, { "type": "array", "minItems": 1, "items": one }] })
}

fn with_description(schema: &Value, description: &str) -> Value {
    let mut schema = schema.clone();
    schema["description"] = json!(description);
    schema
}

/// The schema of `mirror`.
pub(super) fn mirror_schema() -> Value {
    let share = json!({ "type": ["string", "number"], "description": "Share of the requests, as a percentage." });
    json!({ "description": "Share of the requests that are copied to the canary while its weight is 0; responses are discarded, errors count.", "oneOf": [
        share,
        { "type": "object", "required": ["share"], "additionalProperties": false, "properties": { "share": share, "methods": { "enum": ["safe", "all"], "default": "safe", "description": "Copied methods: GET, HEAD and OPTIONS without a body, or all." } } }
    ] })
}
