//! What starts a workflow, and whether a push does.

use serde::{Deserialize, Serialize};

use crate::{
    expr::{ExprValue, Template},
    glob::{GlobError, GlobPattern},
};

/// `on:`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Triggers {
    /// `push`
    pub push: Option<PushTrigger>,
    /// `workflow_dispatch`
    pub workflow_dispatch: Option<DispatchTrigger>,
    /// `workflow_call`
    pub workflow_call: Option<WorkflowCall>,
    /// `schedule`
    pub schedule: Vec<ScheduleTrigger>,
    /// All others, `pull_request` among them.
    pub others: Vec<OtherEvent>,
}

impl Triggers {
    /// Whether a push starts the workflow.
    ///
    /// Filters on branches alone leave tags out, and the other way round; paths are looked at for branches only. An unknown
    /// list of changed paths (a new branch without a base) counts as a change everywhere.
    #[must_use]
    pub fn matches_push(&self, push: &PushEvent) -> bool {
        let Some(trigger) = &self.push else {
            return false;
        };
        let (kind, name) = match push.reference.split_at_checked("refs/heads/".len()) {
            Some(("refs/heads/", branch)) => (RefKind::Branch, branch),
            _ => match push.reference.strip_prefix("refs/tags/") {
                Some(tag) => (RefKind::Tag, tag),
                None => return false,
            },
        };
        let of_refs = match (kind, &trigger.refs.branches, &trigger.refs.tags) {
            (_, None, None) => true,
            (RefKind::Branch, Some(filter), _) | (RefKind::Tag, _, Some(filter)) => {
                filter.takes(name)
            }
            (RefKind::Branch, None, Some(_)) | (RefKind::Tag, Some(_), None) => false,
        };
        of_refs
            && (kind == RefKind::Tag
                || trigger
                    .paths
                    .as_ref()
                    .is_none_or(|paths| paths.takes(push.changed_paths.as_deref())))
    }

    /// Whether a workflow is started by hand with it.
    #[must_use]
    pub const fn takes_dispatch(&self) -> bool {
        self.workflow_dispatch.is_some()
    }
}

/// A push, as far as filters look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushEvent {
    /// The full name of the ref: `refs/heads/main`, `refs/tags/v1`.
    pub reference: String,
    /// The paths that changed, from the root of the repository; none when they can't be known.
    pub changed_paths: Option<Vec<String>>,
}

/// What a ref is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefKind {
    /// `refs/heads/`
    Branch,
    /// `refs/tags/`
    Tag,
}

/// `push`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PushTrigger {
    /// `branches`, `branches-ignore`, `tags`, `tags-ignore`
    pub refs: RefFilter,
    /// `paths`, `paths-ignore`
    pub paths: Option<PathFilter>,
}

/// Which refs are taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RefFilter {
    /// Of branches.
    pub branches: Option<PatternFilter>,
    /// Of tags.
    pub tags: Option<PatternFilter>,
}

/// Patterns, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatternFilter {
    /// What the last pattern that matches takes: `!` gives up what patterns before it took.
    Only(Vec<FilterPattern>),
    /// What no pattern takes.
    Ignore(Vec<FilterPattern>),
}

impl PatternFilter {
    /// Whether `name` is taken.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        match self {
            Self::Only(patterns) => in_order(patterns, name),
            Self::Ignore(patterns) => !in_order(patterns, name),
        }
    }

    /// Its patterns.
    #[must_use]
    pub fn patterns(&self) -> &[FilterPattern] {
        match self {
            Self::Only(patterns) | Self::Ignore(patterns) => patterns,
        }
    }
}

fn in_order(patterns: &[FilterPattern], name: &str) -> bool {
    patterns
        .iter()
        .rev()
        .find(|pattern| pattern.glob.matches(name))
        .is_some_and(|pattern| !pattern.negated)
}

/// Bytes of the patterns times bytes of the changed paths: what matching costs at worst, some seconds. 10 patterns of 30 bytes on
/// 10,000 paths of 50 bytes are 150 million.
const MATCH_COST_MAX: usize = 1_000_000_000;

