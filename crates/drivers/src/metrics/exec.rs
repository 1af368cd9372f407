//! Reads the output of a command: a number, or JSON with a number at a path. The command runs in its own process group, which is
//! killed with it.

use std::time::Duration;

use serde_json::Value;

use super::{MetricUnavailable, QuerySubject, json::number_at, query_template::format_window};
use shipway_targets::target::{CommandPlace, SetCommand};

const WHO: &str = "the command";

pub(super) async fn run_command(
    command: &str,
    path: &str,
    about: &QuerySubject,
    window: Duration,
    place: CommandPlace<'_>,
    timeout: Duration,
) -> Result<f64, MetricUnavailable> {
    let stable = about
        .stable
        .map(|stable| stable.to_string())
        .unwrap_or_default();
    let environment = [
        ("RELEASE", about.release.to_string()),
        ("STABLE", stable),
        ("SERVICE", about.service.clone()),
        ("ENVIRONMENT", about.environment.clone()),
        ("WINDOW", format_window(window)),
    ];
    let command = SetCommand {
        command,
        environment: &environment,
        timeout,
    };
    let printed = place
        .run_command(&command)
        .await
        .map_err(|why| MetricUnavailable::for_now(format!("{WHO} failed: {why}")))?;
    let text = printed.trim();
    // `NaN` and infinities are checked by the caller; JSON can't express them.
    if path.is_empty()
        && let Ok(number) = text.parse()
    {
        return Ok(number);
    }
    let document: Value = serde_json::from_str(text).map_err(|_| {
        let begin: String = text.chars().take(80).collect();
        MetricUnavailable::for_good(if begin.is_empty() {
            format!("{WHO} printed nothing")
        } else {
            format!("{WHO} printed neither a number nor JSON: {begin}")
        })
    })?;
    number_at(&document, path, WHO)
}
