//! The title of a run: `run-name`, resolved when the run starts.

use super::{RunContexts, RunSettingError};
use crate::model::Workflow;

/// Characters of a title; a list shows no more.
pub const TITLE_MAX: usize = 250;

/// What `run-name` says, on one line; none where there is none, or nothing in it. The error says why it has no value.
pub fn resolve_run_name(
    workflow: &Workflow,
    ground: &RunContexts,
) -> Result<Option<String>, RunSettingError> {
    let Some(template) = &workflow.run_name else {
        return Ok(None);
    };
    let text = template
        .resolve_text(&ground.contexts())
        .map_err(|error| RunSettingError::RunName { error })?;
    let title = in_one_line(&text);
    Ok((!title.is_empty()).then_some(title))
}

/// A text on one line, cut where a list would cut it.
#[must_use]
pub fn in_one_line(text: &str) -> String {
    let plain = text.replace(|c: char| c.is_control(), " ");
    let words: Vec<&str> = plain.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= TITLE_MAX {
        return line;
    }
    let cut = line.chars().take(TITLE_MAX - 3);
    cut.chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use shipway_syntax::SourceFile;

    use super::*;
    use crate::expr::ExprValue;

    fn named(name: &str) -> Result<Option<String>, RunSettingError> {
        let text = format!(
            "on: push\nrun-name: {name}\njobs: {{ a: {{ runs-on: x, steps: [{{ run: a }}] }} }}\n"
        );
        let workflow = crate::parse(&SourceFile::new("w.yml", text))
            .workflow
            .unwrap();
        let ground = RunContexts {
            github: ExprValue::object([
                ("actor", ExprValue::from("ann")),
                ("ref_name", "v1".into()),
            ]),
            inputs: ExprValue::object([("where", ExprValue::from("production"))]),
            vars: ExprValue::object([("TEAM", ExprValue::from("shop"))]),
        };
        resolve_run_name(&workflow, &ground)
    }

    #[test]
    fn it_sees_github_inputs_and_vars_and_is_one_short_line() {
        let told = "Ship ${{ github.ref_name }} to ${{ inputs.where }} by @${{ github.actor }} of ${{ vars.TEAM }}";
        let expected = "Ship v1 to production by @ann of shop";
        assert_eq!(named(told), Ok(Some(expected.to_owned())));
        assert_eq!(named("\"${{ github.nothing }}  \""), Ok(None));
        assert_eq!(named("\"a\\n\\tb\""), Ok(Some("a b".to_owned())));
        let long = named(&"x".repeat(300)).unwrap().unwrap();
        assert_eq!(long.chars().count(), TITLE_MAX);
        assert!(long.ends_with("xx..."));
        let wrong = named("${{ fromJSON(github.actor) }}")
            .unwrap_err()
            .to_string();
        assert!(
            wrong.starts_with("the `run-name` has no value: "),
            "{wrong}"
        );
    }
}
