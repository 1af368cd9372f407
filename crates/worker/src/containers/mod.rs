//! Containers of a job: the job's own, its services and container actions. Created like GitHub's runner does, in a
//! network per job, with any engine that the `docker` or `podman` command reaches.
//!
//! # Invariants
//!
//! - No secret is on a command line.
//! - No port is published beyond this machine's loopback, unless the workflow asks for it.
//! - No container outlives its job; those of a killed worker are removed by the next one that uses the engine.

mod container_action;
mod container_error;
mod container_paths;
mod container_settings;
mod engine;
mod job_container;
mod leftovers;
mod service_containers;
mod split_args;

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, sync::Arc};

use sha2::{Digest, Sha256};
use shipway_workflow::{
    expr::{Contexts, ExprValue},
    job::JobSpec,
};

pub(crate) use self::{
    container_action::ContainerAction,
    container_error::ContainerError,
    container_paths::ContainerPaths,
    engine::{EngineUnavailable, INSTALL},
    job_container::JobContainer,
};
use self::{
    container_settings::ContainerSettings,
    engine::{ContainerEngine, ContainerEngineError},
    leftovers::{owner_labels, remove_orphans},
};
use crate::{
    environment::JobFolders, output_processor::OutputProcessor, path_error::PathError,
    processes::own_start_time,
};

/// Lines of a service's output that are copied to the job's log.
const LOG_LINES: usize = 500;

/// The job's resources in the engine.
#[derive(Default)]
pub(crate) struct Containers {
    engine: Option<ContainerEngine>,
    /// Prefix of all names.
    prefix: String,
    network: Option<String>,
    /// Names of containers, added before their creation.
    container_names: Vec<String>,
    /// Services and the names of their containers.
    services: Vec<(String, String)>,
    inside: Option<Arc<JobContainer>>,
    /// Number of container actions run so far.
    actions: usize,
    /// Images of container actions.
    images: BTreeMap<String, String>,
}

/// The containers that the job asks for.
pub(crate) struct RequestedContainers {
    job: Option<ContainerSettings>,
    services: Vec<(String, ContainerSettings)>,
}

/// Why the containers can't be started.
pub(crate) enum ContainerStartError {
    Absent(EngineUnavailable),
    Failed(ContainerError),
    Cancelled,
}

impl From<ContainerEngineError> for ContainerStartError {
    fn from(error: ContainerEngineError) -> Self {
        Self::Failed(error.into())
    }
}

impl RequestedContainers {
    pub(crate) fn is_empty(&self) -> bool {
        self.job.is_none() && self.services.is_empty()
    }

    /// Evaluates the job's container and services.
    pub(crate) fn evaluate(
        spec: &JobSpec,
        contexts: &Contexts<'_>,
    ) -> Result<Self, ContainerError> {
        let job = spec.container.as_ref();
        let job = job
            .map(|it| ContainerSettings::evaluate(it, contexts))
            .transpose();
        let mut services = Vec::new();
        for (name, container) in &spec.services {
            let settings = ContainerSettings::evaluate(container, contexts);
            let settings = settings.map_err(|source| ContainerError::Service {
                name: name.clone(),
                source: Box::new(source),
            })?;
            services.extend(settings.map(|settings| (name.clone(), settings)));
        }
        Ok(Self {
            job: job
                .map_err(|source| ContainerError::Job(Box::new(source)))?
                .flatten(),
            services,
        })
    }

    /// E.g. `the container node:20 and the service postgres`.
    pub(crate) fn describe(&self) -> String {
        let job = self
            .job
            .iter()
            .map(|it| format!("the container {}", it.image));
        let services = self.services.iter().map(|(it, _)| it.as_str());
        let services: Vec<&str> = services.collect();
        let services = match services.as_slice() {
            [] => None,
            [one] => Some(format!("the service {one}")),
            more => Some(format!("the services {}", more.join(", "))),
        };
        let parts: Vec<String> = job.chain(services).collect();
        parts.join(" and ")
    }
}

impl Containers {
    /// The job's container.
    pub(crate) fn job_container(&self) -> Option<&JobContainer> {
        self.inside.as_deref()
    }