/// Which changed paths matter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathFilter(pub PatternFilter);

impl PathFilter {
    /// Whether any changed path is taken. Where that would cost too much to know, as where the paths can't be known: yes.
    #[must_use]
    pub fn takes(&self, changed: Option<&[String]>) -> bool {
        let Some(paths) = changed else {
            return true;
        };
        self.costs_too_much(paths) || paths.iter().any(|path| self.0.takes(path))
    }

    /// The changed paths that are taken; where that would cost too much to know, all of them.
    #[must_use]
    pub fn select(&self, changed: &[String]) -> Vec<String> {
        if self.costs_too_much(changed) {
            return changed.to_vec();
        }
        let taken = changed.iter().filter(|path| self.0.takes(path));
        taken.cloned().collect()
    }

    fn costs_too_much(&self, paths: &[String]) -> bool {
        let patterns = self.0.patterns().iter();
        let pattern_bytes: usize = patterns.map(|it| it.glob.as_str().len()).sum();
        let path_bytes: usize = paths.iter().map(String::len).sum();
        pattern_bytes.saturating_mul(path_bytes) > MATCH_COST_MAX
    }
}

/// A pattern, which may take back: `!docs/**`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilterPattern {
    /// Whether it begins with `!`.
    pub negated: bool,
    /// The rest.
    pub glob: GlobPattern,
}

impl std::str::FromStr for FilterPattern {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        let rest = text.strip_prefix('!');
        Ok(Self {
            negated: rest.is_some(),
            glob: GlobPattern::parse(rest.unwrap_or(text))?,
        })
    }
}

impl TryFrom<String> for FilterPattern {
    type Error = GlobError;

    fn try_from(text: String) -> Result<Self, GlobError> {
        text.parse()
    }
}

impl From<FilterPattern> for String {
    fn from(pattern: FilterPattern) -> Self {
        format!(
            "{}{}",
            if pattern.negated { "!" } else { "" },
            pattern.glob.as_str()
        )
    }
}

/// `workflow_dispatch`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DispatchTrigger {
    /// The inputs, in the order of the file.
    pub inputs: Vec<(String, DispatchInput)>,
}

/// One input of a workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DispatchInput {
    /// Its purpose, shown to people.
    pub description: Option<String>,
    /// What it holds.
    pub kind: InputType,
    /// Whether it must be given.
    pub required: bool,
    /// Its default.
    pub default: Option<ExprValue>,
    /// What a `choice` may be.
    pub options: Vec<String>,
}

/// What an input holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// Text.
    #[default]
    String,
    /// `true` or `false`
    Boolean,
    /// A number.
    Number,
    /// One of the options.
    Choice,
    /// The name of an environment.
    Environment,
}

/// An input that was given and can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The workflow declares no such input.
    #[error("this workflow has no input `{name}`; it has {known}")]
    Unknown {
        /// Its name.
        name: String,
        /// The known names.
        known: String,
    },
    /// It must be given.
    #[error("the input `{0}` is required: give it with --input {0}=…")]
    Missing(String),
    /// It isn't what it should be.
    #[error("the input `{name}` must be {expected}, but is '{value}'")]
    Invalid {
        /// Its name.
        name: String,
        /// The given value.
        value: String,
        /// What would do.
        expected: String,
    },
}

impl DispatchTrigger {
    /// The `inputs` context: given values, checked and typed, and defaults for the others.
    pub fn inputs<'g>(
        &self,
        given: impl IntoIterator<Item = (&'g str, &'g str)>,
    ) -> Result<ExprValue, InputError> {
        let given: Vec<_> = given.into_iter().collect();
        for (name, _) in &given {
            if !self
                .inputs
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                let known =
                    crate::expr::join_with_and(self.inputs.iter().map(|(name, _)| name.as_str()));
                return Err(InputError::Unknown {
                    name: (*name).to_owned(),
                    known,
                });
            }
        }
        let mut entries = Vec::new();
        for (name, input) in &self.inputs {
            let value = match given.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
                Some((_, text)) => input.read(name, text)?,
                None if input.required && input.default.is_none() => {
                    return Err(InputError::Missing(name.clone()));
                }
                None => input.default.clone().unwrap_or_else(|| input.kind.empty()),
            };
            entries.push((name.as_str(), value));
        }
        Ok(ExprValue::object(entries))
    }
}

