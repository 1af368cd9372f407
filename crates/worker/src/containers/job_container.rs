//! The container that a job's steps run in.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::Signal;
use shipway_workflow::job::JobSpec;

use super::{
    ContainerError, Containers, as_strs,
    container_paths::{ContainerPaths, mount_argument},
    container_settings::ContainerSettings,
    engine::ContainerEngine,
};
use crate::{
    base_environment::base_environment,
    environment::{JobFolders, PATH},
    output_processor::OutputProcessor,
    path_error::PathError,
    program_runner::{ProgramInvocation, RemoteProcess},
    shell::{CommandLine, ShellError, container_command_line},
};

/// The engine's socket inside of containers.
pub(super) const SOCKET: &str = "/var/run/docker.sock";

/// Writes the pid, which is that of the process group, to a file and becomes the step.
const ENTER: &str = r#"{ echo $$ >"$0"; } 2>/dev/null; exec "$@""#;
/// Folder of these files, in the temporary folder.
const PIDS: &str = "_pids";

pub(crate) struct JobContainer {
    engine: ContainerEngine,
    id: String,
    pub(crate) paths: ContainerPaths,
    /// `PATH` of the image.
    path: String,
    /// Without a shell, signals can't be sent to steps.
    has_shell: bool,
    entered: AtomicU32,
}

/// How to signal a process in a container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerProcess {
    engine: ContainerEngine,
    container: String,
    /// Path in the container.
    pid_file: String,
}

impl RemoteProcess for ContainerProcess {
    fn send_signal(&self, signal: Signal) {
        self.engine
            .signal_group(&self.container, &self.pid_file, signal);
    }
}

impl Containers {
    /// Starts the job's container; returns its id.
    pub(super) async fn start_job_container(
        &mut self,
        engine: &ContainerEngine,
        settings: &ContainerSettings,
        spec: &JobSpec,
        folders: &JobFolders,
        output: &mut OutputProcessor,
    ) -> Result<String, ContainerError> {
        self.pull_image(engine, settings, &folders.temp, output)
            .await?;
        let repository = spec.contexts.github.get("repository").to_text();
        let paths = ContainerPaths::for_job(folders, &repository);
        let name = self.resource_name(&spec.mounts.folder, "job");
        self.container_names.push(name.clone());
        let mut arguments = self.create_arguments(engine, &name, settings, spec, None);
        let workspace = folders.workspace.display().to_string();
        arguments.push(format!("--workdir={}", paths.to_container(&workspace)));
        arguments.push("--env=HOME=/github/home".to_owned());
        arguments.extend(paths.mount_arguments());
        arguments.extend(
            engine
                .socket
                .as_deref()
                .map(|it| mount_argument(it, SOCKET)),
        );
        let rest = ["--entrypoint", "tail", &settings.image, "-f", "/dev/null"];
        arguments.extend(rest.map(str::to_owned));
        let id = engine
            .run_client(&as_strs(&arguments), &settings.env)
            .await?;
        engine.run_client(&["start", &id], &[]).await?;
        let format = "{{range .Config.Env}}{{println .}}{{end}}";
        let env = engine.query(&["inspect", "--format", format, &id]).await?;
        let path = env.lines().find_map(|line| line.strip_prefix("PATH="));
        let path = path.unwrap_or(PATH).to_owned();
        let pids = folders.temp.join(PIDS);
        // The image may use any user id. Access from outside is prevented by the mode of the job's folder.
        let made = fs::create_dir_all(&pids);
        made.and_then(|()| fs::set_permissions(&pids, fs::Permissions::from_mode(0o777)))
            .map_err(PathError::at(&pids))?;
        let has_shell = engine
            .run_client(&["exec", &id, "sh", "-c", ":"], &[])
            .await;
        output.log_message(&format!(
            "{} is {}",
            settings.image,
            &id[..id.len().min(12)]
        ));
        self.inside = Some(Arc::new(JobContainer {
            engine: engine.clone(),
            id: id.clone(),
            paths,
            path,
            has_shell: has_shell.is_ok(),
            entered: AtomicU32::new(0),
        }));
        Ok(id)
    }
}

impl JobContainer {
    /// The command line for a script. Without `shell`: sh, like at GitHub.
    pub(crate) fn script_command_line(
        &self,
        shell: Option<&str>,
        script: &Path,
    ) -> Result<CommandLine, ShellError> {
        let script = self.paths.to_container(&script.display().to_string());
        container_command_line(shell, Path::new(&script))
    }

    /// Whether a folder exists; true if it is on no mounted path and can't be checked.
    pub(crate) fn may_have_folder(&self, folder: &Path) -> bool {
        let shown = self.paths.to_container(&folder.display().to_string());
        let here = PathBuf::from(self.paths.to_machine(&shown));
        here == Path::new(&shown) || here.is_dir()
    }

