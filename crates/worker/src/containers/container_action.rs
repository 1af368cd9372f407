//! Container actions: pulls or builds the image, and runs it like a program.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use shipway_workflow::job::JobSpec;
use tokio::time::Instant;

use super::{
    container_error::ContainerError,
    container_paths::{ContainerPaths, mount_argument},
    container_settings::ContainerSettings,
    engine::ContainerEngine,
    job_container::{SOCKET, pass_variables, translate_environment},
    leftovers::owner_labels,
    mark_engine_used,
    split_args::split_args,
};
use crate::{
    cancellation::StopMode,
    cgroup_limits::CgroupLimits,
    environment::{EnvVars, JobFolders},
    file_hash::to_hex,
    output_processor::OutputProcessor,
    program_runner::{self, OutputPipe, ProgramInvocation, RunLimits, RunOutcome},
    shell::CommandLine,
};

/// Limit for the size of an action's folder whose image is cached; larger ones are built in each job.
const FOLDER_BYTES_MAX: u64 = 64 << 20;

/// A container action with everything needed to run it.
pub(crate) struct ContainerAction {
    /// `docker://image`, or the path of a Dockerfile.
    pub(crate) image: String,
    /// The action's folder.
    pub(crate) folder: PathBuf,
    /// Overrides the image's entrypoint.
    pub(crate) entrypoint: Option<String>,
    pub(crate) arguments: Vec<String>,
    /// All variables, with paths of this machine.
    pub(crate) env: EnvVars,
}

impl ContainerAction {
    /// Splits the input `args`.
    pub(crate) fn split_arguments(text: &str) -> Result<Vec<String>, ContainerError> {
        split_args(text).ok_or_else(|| ContainerError::UnclosedQuote {
            option: "args",
            text: text.to_owned(),
        })
    }
}

impl super::Containers {
    /// Runs a container action until it ends. The engine must be known, see [`Self::require_engine`].
    pub(crate) async fn run_action(
        &mut self,
        action: &ContainerAction,
        spec: &JobSpec,
        folders: &JobFolders,
        limits: RunLimits<'_>,
        pipe: &mut OutputPipe,
        output: &mut OutputProcessor,
    ) -> Result<RunOutcome, ContainerError> {
        let engine = self.find_engine().await?;
        let RunLimits {
            timeout,
            cancel,
            when_cancelled,
        } = limits;
        let late = timeout.and_then(|it| Instant::now().checked_add(it));
        let image = tokio::select! {
            image = self.provide_image(&engine, action, &folders.temp, output) => image?,
            StopMode::Graceful | StopMode::Immediate = cancel.wait_for_stop(when_cancelled) => return Ok(RunOutcome::Cancelled),
            () = sleep_until_some(late) => return Ok(RunOutcome::TimedOut),
        };
        let (name, invocation) = self.build_run_command(&engine, &image, action, spec, folders);
        let limits = RunLimits {
            timeout: late.map(|late| late.saturating_duration_since(Instant::now())),
            cancel,
            when_cancelled,
        };
        let ended = program_runner::run_program(&invocation, limits, pipe, output).await;
        // A killed client leaves its container running.
        if !matches!(ended, Ok(RunOutcome::Succeeded | RunOutcome::Failed(_))) {
            let _ = engine
                .run_client(&["rm", "--force", "--volumes", &name], &[])
                .await;
        }
        self.container_names.retain(|made| *made != name);
        ended.map_err(|source| ContainerError::Client {
            client: engine.program(),
            source,
        })
    }

    /// Builds the command that runs the container; also returns the container's name.
    fn build_run_command(
        &mut self,
        engine: &ContainerEngine,
        image: &str,
        action: &ContainerAction,
        spec: &JobSpec,
        folders: &JobFolders,
    ) -> (String, ProgramInvocation) {
        mark_engine_used(&spec.mounts.folder);
        let number = self.actions;
        self.actions += 1;
        let folder = &spec.mounts.folder;
        let name = self.resource_name(folder, &format!("action-{number}"));
        self.container_names.push(name.clone());
        let paths = ContainerPaths::for_action(folders);
        let mut arguments = ["run", "--rm", "--name", &name].map(str::to_owned).to_vec();
        arguments.extend(owner_labels(folder));
        arguments.extend(CgroupLimits::container_arguments(&spec.limits));
        arguments.push("--workdir=/github/workspace".to_owned());
        if let Some(network) = &self.network {
            arguments.push(format!("--network={network}"));
        }
        // In a job with a container, paths are first translated back to those of this machine.
        let job = self.job_container();
        let place = |value: &str| match job {
            Some(job) => paths.to_container(&job.paths.to_machine(value)),
            None => paths.to_container(value),
        };
        let mut env = engine.env().to_vec();
        let carried = translate_environment(&action.env.clone().into_vec(), folders, None, place);
        pass_variables(carried, &mut arguments, &mut env);
        arguments.extend(paths.mount_arguments());
        arguments.extend(
            engine
                .socket
                .as_deref()
                .map(|it| mount_argument(it, SOCKET)),
        );
        if let Some(entrypoint) = &action.entrypoint {
            arguments.push(format!("--entrypoint={entrypoint}"));
        }
        arguments.push(image.to_owned());
        arguments.extend(action.arguments.iter().cloned());
        let line = CommandLine {
            program: engine.program(),
            arguments,
        };
        let invocation = ProgramInvocation {
            line,
            workdir: folders.workspace.clone(),
            env,
        };
        (name, invocation)
    }

