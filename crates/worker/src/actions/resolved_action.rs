//! Reads action files.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};
use shipway_syntax::SourceFile;
use shipway_workflow::{
    expr::IfCondition,
    model::{ActionFile, ActionHook, ActionRuns, qualify_own_actions},
    parse_action,
};

use super::action_reference::{ActionFileError, RemoteAction};
use crate::action_stage::ActionStage;

/// An action file and its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ResolvedAction {
    pub(crate) folder: PathBuf,
    pub(crate) file: ActionFile,
    /// The repository; `None` for an action in the workspace.
    pub(crate) remote: Option<RemoteAction>,
}

impl ResolvedAction {
    /// Reads the action in `folder`; `name` is used in messages.
    pub(crate) fn read_action(
        folder: PathBuf,
        name: &str,
        remote: Option<RemoteAction>,
    ) -> Result<Self, ActionFileError> {
        for file in ["action.yml", "action.yaml"] {
            let path = folder.join(file);
            if path.is_file() {
                let text = fs::read(&path).map_err(|source| ActionFileError::Unreadable {
                    file: format!("{name}/{file}"),
                    source,
                })?;
                let text = String::from_utf8_lossy(&text);
                let mut file = parse_action_file(&format!("{name}/{file}"), &text)?;
                if let (ActionRuns::Composite { steps }, Some(remote)) = (&mut file.runs, &remote)
                    && !remote.is_own()
                {
                    qualify_own_actions(steps, &remote.repository, &remote.reference);
                }
                return Ok(Self {
                    folder,
                    file,
                    remote,
                });
            }
        }
        if folder.join("Dockerfile").is_file() {
            let text = "runs: { using: docker, image: Dockerfile }";
            let file = parse_action_file(&format!("{name}/Dockerfile"), text)?;
            return Ok(Self {
                folder,
                file,
                remote,
            });
        }
        let name = name.to_owned();
        Err(if remote.is_some() {
            ActionFileError::NoneInRepository { name }
        } else if folder.is_dir() {
            ActionFileError::NoneInFolder { name }
        } else {
            ActionFileError::NoFolder { name }
        })
    }

    /// The pre or post part of a JavaScript or container action.
    pub(crate) fn stage_part(&self, stage: ActionStage) -> Option<&ActionHook> {
        match (&self.file.runs, stage) {
            (
                ActionRuns::JavaScript { pre, .. } | ActionRuns::Docker { pre, .. },
                ActionStage::Pre,
            ) => pre.as_ref(),
            (
                ActionRuns::JavaScript { post, .. } | ActionRuns::Docker { post, .. },
                ActionStage::Post,
            ) => post.as_ref(),
            _ => None,
        }
    }

    /// The condition of the pre or post part; default: `always()`.
    pub(crate) fn stage_condition(&self, stage: ActionStage) -> IfCondition {
        match self.stage_part(stage) {
            Some(part) => part.condition.clone(),
            None => IfCondition::parse("always()", 0).unwrap_or_default(),
        }
    }
}

fn parse_action_file(path: &str, text: &str) -> Result<ActionFile, ActionFileError> {
    let source = SourceFile::new(path, text);
    let parsed = parse_action(&source);
    parsed.action.ok_or_else(|| {
        let mistakes = parsed.diagnostics.iter().filter(|it| it.is_error());
        let lines: Vec<String> = mistakes.take(5).map(|it| it.one_line(&source)).collect();
        ActionFileError::Invalid(lines.join("\n"))
    })
}
