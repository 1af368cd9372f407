//! Service containers: started in the job's network with their names as aliases; the job waits until they are
//! healthy.

use std::{collections::BTreeMap, time::Duration};

use shipway_workflow::{
    expr::ExprValue,
    job::{AnnotationLevel, JobSpec},
};

use super::{
    ContainerError, Containers, LOG_LINES, as_strs,
    container_settings::ContainerSettings,
    engine::{ContainerEngine, EngineLocation},
    leftovers::owner_labels,
};
use crate::{cgroup_limits::CgroupLimits, output_processor::OutputProcessor};

/// Lines of output in the message about a failed service.
const LAST_LINES: usize = 20;
/// Polling interval for health, doubled each time up to the second value.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(2);

impl Containers {
    /// Starts a service; returns `job.services.<name>`.
    pub(super) async fn start_service(
        &mut self,
        engine: &ContainerEngine,
        (name, settings): (&str, &ContainerSettings),
        spec: &JobSpec,
        output: &mut OutputProcessor,
    ) -> Result<ExprValue, ContainerError> {
        let temp = spec.mounts.folder.join("temp");
        self.pull_image(engine, settings, &temp, output).await?;
        let container = self.resource_name(&spec.mounts.folder, name);
        self.container_names.push(container.clone());
        let arguments = self.create_arguments(engine, &container, settings, spec, Some(name));
        let mut arguments = as_strs(&arguments);
        if let Some(entrypoint) = &settings.entrypoint {
            arguments.extend(["--entrypoint", entrypoint]);
        }
        arguments.push(&settings.image);
        arguments.extend(settings.command.iter().map(String::as_str));
        let id = engine.run_client(&arguments, &settings.env).await?;
        self.services.push((name.to_owned(), container.clone()));
        engine.run_client(&["start", &container], &[]).await?;
        let state = engine
            .query(&["inspect", "--format", "{{.State.Status}}", &container])
            .await?;
        if state.trim() != "running" {
            let last = recent_output(engine, &container).await;
            let text = format!("the service {name} is {}, not running{last}", state.trim());
            output.annotate(AnnotationLevel::Warning, &text);
        }
        let ports = engine
            .query(&["port", &container])
            .await
            .unwrap_or_default();
        let ports = parse_published_ports(&ports);
        for (inner, outer) in &ports {
            output.log_message(&format!(
                "port {inner} is mapped to {outer} on this machine"
            ));
        }
        let ports = ports
            .iter()
            .map(|(inner, outer)| (inner.as_str(), ExprValue::from(outer.as_str())));
        let network = self.network.as_deref().unwrap_or_default();
        Ok(ExprValue::object([
            ("id", ExprValue::from(id)),
            ("network", ExprValue::from(network)),
            ("ports", ExprValue::object(ports)),
        ]))
    }

    /// The arguments of `docker create` before the image.
    pub(super) fn create_arguments(
        &self,
        engine: &ContainerEngine,
        container: &str,
        settings: &ContainerSettings,
        spec: &JobSpec,
        alias: Option<&str>,
    ) -> Vec<String> {
        let mut arguments = ["create", "--name", container].map(str::to_owned).to_vec();
        arguments.extend(owner_labels(&spec.mounts.folder));
        if let Some(network) = &self.network {
            arguments.push(format!("--network={network}"));
        }
        arguments.extend(alias.map(|alias| format!("--network-alias={alias}")));
        for port in &settings.ports {
            arguments.push(format!(
                "--publish={}",
                publish_on_loopback(engine.location(), port)
            ));
        }
        // Before the options, so that the workflow can override them.
        arguments.extend(CgroupLimits::container_arguments(&spec.limits));
        arguments.extend(settings.options.iter().cloned());
        let known = ["GITHUB_ACTIONS", "CI"];
        for (name, value) in known.iter().map(|name| (*name, "true")) {
            arguments.push(format!("--env={name}={value}"));
        }
        // After these defaults, so that the workflow can override them.
        arguments.extend(settings.env.iter().map(|(name, _)| format!("--env={name}")));
        for volume in &settings.volumes {
            arguments.push(format!("--volume={volume}"));
        }
        arguments
    }

