//! The counts of one day.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::ViewRow,
    ids::{EnvironmentName, ServiceName},
    projection::LogProjection,
};

/// What a service delivered to an environment on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryDay {
    pub service: ServiceName,
    pub environment: EnvironmentName,
    /// In UTC.
    pub date: Date,
    /// Rollouts that were promoted; a person's rollback is none.
    pub deployments: u32,
    /// Rollouts that ended as a change failure, on the day they ended. The rate of change failures is `change_failures` of
    /// `deployments + failures_before_promotion`.
    pub change_failures: u32,
    /// Those of `change_failures` that were never promoted, and so are not among `deployments`.
    pub failures_before_promotion: u32,
    /// From the author time of each commit to the promotion of the first release that has it.
    pub lead_time: LeadTimeHistogram,
}

impl DeliveryDay {
    pub(super) fn new(service: ServiceName, environment: EnvironmentName, date: Date) -> Self {
        Self {
            service,
            environment,
            date,
            deployments: 0,
            change_failures: 0,
            failures_before_promotion: 0,
            lead_time: LeadTimeHistogram::default(),
        }
    }

    pub(super) fn to_row(&self) -> ViewRow {
        ViewRow {
            kind: super::DeliveryCounts::NAME.to_owned(),
            key: format!("{}/{}/{}", self.service, self.environment, self.date),
            service: self.service.to_string(),
            live: false,
            doc: serde_json::to_value(self).expect("counts are plain data"),
        }
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Upper bounds in seconds. DORA's bands end at an hour, a day, a week and a month.
const BOUNDS: [u64; 16] = [
    5 * MINUTE,
    10 * MINUTE,
    20 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    4 * HOUR,
    8 * HOUR,
    16 * HOUR,
    DAY,
    2 * DAY,
    4 * DAY,
    7 * DAY,
    14 * DAY,
    30 * DAY,
    90 * DAY,
];

/// Commits by lead time: buckets that have any, shortest first. Bounded by the number of bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeadTimeHistogram(Vec<LeadTimeBucket>);

/// Commits whose lead time is at most a bound and more than the bound before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadTimeBucket {
    /// None: longer than every bound.
    pub up_to_seconds: Option<u64>,
    pub commits: u64,
}

impl LeadTimeHistogram {
    pub fn record(&mut self, seconds: u64) {
        let up_to_seconds = BOUNDS.into_iter().find(|bound| seconds <= *bound);
        let bound = |up_to: Option<u64>| up_to.unwrap_or(u64::MAX);
        let place = (self.0)
            .binary_search_by_key(&bound(up_to_seconds), |bucket| bound(bucket.up_to_seconds));
        match place {
            Ok(index) => self.0[index].commits += 1,
            Err(index) => self.0.insert(
                index,
                LeadTimeBucket {
                    up_to_seconds,
                    commits: 1,
                },
            ),
        }
    }

    #[must_use]
    pub fn buckets(&self) -> &[LeadTimeBucket] {
        &self.0
    }
}
