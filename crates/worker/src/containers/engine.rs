//! The container engine, reached by the `docker` or `podman` command. Each call has a timeout; errors contain what
//! the command printed.
//!
//! Values of variables are never on a command line, where every user of the machine could read them: `--env=NAME`
//! makes the client take the value from its own environment.

use std::{
    path::{Path, PathBuf},
    process::{Output as Printed, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use shipway_workflow::job::{ENGINE, NETWORK};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::Command,
};

use crate::{environment::PATH, output_processor::OutputProcessor, shell::find_program};

pub(crate) const INSTALL: &str =
    "install Docker or Podman where jobs run, or set DOCKER_HOST for the server";

/// The first that reaches an engine is used.
const CLIENTS: [&str; 2] = ["docker", "podman"];

/// Queries take milliseconds; a hanging engine must not block the job.
const ASK: Duration = Duration::from_secs(15);
/// Creating, starting and removing large images can be slow.
const MAKE: Duration = Duration::from_secs(120);
/// Pulls and builds; the job's own timeout applies as well.
const FETCH: Duration = Duration::from_secs(60 * 60);

/// OutputLines of a failed command's output in the error.
const SAID_LINES: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct ContainerEngine {
    client: PathBuf,
    env: Vec<(String, String)>,
    /// The engine's socket; `None` if the engine is on another machine.
    pub(super) socket: Option<PathBuf>,
}

/// Where the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EngineLocation {
    /// On this machine: folders can be mounted, and published ports are on this loopback.
    Local,
    Remote,
}

/// No engine is available, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EngineUnavailable(String);

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContainerEngineError {
    #[error("{client} can't be run: {why}")]
    Client { client: String, why: String },
    #[error("{what}: {said}")]
    Refused { what: String, said: String },
    #[error("{what}: no response within {seconds} s")]
    TooLong { what: String, seconds: u64 },
}

impl ContainerEngine {
    /// Finds the engine that the environment is configured for.
    pub(crate) async fn find() -> Result<Self, EngineUnavailable> {
        let path = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
        let mut silent = Vec::new();
        for name in CLIENTS {
            let Some(client) = find_program(name, &path) else {
                continue;
            };
            let mut engine = Self::with_client(client);
            match engine
                .query(&["version", "--format", "{{.Server.Version}}"])
                .await
            {
                Ok(_) => {
                    engine.resolve_host().await;
                    return Ok(engine);
                }
                Err(error) => silent.push(error.to_string()),
            }
        }
        Err(EngineUnavailable(match silent.as_slice() {
            [] => "there is neither docker nor podman in PATH".to_owned(),
            silent => format!("no container engine responds ({})", silent.join("; ")),
        }))
    }

    fn with_client(client: PathBuf) -> Self {
        let passed = ["PATH", "HOME", "XDG_RUNTIME_DIR"];
        let names = passed.iter().chain(&ENGINE).chain(&NETWORK);
        let env = names.filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        Self {
            client,
            env: env.collect(),
            socket: None,
        }
    }

    /// Determines the engine's address and sets `DOCKER_HOST`: with another `DOCKER_CONFIG` (for a login) the client
    /// would ignore the current context.
    async fn resolve_host(&mut self) {
        let known = self.env.iter().find(|(name, _)| name == "DOCKER_HOST");
        let host = match known {
            Some((_, host)) => Some(host.clone()),
            None => {
                let format = "{{.Endpoints.docker.Host}}";
                let asked = self
                    .query(&["context", "inspect", "--format", format])
                    .await;
                asked.ok().map(|host| host.trim().to_owned())
            }
        };
        let Some(host) = host.filter(|host| !host.is_empty()) else {
            return;
        };
        let socket = host.strip_prefix("unix://").map(PathBuf::from);
        self.socket = socket.filter(|socket| socket.exists());
        self.env.retain(|(name, _)| name != "DOCKER_HOST");
        self.env.push(("DOCKER_HOST".to_owned(), host));
    }

    pub(super) const fn location(&self) -> EngineLocation {
        match self.socket {
            Some(_) => EngineLocation::Local,
            None => EngineLocation::Remote,
        }
    }

    pub(super) fn program(&self) -> String {
        self.client.display().to_string()
    }

    /// The environment of the client.
    pub(super) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// Runs a query.
    pub(super) async fn query(&self, arguments: &[&str]) -> Result<String, ContainerEngineError> {
        let printed = self
            .run_with_timeout(self.client_command(arguments), arguments, ASK)
            .await?;
        Ok(String::from_utf8_lossy(&printed.stdout).into_owned())
    }

