//! How long a server retains artifacts, runs and releases.

use jiff::SignedDuration;
use shipway_core::retention::RetentionPolicy;
use shipway_syntax::parse_duration;

/// Options of the server.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct RetentionOptions {
    /// How long runs are kept with their logs and artifacts, and releases with theirs. What a service needs is kept longer: artifacts of releases that serve, wait or can be rolled back to
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration)]
    keep_for: SignedDuration,

    /// The newest releases of each service whose artifacts are kept however old they are
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    keep_releases: u32,
}

impl RetentionOptions {
    pub fn policy(self) -> RetentionPolicy {
        RetentionPolicy {
            period: self.keep_for,
            releases_min: self.keep_releases,
            ..RetentionPolicy::default()
        }
    }
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("write a duration such as 90d, 12h or 30m")]
struct ParseDurationError;

fn duration(text: &str) -> Result<SignedDuration, ParseDurationError> {
    let parsed = parse_duration(text).and_then(|parsed| SignedDuration::try_from(parsed).ok());
    parsed.ok_or(ParseDurationError)
}
