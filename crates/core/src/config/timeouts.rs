//! How long the data plane waits for an environment's instances, and from when on a request without an answer counts as failed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shipway_syntax::{Diagnostic, MappingFields};

use crate::field_values::Problems;

/// No instance is waited for longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Timeouts of an environment's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestTimeouts {
    /// To the first byte of an answer; then the client gets 504. Default 60 s.
    pub response: Duration,
    /// How long a request is held while no instance is ready; then the client gets 503. Default 15 s.
    pub hold: Duration,
    /// To the first byte of an answer; a request that waits longer is a failure for `error-rate`, whatever becomes of it.
    /// Default 10 s, after which most users have gone.
    pub answer_within: Duration,
}

impl Default for RequestTimeouts {
    fn default() -> Self {
        Self {
            response: Duration::from_secs(60),
            hold: Duration::from_secs(15),
            answer_within: Duration::from_secs(10),
        }
    }
}

/// Reads the timeouts of an environment.
pub(super) fn request_timeouts(
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> RequestTimeouts {
    let mut read = |key: &str, default: Duration, least: Duration| {
        let Some(duration) = fields.duration(key, problems) else {
            return default;
        };
        if (least..=TIMEOUT_MAX).contains(&duration) {
            return duration;
        }
        let span = fields.get(key).map_or(fields.span, |node| node.span);
        let message = format!("`{key}` must be between {} ms and 24 h", least.as_millis());
        problems.push(Diagnostic::error("bad-value", span, message));
        default
    };
    let default = RequestTimeouts::default();
    let least = Duration::from_millis(1);
    RequestTimeouts {
        response: read("response_timeout", default.response, least),
        hold: read("hold_timeout", default.hold, Duration::ZERO),
        answer_within: read("answer_within", default.answer_within, least),
    }
}

#[cfg(test)]
mod tests {
    use shipway_analysis::Metric;
    use shipway_syntax::SourceFile;

    use super::*;
    use crate::config::{EnvironmentConfig, parse};

    fn production(keys: &str) -> Result<EnvironmentConfig, String> {
        let text = format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production: {{ {keys} }}\n"
        );
        let source = SourceFile::new("shipway.yaml", text);
        match parse(&source) {
            Ok((config, _)) => Ok(config.environments[0].clone()),
            Err(problems) => Err(problems[0].one_line(&source)),
        }
    }

    #[test]
    fn timeouts_are_read_and_have_defaults_and_bounds() {
        let seconds =
            |it: RequestTimeouts| [it.response, it.hold, it.answer_within].map(|it| it.as_secs());
        let default = production("instances: 1").unwrap().timeouts;
        assert_eq!(seconds(default), [60, 15, 10]);
        let said = production("response_timeout: 2m, hold_timeout: 0s, answer_within: 30s");
        assert_eq!(seconds(said.unwrap().timeouts), [120, 0, 30]);
        for bad in [
            "response_timeout: 0s",
            "hold_timeout: 25h",
            "answer_within: 0s",
        ] {
            let problem = production(bad).unwrap_err();
            assert!(problem.contains("must be between"), "{problem}");
        }
    }

    #[test]
    fn a_rule_may_leave_abandoned_requests_out() {
        let metric = |rule: &str| {
            let environment = production(&format!("analysis: [{{ {rule} }}]"))?;
            Ok::<_, String>(environment.analysis.rules()[0].metric())
        };
        assert_eq!(
            metric("metric: error-rate, abandoned: ignore, max: 2%"),
            Ok(Metric::AnsweredErrorRate)
        );
        for counted in ["metric: error-rate, abandoned: count", "metric: error-rate"] {
            assert_eq!(metric(counted), Ok(Metric::ErrorRate));
        }
        let misplaced = metric("metric: cpu, abandoned: ignore, max: 80%").unwrap_err();
        assert!(
            misplaced.contains("only be used with error-rate"),
            "{misplaced}"
        );
    }
}