    /// The last lines that a container has printed to stdout and stderr.
    pub(super) async fn logs(
        &self,
        container: &str,
        lines: usize,
    ) -> Result<String, ContainerEngineError> {
        let arguments = ["logs", "--tail", &lines.to_string(), container];
        let printed = self
            .run_with_timeout(self.client_command(&arguments), &arguments, ASK)
            .await?;
        let mut text = String::from_utf8_lossy(&printed.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&printed.stderr));
        Ok(text)
    }

    /// Creates, starts or removes something. `variables` are the values for `--env=NAME` arguments.
    pub(super) async fn run_client(
        &self,
        arguments: &[&str],
        variables: &[(String, String)],
    ) -> Result<String, ContainerEngineError> {
        let mut command = self.client_command(arguments);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let printed = self.run_with_timeout(command, arguments, MAKE).await?;
        Ok(String::from_utf8_lossy(&printed.stdout).trim().to_owned())
    }

    /// Logs in at a registry, for calls with the same `config` folder.
    pub(super) async fn log_in(
        &self,
        registry: &str,
        (name, password): (&str, &str),
        config: &Path,
    ) -> Result<(), ContainerEngineError> {
        let mut arguments = vec!["login", "--username", name, "--password-stdin"];
        if !registry.is_empty() {
            arguments.push(registry);
        }
        let mut command = self.client_command_with_config(&arguments, Some(config));
        command.stdin(Stdio::piped());
        let call = async {
            let mut child = command.spawn()?;
            let mut input = child.stdin.take();
            if let Some(input) = &mut input {
                input.write_all(password.as_bytes()).await?;
            }
            drop(input);
            child.wait_with_output().await
        };
        self.check_result(call, "login", ASK * 4).await.map(drop)
    }

    /// Pulls or builds; output is logged as it comes.
    pub(super) async fn run_with_output(
        &self,
        arguments: &[&str],
        config: Option<&Path>,
        output: &mut OutputProcessor,
    ) -> Result<(), ContainerEngineError> {
        let mut command = self.client_command_with_config(arguments, config);
        let call = async {
            let mut child = command.spawn()?;
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            let (mut out, mut err) = (output_lines(stdout), output_lines(stderr));
            let mut last = Vec::new();
            let (mut more_out, mut more_err) = (out.is_some(), err.is_some());
            while more_out || more_err {
                let line = tokio::select! {
                    line = next_line(&mut out), if more_out => line.inspect(|it| more_out = it.is_some()),
                    line = next_line(&mut err), if more_err => {
                        let line = line.inspect(|it| more_err = it.is_some());
                        if let Ok(Some(line)) = &line {
                            last.extend_from_slice(line.as_bytes());
                            last.push(b'\n');
                        }
                        line
                    }
                };
                if let Some(line) = line? {
                    output.log_message(&line);
                    output.log.flush();
                }
            }
            Ok(Printed {
                status: child.wait().await?,
                stdout: Vec::new(),
                stderr: last,
            })
        };
        let what = arguments.first().copied().unwrap_or_default();
        self.check_result(call, what, FETCH).await.map(drop)
    }

    /// Signals a process group in a container without waiting. `pid_file` contains the number of the group.
    pub(super) fn signal_group(&self, container: &str, pid_file: &str, signal: Signal) {
        let name = match signal {
            Signal::INT => "INT",
            Signal::TERM => "TERM",
            _ => "KILL",
        };
        let script = format!("kill -{name} -\"$(cat \"$0\")\"");
        let mut command = self.client_command(&["exec", container, "sh", "-c", &script, pid_file]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(false);
        // Best effort: otherwise the client is killed.
        drop(command.spawn());
    }

    fn client_command(&self, arguments: &[&str]) -> Command {
        self.client_command_with_config(arguments, None)
    }

    fn client_command_with_config(&self, arguments: &[&str], config: Option<&Path>) -> Command {
        let mut command = Command::new(&self.client);
        command
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(config) = config {
            command.env("DOCKER_CONFIG", config);
            command.env("REGISTRY_AUTH_FILE", config.join("config.json"));
        }
        command
    }

    async fn run_with_timeout(
        &self,
        mut command: Command,
        arguments: &[&str],
        time: Duration,
    ) -> Result<Printed, ContainerEngineError> {
        let what = arguments.first().copied().unwrap_or_default();
        self.check_result(command.output(), what, time).await
    }

    async fn check_result(
        &self,
        call: impl Future<Output = std::io::Result<Printed>>,
        what: &str,
        time: Duration,
    ) -> Result<Printed, ContainerEngineError> {
        let client = self.client.file_name().unwrap_or_default();
        let client = client.to_string_lossy().into_owned();
        let what = format!("{client} {what}");
        match tokio::time::timeout(time, call).await {
            Err(_) => Err(ContainerEngineError::TooLong {
                what,
                seconds: time.as_secs(),
            }),
            Ok(Err(error)) => Err(ContainerEngineError::Client {
                client,
                why: error.to_string(),
            }),
            Ok(Ok(printed)) if printed.status.success() => Ok(printed),
            Ok(Ok(printed)) => Err(ContainerEngineError::Refused {
                what,
                said: failure_text(&printed),
            }),
        }
    }
}

/// The last lines of a failed call's stderr, joined.
fn failure_text(printed: &Printed) -> String {
    let text = String::from_utf8_lossy(&printed.stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("See '"))
        .collect();
    match &lines[lines.len().saturating_sub(SAID_LINES)..] {
        [] => printed.status.to_string(),
        last => last.join(" / "),
    }
}

type OutputLines<R> = Option<tokio::io::Lines<BufReader<R>>>;

fn output_lines<R: AsyncRead + Unpin>(from: Option<R>) -> OutputLines<R> {
    from.map(|from| BufReader::new(from).lines())
}

async fn next_line<R: AsyncRead + Unpin>(
    lines: &mut OutputLines<R>,
) -> std::io::Result<Option<String>> {
    match lines {
        Some(lines) => lines.next_line().await,
        None => Ok(None),
    }
}
