//! The containers of a job: started before its first step.

use shipway_workflow::job::{AnnotationLevel, WithoutEngine};

use crate::{
    cancellation::WhenCancelled,
    containers::{ContainerError, ContainerStartError, INSTALL, RequestedContainers},
    file_hash::WorkspaceFiles,
    job_execution::JobExecution,
};

impl JobExecution {
    /// Starts the job's containers and waits until they are healthy; false if the steps can't run.
    pub(crate) async fn start_containers(&mut self) -> bool {
        let spec = &self.resources.spec;
        if spec.container.is_none() && spec.services.is_empty() {
            return true;
        }
        let requested = match self.requested_containers() {
            Ok(requested) if requested.is_empty() => return true,
            Ok(requested) => requested,
            Err(error) => {
                self.fail(error.to_string());
                return false;
            }
        };
        let resources = &mut self.resources;
        let (spec, folders) = (&resources.spec, &resources.folders);
        let started = tokio::select! {
            started = resources.containers.start_all(&requested, spec, folders, &mut resources.output) => started,
            _ = resources.cancel.wait_for_stop(WhenCancelled::Stop) => Err(ContainerStartError::Cancelled),
        };
        resources.output.log.flush();
        match started {
            Ok(context) => {
                if let Some(container) = resources.containers.job_container() {
                    resources.scope.map_paths(&container.paths);
                }
                resources.scope.job = context;
                return true;
            }
            Err(ContainerStartError::Cancelled) => {
                resources.record_cancellation(resources.cancel.reason());
            }
            Err(ContainerStartError::Failed(error)) => self.fail(error.to_string()),
            Err(ContainerStartError::Absent(absent)) => {
                let parts = requested.describe();
                match resources.spec.without_engine {
                    WithoutEngine::Refuse => {
                        self.fail(format!("the job needs {parts}, but {absent}; {INSTALL}"));
                    }
                    WithoutEngine::LeaveOut => {
                        let why = format!("left out: it needs {parts}, but {absent}");
                        resources.output.annotate(AnnotationLevel::Warning, &why);
                        resources.scope.verdict.unsupported = Some(why);
                    }
                }
            }
        }
        false
    }

    fn requested_containers(&self) -> Result<RequestedContainers, ContainerError> {
        let resources = &self.resources;
        let files = WorkspaceFiles(&resources.folders.workspace);
        let identity = self.step_scope.step_identity("");
        let env = &resources.scope.env;
        let contexts = resources.expression_contexts(&self.step_scope, &identity, env, &files);
        RequestedContainers::evaluate(&resources.spec, &contexts)
    }

    fn fail(&mut self, why: String) {
        self.resources.output.annotate(AnnotationLevel::Error, &why);
        self.resources.scope.verdict.failed.get_or_insert(why);
    }
}
