//! Runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;
use shipway_core::run::RunView;

/// A run with the summaries that its steps wrote into `$GITHUB_STEP_SUMMARY`. On the wire each is a field `summary` of its job.
#[derive(Clone, Debug)]
pub struct RunDetails {
    pub run: RunView,
    /// By the key of the job.
    pub summaries: BTreeMap<String, String>,
}

impl Serialize for RunDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serde_json::to_value(&self.run).map_err(ser::Error::custom)?;
        let jobs = document["jobs"].as_array_mut().into_iter().flatten();
        for (job, view) in jobs.zip(&self.run.jobs) {
            if let Some(summary) = self.summaries.get(&view.key) {
                job["summary"] = Value::String(summary.clone());
            }
        }
        document.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RunDetails {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Value::deserialize(deserializer)?;
        let jobs = document["jobs"].as_array().into_iter().flatten();
        let summary = |job: &Value| {
            let summary = job["summary"].as_str()?.to_owned();
            Some((job["key"].as_str()?.to_owned(), summary))
        };
        Ok(Self {
            summaries: jobs.filter_map(summary).collect(),
            run: serde_json::from_value(document).map_err(de::Error::custom)?,
        })
    }
}
