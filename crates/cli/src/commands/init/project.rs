//! What a kind of project finds out: how a project is built, tested and started.

/// How a project is built and started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DetectedProject {
    /// A noun phrase with its article: "a Go program".
    pub(super) description: String,
    /// A shell command; it listens on `$PORT`.
    pub(super) command: String,
    /// Comments above `command`: what it was guessed from, and what isn't certain.
    pub(super) command_comments: Vec<String>,
    /// Environment variables of instances, and of the job that tests it.
    pub(super) env: Vec<(&'static str, String)>,
    /// What the job does before it uploads the artifact.
    pub(super) steps: Vec<BuildStep>,
    /// What the artifact consists of, one pattern each.
    pub(super) artifact_paths: Vec<String>,
    /// Whether the tree of a commit can be started without any step.
    pub(super) is_source_runnable: bool,
    /// A path that answers with success when an instance is ready.
    pub(super) health_path: Option<String>,
    /// A path that answers with success.
    pub(super) smoke_path: Option<String>,
}

/// A step of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BuildStep {
    Action {
        uses: &'static str,
        comments: Vec<String>,
    },
    Script {
        name: &'static str,
        purpose: StepPurpose,
        comments: Vec<String>,
        lines: Vec<String>,
    },
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepPurpose {
    Build,
    Test,
}

impl BuildStep {
    pub(super) fn build(name: &'static str, lines: Vec<String>) -> Self {
        Self::script(name, StepPurpose::Build, lines)
    }

    pub(super) fn test(lines: Vec<String>) -> Self {
        Self::script("Test", StepPurpose::Test, lines)
    }

    fn script(name: &'static str, purpose: StepPurpose, lines: Vec<String>) -> Self {
        Self::Script {
            name,
            purpose,
            comments: Vec::new(),
            lines,
        }
    }

    pub(super) fn with_comment(mut self, comment: impl Into<String>) -> Self {
        match &mut self {
            Self::Action { comments, .. } | Self::Script { comments, .. } => {
                comments.push(comment.into());
            }
        }
        self
    }

    pub(super) const fn is_test(&self) -> bool {
        matches!(
            self,
            Self::Script {
                purpose: StepPurpose::Test,
                ..
            }
        )
    }
}

/// A health path and a smoke path that a source names as routes.
pub(super) fn find_routes<'a>(
    sources: impl Iterator<Item = &'a str> + Clone,
) -> (Option<String>, Option<String>) {
    const HEALTH_PATHS: [&str; 7] = [
        "/health/ready",
        "/readyz",
        "/ready",
        "/healthz",
        "/health",
        "/livez",
        "/up",
    ];
    let has_route = |path: &str| {
        let forms = ['"', '\''].into_iter().flat_map(|quote| {
            ["(", "(r", "== ", "=== ", "case ", "HandleFunc(", "Get("]
                .map(|before| format!("{before}{quote}{path}{quote}"))
        });
        let forms: Vec<String> = forms.collect();
        sources
            .clone()
            .any(|text| forms.iter().any(|form| text.contains(form)))
    };
    let health = HEALTH_PATHS.iter().find(|path| has_route(path));
    let smoke = has_route("/").then(|| "/".to_owned());
    (health.map(|path| (*path).to_owned()), smoke)
}

/// A comment for a program whose sources don't mention `PORT`.
pub(super) fn port_comment(path: &str, text: Option<&str>) -> Option<String> {
    if text.is_some_and(|text| text.contains("PORT")) {
        return None;
    }
    Some(format!(
        "A guess: {path} does not mention PORT. It must listen on 127.0.0.1 and the port in $PORT."
    ))
}

/// A path or name as one word of a shell command.
pub(super) fn quote_for_shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
