//! Deploys, rollbacks, plans; and what there is: status and history.

use serde::Deserialize;
use serde_json::{Value, json};
use shipway_core::{
    ids::{EnvironmentName, ReleaseNumber, ServiceName},
    rollout::{self, RolloutView},
    service::{EndedRollout, EnvironmentDegradation, EnvironmentHold, ServiceView},
    target::InstanceStatus,
};

use super::{
    ids::{Kind, Page, only_service, path_of},
    set_off::{self, SetOff},
    steer,
};
use crate::{
    client::Server,
    exit::Failure,
    print::{Output, ago, line, table},
};

/// Roll a release out: the newest, or the one named; from the first environment on, or into one alone
#[derive(Debug, clap::Args)]
pub struct Deploy {
    /// The service; may be left out when the server has only one
    service: Option<String>,
    /// The release of this commit
    #[arg(long, conflicts_with = "release")]
    commit: Option<String>,
    /// The release with this number
    #[arg(long, value_name = "N")]
    release: Option<u32>,
    /// Into this environment alone
    #[arg(long, value_name = "ENV")]
    to: Option<String>,
    /// Even if it was rolled back there before
    #[arg(long)]
    force: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Follow it to its end
    #[arg(long)]
    watch: bool,
}

/// What a deploy would do, action by action; nothing is changed
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// The service; may be left out when the server has only one
    service: Option<String>,
    /// The environment
    #[arg(long, value_name = "ENV")]
    to: String,
    /// The release; the newest when not said
    #[arg(long, value_name = "N")]
    release: Option<u32>,
}

/// What runs where, its health, what is moving
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Only this service
    service: Option<String>,
}

/// Rollouts of a service, the newest first
#[derive(Debug, clap::Args)]
pub struct History {
    /// The service; may be left out when the server has only one
    service: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,
}

/// Go back to an earlier release: at once where it was good lately
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// The service; may be left out when the server has only one
    service: Option<String>,
    /// The environment
    #[arg(long = "in", value_name = "ENV")]
    environment: String,
    /// The release; the one before when not said
    #[arg(long, value_name = "RELEASE")]
    to: Option<u32>,
    /// Even if it was rolled back there before
    #[arg(long)]
    force: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Follow it to its end
    #[arg(long)]
    watch: bool,
}

/// Start a workflow by hand (`on: workflow_dispatch`)
#[derive(Debug, clap::Args)]
pub struct Dispatch {
    /// The service; may be left out when the server has only one
    #[arg(long)]
    service: Option<String>,
    /// The workflow; the only one that can be started by hand when not said
    workflow: Option<String>,
    /// The branch or tag
    #[arg(long = "ref", value_name = "BRANCH_OR_TAG")]
    reference: Option<String>,
    /// An input, as NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<String>,
}

/// Cancel a run
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// The run, such as r12
    run: String,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

pub(super) fn service_or_only(server: &Server, service: Option<&str>) -> Result<String, Failure> {
    match service {
        Some(service) => Ok(service.to_owned()),
        None => only_service(server).map(|name| name.to_string()),
    }
}

/// Asks for a rollout.
pub fn deploy(server: &Server, args: &Deploy, output: Output) -> Result<(), Failure> {
    let service = service_or_only(server, args.service.as_deref())?;
    let body = json!({ "release": args.release, "commit": args.commit, "environment": args.to, "force": args.force, "reason": args.reason });
    let answer: SetOff = server.post(&format!("/api/v1/services/{service}/deploys"), &body)?;
    set_off::show(server, &answer, args.watch, output)
}

/// Asks to go back.
pub fn rollback(server: &Server, args: &Rollback, output: Output) -> Result<(), Failure> {
    let service = service_or_only(server, args.service.as_deref())?;
    let body = json!({ "environment": args.environment, "release": args.to, "force": args.force, "reason": args.reason });
    let answer: SetOff = server.post(&format!("/api/v1/services/{service}/rollbacks"), &body)?;
    set_off::show(server, &answer, args.watch, output)
}

/// Asks for an ended rollout's release again.
pub fn retry(
    server: &Server,
    rollout: &str,
    reason: Option<&str>,
    output: Output,
) -> Result<(), Failure> {
    let path = format!("/api/v1/rollouts/{rollout}/retry");
    let answer: SetOff = server.post(&path, &json!({ "reason": reason }))?;
    set_off::show(server, &answer, false, output)
}

