//! `shipway forge`: connects a repository to one of GitHub, GitLab or Gitea.

use shipway_api::{ApiClient as _, ConnectForgeRequest};
use shipway_core::{
    forge::{ForgeKind, ForgeView, ForkPolicy},
    ids::ServiceName,
};

use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, ago, line},
    service_argument::{default_service, find_folder_service},
};

const DETAILS: &str = "\
What is pushed to the forge is fetched and handled as a push to Shipway; workflows with
`on: pull_request` run for pull requests; results are written back as statuses, deployments and
a comment. Set the webhook secret before, and a token of the forge to write back:

  openssl rand -hex 32 | shipway secret set FORGE_WEBHOOK_SECRET --service shop
  shipway secret set FORGE_TOKEN --service shop
  shipway forge connect github acme/shop --service shop --token-secret FORGE_TOKEN";

/// Connect a repository to GitHub, GitLab, Gitea or Forgejo
#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub struct ForgeArgs {
    #[command(subcommand)]
    command: ForgeCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ForgeCommand {
    /// Connect a repository, and print what to enter at the forge
    Connect(ConnectForgeArgs),
    /// Show a connection: its webhooks, and what could not be written back
    Show(ConnectedRepository),
    /// End a connection
    Disconnect(ConnectedRepository),
}

#[derive(Debug, clap::Args)]
struct ConnectForgeArgs {
    /// github, gitlab, or gitea (also for Forgejo)
    forge: ForgeKind,
    /// The repository at the forge, such as acme/shop
    project: String,
    #[command(flatten)]
    repository: ConnectedRepository,
    /// The address of the forge, if not github.com or gitlab.com
    #[arg(long = "forge-url", value_name = "URL")]
    url: Option<String>,
    /// The address of its API, if not the usual one
    #[arg(long = "api-url", value_name = "URL")]
    api: Option<String>,
    /// The secret that the forge signs webhooks with
    #[arg(long, value_name = "NAME", default_value = "FORGE_WEBHOOK_SECRET")]
    webhook_secret: String,
    /// The secret with a token of the forge, to fetch private repositories and to write back
    #[arg(long = "token-secret", value_name = "NAME")]
    token: Option<String>,
    /// Run nothing for pull requests of forks (default: without secrets)
    #[arg(long)]
    ignore_forks: bool,
}

#[derive(Debug, clap::Args)]
struct ConnectedRepository {
    /// The repository on this server, by the service at its root (default: that of the nearest shipway.yaml)
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
}

impl ConnectedRepository {
    fn name(&self, server: &ServerConnection) -> Result<String, Failure> {
        if let Some(service) = &self.service {
            return Ok(service.to_string());
        }
        let name = match find_folder_service()? {
            Some(folder) => folder.name,
            None => default_service(server)?,
        };
        Ok(name.to_string())
    }
}

/// Carries out a command on connections.
pub fn run(server: &ServerConnection, args: &ForgeArgs, output: Output) -> Result<(), Failure> {
    match &args.command {
        ForgeCommand::Connect(args) => {
            let repository = args.repository.name(server)?;
            let request = ConnectForgeRequest {
                forge: args.forge.to_string(),
                project: args.project.clone(),
                url: args.url.clone(),
                api: args.api.clone(),
                webhook_secret: args.webhook_secret.clone(),
                token: args.token.clone(),
                ignore_forks: args.ignore_forks,
            };
            let view = server.connect_forge(&repository, &request)?;
            if output.json {
                return output.document(&view);
            }
            let (forge, project) = (view.forge.title(), &view.project);
            line(&format!("{repository} follows {project} of {forge}"));
            print_setup(&view);
            Ok(())
        }
        ForgeCommand::Show(args) => {
            let view = server.forge(&args.name(server)?)?;
            if output.json {
                return output.document(&view);
            }
            print_connection(&view);
            Ok(())
        }
        ForgeCommand::Disconnect(args) => {
            let view = server.disconnect_forge(&args.name(server)?)?;
            if output.json {
                return output.document(&view);
            }
            line(&format!(
                "{} follows {} no longer; delete the webhook at the forge",
                view.repository, view.project
            ));
            Ok(())
        }
    }
}

/// What to enter at the forge.
fn print_setup(view: &ForgeView) {
    let (page, events) = match view.forge {
        ForgeKind::Github => ("Settings › Webhooks › Add webhook", "Pushes, Pull requests"),
        ForgeKind::Gitlab => (
            "Settings › Webhooks › Add new webhook",
            "Push events, Tag push events, Merge request events",
        ),
        ForgeKind::Gitea => (
            "Settings › Webhooks › Add webhook › Gitea or Forgejo",
            "Push, Pull request, Pull request synchronized",
        ),
    };
    let secret = match view.forge {
        ForgeKind::Gitlab => "secret token",
        ForgeKind::Github | ForgeKind::Gitea => "secret",
    };
    line(&format!("\nEnter at {}, {page}:", view.forge.title()));
    line(&format!("  URL           {}", view.hook_url));
    line("  content type  application/json");
    line(&format!(
        "  {secret:<12}  the value of {} (Shipway shows no values)",
        view.webhook_secret
    ));
    line(&format!("  events        {events}"));
    if view.token.is_none() {
        line(
            "\nNothing is written back, and only public repositories can be fetched: connect with --token-secret NAME",
        );
    }
}

fn print_connection(view: &ForgeView) {
    line(&format!(
        "{} follows {} of {} ({})",
        view.repository,
        view.project,
        view.forge.title(),
        view.git_url
    ));
    if view.forks == ForkPolicy::Ignore {
        line("nothing runs for pull requests of forks");
    }
    print_setup(view);
    line(&format!(
        "\nwebhooks: {} are waiting",
        view.waiting_deliveries
    ));
    for delivery in &view.deliveries {
        let at = ago(delivery.at);
        line(&format!("  {at}: {}", delivery.outcome));
    }
    line(&format!("reports: {} are waiting", view.waiting_reports));
    for failed in &view.failed_reports {
        let at = ago(failed.at);
        line(&format!("  {at}: given up: {}", failed.why));
    }
}
