//! The tools that `actions/setup-*` set up.

use std::fmt;

/// A tool and its programs, the preferred one first.
pub(super) struct SetupTool {
    pub(super) programs: &'static [&'static str],
    /// The input with the version, and the output with the actual one.
    pub(super) input: &'static str,
    /// The input with the path of a version file.
    pub(super) file: &'static str,
    /// The argument that prints the program's version.
    pub(super) ask: &'static str,
}

pub(super) fn find_tool(name: &str) -> Option<SetupTool> {
    let (programs, input, file, ask): (&[_], _, _, _) = match name {
        "python" => (
            &["python3", "python"],
            "python-version",
            "python-version-file",
            "--version",
        ),
        "node" => (&["node"], "node-version", "node-version-file", "--version"),
        "go" => (&["go"], "go-version", "go-version-file", "version"),
        "java" => (&["java"], "java-version", "java-version-file", "-version"),
        "dotnet" => (
            &["dotnet"],
            "dotnet-version",
            "global-json-file",
            "--version",
        ),
        "ruby" => (&["ruby"], "ruby-version", "ruby-version-file", "--version"),
        "rust" => (&["rustc"], "rust-version", "rust-version-file", "--version"),
        "uv" => (&["uv"], "version", "version-file", "--version"),
        _ => return None,
    };
    Some(SetupTool {
        programs,
        input,
        file,
        ask,
    })
}

pub(super) fn is_supported(name: &str) -> bool {
    find_tool(name).is_some()
}

/// A tool, or a version of it, that this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingTool {
    /// E.g. `python3 or python`.
    pub(super) programs: String,
    /// The version that the workflow asks for.
    pub(super) wanted: Option<String>,
    /// The version that is installed instead, e.g. `node 20.1.0`.
    pub(super) present: Option<String>,
}

impl fmt::Display for MissingTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.present, &self.wanted) {
            (Some(present), Some(wanted)) => write!(
                f,
                "the workflow asks for version {wanted}, but this machine has {present}"
            ),
            (None, Some(wanted)) => write!(
                f,
                "the workflow asks for version {wanted}, but there is no {} on this machine",
                self.programs
            ),
            (_, None) => write!(f, "there is no {} on this machine", self.programs),
        }
    }
}

impl MissingTool {
    /// What the user can do about it.
    pub(crate) fn advice(&self) -> String {
        match &self.present {
            Some(present) => format!(
                "install that version on the machine, or run with --allow-other-versions to use {present}"
            ),
            None => "install it on the machine".to_owned(),
        }
    }
}
