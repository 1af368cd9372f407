//! Business events that are reported to Shipway: orders, sign-ups. Counts for each release, on disk before they are
//! acknowledged.
//!
//! One small file holds them all, written as a whole; reports that come while it is written share the next writing. They are
//! no events of the log: a shop has more orders than deploys, and only their sums are judged. What is judged is in the log,
//! with each observation.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use shipway_analysis::{BusinessEventCount, MetricName};
use shipway_core::{ids::ReleaseNumber, target::Place};
use shipway_drivers::atomic_file::write_atomic;

/// Different events of a place, at most: names, not keys of users.
const NAMES_MAX: usize = 100;
/// Releases of a place that are remembered, the newest.
const RELEASES_MAX: usize = 32;

/// The sums of a place: by release, by event.
type OfPlace = BTreeMap<u32, BTreeMap<MetricName, u64>>;

/// All sums.
#[derive(Debug)]
pub struct Ledger {
    sums: Mutex<Sums>,
    file: PathBuf,
    /// The state that is on disk. Whoever holds it writes.
    saved: Arc<tokio::sync::Mutex<u64>>,
}

#[derive(Debug, Default)]
struct Sums {
    /// Grows with each report.
    version: u64,
    places: BTreeMap<String, OfPlace>,
}

/// Why a report isn't taken.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A name for each user, perhaps.
    #[error(
        "there are {NAMES_MAX} different events already; `{0}` would be one more. A name is a kind of event, such as `orders`"
    )]
    TooMany(MetricName),
    /// Not on disk.
    #[error("the counts can't be written: {0}")]
    Unwritable(#[from] io::Error),
}

/// What was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// On which release.
    pub release: ReleaseNumber,
    /// What.
    pub event: MetricName,
    /// How often.
    pub count: u64,
}

impl Ledger {
    /// Goes on from what `file` remembers.
    ///
    /// # Errors
    /// When it is there and can't be read: beginning at zero would say that nobody orders any more.
    pub fn open(file: PathBuf) -> io::Result<Self> {
        let places = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let sums = Mutex::new(Sums { version: 0, places });
        Ok(Self {
            sums,
            file,
            saved: Arc::default(),
        })
    }

    /// Counts, and returns once it is on disk. All of them or none.
    ///
    /// # Errors
    /// When there are too many names, or the disk refuses.
    pub async fn report(&self, place: &Place, reports: &[Report]) -> Result<(), LedgerError> {
        let version = self.add(place, reports)?;
        let mut saved = self.saved.clone().lock_owned().await;
        if *saved >= version {
            // Somebody else has written it along.
            return Ok(());
        }
        let (now, text) = {
            let sums = self.sums();
            (
                sums.version,
                serde_json::to_vec(&sums.places).map_err(io::Error::from)?,
            )
        };
        let file = self.file.clone();
        // The lock goes along: whoever reported may hang up, and the next one must not write meanwhile.
        let written = tokio::task::spawn_blocking(move || {
            write_atomic(&file, &text, 0o600)?;
            *saved = now;
            Ok::<_, io::Error>(())
        });
        written.await.map_err(io::Error::other)??;
        Ok(())
    }

    fn add(&self, place: &Place, reports: &[Report]) -> Result<u64, LedgerError> {
        let mut sums = self.sums();
        let of_place = sums.places.entry(key(place)).or_default();
        let known: std::collections::BTreeSet<MetricName> = of_place
            .values()
            .flat_map(|events| events.keys().copied())
            .collect();
        let mut new = known.clone();
        for report in reports {
            new.insert(report.event);
            if new.len() > NAMES_MAX && !known.contains(&report.event) {
                return Err(LedgerError::TooMany(report.event));
            }
        }
        for report in reports {
            let sum = of_place
                .entry(report.release.0)
                .or_default()
                .entry(report.event)
                .or_default();
            *sum = sum.saturating_add(report.count);
        }
        while of_place.len() > RELEASES_MAX {
            // A baseline is as old as its release.
            let age = |release: &u32| ReleaseNumber(*release).released();
            let oldest = of_place.keys().copied().min_by_key(age);
            of_place.remove(&oldest.expect("there are more than none"));
        }
        sums.version += 1;
        Ok(sums.version)
    }

    /// The sums of a release.
    #[must_use]
    pub fn of(&self, place: &Place, release: ReleaseNumber) -> Vec<BusinessEventCount> {
        let sums = self.sums();
        let events = sums
            .places
            .get(&key(place))
            .and_then(|of_place| of_place.get(&release.0));
        let counted = events.into_iter().flatten();
        counted
            .map(|(event, count)| BusinessEventCount {
                event: *event,
                count: *count,
            })
            .collect()
    }

    fn sums(&self) -> std::sync::MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(place: &Place) -> String {
    format!("{}/{}", place.service, place.environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            service: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
        }
    }

    fn report(release: u32, event: &str, count: u64) -> Report {
        Report {
            release: ReleaseNumber(release),
            event: event.parse().unwrap(),
            count,
        }
    }

    #[tokio::test]
    async fn the_oldest_releases_are_forgotten_with_their_baselines() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("happened.json")).unwrap();
        for release in 1..=40 {
            let baseline = ReleaseNumber(release).baseline().0;
            let both = [report(release, "orders", 1), report(baseline, "orders", 2)];
            ledger.report(&place(), &both).await.unwrap();
        }
        let orders = |release| {
            let happened = ledger.of(&place(), release);
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
        let ledger = Ledger::open(file.clone()).unwrap();
        let writers = (0..20).map(|_| {
            let reports = [report(3, "orders", 2), report(4, "orders", 1)];
            let ledger = &ledger;
            async move { ledger.report(&place(), &reports).await.unwrap() }
        });
        futures_util::future::join_all(writers).await;
        drop(ledger);
        let again = Ledger::open(file).unwrap();
        assert_eq!(again.of(&place(), ReleaseNumber(3))[0].count, 40);
        assert_eq!(again.of(&place(), ReleaseNumber(4))[0].count, 20);
        assert!(again.of(&place(), ReleaseNumber(5)).is_empty());
    }

    #[tokio::test]
    async fn names_and_releases_are_bounded_and_a_refused_report_counts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("happened.json")).unwrap();
        let many: Vec<Report> = (0..=NAMES_MAX)
            .map(|name| report(1, &format!("user-{name}"), 1))
            .collect();
        assert!(ledger.report(&place(), &many).await.is_err());
        assert!(ledger.of(&place(), ReleaseNumber(1)).is_empty());
        for release in 0..40 {
            ledger
                .report(&place(), &[report(release, "orders", 1)])
                .await
                .unwrap();
        }
        assert!(ledger.of(&place(), ReleaseNumber(7)).is_empty());
        assert_eq!(ledger.of(&place(), ReleaseNumber(39)).len(), 1);
        std::fs::write(folder.path().join("torn.json"), "{").unwrap();
        assert!(Ledger::open(folder.path().join("torn.json")).is_err());
    }
}
