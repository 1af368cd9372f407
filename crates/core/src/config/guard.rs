//! How a release is guarded: `watch` after its promotion, `unready_grace` while it lacks ready instances.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields};

use crate::field_values::Problems;

/// Shorter than this, one slow probe would roll back.
const UNREADY_GRACE_MIN: Duration = Duration::from_millis(100);

/// How long a release is judged after its promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchDuration {
    /// For this long; zero is not at all.
    For(Duration),
    /// Until the next rollout.
    Always,
}

impl Default for WatchDuration {
    fn default() -> Self {
        Self::For(Duration::from_secs(30 * 60))
    }
}

impl WatchDuration {
    /// Longer than any release is served; a date that far away can still be computed.
    const ALWAYS: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

    /// How long the watch lasts; zero when there is none.
    #[must_use]
    pub const fn duration(self) -> Duration {
        match self {
            Self::For(duration) => duration,
            Self::Always => Self::ALWAYS,
        }
    }
}

/// `watch: 30m`, `none` or `always`.
pub(super) fn watch(fields: &MappingFields<'_>, problems: &mut Problems) -> WatchDuration {
    match fields.get("watch").and_then(|node| node.as_scalar_text()) {
        Some("always") => WatchDuration::Always,
        Some("none") => WatchDuration::For(Duration::ZERO),
        _ => fields
            .duration("watch", problems)
            .map_or_else(WatchDuration::default, WatchDuration::For),
    }
}

/// `unready_grace: 10s`.
pub(super) fn unready_grace(
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> Option<Duration> {
    let grace = fields.duration("unready_grace", problems)?;
    if grace < UNREADY_GRACE_MIN {
        let span = fields
            .get("unready_grace")
            .map_or(fields.span, |node| node.span);
        problems.push(Diagnostic::error(
            "bad-value",
            span,
            "`unready_grace` must be at least 100ms",
        ));
    }
    Some(grace)
}

/// The schemas of both keys.
pub(super) fn schemas() -> (Value, Value) {
    let watch = json!({
        "oneOf": [{ "$ref": "#/$defs/duration" }, { "enum": ["none", "always"] }], "default": "30m",
        "description": "How long a release is judged after its promotion: a failure rolls back to the previous release."
    });
    let unready_grace = json!({
        "$ref": "#/$defs/duration",
        "description": "How long fewer instances than the release's share of the traffic needs may be ready before the rollout is rolled back; default: health interval × unhealthy_after, and at most 1s while no instance is ready."
    });
    (watch, unready_grace)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::WatchDuration;
    use shipway_syntax::SourceFile;

    use crate::config::{EnvironmentConfig, parse};

    fn production(line: &str) -> EnvironmentConfig {
        let text = format!(
            "service: shop\nartifact: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production:\n    instances: 1\n    {line}\n"
        );
        let (config, _) = parse(&SourceFile::new("shipway.yaml", text.as_str())).unwrap();
        config.environments[0].clone()
    }

    #[test]
    fn a_release_is_watched_for_half_an_hour_unless_the_file_says_otherwise() {
        let watch = |line: &str| production(line).watch;
        assert_eq!(watch(""), WatchDuration::For(Duration::from_secs(1_800)));
        assert_eq!(
            watch("watch: 5m"),
            WatchDuration::For(Duration::from_secs(300))
        );
        assert_eq!(watch("watch: none").duration(), Duration::ZERO);
        assert_eq!(watch("watch: always"), WatchDuration::Always);
        assert_eq!(
            production("unready_grace: 3s").unready_grace,
            Some(Duration::from_secs(3))
        );
    }
}
