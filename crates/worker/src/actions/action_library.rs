//! The actions and the Node.js of a job.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use shipway_workflow::{
    job::JobSpec,
    model::{ActionRuns, StepAction, WorkflowStep},
};

use super::{
    action_reference::{ActionFileError, ActionReference, BuiltInActions, RemoteAction},
    action_store::ActionStore,
    resolved_action::ResolvedAction,
    source_files::OwnRepository,
};
use crate::action_stage::ActionStage;

/// The actions of a job.
#[derive(Clone)]
pub(crate) struct ActionLibrary {
    pub(crate) store: ActionStore,
    pub(crate) built_in: BuiltInActions,
    /// Actions of repositories.
    pub(crate) fetched: BTreeMap<RemoteAction, Arc<ResolvedAction>>,
    /// The node that runs JavaScript actions; searched on first use.
    pub(crate) node: Option<NodeProgram>,
}

/// A Node.js installation.
#[derive(Clone, Debug)]
pub(crate) struct NodeProgram {
    pub(crate) program: PathBuf,
    /// E.g. `20.1.0`.
    pub(crate) version: String,
}

impl NodeProgram {
    /// From the output of `node --version`.
    pub(crate) fn parse(program: PathBuf, version: &str) -> Self {
        Self {
            program,
            version: version.trim().trim_start_matches('v').to_owned(),
        }
    }

    pub(crate) fn major_version(&self) -> u32 {
        let major = self.version.split('.').next();
        major.and_then(|it| it.parse().ok()).unwrap_or_default()
    }
}

impl ActionLibrary {
    pub(crate) fn new(spec: &JobSpec, job: &Path) -> Self {
        let source = &spec.actions;
        Self {
            store: ActionStore::new(source, OwnRepository::new(spec), job),
            built_in: match source.built_in {
                true => BuiltInActions::Enabled,
                false => BuiltInActions::Disabled,
            },
            fetched: BTreeMap::new(),
            node: None,
        }
    }

    /// Reads an action in the workspace.
    pub(crate) fn read_local(
        workspace: &Path,
        path: &str,
    ) -> Result<Arc<ResolvedAction>, ActionFileError> {
        ResolvedAction::read_action(workspace.join(path), path, None).map(Arc::new)
    }

    /// Whether the action has a pre part.
    pub(crate) fn has_pre_part(&self, action: &ResolvedAction) -> bool {
        match &action.file.runs {
            ActionRuns::Composite { steps } => steps
                .iter()
                .any(|step| self.action_with_pre_part(step).is_some()),
            ActionRuns::JavaScript { .. } | ActionRuns::Docker { .. } => {
                action.stage_part(ActionStage::Pre).is_some()
            }
        }
    }

    /// The action of a step, if it was fetched and has a pre part.
    pub(crate) fn action_with_pre_part(&self, step: &WorkflowStep) -> Option<Arc<ResolvedAction>> {
        let StepAction::Uses { action, .. } = &step.action else {
            return None;
        };
        let Ok(ActionReference::Remote(remote)) = ActionReference::parse(action, self.built_in)
        else {
            return None;
        };
        let known = self.fetched.get(&remote)?;
        self.has_pre_part(known).then(|| Arc::clone(known))
    }
}
