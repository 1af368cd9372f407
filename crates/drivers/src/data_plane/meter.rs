//! What the traffic showed: totals for each release that survive restarts of the proxy and of the server.
//!
//! The arithmetic is in [`super::ledger`]; here is the asking, and the small file that carries it over.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Mutex;

pub use super::ledger::{Reading, Totals};
use super::{
    DataPlane, DataPlaneError,
    ledger::{Changed, Ledger, Saved},
};
use crate::whole::write_whole;

/// Reads the totals. Share it: readings must not overtake each other.
#[derive(Debug)]
pub struct Meter {
    plane: Arc<DataPlane>,
    ledger: Mutex<Ledger>,
    file: PathBuf,
}

impl Meter {
    /// A meter that goes on from what `file` remembers; begins at the present proxy's counts when there is no such file or it can't
    /// be read.
    #[must_use]
    pub fn new(plane: Arc<DataPlane>, file: PathBuf) -> Self {
        let saved = match load(&file) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(
                    "the counts of earlier proxies are lost: {} can't be read: {error}",
                    file.display()
                );
                Saved::default()
            }
        };
        Self {
            plane,
            ledger: Mutex::new(saved.into()),
            file,
        }
    }

    /// The totals now.
    ///
    /// # Errors
    /// When the proxy doesn't answer.
    pub async fn read(&self) -> Result<Reading, DataPlaneError> {
        let mut ledger = self.ledger.lock().await;
        let counters = self.plane.counters().await?;
        let (reading, changed) = ledger.fold(&counters);
        if changed == Changed::Yes {
            let (saved, file) = (ledger.saved(), self.file.clone());
            let stored = tokio::task::spawn_blocking(move || store(&file, &saved)).await;
            if let Err(error) = stored.expect("writing a file does not panic") {
                // The present server counts right all the same; only the next one would begin lower.
                tracing::warn!("{} can't be written: {error}", self.file.display());
            }
        }
        Ok(reading)
    }
}

fn load(file: &Path) -> io::Result<Saved> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Saved::default()),
        Err(error) => Err(error),
    }
}

fn store(file: &Path, saved: &Saved) -> io::Result<()> {
    write_whole(file, &serde_json::to_vec(saved)?, 0o600)
}
