//! The post-receive hook: reports a push to the server and prints the server's response in the pusher's terminal.
//!
//! Git runs `shipway hook post-receive` after updating the references, and shows its output as `remote: …`.
//!
//! # Invariants
//!
//! - The hook decides nothing and always exits 0, because the push is already stored.
//! - The server accepts a report before it starts its response, and its work does not depend on the response being read: pushers
//!   close their terminals.
//!
//! # Protocol
//!
//! `POST $SHIPWAY_HOOK_URL`, `Authorization: Bearer $SHIPWAY_HOOK_TOKEN`, a [`PushReport`] as JSON. The response is
//! `text/plain`, one line per event, flushed at once, closed when nothing more will be shown.

use std::{
    fmt,
    io::{self, BufRead, Write},
    process::ExitCode,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use shipway_core::{
    access::PushPrincipal,
    ids::{CommitId, ServiceName},
    principal_id::PrincipalId,
    terminal::sanitize_for_terminal,
};

use super::RefUpdate;

pub(super) const EXE: &str = "SHIPWAY_EXE";
pub(super) const URL: &str = "SHIPWAY_HOOK_URL";
pub(super) const TOKEN: &str = "SHIPWAY_HOOK_TOKEN";
pub(super) const SERVICE: &str = "SHIPWAY_SERVICE";
pub(super) const PUSHER: &str = "SHIPWAY_PUSHER";
pub(super) const PRINCIPAL: &str = "SHIPWAY_PRINCIPAL";

/// Connect timeout; the server is on this machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Timeout for the response; the server only appends an event before it answers.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(30);
/// Longest line.
const LINE_BYTES_MAX: u64 = 4096;

/// Proves that a report comes from Shipway's hook. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct HookToken(String);

impl HookToken {
    /// Creates a token.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret text, for the header or environment variable.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HookToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The report of a push to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushReport {
    /// The service that was pushed to.
    pub service: ServiceName,
    /// The updated references.
    pub updates: Vec<PushedRef>,
    /// Whose push it is.
    pub pusher: PushPrincipal,
}

impl PushReport {
    /// The updated references, with git's all-zero commits as `None`.
    #[must_use]
    pub fn ref_updates(&self) -> Vec<RefUpdate> {
        let some = |id: &CommitId| (!id.is_zero()).then(|| id.clone());
        let update = |update: &PushedRef| RefUpdate {
            name: update.name.clone(),
            old: some(&update.old),
            new: some(&update.new),
        };
        self.updates.iter().map(update).collect()
    }
}

/// One line of git's hook input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushedRef {
    /// The old commit; zeros if the reference is new.
    pub old: CommitId,
    /// The new commit; zeros if the reference was deleted.
    pub new: CommitId,
    /// Its full name.
    #[serde(rename = "ref")]
    pub name: String,
}

/// Why a push could not be reported.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("{0} is not set; is this hook run by shipway's own server?")]
    Unset(&'static str),
    #[error("git sent an unknown line: {0:?}")]
    Line(String),
    #[error("the server could not be reached ({0})")]
    Unreachable(ureq::Error),
    #[error("the server answered {0}")]
    Refused(String),
    #[error("the connection to the server was lost ({0})")]
    BrokenOff(io::Error),
}

/// Configuration of the hook, from its environment.
struct HookConfig {
    url: String,
    token: HookToken,
    service: ServiceName,
    pusher: PushPrincipal,
}

impl HookConfig {
    fn from_environment() -> Result<Self, HookError> {
        let variable = |name| std::env::var(name).map_err(|_| HookError::Unset(name));
        Ok(Self {
            url: variable(URL)?,
            token: HookToken(variable(TOKEN)?),
            service: variable(SERVICE)?
                .parse()
                .map_err(|_| HookError::Unset(SERVICE))?,
            pusher: PushPrincipal {
                principal: variable(PRINCIPAL)?
                    .parse::<PrincipalId>()
                    .map_err(|_| HookError::Unset(PRINCIPAL))?,
                name: variable(PUSHER).ok(),
            },
        })
    }
}