/// Shows what a deploy would do.
pub fn plan(server: &Server, args: &Plan, output: Output) -> Result<(), Failure> {
    let service = service_or_only(server, args.service.as_deref())?;
    let release = args
        .release
        .map(|release| format!("&release={release}"))
        .unwrap_or_default();
    let plan: Value = server.get(&format!(
        "/api/v1/services/{service}/plan?to={}{release}",
        args.to
    ))?;
    if output.json {
        return output.document(&plan);
    }
    let stable = plan["stable"]
        .as_u64()
        .map_or_else(|| "nothing".to_owned(), |stable| format!("#{stable}"));
    line(&format!(
        "{service} #{} → {} ({}); {stable} serves now",
        plan["release"],
        args.to,
        plan["strategy"].as_str().unwrap_or_default()
    ));
    for (index, action) in plan["actions"].as_array().into_iter().flatten().enumerate() {
        line(&format!(
            "  {:>2}. {}",
            index + 1,
            action.as_str().unwrap_or_default()
        ));
    }
    for note in plan["notes"].as_array().into_iter().flatten() {
        line(&format!("  note: {}", note.as_str().unwrap_or_default()));
    }
    Ok(())
}

/// One environment, as far as the status shows it.
#[derive(Deserialize)]
struct PlaceStatus {
    service: ServiceName,
    environment: EnvironmentName,
    url: String,
    #[serde(default)]
    address_problem: Option<String>,
    stable: Option<shipway_core::service::ReleaseView>,
    rollout: Option<RolloutView>,
    #[serde(default)]
    queue: Vec<ReleaseNumber>,
    hold: Option<EnvironmentHold>,
    degradation: Option<EnvironmentDegradation>,
    last_rollout: Option<EndedRollout>,
    instances: Vec<InstanceStatus>,
}

/// Shows what runs where.
pub fn status(server: &Server, args: &Status, output: Output) -> Result<(), Failure> {
    let mut page: Page<Value> = server.get("/api/v1/environments")?;
    page.items.retain(|place| {
        args.service
            .as_deref()
            .is_none_or(|service| place["service"] == *service)
    });
    if let (Some(service), true) = (&args.service, page.items.is_empty()) {
        // Says what is wrong in the server's words.
        let _: ServiceView = server.get(&format!("/api/v1/services/{service}"))?;
    }
    if output.json {
        return output.document(&page.items);
    }
    if page.items.is_empty() {
        line(&format!(
            "no service yet: push a commit with a shipway.yaml to {}/git/SERVICE",
            server.server
        ));
        return Ok(());
    }
    let places: Vec<PlaceStatus> = page
        .items
        .into_iter()
        .filter_map(|place| serde_json::from_value(place).ok())
        .collect();
    let row = |place: &PlaceStatus| {
        let ready = place
            .instances
            .iter()
            .filter(|status| status.is_ready())
            .count();
        let serves = place.stable.as_ref().map_or_else(
            || "–".to_owned(),
            |stable| {
                format!(
                    "{} {} {}",
                    stable.number,
                    stable.commit.id.short(),
                    short(&stable.commit.subject)
                )
            },
        );
        let held = place.hold.as_ref().map(|_| "held");
        let moving = place.rollout.as_ref().map(|rollout| {
            let what = match rollout.kind {
                rollout::RolloutKind::Deploy => "of",
                rollout::RolloutKind::Rollback => "rollback to",
                rollout::RolloutKind::Retry => "retry of",
            };
            let number = rollout.id.number;
            let guarded = rollout.guarded_until.map_or_else(String::new, |until| {
                format!(", guarded until {}", until.strftime("%H:%M:%S"))
            });
            format!(
                "{number} {what} {}: {}{guarded}",
                rollout.release, rollout.status
            )
        });
        let moving = moving.or_else(|| {
            let last = place.last_rollout.as_ref();
            let last = last.filter(|last| last.outcome != rollout::RolloutOutcome::Promoted)?;
            Some(format!(
                "{} of {}: {}",
                last.number, last.release, last.outcome
            ))
        });
        let moving = match (moving, held) {
            (Some(moving), Some(held)) => format!("{moving}; {held}"),
            (moving, held) => moving.or(held.map(str::to_owned)).unwrap_or_default(),
        };
        vec![
            place.service.to_string(),
            place.environment.to_string(),
            serves,
            format!("{ready}/{} ready", place.instances.len()),
            moving,
            place.url.clone(),
        ]
    };
    table_of_places(&places, row);
    for place in &places {
        if let Some(problem) = &place.address_problem {
            line(&format!(
                "{} {}: {problem}",
                place.service, place.environment
            ));
        }
    }
    for rollout in places.iter().filter_map(|place| place.rollout.as_ref()) {
        if let Some(text) = steer::stuck(rollout) {
            line(&text);
        }
    }
    for place in &places {
        if let Some(degradation) = &place.degradation {
            line(&format!(
                "{} {} is degraded since {}: {degradation}",
                place.service,
                place.environment,
                degradation.since.strftime("%Y-%m-%d %H:%M:%S UTC")
            ));
        }
        if let Some(text) = held_text(place) {
            line(&text);
        }
    }
    waiting_jobs(server, args.service.as_deref())
}

