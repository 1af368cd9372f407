//! Business events that are reported to Shipway: orders, sign-ups. Counts for each release, on disk before they are
//! acknowledged.
//!
//! One small file holds them all and is always written completely; reports that arrive during a write share the next one. They are not
//! events of the log: a shop has more orders than deploys, and only their totals are analysed. The analysed totals are in the log,
//! with each observation.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use shipway_analysis::{BusinessEventCount, MetricName};
use shipway_core::{ids::ReleaseNumber, target::ServiceEnvironment};
use shipway_targets::atomic_file::write_atomic;

/// Different events of a place, at most: names, not keys of users.
const NAMES_MAX: usize = 100;
/// Releases of a place that are remembered, the newest.
const RELEASES_MAX: usize = 32;

/// The totals of a place: by release, by event.
type EnvironmentCounts = BTreeMap<u32, BTreeMap<MetricName, u64>>;

/// All totals.
#[derive(Debug)]
pub struct BusinessEventStore {
    totals: Mutex<EventTotals>,
    file: PathBuf,
    /// The version on disk. The holder of the lock writes.
    last_saved_version: Arc<tokio::sync::Mutex<u64>>,
}

#[derive(Debug, Default)]
struct EventTotals {
    /// Grows with each report.
    version: u64,
    places: BTreeMap<String, EnvironmentCounts>,
}

/// Why a report isn't taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A name for each user, perhaps.
    #[error(
        "the limit of {NAMES_MAX} event names is reached, `{0}` would exceed it; a name is a kind of event, such as `orders`"
    )]
    TooMany(MetricName),
    /// Not on disk.
    #[error("the counts can't be written: {0}")]
    Unwritable(#[from] io::Error),
}

/// The reported counts of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    /// On which release.
    pub release: ReleaseNumber,
    /// What.
    pub event: MetricName,
    /// How often.
    pub count: u64,
}

impl BusinessEventStore {
    /// Continues with the counts in `file`.
    ///
    /// # Errors
    /// When the file exists and can't be read: starting at zero would look like a service without any orders.
    pub fn open(file: PathBuf) -> io::Result<Self> {
        let places = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let totals = Mutex::new(EventTotals { version: 0, places });
        Ok(Self {
            totals,
            file,
            last_saved_version: Arc::default(),
        })
    }

    /// Counts, and returns once it is on disk. All of them or none.
    ///
    /// # Errors
    /// When there are too many names, or the disk refuses.
    pub async fn report(
        &self,
        place: &ServiceEnvironment,
        reports: &[EventReport],
    ) -> Result<(), ReportError> {
        let version = self.add(place, reports)?;
        let mut last_saved_version = self.last_saved_version.clone().lock_owned().await;
        if *last_saved_version >= version {
            // A concurrent call has already saved this version.
            return Ok(());
        }
        let (now, text) = {
            let totals = self.totals();
            (
                totals.version,
                serde_json::to_vec(&totals.places).map_err(io::Error::from)?,
            )
        };
        let file = self.file.clone();
        // Move the guard into the blocking task: if the caller is cancelled, no second write may start before this one ends.
        let written = tokio::task::spawn_blocking(move || {
            write_atomic(&file, &text, 0o600)?;
            *last_saved_version = now;
            Ok::<_, io::Error>(())
        });
        written.await.map_err(io::Error::other)??;
        Ok(())
    }

    fn add(&self, place: &ServiceEnvironment, reports: &[EventReport]) -> Result<u64, ReportError> {
        let mut totals = self.totals();
        let counts = totals.places.entry(key(place)).or_default();
        let known: std::collections::BTreeSet<MetricName> = counts
            .values()
            .flat_map(|events| events.keys().copied())
            .collect();
        let mut new = known.clone();
        for report in reports {
            new.insert(report.event);
            if new.len() > NAMES_MAX && !known.contains(&report.event) {
                return Err(ReportError::TooMany(report.event));
            }
        }
        for report in reports {
            let sum = counts
                .entry(report.release.0)
                .or_default()
                .entry(report.event)
                .or_default();
            *sum = sum.saturating_add(report.count);
        }
        while counts.len() > RELEASES_MAX {
            // A baseline is as old as its release.
            let age = |release: &u32| ReleaseNumber(*release).released();
            let oldest = counts.keys().copied().min_by_key(age);
            counts.remove(&oldest.expect("there are more than none"));
        }
        totals.version += 1;
        Ok(totals.version)
    }

