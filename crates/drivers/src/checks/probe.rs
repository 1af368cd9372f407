//! One question about an instance's health.

use std::{path::Path, process::Stdio, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use shipway_core::check::{Probe, named_failures};

/// The part of a body that is looked at for what the endpoint reports of its dependencies.
const BODY_MAX: usize = 64 * 1024;

/// Asks once. The error is a sentence for people, with the dependencies that the endpoint names.
pub async fn ask(
    probe: &Probe,
    address: &str,
    workdir: &Path,
    timeout: Duration,
) -> Result<(), String> {
    match probe {
        Probe::Tcp => {
            match tokio::time::timeout(timeout, tokio::net::TcpStream::connect(address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(format!("nothing listens on {address}")),
                Err(_) => Err(format!("{address} does not answer")),
            }
        }
        Probe::Http { path, status } => http_probe(path, *status, address, timeout).await,
        Probe::Exec { command } => exec(command, address, workdir, timeout).await.map(|_| ()),
    }
}

async fn http_probe(
    path: &str,
    wanted: Option<u16>,
    address: &str,
    timeout: Duration,
) -> Result<(), String> {
    let request = Request::get(path)
        .header("host", address)
        .header("user-agent", "shipway-probe")
        .body(Full::new(Bytes::new()));
    let request = request.map_err(|error| format!("{path}: {error}"))?;
    let answer = super::http::ask(address, request, timeout, BODY_MAX).await?;
    let good = wanted.map_or((200..400).contains(&answer.status), |wanted| {
        answer.status == wanted
    });
    if good {
        return Ok(());
    }
    let named = named_failures(&answer.body);
    let dependencies = if named.is_empty() {
        String::new()
    } else {
        format!(": {} not well", named.join(", "))
    };
    Err(format!("{path} answers {}{dependencies}", answer.status))
}

/// Runs a shell command with `URL` and `PORT`; gives what it printed. Not exiting with 0, or too late, is an error that ends
/// with its last line.
pub(crate) async fn exec(
    command: &str,
    address: &str,
    workdir: &Path,
    timeout: Duration,
) -> Result<String, String> {
    let port = address.rsplit(':').next().unwrap_or_default();
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args(["-c", command])
        .env("URL", format!("http://{address}"))
        .env("PORT", port);
    shell
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if workdir.is_dir() {
        shell.current_dir(workdir);
    }
    let child = shell.spawn().map_err(|error| format!("sh: {error}"))?;
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    match tokio::time::timeout(timeout, child.wait_with_output()).await {
        Ok(Ok(output)) => {
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            let last = text.trim().lines().last().unwrap_or_default().to_owned();
            if output.status.success() {
                Ok(text)
            } else {
                Err(format!("{}: {last}", output.status))
            }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            if let Some(group) = group {
                // What it has started goes with it; gone already is fine.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            Err(format!("did not end within {} s", timeout.as_secs()))
        }
    }
}