/// Who holds an environment and why, what waits for it, and how it is resumed.
fn held_text(place: &PlaceStatus) -> Option<String> {
    let hold = place.hold.as_ref()?;
    let queued: Vec<String> = place.queue.iter().map(ToString::to_string).collect();
    let waiting = if queued.is_empty() {
        String::new()
    } else {
        format!("; {} waiting", queued.join(", "))
    };
    let (service, environment) = (&place.service, &place.environment);
    let sentence = hold.sentence(service, environment);
    Some(format!("{service}: {sentence}{waiting}"))
}

/// The jobs of runs that wait for people.
fn waiting_jobs(server: &Server, service: Option<&str>) -> Result<(), Failure> {
    let page: Page<Value> = server.get("/api/v1/approvals")?;
    for job in page.items.iter().filter(|item| item["job"].is_string()) {
        let text = |key: &str| job[key].as_str().unwrap_or_default().to_owned();
        let id = text("id");
        if service.is_none_or(|service| id.split('/').next() == Some(service)) {
            line(&format!("{id} {}: {}", text("job"), text("waits_for")));
        }
    }
    Ok(())
}

fn table_of_places(places: &[PlaceStatus], row: impl Fn(&PlaceStatus) -> Vec<String>) {
    table(
        &[
            "SERVICE",
            "ENVIRONMENT",
            "SERVES",
            "INSTANCES",
            "MOVING",
            "ADDRESS",
        ],
        &places.iter().map(row).collect::<Vec<_>>(),
    );
}

/// Who, without their address.
fn name(by: &str) -> &str {
    by.split_once(" <").map_or(by, |(name, _)| name)
}

fn short(text: &str) -> String {
    let cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() {
        format!("{cut}…")
    } else {
        cut
    }
}

/// Shows the rollouts of a service.
pub fn history(server: &Server, args: &History, output: Output) -> Result<(), Failure> {
    let service = service_or_only(server, args.service.as_deref())?;
    let mut page: Page<RolloutView> = server.get(&format!(
        "/api/v1/rollouts?service={service}&limit={}",
        args.limit
    ))?;
    // The server has them by their last change.
    page.items
        .sort_by_key(|rollout| std::cmp::Reverse(rollout.id.number));
    if page.items.is_empty() {
        // Nothing yet, or a name that is not known: the server says which.
        let _: Value = server.get(&format!("/api/v1/services/{service}"))?;
    }
    if output.json {
        return output.document(&page.items);
    }
    let row = |view: &RolloutView| {
        let ended = view.ended.as_ref().map(|end| &end.why);
        let paused = view.paused.as_ref().map(|pause| &pause.reason);
        let why = ended.or(paused).unwrap_or(&view.why).clone();
        vec![
            view.id.number.to_string(),
            view.release.to_string(),
            view.environment.to_string(),
            view.kind.to_string(),
            view.status.to_string(),
            ago(view.opened_at),
            name(&view.by).to_owned(),
            why,
        ]
    };
    table(
        &[
            "ROLLOUT",
            "RELEASE",
            "ENVIRONMENT",
            "KIND",
            "STATUS",
            "BEGUN",
            "BY",
            "WHY",
        ],
        &page.items.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

/// Starts a workflow by hand.
pub fn dispatch(server: &Server, args: &Dispatch, output: Output) -> Result<(), Failure> {
    let service = service_or_only(server, args.service.as_deref())?;
    let mut inputs = serde_json::Map::new();
    for input in &args.input {
        let (name, value) = input
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{input:?} is not NAME=VALUE")))?;
        inputs.insert(name.to_owned(), value.into());
    }
    let answer: Value = server.post(
        &format!("/api/v1/services/{service}/runs"),
        &json!({ "workflow": args.workflow, "ref": args.reference, "inputs": inputs }),
    )?;
    if output.json {
        return output.document(&answer);
    }
    let run = answer["run"].as_str().unwrap_or_default();
    line(&format!("run {run} has begun: shipway logs {run} --follow"));
    Ok(())
}

/// Cancels a run.
pub fn cancel(server: &Server, args: &Cancel, output: Output) -> Result<(), Failure> {
    let path = path_of(server, &args.run, Kind::Run)?;
    let run: Value = server.post(
        &format!("/api/v1/runs/{path}/cancel"),
        &json!({ "reason": args.reason }),
    )?;
    if output.json {
        return output.document(&run);
    }
    line(&format!(
        "{} is {}",
        args.run,
        run["status"].as_str().unwrap_or("being cancelled")
    ));
    Ok(())
}