    /// The image of an action: pulled or built on first use in the job.
    async fn provide_image(
        &mut self,
        engine: &ContainerEngine,
        action: &ContainerAction,
        temp: &Path,
        output: &mut OutputProcessor,
    ) -> Result<String, ContainerError> {
        let key = match action.image.strip_prefix("docker://") {
            Some(image) => image.to_owned(),
            None => action.folder.join(&action.image).display().to_string(),
        };
        if let Some(image) = self.images.get(&key) {
            return Ok(image.clone());
        }
        let image = if action.image.starts_with("docker://") {
            output.log_message(&format!("##[group]Pulling the action's image {key}"));
            let settings = ContainerSettings {
                image: key.clone(),
                ..ContainerSettings::default()
            };
            self.pull_image(engine, &settings, temp, output).await?;
            key.clone()
        } else {
            self.build_image(engine, Path::new(&key), output).await?
        };
        output.log_message("##[endgroup]");
        self.images.insert(key, image.clone());
        Ok(image)
    }

    async fn build_image(
        &self,
        engine: &ContainerEngine,
        dockerfile: &Path,
        output: &mut OutputProcessor,
    ) -> Result<String, ContainerError> {
        let shown = dockerfile.display();
        if !dockerfile.is_file() {
            return Err(ContainerError::NoDockerfile(shown.to_string()));
        }
        let context = dockerfile.parent().unwrap_or(dockerfile);
        let digest = folder_digest(dockerfile, context);
        let tag = match &digest {
            Some(digest) => format!("shipway-action:{digest}"),
            None => format!("{}-action:{}", self.prefix, self.images.len()),
        };
        let known = ["image", "inspect", "--format", "{{.Id}}", &tag];
        if digest.is_some() && engine.query(&known).await.is_ok() {
            output.log_message(&format!("using the action's image {tag}"));
            return Ok(tag);
        }
        output.log_message(&format!(
            "##[group]Building the action's image from {shown}"
        ));
        let (file, context) = (shown.to_string(), context.display().to_string());
        let arguments = [
            vec!["build", "--tag", &tag, "--file", &file],
            vec!["--label=dev.shipway.action=true", &context],
        ]
        .concat();
        let built = engine.run_with_output(&arguments, None, output).await;
        built?;
        Ok(tag)
    }
}

/// Digest of an action's folder, as tag of its image. `None` if the folder is too large or contains symlinks.
fn folder_digest(dockerfile: &Path, context: &Path) -> Option<String> {
    let mut hash = Sha256::new();
    let mut left = FOLDER_BYTES_MAX;
    hash.update(dockerfile.file_name()?.as_encoded_bytes());
    let mut folders = vec![context.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()? {
            let entry = entry.ok()?;
            match entry.file_type().ok()? {
                // `.git` isn't part of the image, and differs with each fetch.
                kind if kind.is_dir() && entry.file_name() != ".git" => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                kind if kind.is_symlink() => return None,
                _ => {}
            }
        }
    }
    files.sort();
    for file in files {
        use std::os::unix::fs::PermissionsExt;
        let about = fs::metadata(&file).ok()?;
        left = left.checked_sub(about.len())?;
        let name = file.strip_prefix(context).ok()?;
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update((about.permissions().mode() & 0o777).to_le_bytes());
        hash.update(about.len().to_le_bytes());
        hash.update(fs::read(&file).ok()?);
    }
    Some(to_hex(&hash.finalize()[..16]))
}

async fn sleep_until_some(late: Option<Instant>) {
    match late {
        Some(late) => tokio::time::sleep_until(late).await,
        None => tokio::time::sleep(Duration::MAX).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_again_by_what_it_is_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
        write("Dockerfile", "FROM scratch");
        write("run.sh", "1");
        let of = || folder_digest(&path.join("Dockerfile"), path);
        let first = of();
        assert_eq!(first.as_ref().map(String::len), Some(32));
        fs::create_dir(path.join(".git")).unwrap();
        fs::write(path.join(".git/index"), "x").unwrap();
        assert_eq!(of(), first);
        write("run.sh", "2");
        assert_ne!(of(), first);
        std::os::unix::fs::symlink("/", path.join("out")).unwrap();
        assert_eq!(of(), None);
    }
}
