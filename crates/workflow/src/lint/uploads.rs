//! The artifacts that a workflow uploads, as far as its file and those of its repository say.

use std::collections::BTreeSet;

use shipway_syntax::SourceFile;

use super::local::{LocalAction, ReadFile, local_action};
use crate::model::{ActionRuns, StepAction, Workflow, WorkflowStep, own_repository_path};

/// How deep called workflows and composite actions are looked into.
const DEPTH_MAX: usize = 10;

/// The name of an artifact that is uploaded without one.
const DEFAULT_NAME: &str = "artifact";

/// The uploads of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadedArtifacts {
    /// Names that are known.
    pub names: BTreeSet<String>,
    /// Whether there may be others: a name is an expression, or a workflow of another repository is called.
    pub has_unknown: bool,
}

impl UploadedArtifacts {
    /// Adds what a workflow uploads, with the workflows that it calls and the actions that it uses of its own repository.
    pub fn add_workflow(&mut self, workflow: &Workflow, read: ReadFile<'_>) {
        self.add(workflow, read, 0);
    }

    fn add(&mut self, workflow: &Workflow, read: ReadFile<'_>, depth: usize) {
        for job in &workflow.jobs {
            match &job.calls {
                None => self.add_steps(&job.steps, read, depth),
                Some(call) => {
                    let path = own_repository_path(&call.workflow).filter(|_| depth < DEPTH_MAX);
                    let called = path.and_then(|path| {
                        crate::parse(&SourceFile::new(path, read(path)?)).workflow
                    });
                    match called {
                        Some(called) => self.add(&called, read, depth + 1),
                        None => self.has_unknown = true,
                    }
                }
            }
        }
    }

    fn add_steps(&mut self, steps: &[WorkflowStep], read: ReadFile<'_>, depth: usize) {
        for step in steps {
            let StepAction::Uses { action, with } = &step.action else {
                continue;
            };
            let name = action.split('@').next().unwrap_or_default();
            if name.eq_ignore_ascii_case("actions/upload-artifact") {
                match with.get("name").map(|name| name.as_literal()) {
                    None => drop(self.names.insert(DEFAULT_NAME.to_owned())),
                    Some(Some(name)) => drop(self.names.insert(name.trim().to_owned())),
                    Some(None) => self.has_unknown = true,
                }
            } else if let Some(LocalAction::File(file)) = local_action(action, read)
                && let ActionRuns::Composite { steps } = &file.runs
                && depth < DEPTH_MAX
            {
                self.add_steps(steps, read, depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_found_in_called_workflows_and_composite_actions() {
        let text = "on: push
jobs:
  a:
    runs-on: x
    steps:
      - { uses: actions/upload-artifact@v4, with: { path: x } }
      - uses: ./pack
  b: { uses: ./.github/workflows/b.yml }
";
        let read = |path: &str| {
            let upload = |name: &str| {
                format!(
                    "steps: [{{ uses: actions/upload-artifact@v4, with: {{ name: {name}, path: x }} }}]"
                )
            };
            match path {
                "pack/action.yml" => Some(format!(
                    "name: p\ndescription: x\nruns:\n  using: composite\n  {}\n",
                    upload("packed")
                )),
                ".github/workflows/b.yml" => Some(format!(
                    "on: workflow_call\njobs:\n  c:\n    runs-on: x\n    {}\n",
                    upload("called")
                )),
                _ => None,
            }
        };
        let of = |text: &str| {
            let workflow = crate::parse(&SourceFile::new("w.yml", text))
                .workflow
                .unwrap();
            let mut uploads = UploadedArtifacts::default();
            uploads.add_workflow(&workflow, &read);
            uploads
        };
        let uploads = of(text);
        let names: Vec<&str> = uploads.names.iter().map(String::as_str).collect();
        assert_eq!(names, ["artifact", "called", "packed"]);
        assert!(!uploads.has_unknown);
        let computed = "on: push\njobs: { a: { runs-on: x, steps: [{ uses: actions/upload-artifact@v4, with: { name: 'a-${{ github.sha }}', path: x } }] } }\n";
        assert!(of(computed).has_unknown);
        assert!(
            of("on: push\njobs: { a: { uses: o/r/.github/workflows/x.yml@v1 } }\n").has_unknown
        );
    }
}
