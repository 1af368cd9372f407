//! Reads traffic totals for each release that survive restarts of the proxy and of the server.
//!
//! The arithmetic is in [`super::counter_totals`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Mutex;

use super::{
    DataPlane, DataPlaneError,
    counter_totals::{SavedState, SavedTotals, TotalsAccumulator},
};
use crate::{atomic_file::write_atomic, traffic_reading::TrafficReading};

/// Reads the totals. Shared by all callers: readings must not overtake each other.
#[derive(Debug)]
pub struct TrafficMeter {
    plane: Arc<DataPlane>,
    accumulator: Mutex<TotalsAccumulator>,
    file: PathBuf,
}

impl TrafficMeter {
    /// A meter that continues from `file`; starts at the current proxy's counters if the file is missing or unreadable.
    #[must_use]
    pub fn new(plane: Arc<DataPlane>, file: PathBuf) -> Self {
        let saved = match load_totals(&file) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(
                    "the counts of earlier proxies are lost: {} can't be read: {error}",
                    file.display()
                );
                SavedTotals::default()
            }
        };
        Self {
            plane,
            accumulator: Mutex::new(saved.into()),
            file,
        }
    }

    /// The current totals.
    ///
    /// # Errors
    /// When the proxy doesn't answer.
    pub async fn read_totals(&self) -> Result<TrafficReading, DataPlaneError> {
        let mut accumulator = self.accumulator.lock().await;
        let counters = self.plane.counters().await?;
        let (reading, changed) = accumulator.add_reading(&counters);
        if changed == SavedState::Yes {
            let (saved, file) = (accumulator.to_saved(), self.file.clone());
            let stored = tokio::task::spawn_blocking(move || store_totals(&file, &saved)).await;
            if let Err(error) = stored.expect("writing a file does not panic") {
                // This server's totals are still right; only those of the next one would be too low.
                tracing::warn!("{} can't be written: {error}", self.file.display());
            }
        }
        Ok(reading)
    }
}

fn load_totals(file: &Path) -> io::Result<SavedTotals> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SavedTotals::default()),
        Err(error) => Err(error),
    }
}

fn store_totals(file: &Path, saved: &SavedTotals) -> io::Result<()> {
    write_atomic(file, &serde_json::to_vec(saved)?, 0o600)
}
