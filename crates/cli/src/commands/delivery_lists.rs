//! `shipway runs`, `releases` and `open`.

use std::process::{Command, Stdio};

use shipway_api::{ApiClient, ListedRelease, ReleaseListQuery, RunListQuery, TimeBound};
use shipway_core::run::{RunStatus, RunView};

use super::id_args::{Kind, kind_of, rollout_id, run_id};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, ago, enum_text, line, table},
    service_argument::resolve_service,
};

/// Conditions that both lists have.
#[derive(Debug, clap::Args)]
struct ListOptions {
    /// Only of this service (default: all services)
    service: Option<String>,
    /// Only of this branch
    #[arg(long)]
    branch: Option<String>,
    /// Only those that this person pushed or asked for
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
    /// Only those that changed since then: 2026-11-30, 2026-11-30T12:00:00Z, 24h or 7d
    #[arg(long, value_name = "TIME")]
    since: Option<TimeBound>,
    /// Only those that changed before then
    #[arg(long, value_name = "TIME")]
    until: Option<TimeBound>,
    /// Maximum number of entries
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,
}

/// List runs of all services, the newest change first
#[derive(Debug, clap::Args)]
pub struct RunsArgs {
    #[command(flatten)]
    options: ListOptions,
    /// Only those with this status: success, failure, running, …
    #[arg(long, value_name = "STATUS", value_parser = parse_status)]
    state: Option<RunStatus>,
}

/// List releases of all services, the newest first
#[derive(Debug, clap::Args)]
pub struct ReleasesArgs {
    #[command(flatten)]
    options: ListOptions,
}

/// Open a page in the browser, or print its address
#[derive(Debug, clap::Args)]
pub struct OpenArgs {
    /// A service, a run (r12) or a rollout (ro7); the overview by default
    page: Option<String>,
    /// Only print the address
    #[arg(long)]
    print: bool,
}

/// A word that is not the status of a run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("use waiting, queued, running, success, failure, cancelled, skipped or incomplete")]
struct RunStatusError;

fn parse_status(text: &str) -> Result<RunStatus, RunStatusError> {
    serde_json::from_value(text.into()).map_err(|_| RunStatusError)
}

/// Lists runs.
pub fn list_runs(
    server: &ServerConnection,
    args: &RunsArgs,
    output: Output,
) -> Result<(), Failure> {
    let options = &args.options;
    let query = RunListQuery {
        service: options.service.clone(),
        state: args.state,
        branch: options.branch.clone(),
        person: options.person.clone(),
        since: options.since,
        until: options.until,
        ..RunListQuery::default()
    };
    let runs = server.runs_of_query(&query, options.limit)?;
    if output.json {
        return output.document(&runs);
    }
    let row = |run: &RunView| {
        vec![
            run.id.to_string(),
            enum_text(&run.status),
            run.branch.clone(),
            run.commit.short().to_owned(),
            ago(run.finished_at.unwrap_or(run.created_at)),
            person_name(&run.by).to_owned(),
            if run.title.is_empty() {
                run.name.clone()
            } else {
                run.title.clone()
            },
        ]
    };
    table(
        &["RUN", "STATUS", "BRANCH", "COMMIT", "WHEN", "BY", "WHAT"],
        &runs.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

/// Lists releases.
pub fn list_releases(
    server: &ServerConnection,
    args: &ReleasesArgs,
    output: Output,
) -> Result<(), Failure> {
    let options = &args.options;
    let query = ReleaseListQuery {
        service: options.service.clone(),
        branch: options.branch.clone(),
        person: options.person.clone(),
        since: options.since,
        until: options.until,
        ..ReleaseListQuery::default()
    };
    let releases = server.releases_of_query(&query, options.limit)?;
    if output.json {
        return output.document(&releases);
    }
    let row = |listed: &ListedRelease| {
        let release = &listed.release;
        let by = listed.by.as_deref().unwrap_or(&release.commit.author);
        vec![
            listed.service.to_string(),
            release.number.to_string(),
            listed.branch.clone(),
            release.commit.id.short().to_owned(),
            ago(release.created_at),
            person_name(by).to_owned(),
            release.commit.subject.clone(),
        ]
    };
    table(
        &[
            "SERVICE", "RELEASE", "BRANCH", "COMMIT", "MADE", "BY", "WHAT",
        ],
        &releases.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

/// Prints the address of a page, and opens it where there is a desktop.
pub fn open_page(
    server: &ServerConnection,
    args: &OpenArgs,
    output: Output,
) -> Result<(), Failure> {
    let path = match args.page.as_deref() {
        None => "/".to_owned(),
        Some(page) => match kind_of(page) {
            Some(Kind::Run) => {
                let id = run_id(server, page)?;
                format!("/runs/{}/{}", id.service, id.number.0)
            }
            Some(Kind::Rollout) => {
                let id = rollout_id(server, page)?;
                format!("/rollouts/{}/{}", id.service, id.number.0)
            }
            None => format!("/services/{}", resolve_service(server, Some(page))?),
        },
    };
    let url = server.url(&path);
    if output.json {
        return output.document(&serde_json::json!({ "url": url }));
    }
    line(&url);
    let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    if has_desktop && !args.print {
        let mut opener = Command::new("xdg-open");
        opener
            .arg(&url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // The address was printed: a desktop without an opener loses nothing.
        drop(opener.spawn());
    }
    Ok(())
}

/// Who, without their address.
fn person_name(by: &str) -> &str {
    by.split_once(" <").map_or(by, |(name, _)| name)
}