/// `shipway hook post-receive`: reads standard input and the environment. Always succeeds.
#[must_use]
pub fn post_receive() -> ExitCode {
    let mut stdout = io::stdout().lock();
    let outcome = HookConfig::from_environment()
        .and_then(|target| send_report(&target, io::stdin().lock(), &mut stdout));
    if let Err(error) = outcome {
        // Fails if the pusher has disconnected.
        let text = format!("shipway: your push is stored, but {error}");
        let _ = writeln!(stdout, "{}", sanitize_for_terminal(&text)).and_then(|()| stdout.flush());
    }
    ExitCode::SUCCESS
}

fn send_report(
    target: &HookConfig,
    input: impl BufRead,
    output: &mut impl Write,
) -> Result<(), HookError> {
    let updates = parse_updates(input)?;
    if updates.is_empty() {
        return Ok(());
    }
    let report = PushReport {
        service: target.service.clone(),
        updates,
        pusher: target.pusher.clone(),
    };
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_DEADLINE))
        .timeout_recv_response(Some(ACCEPT_DEADLINE))
        .build()
        .new_agent();
    let bearer = format!("Bearer {}", target.token.reveal());
    let request = agent
        .post(&target.url)
        .header("Authorization", &bearer)
        .header("Accept", "text/plain");
    let response = request.send_json(&report).map_err(HookError::Unreachable)?;
    let status = response.status();
    let mut lines = io::BufReader::new(response.into_body().into_reader());
    if !status.is_success() {
        let why = next_line(&mut lines).ok().flatten().unwrap_or_default();
        return Err(HookError::Refused(
            format!("{status} {why}").trim_end().to_owned(),
        ));
    }
    while let Some(line) = next_line(&mut lines).map_err(HookError::BrokenOff)? {
        if writeln!(output, "{}", sanitize_for_terminal(&line))
            .and_then(|()| output.flush())
            .is_err()
        {
            // The pusher has disconnected; the server continues with the report.
            break;
        }
    }
    Ok(())
}

fn parse_updates(input: impl BufRead) -> Result<Vec<PushedRef>, HookError> {
    let read = |line: String| {
        let update = || {
            let mut words = line.splitn(3, ' ');
            let (old, new) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(PushedRef {
                old,
                new,
                name: words.next()?.to_owned(),
            })
        };
        update().ok_or_else(|| HookError::Line(line.chars().take(120).collect()))
    };
    input
        .lines()
        .map(|line| read(line.map_err(|error| HookError::Line(error.to_string()))?))
        .collect()
}

/// The next line without its line break; a line longer than [`LINE_BYTES_MAX`] is split. `None` at the end.
fn next_line(lines: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if io::Read::take(&mut *lines, LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&line);
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use shipway_core::access::Principal;

    use super::*;

    #[test]
    fn gits_lines_become_updates() {
        let (zero, one) = ("0".repeat(40), "1".repeat(40));
        let input = format!("{zero} {one} refs/heads/a b\n{one} {zero} refs/heads/gone\n");
        let report = PushReport {
            service: "shop".parse().unwrap(),
            updates: parse_updates(input.as_bytes()).unwrap(),
            pusher: Principal::person("ada").pusher(),
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["updates"][0]["ref"], "refs/heads/a b");
        assert_eq!(serde_json::from_value::<PushReport>(json).unwrap(), report);
        let moved = report.ref_updates();
        assert_eq!(
            (&moved[0].old, moved[0].new.as_ref().map(CommitId::as_str)),
            (&None, Some(one.as_str()))
        );
        assert_eq!(
            (moved[1].new.is_none(), moved[1].branch()),
            (true, Some("gone"))
        );
    }

    #[test]
    fn an_unreachable_server_is_said_in_one_sentence() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let target = HookConfig {
            url: format!("http://{free}/"),
            token: HookToken("secret".to_owned()),
            service: "shop".parse().unwrap(),
            pusher: Principal::unnamed_person().pusher(),
        };
        let line = format!("{0} {0} refs/heads/main\n", "1".repeat(40));
        let mut output = Vec::new();
        let error = send_report(&target, line.as_bytes(), &mut output)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the server could not be reached ("),
            "{error}"
        );
        assert!(!error.contains("secret") && output.is_empty(), "{error}");
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let text = "x".repeat(5000) + "\nend";
        let mut reader = text.as_bytes();
        let lengths: Vec<usize> = std::iter::from_fn(|| next_line(&mut reader).unwrap())
            .map(|line| line.len())
            .collect();
        assert_eq!(lengths, [4096, 904, 3]);
    }
}
