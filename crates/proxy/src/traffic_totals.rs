//! Totals of traffic: the one form in which the proxy reports them, the server keeps them and the analysis reads them.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::latency_histogram::LatencyHistogram;

/// The traffic totals of one release in one environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficTotals {
    /// Requests answered.
    pub requests: u64,
    /// Requests that failed in the proxy: no connection or no response in time.
    pub proxy_errors: u64,
    /// Requests sent again because nothing had been sent the first time.
    pub retries: u64,
    /// Responses by status class, such as `2xx`.
    pub responses: BTreeMap<String, u64>,
    /// Durations to the last byte of the response.
    pub latency: LatencyHistogram,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Requests that are open now; not a total.
    pub open: u64,
    /// Users who failed, each counted once in a rollout; absent unless counting was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<FailedUserCounts>,
    /// Requests abandoned by their client without a response; not in `requests`.
    #[serde(default)]
    pub abandoned: u64,
    /// Ages of requests that ended without a response: abandoned, or cut when a proxy died.
    #[serde(default)]
    pub unfinished: LatencyHistogram,
    /// Responses below 5xx that were later than `answer_within`.
    #[serde(default)]
    pub late: u64,
    /// Ages of the requests that are open now; not a total.
    #[serde(default)]
    pub open_ages: LatencyHistogram,
    /// Open requests that have waited longer than `answer_within`; not a total.
    #[serde(default)]
    pub overdue: u64,
}

impl TrafficTotals {
    /// Requests answered with 5xx, by the release or on its behalf by the proxy.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.responses.get("5xx").copied().unwrap_or(0)
    }

    /// The requests known to be faster or slower than `limit`, and the slower ones. An open request counts once it is older than
    /// the limit, so both only grow.
    #[must_use]
    pub fn slower_than(&self, limit: Duration) -> (u64, u64) {
        let unanswered = self.unfinished.count_above(limit) + self.open_ages.count_above(limit);
        (
            self.latency.count() + unanswered,
            self.latency.count_above(limit) + unanswered,
        )
    }

    /// The duration that this share of the requests since `earlier` did not exceed; unanswered requests take at least as long as
    /// their age. `None` if nothing is known.
    #[must_use]
    pub fn quantile_since(&self, earlier: &Self, share: f64) -> Option<Duration> {
        let censored = |totals: &Self| {
            let mut ages = totals.unfinished.clone();
            ages.merge(&totals.open_ages);
            ages
        };
        let answered = self.latency.subtract(&earlier.latency);
        let (now, before) = (censored(self), censored(earlier));
        answered.quantile_with_open(&now, &before, share)
    }

    /// Counts the open requests as unfinished, because the proxy has exited.
    pub fn end_open(&mut self) {
        self.open = 0;
        let ages = std::mem::take(&mut self.open_ages);
        self.unfinished.merge(&ages);
        self.late += std::mem::take(&mut self.overdue);
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// Adds the other.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.proxy_errors += other.proxy_errors;
        self.retries += other.retries;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.open += other.open;
        self.abandoned += other.abandoned;
        self.unfinished.merge(&other.unfinished);
        self.late += other.late;
        self.open_ages.merge(&other.open_ages);
        self.overdue += other.overdue;
        for (class, count) in &other.responses {
            *self.responses.entry(class.clone()).or_default() += count;
        }
        self.latency.merge(&other.latency);
        if let Some(users) = &other.users {
            self.users.get_or_insert_default().merge(users);
        }
    }

    /// The difference to `earlier`; zero where `earlier` has more.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let class = |(class, count): (&String, &u64)| {
            let left = count.saturating_sub(earlier.responses.get(class).copied().unwrap_or(0));
            (left > 0).then(|| (class.clone(), left))
        };
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            proxy_errors: self.proxy_errors.saturating_sub(earlier.proxy_errors),
            retries: self.retries.saturating_sub(earlier.retries),
            responses: self.responses.iter().filter_map(class).collect(),
            latency: self.latency.subtract(&earlier.latency),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
            open: self.open,
            abandoned: self.abandoned.saturating_sub(earlier.abandoned),
            unfinished: self.unfinished.subtract(&earlier.unfinished),
            late: self.late.saturating_sub(earlier.late),
            open_ages: self.open_ages.clone(),
            overdue: self.overdue,
            users: self.users.as_ref().map(|now| {
                let before = earlier.users.as_ref();
                before.map_or_else(|| now.clone(), |before| now.since(before))
            }),
        }
    }
}

/// Users who failed, each counted once. These counts only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUserCounts {
    /// Users who got a 5xx, a late response, or none.
    pub errors: u64,
    /// Users who waited longer, by the limit in microseconds.
    pub slow: BTreeMap<u64, u64>,
}

impl FailedUserCounts {
    /// Adds the counts of another process.
    pub fn merge(&mut self, other: &Self) {
        self.errors += other.errors;
        for (limit, count) in &other.slow {
            *self.slow.entry(*limit).or_default() += count;
        }
    }

    /// The difference to `earlier`; zero where `earlier` has more.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |limit| earlier.slow.get(limit).copied().unwrap_or(0);
        Self {
            errors: self.errors.saturating_sub(earlier.errors),
            slow: (self.slow.iter())
                .map(|(limit, count)| (*limit, count.saturating_sub(before(limit))))
                .collect(),
        }
    }
}