    /// The totals of a release.
    #[must_use]
    pub fn counts(
        &self,
        place: &ServiceEnvironment,
        release: ReleaseNumber,
    ) -> Vec<BusinessEventCount> {
        let totals = self.totals();
        let events = totals
            .places
            .get(&key(place))
            .and_then(|counts| counts.get(&release.0));
        let counted = events.into_iter().flatten();
        counted
            .map(|(event, count)| BusinessEventCount {
                event: *event,
                count: *count,
            })
            .collect()
    }

    fn totals(&self) -> std::sync::MutexGuard<'_, EventTotals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(place: &ServiceEnvironment) -> String {
    format!("{}/{}", place.service, place.environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> ServiceEnvironment {
        ServiceEnvironment {
            service: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
        }
    }

    fn report(release: u32, event: &str, count: u64) -> EventReport {
        EventReport {
            release: ReleaseNumber(release),
            event: event.parse().unwrap(),
            count,
        }
    }

    #[tokio::test]
    async fn the_oldest_releases_are_forgotten_with_their_baselines() {
        let folder = tempfile::tempdir().unwrap();
        let store = BusinessEventStore::open(folder.path().join("happened.json")).unwrap();
        for release in 1..=40 {
            let baseline = ReleaseNumber(release).baseline().0;
            let both = [report(release, "orders", 1), report(baseline, "orders", 2)];
            store.report(&place(), &both).await.unwrap();
        }
        let orders = |release| {
            let happened = store.counts(&place(), release);
            happened.first().map(|it| it.count)
        };
        assert_eq!(orders(ReleaseNumber(40)), Some(1));
        assert_eq!(orders(ReleaseNumber(40).baseline()), Some(2));
        assert_eq!(orders(ReleaseNumber(24)), None);
        assert_eq!(orders(ReleaseNumber(24).baseline()), None);
        assert_eq!(orders(ReleaseNumber(25)), Some(1));
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("happened.json");
        let store = BusinessEventStore::open(file.clone()).unwrap();
        let writers = (0..20).map(|_| {
            let reports = [report(3, "orders", 2), report(4, "orders", 1)];
            let store = &store;
            async move { store.report(&place(), &reports).await.unwrap() }
        });
        futures_util::future::join_all(writers).await;
        drop(store);
        let again = BusinessEventStore::open(file).unwrap();
        assert_eq!(again.counts(&place(), ReleaseNumber(3))[0].count, 40);
        assert_eq!(again.counts(&place(), ReleaseNumber(4))[0].count, 20);
        assert!(again.counts(&place(), ReleaseNumber(5)).is_empty());
    }

    #[tokio::test]
    async fn names_and_releases_are_bounded_and_a_refused_report_counts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = BusinessEventStore::open(folder.path().join("happened.json")).unwrap();
        let many: Vec<EventReport> = (0..=NAMES_MAX)
            .map(|name| report(1, &format!("user-{name}"), 1))
            .collect();
        assert!(store.report(&place(), &many).await.is_err());
        assert!(store.counts(&place(), ReleaseNumber(1)).is_empty());
        for release in 0..40 {
            store
                .report(&place(), &[report(release, "orders", 1)])
                .await
                .unwrap();
        }
        assert!(store.counts(&place(), ReleaseNumber(7)).is_empty());
        assert_eq!(store.counts(&place(), ReleaseNumber(39)).len(), 1);
        std::fs::write(folder.path().join("torn.json"), "{").unwrap();
        assert!(BusinessEventStore::open(folder.path().join("torn.json")).is_err());
    }
}