    /// The output of a program in the container; `None` if it fails.
    pub(crate) async fn query_program(&self, program: &[&str]) -> Option<String> {
        let arguments = [&["exec", &*self.id], program].concat();
        self.engine.query(&arguments).await.ok()
    }

    /// Translates `invocation` to one that runs in the container, and how to signal it.
    pub(crate) fn translate_invocation(
        &self,
        invocation: &ProgramInvocation,
        folders: &JobFolders,
    ) -> (ProgramInvocation, Option<ContainerProcess>) {
        let mut arguments = vec!["exec".to_owned()];
        let workdir = self
            .paths
            .to_container(&invocation.workdir.display().to_string());
        arguments.push(format!("--workdir={workdir}"));
        let mut env = self.engine.env().to_vec();
        let place = |value: &str| self.paths.to_container(value);
        let carried = translate_environment(&invocation.env, folders, Some(&self.path), place);
        pass_variables(carried, &mut arguments, &mut env);
        arguments.push(self.id.clone());
        let mut reach = None;
        if self.has_shell {
            let number = self.entered.fetch_add(1, Ordering::Relaxed);
            let pid_file = folders.temp.join(PIDS).join(number.to_string());
            let pid_file = self.paths.to_container(&pid_file.display().to_string());
            arguments.extend(["sh", "-c", ENTER, &pid_file].map(str::to_owned));
            reach = Some(ContainerProcess {
                engine: self.engine.clone(),
                container: self.id.clone(),
                pid_file,
            });
        }
        arguments.push(self.paths.to_container(&invocation.line.program));
        let given = invocation.line.arguments.iter();
        arguments.extend(given.map(|it| self.paths.to_container(it)));
        let line = CommandLine {
            program: self.engine.program(),
            arguments,
        };
        let entered = ProgramInvocation {
            line,
            workdir: folders.workspace.clone(),
            env,
        };
        (entered, reach)
    }

    /// Changes the owner of files that root has created in the job's folders, so that they can be removed.
    pub(super) async fn restore_ownership(&self) {
        let user = rustix::process::geteuid();
        if user.is_root() || !self.has_shell {
            return;
        }
        let owner = format!("{}:{}", user.as_raw(), rustix::process::getegid().as_raw());
        let script = "chown -R \"$0\" /__w /__t /github 2>/dev/null";
        let arguments = ["exec", "--user=0", &self.id, "sh", "-c", script, &owner];
        // Best effort: the image may have no chown.
        let _ = self.engine.run_client(&arguments, &[]).await;
    }
}

/// Translates an environment for a container whose `PATH` is `path`: drops variables that only make sense on this
/// machine, and maps paths with `placed`. Without `path`, the image's `PATH` is kept.
pub(super) fn translate_environment(
    env: &[(String, String)],
    folders: &JobFolders,
    path: Option<&str>,
    placed: impl Fn(&str) -> String,
) -> Vec<(String, String)> {
    let here = base_environment(folders);
    let mut inside = Vec::new();
    for (name, value) in env {
        let is_heres = here.get(name) == Some(value);
        let value = match name.as_str() {
            "PATH" => match value.strip_suffix(here.get("PATH").unwrap_or_default()) {
                Some(added) => match path {
                    Some(path) => format!("{added}{path}"),
                    None => continue,
                },
                None => value.clone(),
            },
            "HOME" | "CI" => placed(value),
            proxy if proxy.to_ascii_lowercase().ends_with("_proxy") => value.clone(),
            _ if is_heres => continue,
            _ => placed(value),
        };
        inside.push((name.clone(), value));
    }
    inside
}

/// Adds variables to the client's arguments, with values in its environment, see [`super::engine`].
pub(super) fn pass_variables(
    variables: Vec<(String, String)>,
    arguments: &mut Vec<String>,
    env: &mut Vec<(String, String)>,
) {
    for (name, value) in variables {
        if affects_client(&name) {
            arguments.push(format!("--env={name}={value}"));
        } else {
            arguments.push(format!("--env={name}"));
            env.push((name, value));
        }
    }
}

/// Variables that would affect the client itself if set in its environment. None of them is a secret.
fn affects_client(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "PATH",
        "HOME",
        "TMPDIR",
        "HOSTNAME",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
        "DOCKER_CERT_PATH",
        "DOCKER_TLS",
        "DOCKER_TLS_VERIFY",
        "DOCKER_API_VERSION",
        "DOCKER_DEFAULT_PLATFORM",
        "CONTAINER_HOST",
        "CONTAINER_CONNECTION",
    ];
    const BEGINNINGS: [&str; 5] = ["LD_", "XDG_", "SSL_CERT_", "GODEBUG", "DOCKER_CONTENT_"];
    NAMES.contains(&name) || BEGINNINGS.iter().any(|it| name.starts_with(it))
}
