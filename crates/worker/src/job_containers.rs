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
        let spec = &self.runner.spec;
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
        let runner = &mut self.runner;
        let (spec, folders) = (&runner.spec, &runner.folders);
        let started = tokio::select! {
            started = runner.containers.start_all(&requested, spec, folders, &mut runner.output) => started,
            _ = runner.cancel.wait_for_stop(WhenCancelled::Stop) => Err(ContainerStartError::Cancelled),
        };
        runner.output.log.flush();
        match started {
            Ok(context) => {
                if let Some(container) = runner.containers.job_container() {
                    runner.scope.map_paths(&container.paths);
                }
                runner.scope.job = context;
                return true;
            }
            Err(ContainerStartError::Cancelled) => {
                runner.record_cancellation(runner.cancel.reason());
            }
            Err(ContainerStartError::Failed(error)) => self.fail(error.to_string()),
            Err(ContainerStartError::Absent(absent)) => {
                let parts = requested.describe();
                match runner.spec.without_engine {
                    WithoutEngine::Refuse => {
                        self.fail(format!("the job needs {parts}, and {absent}; {INSTALL}"));
                    }
                    WithoutEngine::LeaveOut => {
                        let why = format!("left out: it needs {parts}, and {absent}");
                        runner.output.annotate(AnnotationLevel::Warning, &why);
                        runner.scope.verdict.unsupported = Some(why);
                    }
                }
            }
        }
        false
    }

    fn requested_containers(&self) -> Result<RequestedContainers, ContainerError> {
        let runner = &self.runner;
        let files = WorkspaceFiles(&runner.folders.workspace);
        let identity = self.step_scope.step_identity("");
        let env = &runner.scope.env;
        let contexts = runner.expression_contexts(&self.step_scope, &identity, env, &files);
        RequestedContainers::evaluate(&runner.spec, &contexts)
    }

    fn fail(&mut self, why: String) {
        self.runner.output.annotate(AnnotationLevel::Error, &why);
        self.runner.scope.verdict.failed.get_or_insert(why);
    }
}