impl DispatchInput {
    fn read(&self, name: &str, text: &str) -> Result<ExprValue, InputError> {
        let invalid = |expected: String| InputError::Invalid {
            name: name.to_owned(),
            value: text.chars().take(80).collect(),
            expected,
        };
        match self.kind {
            InputType::String | InputType::Environment => Ok(ExprValue::from(text)),
            InputType::Boolean if text == "true" || text == "false" => {
                Ok(ExprValue::Bool(text == "true"))
            }
            InputType::Boolean => Err(invalid("true or false".to_owned())),
            InputType::Number => match ExprValue::from(text).to_number() {
                number if number.is_nan() => Err(invalid("a number".to_owned())),
                number => Ok(ExprValue::Number(number)),
            },
            InputType::Choice if self.options.iter().any(|option| option == text) => {
                Ok(ExprValue::from(text))
            }
            InputType::Choice => Err(invalid(format!(
                "one of {}",
                crate::expr::join_with_and(self.options.iter().map(String::as_str))
            ))),
        }
    }
}

impl InputType {
    /// The value of an input of this type without value and default.
    pub(crate) fn empty(self) -> ExprValue {
        match self {
            Self::String | Self::Choice | Self::Environment => ExprValue::from(""),
            Self::Boolean => ExprValue::Bool(false),
            Self::Number => ExprValue::Number(0.0),
        }
    }
}

/// `workflow_call`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkflowCall {
    /// What the caller gives.
    pub inputs: Vec<(String, CallInput)>,
    /// The secrets that the caller gives, and whether each must be.
    pub secrets: Vec<(String, bool)>,
    /// What the caller sees of it.
    pub outputs: Vec<(String, Template)>,
}

/// An input of a called workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallInput {
    /// What it holds.
    pub kind: InputType,
    /// Whether it must be given.
    pub required: bool,
    /// Its default.
    pub default: Option<Template>,
}

/// One line of `schedule`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleTrigger {
    /// Five fields: minute, hour, day, month, weekday.
    pub cron: String,
    /// The time zone meant; UTC when not said.
    pub timezone: Option<String>,
}

/// An event that Shipway keeps and doesn't raise itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherEvent {
    /// Its name: `pull_request`.
    pub name: String,
    /// Its activity types; empty: the usual ones.
    pub types: Vec<String>,
    /// Of which branches.
    pub branches: Option<PatternFilter>,
    /// With which changes.
    pub paths: Option<PathFilter>,
    /// After which workflows, for `workflow_run`.
    pub workflows: Vec<String>,
}

/// The activities of pull requests that start a workflow without `types`.
const PULL_REQUEST_DEFAULTS: [&str; 3] = ["opened", "synchronize", "reopened"];

impl OtherEvent {
    /// Whether an activity of the event starts the workflow.
    #[must_use]
    pub fn takes_activity(&self, activity: &str) -> bool {
        let is_pull_request = matches!(&*self.name, "pull_request" | "pull_request_target");
        match self.types.as_slice() {
            [] if is_pull_request => PULL_REQUEST_DEFAULTS.contains(&activity),
            [] => true,
            types => types.iter().any(|known| known == activity),
        }
    }

    /// Whether an activity of a pull request into the branch `base` starts the workflow; `changed` are its paths.
    #[must_use]
    pub fn takes_pull_request(&self, activity: &str, base: &str, changed: &[String]) -> bool {
        let takes_branch = self.branches.as_ref().is_none_or(|it| it.takes(base));
        let takes_paths = || {
            let paths = self.paths.as_ref();
            paths.is_none_or(|it| it.takes(Some(changed)))
        };
        self.name == "pull_request"
            && self.takes_activity(activity)
            && takes_branch
            && takes_paths()
    }
}