    /// Waits until every service that has a health check is healthy.
    pub(super) async fn await_services(
        &self,
        engine: &ContainerEngine,
        output: &mut OutputProcessor,
    ) -> Result<(), ContainerError> {
        for (name, container) in &self.services {
            let mut pause = SOON;
            let mut said = false;
            loop {
                match service_health(engine, container).await?.as_str() {
                    // No health check.
                    "" => break,
                    "healthy" => {
                        output.log_message(&format!("the service {name} is healthy"));
                        break;
                    }
                    "starting" => {
                        if !said || pause == LATE {
                            output.log_message(&format!(
                                "waiting for the service {name}: it is starting"
                            ));
                            output.log.flush();
                            said = true;
                        }
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LATE);
                    }
                    other => {
                        let last = recent_output(engine, container).await;
                        return Err(ContainerError::ServiceFailed {
                            name: name.clone(),
                            state: other.to_owned(),
                            output: last,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Copies the output of the services to the log.
    pub(super) async fn log_service_output(
        &mut self,
        engine: &ContainerEngine,
        output: &mut OutputProcessor,
    ) {
        for (name, container) in std::mem::take(&mut self.services) {
            let text = engine.logs(&container, LOG_LINES).await.unwrap_or_default();
            if !text.is_empty() {
                output.log_message(&format!("##[group]What the service {name} has printed"));
                output.log_message(text.trim_end());
                output.log_message("##[endgroup]");
            }
        }
    }
}

/// `starting`, `healthy`, `unhealthy`, `exited with code 1`; empty without a health check.
async fn service_health(
    engine: &ContainerEngine,
    container: &str,
) -> Result<String, ContainerError> {
    let format =
        "{{if .State.Health}}{{.State.Health.Status}} {{.State.Status}} {{.State.ExitCode}}{{end}}";
    let asked = engine
        .query(&["inspect", "--format", format, container])
        .await;
    let text = asked?;
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words.as_slice() {
        [_, "exited" | "dead", code] => format!("exited with code {code}"),
        [health, ..] => (*health).to_owned(),
        [] => String::new(),
    })
}

/// The last output of a service, for an error message.
async fn recent_output(engine: &ContainerEngine, container: &str) -> String {
    let text = engine.logs(container, LAST_LINES).await.unwrap_or_default();
    match text.trim_end() {
        "" => "; it printed nothing".to_owned(),
        text => format!("; it printed\n{text}"),
    }
}

/// Publishes a port on the loopback address only, unless the workflow gives an address.
fn publish_on_loopback(location: EngineLocation, port: &str) -> String {
    // Ports with an address have two colons: `127.0.0.1:8080:80`, `[::1]:8080:80`.
    if location == EngineLocation::Remote || port.matches(':').count() > 1 {
        return port.to_owned();
    }
    match port.contains(':') {
        true => format!("127.0.0.1:{port}"),
        false => format!("127.0.0.1::{port}"),
    }
}

/// Parses `docker port` into inner and outer ports. Lines are like `5432/tcp -> 127.0.0.1:49153`.
fn parse_published_ports(text: &str) -> BTreeMap<String, String> {
    let mut ports = BTreeMap::new();
    for line in text.lines() {
        let Some((inner, outer)) = line.split_once(" -> ") else {
            continue;
        };
        let inner = inner.split('/').next().unwrap_or(inner).trim();
        let outer = outer.rsplit(':').next().unwrap_or(outer).trim();
        ports
            .entry(inner.to_owned())
            .or_insert_with(|| outer.to_owned());
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_on_loopback_unless_said() {
        for (port, expected) in [
            ("5432", "127.0.0.1::5432"),
            ("5432:5432", "127.0.0.1:5432:5432"),
            ("53/udp", "127.0.0.1::53/udp"),
            ("8000-8010:80", "127.0.0.1:8000-8010:80"),
            ("0.0.0.0:80:80", "0.0.0.0:80:80"),
        ] {
            assert_eq!(publish_on_loopback(EngineLocation::Local, port), expected);
            assert_eq!(publish_on_loopback(EngineLocation::Remote, port), port);
        }
    }

    #[test]
    fn published_ports_are_read() {
        let ports = parse_published_ports(
            "5432/tcp -> 127.0.0.1:49153\n5432/tcp -> [::1]:49154\n53/udp -> 0.0.0.0:53\n",
        );
        let ports: Vec<_> = ports.into_iter().collect();
        let text = |it: &str| it.to_owned();
        assert_eq!(
            ports,
            [(text("53"), text("53")), (text("5432"), text("49153"))]
        );
    }
}
