//! Health probes of an instance.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use shipway_core::check::{HealthProbe, named_failures};

use super::{CheckError, ProbeTarget, exec, http as client};
use crate::target::SetCommand;

/// Bytes of a body that are searched for failing dependencies.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Characters of a response that are quoted.
const QUOTED_CHARS: usize = 120;

/// Runs a probe once. The error names the dependencies that the endpoint reports as failing.
pub async fn run_probe(
    probe: &HealthProbe,
    instance: ProbeTarget<'_>,
    timeout: Duration,
) -> Result<(), CheckError> {
    let address = instance.at.address;
    match probe {
        HealthProbe::Tcp => match tokio::time::timeout(timeout, client::connect(address)).await {
            Ok(connected) => connected.map(drop),
            Err(_) => Err(client::no_answer(address, timeout)),
        },
        HealthProbe::Http {
            path,
            status,
            headers,
        } => http_probe(path, *status, headers, instance, timeout).await,
        HealthProbe::Exec { command } => {
            let command = SetCommand {
                command,
                environment: &exec::check_environment(address),
                timeout,
            };
            let output = exec::command_output(&command, instance.workdir).await;
            Ok(output.map(drop)?)
        }
    }
}

async fn http_probe(
    path: &str,
    wanted: Option<u16>,
    headers: &BTreeMap<String, String>,
    instance: ProbeTarget<'_>,
    timeout: Duration,
) -> Result<(), CheckError> {
    let mut request = Request::get(path).body(Full::new(Bytes::new()));
    if let Ok(request) = &mut request {
        let agent = HeaderValue::from_static("shipway-probe");
        request.headers_mut().insert(header::USER_AGENT, agent);
        for (name, value) in headers {
            let invalid = |error: &dyn std::fmt::Display| {
                CheckError::Request(format!("header {name}: {error}"))
            };
            let name = HeaderName::try_from(name).map_err(|error| invalid(&error))?;
            let value = HeaderValue::try_from(value).map_err(|error| invalid(&error))?;
            request.headers_mut().insert(name, value);
        }
    }
    let request = request.map_err(|error| CheckError::Request(format!("{path}: {error}")))?;
    let answer = client::send_request(instance.at, request, timeout, BODY_BYTES_MAX).await?;
    let is_good = wanted.map_or((200..400).contains(&answer.status), |wanted| {
        answer.status == wanted
    });
    if is_good {
        return Ok(());
    }
    let failures = named_failures(&answer.body);
    let reason = match failures.is_empty() {
        true => quote_body(&answer.body).map(|text| format!(": {text}")),
        false => Some(format!(": {} not well", failures.join(", "))),
    };
    let host = headers.get("host").map_or(
        instance.at.host.unwrap_or(instance.at.address),
        String::as_str,
    );
    // Servers answer these to an unknown host.
    let asked_for = match answer.status {
        400 | 403 | 404 | 421 => format!(" to Host {host}"),
        _ => String::new(),
    };
    Err(CheckError::Unhealthy(format!(
        "{path} answers {}{asked_for}{}",
        answer.status,
        reason.unwrap_or_default()
    )))
}

/// The first non-empty line of a response; the title of an HTML page.
fn quote_body(body: &str) -> Option<String> {
    let title = body.split_once("<title>").map(|(_, rest)| rest);
    let title = title.and_then(|rest| rest.split_once("</title>"));
    let text = match title {
        Some((title, _)) => title,
        None if body.trim_start().starts_with('<') => return None,
        None => body.lines().find(|line| !line.trim().is_empty())?,
    };
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let printable = words.chars().filter(|c| !c.is_control());
    let quoted: String = printable.take(QUOTED_CHARS).collect();
    (!quoted.is_empty()).then_some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_quoted_by_its_first_line_or_its_title() {
        for (body, wanted) in [
            (
                "\n  Invalid   host \u{1b}[31m\nmore",
                Some("Invalid host [31m"),
            ),
            (
                "<!doctype html><head>\n<title>Blocked\n host</title>",
                Some("Blocked host"),
            ),
            ("<html><body>x", None),
            ("", None),
        ] {
            assert_eq!(quote_body(body).as_deref(), wanted, "{body}");
        }
        assert_eq!(
            quote_body(&"ä".repeat(500)).unwrap().chars().count(),
            QUOTED_CHARS
        );
    }
}
