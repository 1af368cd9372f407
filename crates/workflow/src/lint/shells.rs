//! `unknown-shell`: neither a shell that the runner knows nor a command with `{0}` for the script. The step would fail.

use shipway_syntax::{YamlNode, nearest};

use super::{LintFinding, LintSubject};

pub(super) const CODE: &str = "unknown-shell";

const SHELLS: [&str; 6] = ["bash", "sh", "pwsh", "powershell", "cmd", "python"];

pub(super) fn check(subject: &LintSubject<'_>) -> Vec<LintFinding> {
    let defaults = |node: &'_ YamlNode| -> Option<YamlNode> {
        node.get("defaults")?.get("run")?.get("shell").cloned()
    };
    let jobs = subject.jobs().iter().filter_map(|(_, job)| defaults(job));
    let steps = subject
        .steps()
        .filter_map(|step| step.get("shell").cloned());
    defaults(subject.tree)
        .into_iter()
        .chain(jobs)
        .chain(steps)
        .filter_map(|node| unknown(&node))
        .collect()
}

fn unknown(node: &YamlNode) -> Option<LintFinding> {
    let shell = node.as_str()?;
    let known = SHELLS.iter().any(|known| known.eq_ignore_ascii_case(shell));
    if known || shell.contains("{0}") || shell.contains("${{") {
        return None;
    }
    let help = match nearest(shell, SHELLS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "the shells are {}; any other command has {{0}} where the script's file goes: `{shell} {{0}}`",
            SHELLS.join(", ")
        ),
    };
    Some(LintFinding::new(
        node.span,
        format!("unknown shell `{shell}`: the step would fail"),
        help,
    ))
}
