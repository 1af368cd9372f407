//! One question about an instance's health.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use shipway_core::check::{Probe, named_failures};

use super::{exec, http as client};

/// The part of a body that is looked at for what the endpoint reports of its dependencies.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Asks once. The error is a sentence for people, with the dependencies that the endpoint names.
pub async fn ask(
    probe: &Probe,
    address: &str,
    workdir: &Path,
    timeout: Duration,
) -> Result<(), String> {
    match probe {
        Probe::Tcp => match tokio::time::timeout(timeout, client::connect(address)).await {
            Ok(connected) => connected.map(drop),
            Err(_) => Err(client::late(address, timeout)),
        },
        Probe::Http { path, status } => http_probe(path, *status, address, timeout).await,
        Probe::Exec { command } => exec::run(command, address, workdir, timeout).await,
    }
}

async fn http_probe(
    path: &str,
    wanted: Option<u16>,
    address: &str,
    timeout: Duration,
) -> Result<(), String> {
    let request = Request::get(path)
        .header(header::USER_AGENT, "shipway-probe")
        .body(Full::new(Bytes::new()))
        .map_err(|error| format!("{path}: {error}"))?;
    let answer = client::ask(address, request, timeout, BODY_BYTES_MAX).await?;
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
