//! `shipway notify`: shows destinations of notifications, sends dead letters again or removes them, and sends a test message.

use shipway_api::{ApiClient as _, ResendRequest};
use shipway_core::outbox::{ChannelId, ChannelView, DeadLetterView};

use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, ago, counted, line, table},
};

const DETAILS: &str = "\
`notify` in shipway.yaml names the destinations of an environment; each is listed from its first
message on. Messages wait in order until the receiver accepts them. A message that it refuses, or
does not accept within 100 attempts, becomes a dead letter, and the next one is sent.";

/// Show destinations of notifications, and handle their dead letters
#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub struct NotifyArgs {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NotifyCommand {
    /// List destinations, with their waiting messages and the last delivery
    List(ListChannelsArgs),
    /// List dead letters, and why they were not delivered
    Dead(ListDeadLettersArgs),
    /// Send dead letters again, as the newest messages
    Resend(ResendArgs),
    /// Remove a dead letter
    Drop(RemoveDeadLetterArgs),
    /// Send a test message
    Test(SendTestArgs),
}

#[derive(Debug, clap::Args)]
struct ListChannelsArgs {
    /// Only destinations of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ListDeadLettersArgs {
    /// Only of this destination, such as shop.production.0123456789abcdef (default: all)
    destination: Option<ChannelId>,
}

#[derive(Debug, clap::Args)]
struct ResendArgs {
    /// The destination, as `shipway notify list` shows it
    destination: ChannelId,
    /// The number of the dead letter, as `shipway notify dead` shows it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    number: Option<u64>,
    /// Send all dead letters of the destination again, in their order
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
struct RemoveDeadLetterArgs {
    /// The destination, as `shipway notify list` shows it
    destination: ChannelId,
    /// The number of the dead letter, as `shipway notify dead` shows it
    number: u64,
}

#[derive(Debug, clap::Args)]
struct SendTestArgs {
    /// The destination, as `shipway notify list` shows it
    destination: ChannelId,
}

/// Carries out a command on notifications.
pub fn run(server: &ServerConnection, args: &NotifyArgs, output: Output) -> Result<(), Failure> {
    match &args.command {
        NotifyCommand::List(args) => list_channels(server, args, output),
        NotifyCommand::Dead(args) => list_dead_letters(server, args, output),
        NotifyCommand::Resend(args) => {
            let request = ResendRequest {
                number: args.number,
            };
            let channel = server.resend_dead_letters(&args.destination, &request)?;
            print_channel(&channel, output)
        }
        NotifyCommand::Drop(args) => {
            let channel = server.remove_dead_letter(&args.destination, args.number)?;
            print_channel(&channel, output)
        }
        NotifyCommand::Test(args) => {
            let queued = server.send_test_message(&args.destination)?;
            if output.json {
                return output.document(&queued);
            }
            line(&format!(
                "test message {} is queued for {}; its result: shipway notify list",
                queued.number, queued.channel
            ));
            Ok(())
        }
    }
}

fn list_channels(
    server: &ServerConnection,
    args: &ListChannelsArgs,
    output: Output,
) -> Result<(), Failure> {
    let mut channels = server.notification_channels()?;
    if let Some(service) = &args.service {
        channels.retain(|it| it.service.as_ref().is_some_and(|it| it.as_str() == service));
    }
    if output.json {
        return output.document(&channels);
    }
    if channels.is_empty() {
        line(
            "no notification was sent yet; name destinations in shipway.yaml: notify: [{ slack: $SLACK_WEBHOOK }]",
        );
        return Ok(());
    }
    let rows: Vec<_> = channels.iter().map(channel_row).collect();
    table(
        &[
            "DESTINATION",
            "ADDRESS",
            "WAITING",
            "DEAD",
            "LAST DELIVERED",
            "LAST FAILURE",
        ],
        &rows,
    );
    Ok(())
}

fn channel_row(channel: &ChannelView) -> Vec<String> {
    let delivered = channel.last_delivery.as_ref();
    let delivered = delivered.map(|it| format!("{}: {}", ago(it.at), it.title));
    vec![
        channel.id.to_string(),
        channel.label.clone(),
        channel.queued.to_string(),
        channel.dead_letters.to_string(),
        delivered.unwrap_or_else(|| "-".to_owned()),
        channel.failing.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn list_dead_letters(
    server: &ServerConnection,
    args: &ListDeadLettersArgs,
    output: Output,
) -> Result<(), Failure> {
    let destinations = match &args.destination {
        Some(destination) => vec![destination.clone()],
        None => {
            let channels = server.notification_channels()?.into_iter();
            let with_letters = channels.filter(|it| it.dead_letters > 0);
            with_letters.map(|it| it.id).collect()
        }
    };
    let mut letters = Vec::new();
    for destination in &destinations {
        letters.extend(server.dead_letters(destination)?);
    }
    if output.json {
        return output.document(&letters);
    }
    let Some(newest) = letters.first() else {
        line("no dead letters");
        return Ok(());
    };
    let rows: Vec<_> = letters.iter().map(dead_letter_row).collect();
    table(
        &["DESTINATION", "NUMBER", "MESSAGE", "GIVEN UP", "REASON"],
        &rows,
    );
    line(&format!(
        "\nSend one again: shipway notify resend {} {}",
        newest.channel, newest.number
    ));
    Ok(())
}

fn dead_letter_row(letter: &DeadLetterView) -> Vec<String> {
    vec![
        letter.channel.to_string(),
        letter.number.to_string(),
        letter.title.clone(),
        ago(letter.died_at),
        letter.why.clone(),
    ]
}

fn print_channel(channel: &ChannelView, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.document(channel);
    }
    line(&format!(
        "{}: {} in the queue, {}",
        channel.id,
        counted(channel.queued, "message"),
        counted(channel.dead_letters, "dead letter")
    ));
    Ok(())
}
