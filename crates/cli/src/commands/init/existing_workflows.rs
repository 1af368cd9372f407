//! The workflows that a repository has already: `shipway init` leaves them as they are and fits `shipway.yaml` to them.

use shipway_syntax::SourceFile;
use shipway_workflow::{
    lint::{self, UploadedArtifacts},
    model::PushEvent,
    runner::RunnerLabels,
};

use super::repository::{RepositoryFacts, WORKFLOWS};

/// What a push of the released branch finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExistingWorkflows {
    /// Those that a push starts and that can succeed here.
    pub(super) usable: Vec<String>,
    /// Those that a push would start and that can't succeed here, with the reason.
    pub(super) excluded: Vec<(String, String)>,
    /// The artifact that one of the usable ones uploads.
    pub(super) artifact: Option<String>,
    /// Whether there were several to choose from.
    pub(super) is_artifact_guessed: bool,
}

impl ExistingWorkflows {
    pub(super) fn find(facts: &RepositoryFacts, branch: &str, service: &str) -> Self {
        let mut existing = Self::default();
        let mut uploads = UploadedArtifacts::default();
        for (path, text) in &facts.texts {
            let is_yaml = path.ends_with(".yml") || path.ends_with(".yaml");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if folder == WORKFLOWS && is_yaml {
                existing.add(facts, path, text, branch, &mut uploads);
            }
        }
        let names: Vec<&String> = uploads.names.iter().collect();
        let usual = [service, "app", "site", "dist", "build", "package"];
        let preferred = usual
            .iter()
            .find_map(|usual| names.iter().find(|name| name == &usual));
        existing.artifact = preferred.or(names.first()).map(|name| (*name).clone());
        existing.is_artifact_guessed = names.len() > 1;
        existing
    }

    fn add(
        &mut self,
        facts: &RepositoryFacts,
        path: &str,
        text: &str,
        branch: &str,
        uploads: &mut UploadedArtifacts,
    ) {
        let source = SourceFile::new(path, text.to_owned());
        let push = PushEvent {
            reference: format!("refs/heads/{branch}"),
            // Filters of workflows see only the changes that concern the service.
            changed_paths: facts.changed_paths(),
        };
        let Some(workflow) = shipway_workflow::parse(&source).workflow else {
            let reason = "it has errors, which `shipway check` shows".to_owned();
            self.excluded.push((path.to_owned(), reason));
            return;
        };
        if !workflow.on.matches_push(&push) {
            return;
        }
        match obstacle(&source) {
            Some(reason) => self.excluded.push((path.to_owned(), reason)),
            None => {
                let read = |file: &str| facts.text(file).map(str::to_owned);
                uploads.add_workflow(&workflow, &read);
                self.usable.push(path.to_owned());
            }
        }
    }
}

/// Why a workflow can't succeed on a server that has just been installed.
fn obstacle(source: &SourceFile) -> Option<String> {
    let mut secrets = lint::mentions(source, "secrets");
    secrets.remove("GITHUB_TOKEN");
    if let Some(secret) = secrets.first() {
        return Some(format!("it needs the secret {secret}"));
    }
    let labels = RunnerLabels::for_linux(std::env::consts::ARCH, &[]);
    let problems = lint::check_runners(source, &labels);
    problems.first().map(|problem| problem.message.clone())
}
