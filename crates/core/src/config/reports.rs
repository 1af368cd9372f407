//! `reports`: paths of test reports and the requirements on them.

use serde::{Deserialize, Serialize};
use shipway_syntax::{Diagnostic, MappingFields};
use shipway_workflow::report::ReportPaths;

use crate::field_values::path_in_repository;

/// Keys of `reports`.
pub(super) const REPORTS_KEYS: &[&str] = &["junit", "coverage", "minimum"];

/// Paths of test reports and the requirements on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsConfig {
    #[serde(flatten)]
    pub paths: ReportPaths,
    /// How much of the lines must be covered, in hundredths of a percent, where a run reports coverage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<u32>,
}

impl ReportsConfig {
    /// Whether no key is set.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.paths.is_default() && self.minimum.is_none()
    }
}

pub(super) fn reports_config(
    file: &MappingFields<'_>,
    problems: &mut Vec<Diagnostic>,
) -> ReportsConfig {
    let Some(node) = file.get("reports") else {
        return ReportsConfig::default();
    };
    let Some(fields) = MappingFields::read(node, "reports", REPORTS_KEYS, problems) else {
        return ReportsConfig::default();
    };
    let mut paths = |key| {
        let named = fields.strings(key, problems).into_iter();
        named
            .filter_map(|path| path_in_repository(path, problems))
            .collect()
    };
    let paths = ReportPaths {
        junit: paths("junit"),
        coverage: paths("coverage"),
    };
    let minimum = fields.string("minimum", problems).and_then(|text| {
        let minimum = percent(&text.value);
        if minimum.is_none() {
            let message = format!(
                "`minimum` must be a share of lines, such as 80%, but this is `{}`",
                text.value
            );
            problems.push(Diagnostic::error("bad-value", text.span, message));
        }
        minimum
    });
    ReportsConfig { paths, minimum }
}

/// `80%`, `72.5%`, `80`: in hundredths of a percent.
fn percent(text: &str) -> Option<u32> {
    let number: f64 = text.trim().trim_end_matches('%').trim().parse().ok()?;
    // At most 10,000: it fits.
    (0.0..=100.0)
        .contains(&number)
        .then(|| (number * 100.0).round() as u32)
}