    /// Fails if there is no engine.
    pub(crate) async fn require_engine(&mut self) -> Result<(), EngineUnavailable> {
        self.find_engine().await.map(drop)
    }

    /// Translates paths in the inputs of a built-in action, which runs on this machine even if steps run in a
    /// container.
    pub(crate) fn translate_input_paths(
        &self,
        with: Vec<(String, String)>,
    ) -> Vec<(String, String)> {
        match self.job_container() {
            None => with,
            Some(container) => {
                let translated =
                    |(name, value): (String, String)| (name, container.paths.to_machine(&value));
                with.into_iter().map(translated).collect()
            }
        }
    }

    /// For a background step. Containers it creates are handed over with [`Self::take_over_containers`].
    pub(crate) fn for_background_step(&self, number: usize) -> Self {
        Self {
            engine: self.engine.clone(),
            prefix: self.prefix.clone(),
            network: self.network.clone(),
            container_names: Vec::new(),
            services: Vec::new(),
            inside: self.inside.clone(),
            actions: (number + 1) * 1_000_000,
            images: self.images.clone(),
        }
    }

    /// Takes over the containers of a finished background step.
    pub(crate) fn take_over_containers(&mut self, other: &mut Self) {
        self.container_names.append(&mut other.container_names);
        if self.engine.is_none() {
            self.engine = other.engine.take();
        }
    }

    /// The address of this machine in the containers' network.
    pub(crate) async fn gateway_address(&self) -> Option<Ipv4Addr> {
        let engine = self.engine.as_ref()?;
        let network = self.network.as_deref().unwrap_or("bridge");
        let format = "{{range .IPAM.Config}}{{.Gateway}} {{end}}";
        let question = ["network", "inspect", "--format", format, network];
        let told = engine.query(&question).await.ok()?;
        told.split_whitespace()
            .find_map(|address| address.parse().ok())
    }

    /// The engine, searched on first use.
    async fn find_engine(&mut self) -> Result<ContainerEngine, EngineUnavailable> {
        match &self.engine {
            Some(engine) => Ok(engine.clone()),
            None => {
                let engine = ContainerEngine::find().await?;
                // Best effort: leftovers of other workers are no reason to fail.
                let _ = remove_orphans(&engine).await;
                Ok(self.engine.insert(engine).clone())
            }
        }
    }

    /// A unique name for a container or network.
    fn resource_name(&mut self, folder: &Path, what: &str) -> String {
        if self.prefix.is_empty() {
            let unique = format!(
                "{} {} {}",
                folder.display(),
                std::process::id(),
                own_start_time()
            );
            let digest = Sha256::digest(unique);
            let hex = digest.iter().take(6).map(|byte| format!("{byte:02x}"));
            self.prefix = format!("shipway-{}", hex.collect::<String>());
        }
        format!("{}-{what}", self.prefix)
    }

    /// Creates network, job container and services; returns entries for the `job` context.
    pub(crate) async fn start_all(
        &mut self,
        wanted: &RequestedContainers,
        spec: &JobSpec,
        folders: &JobFolders,
        output: &mut OutputProcessor,
    ) -> Result<Vec<(&'static str, ExprValue)>, ContainerStartError> {
        let engine = self
            .find_engine()
            .await
            .map_err(ContainerStartError::Absent)?;
        mark_engine_used(&spec.mounts.folder);
        let network = self.resource_name(&spec.mounts.folder, "network");
        let made = ["network", "create"].map(str::to_owned).into_iter();
        let made = made
            .chain(owner_labels(&spec.mounts.folder))
            .chain([network.clone()])
            .collect::<Vec<_>>();
        self.network = Some(network.clone());
        engine.run_client(&as_strs(&made), &[]).await?;
        let mut container = vec![("network", ExprValue::from(network.as_str()))];
        if let Some(settings) = &wanted.job {
            output.log_message("##[group]Starting the job's container");
            let id = self
                .start_job_container(&engine, settings, spec, folders, output)
                .await
                .map_err(|source| {
                    ContainerStartError::Failed(ContainerError::Job(Box::new(source)))
                })?;
            container.push(("id", ExprValue::from(id)));
            output.log_message("##[endgroup]");
        }
        let mut services = Vec::new();
        for (name, settings) in &wanted.services {
            output.log_message(&format!("##[group]Starting the service {name}"));
            let started = self
                .start_service(&engine, (name, settings), spec, output)
                .await;
            let value = started.map_err(|source| {
                ContainerStartError::Failed(ContainerError::Service {
                    name: name.clone(),
                    source: Box::new(source),
                })
            })?;
            services.push((name.clone(), value));
            output.log_message("##[endgroup]");
        }
        self.await_services(&engine, output)
            .await
            .map_err(ContainerStartError::Failed)?;
        let mut context = vec![("container", ExprValue::object(container))];
        if !services.is_empty() {
            context.push(("services", ExprValue::object(services)));
        }
        Ok(context)
    }

    /// Pulls an image. If that fails, a local image is used: it may have been built there.
    async fn pull_image(
        &self,
        engine: &ContainerEngine,
        settings: &ContainerSettings,
        folders_temp: &Path,
        output: &mut OutputProcessor,
    ) -> Result<(), ContainerError> {
        let ContainerSettings {
            image, credentials, ..
        } = settings;
        let is_here = |engine: ContainerEngine| async move {
            let format = ["image", "inspect", "--format", "{{.Id}}", image];
            engine.query(&format).await.is_ok()
        };
        if image.contains("@sha256:") && is_here(engine.clone()).await {
            return Ok(());
        }
        let mut config = None;
        if let Some((name, password)) = credentials {
            output.masker.add(password);
            let folder = create_private_folder(folders_temp)?;
            let config = config.insert(folder);
            engine
                .log_in(settings.registry(), (name, password), &config.0)
                .await?;
        }
        let config = config.as_ref().map(|config| config.0.as_path());
        match engine
            .run_with_output(&["pull", image], config, output)
            .await
        {
            Ok(()) => Ok(()),
            Err(_) if is_here(engine.clone()).await => {
                output.log_message(&format!("{image} could not be pulled; using the local one"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn remove_all(&mut self, output: &mut OutputProcessor) {
        let Some(engine) = self.engine.clone() else {
            return;
        };
        self.log_service_output(&engine, output).await;
        if let Some(inside) = self.inside.take() {
            inside.restore_ownership().await;
        }
        let complain = |error: &ContainerEngineError, output: &mut OutputProcessor| {
            let text = error.to_string();
            if !text.contains("No such") && !text.contains("not found") {
                output.annotate(shipway_workflow::job::AnnotationLevel::Warning, &text);
            }
        };
        if !self.container_names.is_empty() {
            let arguments = ["rm", "--force", "--volumes"].map(str::to_owned);
            let arguments: Vec<String> = arguments
                .into_iter()
                .chain(self.container_names.drain(..))
                .collect();
            if let Err(error) = engine.run_client(&as_strs(&arguments), &[]).await {
                complain(&error, output);
            }
        }
        if let Some(network) = self.network.take()
            && let Err(error) = engine.run_client(&["network", "rm", &network], &[]).await
        {
            complain(&error, output);
        }
    }
}

/// Exists if the job has used the engine, so that its worker may have left something.
const USED_FILE: &str = "containers";

fn mark_engine_used(folder: &Path) {
    // Best effort: without this marker leftovers are removed only when the next job uses the engine.
    let _ = std::fs::File::create(folder.join(USED_FILE));
}

/// Removes containers of dead workers if the lost worker of the job in `folder` had used the engine.
pub async fn remove_leftover_containers(folder: &Path) {
    if folder.join(USED_FILE).exists()
        && let Ok(engine) = ContainerEngine::find().await
        && remove_orphans(&engine).await.is_ok()
    {
        let _ = std::fs::remove_file(folder.join(USED_FILE));
    }
}

/// A folder for registry credentials, removed when dropped.
struct PrivateFolder(std::path::PathBuf);

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn create_private_folder(temp: &Path) -> Result<PrivateFolder, ContainerError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = temp.join(".docker-login");
    let _ = std::fs::remove_dir_all(&path);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(PathError::at(&path))?;
    Ok(PrivateFolder(path))
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}
